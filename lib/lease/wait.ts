/**
 * Acquire now, or wait in the queue (DESIGN section 6). A waiter polls the leader and the outboxes itself, so a notice
 * that is lost costs one poll and never the turn; the one that is next polls fastest.
 */
import assert from "node:assert/strict";
import { decodeOutbox, type Outbox } from "../format/outbox.js";
import { type Geometry } from "../format/geometry.js";
import { type ReadOp } from "../port/disk.js";
import {
  type AcquireOutcome,
  type AcquireTerms,
  judgeLease,
  type LookOutcome,
  Proposal,
  takeDecided,
  takeFree,
} from "./acquire.js";
import {
  type HeldLease,
  releaseLeader,
  type ReleaseOutcome,
  releaseShared,
  type Self,
} from "./ballot.js";
import { readLeaseOp, viewLease, type ViewOutcome } from "./lease-view.js";
import {
  describeFailures,
  type DiskProcedure,
  type DoneBatch,
  doneOn,
  io,
  isMajority,
  type LunSet,
  post,
  sleep,
} from "./procedure.js";
import {
  handoverEntry,
  type IsLive,
  nextTicketNumber,
  type QueueView,
  successorOf,
  ticketEntry,
  turnsBefore,
  viewQueue,
} from "./queue.js";

/** The slowest poll of a waiter. */
const POLL_MS_MAX = 20;

export interface QueueTerms {
  /** Reads every used outbox in one I/O. */
  readonly outboxes: ReadOp;
  readonly isLive: IsLive;
  /** How long the ones that are not next leave each one before them (timings.ts). */
  readonly holdBackMs: number;
}

export interface WaitTerms extends AcquireTerms, QueueTerms {
  /** Give up at this time; `undefined`: one look, no ticket; `Infinity`: never. */
  readonly untilMs: number | undefined;
}

export type WaitOutcome =
  | AcquireOutcome
  /** Free, but others were there first; this request did not want to wait. */
  | { readonly kind: "queued"; readonly ahead: number }
  | { readonly kind: "timed-out"; readonly last: LookOutcome };

/** What a waiter carries from poll to poll. */
interface Wait {
  readonly proposal: Proposal;
  mbalAtLeast: bigint;
  ballots: number;
  /** Tickets taken so far. */
  tickets: number;
  /** The lver that was seen free for the one whose turn it is, and when it was first seen so. */
  free: { readonly lver: bigint; readonly sinceMs: number } | undefined;
  /** Polls since something changed. */
  idlePolls: number;
  lastKey: string;
}

const BALLOTS_MAX_WITHOUT_WAIT = 24;

export function* acquireOrWait(terms: WaitTerms): DiskProcedure<WaitOutcome> {
  const wait: Wait = {
    proposal: new Proposal(terms),
    mbalAtLeast: 0n,
    ballots: 0,
    tickets: 0,
    free: undefined,
    idlePolls: 0,
    lastKey: "",
  };
  for (;;) {
    const turn = yield* io([readLeaseOp(terms.address), terms.outboxes]);
    const isLastChance = terms.untilMs === undefined || turn.nowMs >= terms.untilMs;
    if (!isMajority(terms.luns, turn.luns)) {
      const why = describeFailures(terms.luns, turn.luns);
      if (isLastChance) {
        return yield* giveUp(terms, wait, { kind: "no-quorum", why });
      }
      yield* sleep(POLL_MS_MAX);
      continue;
    }
    const done = doneOn(terms.luns, turn.luns);
    const outcome = viewLease(terms.address, terms.luns, done, 0);
    if (outcome.kind === "view" && wait.proposal.see(outcome.view)) {
      return yield* settleTaken(terms, wait, yield* takeDecided(terms, outcome.view));
    }
    const look = judgeLease(terms, outcome);
    if (outcome.kind !== "view") {
      return yield* giveUp(terms, wait, unusable(look));
    }
    const queue = viewQueue(
      terms.address.area,
      readOutboxes(terms, done, 1),
      outcome.view,
      terms.isLive,
    );
    const ahead = turnsBefore(queue, terms.self.hostId);
    noteChange(wait, lookOfFirst(terms, outcome, look, ahead), outcome, ahead, turn.nowMs);

    if (look.kind === "free" && isMyTurn(terms, wait, ahead, turn.nowMs)) {
      const result = yield* takeFree(terms, look, wait.mbalAtLeast);
      if (result.kind === "aborted") {
        wait.mbalAtLeast = result.mbal;
        wait.proposal.propose(look.view);
        wait.ballots++;
        if (isTooContended(terms, wait)) {
          return wait.proposal.settle({ kind: "contended" });
        }
        yield* sleep(1 + terms.random.below(Math.min(POLL_MS_MAX, 2 ** wait.ballots)));
        continue;
      }
      if (isAnswer(terms, result)) {
        return yield* settleTaken(terms, wait, result);
      }
    }
    if (isLastChance) {
      return yield* giveUpWaiting(terms, wait, look, ahead);
    }
    if (!queue.tickets.some((ticket) => ticket.hostId === terms.self.hostId)) {
      yield* takeTicket(terms, wait, queue, outcome.view.leader.lver);
      continue;
    }
    yield* sleep(pollMs(wait, ahead, terms.untilMs, turn.nowMs));
  }
}

