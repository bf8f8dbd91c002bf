/**
 * Finding on disk what this very generation holds: after a restart of the daemon, and after a ballot whose end nobody
 * here has seen.
 */
import { type AcquireOutcome, acquireLease, type AcquireTerms } from "../lease/acquire.js";
import { type HeldLease, type Self } from "../lease/ballot.js";
import {
  isLeaseFree,
  type LeaseAddress,
  type LeaseView,
  readLeaseOp,
  viewLease,
  type ViewOutcome,
} from "../lease/lease-view.js";
import {
  describeFailures,
  type DiskProcedure,
  doneOn,
  io,
  isMajority,
  type LunSet,
} from "../lease/procedure.js";
import { releaseLease } from "../lease/wait.js";

export type LeaseLook =
  | Exclude<ViewOutcome, { kind: "more-hosts" }>
  | { readonly kind: "no-quorum"; readonly why: string };

/** Reads a lease and changes nothing. */
export function* lookAtLease(address: LeaseAddress, luns: LunSet): DiskProcedure<LeaseLook> {
  const turn = yield* io([readLeaseOp(address)]);
  if (!isMajority(luns, turn.luns)) {
    return { kind: "no-quorum", why: describeFailures(luns, turn.luns) };
  }
  const outcome = viewLease(address, luns, doneOn(luns, turn.luns), 0);
  return outcome.kind === "more-hosts"
    ? { kind: "damaged", reason: `the lease now has ${outcome.numHosts} hosts` }
    : outcome;
}

/** The hold of this host and generation that the disk shows, exclusive before shared. */
export function heldInView(
  address: LeaseAddress,
  view: LeaseView,
  self: Self,
): HeldLease | undefined {
  const { leader } = view;
  const block = view.blocks[self.hostId - 1];
  if (block === undefined) {
    return undefined;
  }
  const isOwner =
    leader.ownerId === BigInt(self.hostId) && leader.ownerGeneration === self.generation;
  if (isOwner && !isLeaseFree(view)) {
    return { address, shared: false, leader, block };
  }
  if (block.mode.shared && block.mode.generation === self.generation) {
    return { address, shared: true, leader, block };
  }
  return undefined;
}

export type Settled =
  /** The lver is decided and nothing of it is held by this node any more. */
  { readonly kind: "settled" } | { readonly kind: "unsettled"; readonly why: string };

/**
 * Brings an `undecided` ballot to an end: looks how it came out, proposes again if nobody decided, and releases what
 * turns out to be held. Nobody here waits for the lease any more.
 */
export function* settleBallot(terms: AcquireTerms, lver: bigint): DiskProcedure<Settled> {
  const { address, luns, self } = terms;
  const look = yield* lookAtLease(address, luns);
  if (look.kind === "missing") {
    return { kind: "settled" };
  }
  if (look.kind !== "view") {
    return { kind: "unsettled", why: look.kind === "damaged" ? look.reason : look.why };
  }
  const held = halfReleased(address, look.view, self) ?? heldInView(address, look.view, self);
  if (held !== undefined) {
    return yield* release(luns, self, held);
  }
  if (look.view.leader.lver >= lver && !hasOpenProposal(look.view, self)) {
    return { kind: "settled" };
  }
  const again: AcquireOutcome = yield* acquireLease(terms);
  if (again.kind === "granted") {
    return yield* release(luns, self, again.held);
  }
  // Somebody else has it, or is about to; the next look tells whether the lver went by.
  return { kind: "unsettled", why: again.kind };
}

/** An earlier try of settling may have got as far as proposing the next lver, and no further. */
function hasOpenProposal(view: LeaseView, self: Self): boolean {
  const own = view.blocks[self.hostId - 1]?.dblock;
  return own !== undefined && own.bal > 0n && own.lver > view.leader.lver;
}

/**
 * This host's own release that reached a minority only. It is valid, and others may take the lease already; but should
 * that minority fail, the others would show a holder that knows of nothing. A leader written over a later one does no
 * harm: the blocks of the later lver remember it.
 */
function halfReleased(address: LeaseAddress, view: LeaseView, self: Self): HeldLease | undefined {
  const { leader } = view;
  const block = view.blocks[self.hostId - 1];
  const isOwner =
    leader.ownerId === BigInt(self.hostId) && leader.ownerGeneration === self.generation;
  return isOwner && !view.isFirm && leader.timestamp === 0n && block?.dblock.lver === leader.lver
    ? { address, shared: false, leader, block }
    : undefined;
}

function* release(luns: LunSet, self: Self, held: HeldLease): DiskProcedure<Settled> {
  const released = yield* releaseLease(luns, self, held);
  return released.kind === "released"
    ? { kind: "settled" }
    : { kind: "unsettled", why: released.why };
}
