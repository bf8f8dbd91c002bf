/**
 * The wait queue (DESIGN section 6): Lamport's bakery on the outboxes. A waiter leaves a ticket, one more than the
 * highest it sees, ties broken by host id. Whoever finds the lease free lets the lowest live ticket go first.
 *
 * Tickets only order requests; they grant nothing. A wrong order costs time, never safety: the ballot decides.
 */
import { type Outbox, type OutboxEntry } from "../format/outbox.js";
import { type LeaseView } from "./lease-view.js";

/** A ticket this far above the next lower one is not a bakery number but damage or mischief, and is ignored. */
const TICKET_JUMP_MAX = 1_000_000n;

/** Above this a number could not be counted up any more; it is ignored for the same reason. */
const TICKET_MAX = 1n << 62n;

export interface Ticket {
  readonly hostId: number;
  readonly generation: bigint;
  readonly number: bigint;
  readonly shared: boolean;
  /** The lease's lver when the ticket was taken: a later grant to the same host has used it up. */
  readonly lverSeen: bigint;
}

export interface QueueView {
  /** Live tickets in the order in which they go. */
  readonly tickets: readonly Ticket[];
  /** Whom the releaser of the current lver named. */
  readonly named: Ticket | undefined;
}

export type IsLive = (hostId: number, generation: bigint) => boolean;

export function ticketEntry(
  area: number,
  number: bigint,
  lverSeen: bigint,
  shared: boolean,
): OutboxEntry {
  return {
    kind: "ticket",
    shared,
    targetHostId: 0,
    area,
    targetGeneration: 0n,
    value: number,
    nonce: lverSeen,
  };
}

export function handoverEntry(area: number, lver: bigint, to: Ticket): OutboxEntry {
  return {
    kind: "handover",
    shared: to.shared,
    targetHostId: to.hostId,
    area,
    targetGeneration: to.generation,
    value: lver,
    nonce: to.number,
  };
}

/** The queue of one lease as the outboxes of the live hosts show it. */
export function viewQueue(
  area: number,
  outboxes: readonly Outbox[],
  view: LeaseView,
  isLive: IsLive,
): QueueView {
  const tickets: Ticket[] = [];
  let notice: OutboxEntry | undefined;
  for (const outbox of outboxes) {
    for (const entry of outbox.entries) {
      if (entry.area !== area) {
        continue;
      }
      if (entry.kind === "ticket") {
        const ticket = {
          hostId: outbox.hostId,
          generation: outbox.generation,
          number: entry.value,
          shared: entry.shared,
          lverSeen: entry.nonce,
        };
        if (isLive(ticket.hostId, ticket.generation) && !isSpent(ticket, view)) {
          tickets.push(ticket);
        }
      } else if (entry.kind === "handover" && isHandoverOf(entry, outbox, view)) {
        notice = entry;
      }
    }
  }
  // A notice is for one ticket: whoever has given that up and comes again takes its place at the end.
  const live = withoutJumps(tickets.toSorted(byTurn));
  const named = live.find(
    (ticket) =>
      ticket.hostId === notice?.targetHostId &&
      ticket.generation === notice.targetGeneration &&
      ticket.number === notice.nonce,
  );
  return { tickets: live, named };
}

/** The lease was granted to the ticket's host after the ticket was taken: it has had its turn. */
function isSpent(ticket: Ticket, view: LeaseView): boolean {
  const { leader } = view;
  if (leader.ownerId === BigInt(ticket.hostId) && leader.lver > ticket.lverSeen) {
    return leader.ownerGeneration === ticket.generation;
  }
  const block = view.blocks[ticket.hostId - 1];
  return block?.dblock.released === true && block.dblock.lver > ticket.lverSeen;
}

/** Only the owner of the lver that was released may name its successor, and only for that lver. */
function isHandoverOf(entry: OutboxEntry, outbox: Outbox, view: LeaseView): boolean {
  return (
    entry.value === view.leader.lver &&
    BigInt(outbox.hostId) === view.leader.ownerId &&
    outbox.generation === view.leader.ownerGeneration
  );
}

function byTurn(one: Ticket, other: Ticket): number {
  if (one.number !== other.number) {
    return one.number < other.number ? -1 : 1;
  }
  return one.hostId - other.hostId;
}

function withoutJumps(ordered: readonly Ticket[]): readonly Ticket[] {
  const kept: Ticket[] = [];
  for (const ticket of ordered) {
    const jump = ticket.number - (kept.at(-1)?.number ?? ticket.number);
    if (jump <= TICKET_JUMP_MAX && ticket.number < TICKET_MAX) {
      kept.push(ticket);
    }
  }
  return kept;
}

/** One more than the highest live ticket. */
export function nextTicketNumber(queue: QueueView): bigint {
  return (queue.tickets.at(-1)?.number ?? 0n) + 1n;
}

/**
 * How many turns this host has to leave to others before it may try: 0 = go now.
 *
 * The named host goes first whatever the order; a shared waiter goes together with the shared tickets directly before
 * it, but never past an exclusive one.
 */
export function turnsBefore(queue: QueueView, hostId: number): number {
  const { tickets, named } = queue;
  if (named?.hostId === hostId) {
    return 0;
  }
  const index = tickets.findIndex((ticket) => ticket.hostId === hostId);
  const ahead = index === -1 ? tickets : tickets.slice(0, index);
  const mine = tickets[index];
  const counted = mine?.shared === true && ahead.every((ticket) => ticket.shared) ? [] : ahead;
  const isNamedAhead =
    named !== undefined && counted.some((ticket) => ticket.hostId === named.hostId);
  const isNamedBehind = named !== undefined && !isNamedAhead;
  return counted.length + (isNamedBehind ? 1 : 0);
}

/** Whom the releaser names: the lowest live ticket that is not its own. */
export function successorOf(queue: QueueView, hostId: number): Ticket | undefined {
  return queue.tickets.find((ticket) => ticket.hostId !== hostId);
}