/** Somebody else has it: whoever waits goes on waiting. */
function isAnswer(terms: WaitTerms, result: AcquireOutcome): boolean {
  return result.kind !== "held" || terms.untilMs === undefined;
}

/** A lease whose records show no lease is never free. */
function unusable(look: LookOutcome): WaitOutcome {
  assert(look.kind !== "free");
  return look;
}

function isTooContended(terms: WaitTerms, wait: Wait): boolean {
  return terms.untilMs === undefined && wait.ballots >= BALLOTS_MAX_WITHOUT_WAIT;
}

function* giveUpWaiting(
  terms: WaitTerms,
  wait: Wait,
  look: LookOutcome,
  ahead: number,
): DiskProcedure<WaitOutcome> {
  if (terms.untilMs !== undefined) {
    return yield* giveUp(terms, wait, { kind: "timed-out", last: look });
  }
  return wait.proposal.settle(look.kind === "free" ? { kind: "queued", ahead } : look);
}

/** A grant leaves the used-up ticket to `nameSuccessor`; everything else leaves the queue. */
function* settleTaken(
  terms: WaitTerms,
  wait: Wait,
  result: AcquireOutcome,
): DiskProcedure<WaitOutcome> {
  if (result.kind === "granted" || (result.kind === "held" && terms.untilMs === undefined)) {
    return result;
  }
  return yield* giveUp(terms, wait, result);
}

/** Leaves the queue before it returns: a ticket without a waiter would hold everybody up. */
function* giveUp(terms: WaitTerms, wait: Wait, outcome: WaitOutcome): DiskProcedure<WaitOutcome> {
  if (terms.untilMs !== undefined) {
    yield* post({
      remove: [{ kind: "ticket", area: terms.address.area, targetHostId: 0 }],
      add: [],
    });
  }
  return wait.proposal.settle(outcome);
}

function* takeTicket(
  terms: WaitTerms,
  wait: Wait,
  queue: QueueView,
  lver: bigint,
): DiskProcedure<void> {
  const { area } = terms.address;
  yield* post({
    remove: [{ kind: "ticket", area, targetHostId: 0 }],
    add: [ticketEntry(area, nextTicketNumber(queue), lver, terms.shared)],
  });
  // A ticket that nobody counts (spent at once, or this host does not look alive) must not become a storm of writes.
  wait.tickets++;
  yield* sleep(Math.min(POLL_MS_MAX, wait.tickets));
}

/**
 * What the lease looks like to the one whose turn it is. A shared request has somebody before it only when that one
 * wants the lease exclusively, and may have to wait for shared holders.
 */
function lookOfFirst(
  terms: WaitTerms,
  outcome: ViewOutcome,
  mine: LookOutcome,
  ahead: number,
): LookOutcome {
  return terms.shared && ahead > 0 ? judgeLease({ ...terms, shared: false }, outcome) : mine;
}

function noteChange(
  wait: Wait,
  first: LookOutcome,
  { view }: Extract<ViewOutcome, { kind: "view" }>,
  ahead: number,
  nowMs: number,
): void {
  const { lver } = view.leader;
  const isFree = first.kind === "free";
  if (!isFree) {
    wait.free = undefined;
  } else if (wait.free?.lver !== lver) {
    wait.free = { lver, sinceMs: nowMs };
  }
  const key = `${lver} ${isFree} ${ahead}`;
  wait.idlePolls = key === wait.lastKey ? wait.idlePolls + 1 : 0;
  wait.lastKey = key;
}

/** Each one that is before me gets its time; then I go, because it may be dead. */
function isMyTurn(terms: WaitTerms, wait: Wait, ahead: number, nowMs: number): boolean {
  if (ahead === 0) {
    return true;
  }
  if (terms.untilMs === undefined || wait.free === undefined) {
    return false;
  }
  return nowMs - wait.free.sinceMs >= ahead * terms.holdBackMs;
}

/** 1 ms for the next in line, slower further back, slower still when nothing has changed for a while. */
function pollMs(wait: Wait, ahead: number, untilMs: number | undefined, nowMs: number): number {
  const base = ahead <= 1 ? 1 : 2 * ahead;
  const patience = Math.floor(wait.idlePolls / 50);
  const ms = Math.min(POLL_MS_MAX, base + patience);
  return untilMs === undefined ? ms : Math.max(0, Math.min(ms, untilMs - nowMs));
}

/** Of each host the outbox with the highest sequence among the LUNs that were read. */
export function readOutboxes(
  terms: { readonly address: { readonly geometry: Geometry } },
  done: readonly DoneBatch[],
  readIndex: number,
): readonly Outbox[] {
  const { geometry } = terms.address;
  const byHost = new Map<number, Outbox>();
  for (const batch of done) {
    const bytes = batch.reads[readIndex] ?? new Uint8Array(0);
    for (let at = 0; at + geometry.sectorSize <= bytes.length; at += geometry.sectorSize) {
      const decoded = decodeOutbox(geometry, bytes.subarray(at, at + geometry.sectorSize));
      // A sector that belongs to another host than its place says is nobody's word.
      if (decoded.kind !== "ok" || decoded.value.hostId !== at / geometry.sectorSize + 1) {
        continue;
      }
      const known = byHost.get(decoded.value.hostId);
      if (known === undefined || isLaterOutbox(decoded.value, known)) {
        byHost.set(decoded.value.hostId, decoded.value);
      }
    }
  }
  return [...byHost.values()];
}

function isLaterOutbox(one: Outbox, other: Outbox): boolean {
  return one.generation === other.generation
    ? one.sequence > other.sequence
    : one.generation > other.generation;
}

/** Releases a lease; the caller then lets `nameSuccessor` run, which nobody has to wait for. */
export function* releaseLease(
  luns: LunSet,
  self: Self,
  held: HeldLease,
): DiskProcedure<ReleaseOutcome> {
  return held.shared
    ? yield* releaseShared(luns, self, held)
    : yield* releaseLeader(luns, self, held, false);
}

/** Names the lowest live ticket in the own outbox and takes the own, used-up ticket out in the same write. */
export function* nameSuccessor(
  terms: QueueTerms & { readonly luns: LunSet; readonly self: Self },
  held: HeldLease,
): DiskProcedure<void> {
  const { area } = held.address;
  const turn = yield* io([readLeaseOp(held.address), terms.outboxes]);
  const done = doneOn(terms.luns, turn.luns);
  const outcome = viewLease(held.address, terms.luns, done, 0);
  const outboxes = readOutboxes(held, done, 1);
  // Whoever has taken the lease already needs no name.
  const successor =
    outcome.kind === "view" && outcome.view.leader.lver === held.leader.lver
      ? successorOf(viewQueue(area, outboxes, outcome.view, terms.isLive), terms.self.hostId)
      : undefined;
  const own = outboxes
    .filter((outbox) => outbox.hostId === terms.self.hostId)
    .flatMap((outbox) => outbox.entries)
    .filter((entry) => entry.area === area);
  // A used-up ticket that is left there counts again as soon as this host begins its next ballot.
  if (successor === undefined && !own.some((entry) => entry.kind === "ticket")) {
    return;
  }
  // Earlier notices for this lease are void; left there, they would fill the outbox in a larger cluster.
  yield* post({
    remove: [
      ...own.filter((entry) => entry.kind === "handover"),
      { kind: "ticket", area, targetHostId: 0 },
    ],
    add: successor === undefined ? [] : [handoverEntry(area, held.leader.lver, successor)],
  });
}
