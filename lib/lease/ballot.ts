/**
 * One ballot of Disk Paxos (Gafni and Lamport 2003) on sanlock's layout, over 1, 3 or 5 LUNs.
 *
 * Every lver of a lease is one instance of consensus: "which host, of which generation, owns this lver?". Each host has
 * one block {mbal, bal, inp, lver} per LUN that only it writes. A phase is done when the own block is written to, and
 * all blocks are read back from, a majority:
 *
 *   phase 1  write mbal; read. A larger mbal or lver of somebody else: aborted. Somebody already accepted a value for
 *            this lver: propose the one with the highest bal. Otherwise propose myself.
 *   phase 2  write bal = mbal and the value; read. A larger mbal or lver: aborted. Otherwise the value is decided.
 *   commit   if the value is me and I still have the right to write: write the leader record to a majority.
 */
import assert from "node:assert/strict";
import { encodeHostBlock, type HostBlock } from "../format/dblock.js";
import { dblockOffset, leaderOffset } from "../format/geometry.js";
import { encodePaxosLeaderSector, type LeaderRecord, SHORT_HOLD } from "../format/leader-record.js";
import { type WriteOp } from "../port/disk.js";
import {
  type LeaseAddress,
  type LeaseView,
  nextLver,
  readLeaseOp,
  viewLease,
} from "./lease-view.js";
import {
  describeFailures,
  type DiskProcedure,
  doneOn,
  hasRight,
  io,
  isMajority,
  type LunSet,
  type Turn,
} from "./procedure.js";

export interface Self {
  readonly hostId: number;
  readonly generation: bigint;
}

export interface BallotTerms {
  /** This node's clock as the ballot begins (CLOCK_BOOTTIME, ms); orders the copies of the own block. */
  readonly nowMs: number;
  readonly address: LeaseAddress;
  readonly luns: LunSet;
  readonly self: Self;
  /** What the leader's timestamp is to be; not 0. */
  readonly timestamp: bigint;
  /** Seconds since 1970, put where sanlock keeps its write_timestamp: for people to read, nothing decides on it. */
  readonly wallSeconds: bigint;
  /** The owner is only passing through to a shared hold (sanlock's SHORT_HOLD). */
  readonly shortHold: boolean;
}

/**
 * - `won`: the leader names me, on a majority.
 * - `lost`: this lver was decided for somebody else.
 * - `aborted`: a higher ballot is on its way; look again and try with a higher one.
 * - `undecided`: my value was proposed and may be, or may become, decided, but I could not finish. Whoever gets this
 *   stays armed until the lver is decided (DESIGN section 6, "Arming").
 * - `no-quorum`: a majority did not answer before anything was proposed.
 */
export type BallotOutcome =
  | { readonly kind: "won"; readonly held: HeldLease; readonly view: LeaseView }
  | { readonly kind: "lost"; readonly ownerId: bigint; readonly ownerGeneration: bigint }
  | { readonly kind: "aborted"; readonly mbal: bigint }
  | { readonly kind: "undecided"; readonly lver: bigint; readonly why: string }
  | { readonly kind: "no-quorum"; readonly why: string };

interface Accepted {
  readonly inp: bigint;
  readonly inp2: bigint;
  readonly inp3: bigint;
}

/** @param mbalAtLeast an mbal that aborted me before; the next one is higher */
export function* runBallot(
  terms: BallotTerms,
  view: LeaseView,
  mbalAtLeast: bigint,
): DiskProcedure<BallotOutcome> {
  const { address, self } = terms;
  const lver = nextLver(view);
  const mbal = nextMbal(
    view.mbalHighest > mbalAtLeast ? view.mbalHighest : mbalAtLeast,
    self.hostId,
    BigInt(address.geometry.maxHostsFormat),
  );
  const own = view.blocks[self.hostId - 1];
  // What this host accepted for this lver in an earlier ballot may have been decided: it must never be forgotten.
  const carried = own?.dblock.lver === lver ? own.dblock : NOTHING_ACCEPTED;
  const sequence = firstSequence(terms, own?.sequence ?? 0n);

  const phase1 = yield* phase(terms, sequence, { ...carried, lver, mbal });
  if (phase1.kind === "failed") {
    return carried.bal > 0n
      ? { kind: "undecided", lver, why: phase1.why }
      : { kind: "no-quorum", why: phase1.why };
  }
  const higher1 = higherBallot(phase1.view, self.hostId, lver, mbal);
  if (higher1 !== undefined) {
    return { kind: "aborted", mbal: higher1 };
  }
  const value: Accepted = acceptedValue(phase1.view, lver) ?? {
    inp: BigInt(self.hostId),
    inp2: self.generation,
    inp3: terms.timestamp,
  };

  const block = { ...carried, ...value, lver, mbal, bal: mbal };
  const phase2 = yield* phase(terms, sequence + 1n, block);
  if (phase2.kind === "failed") {
    return { kind: "undecided", lver, why: phase2.why };
  }
  const higher2 = higherBallot(phase2.view, self.hostId, lver, mbal);
  if (higher2 !== undefined) {
    return { kind: "aborted", mbal: higher2 };
  }
  // From here on the value is decided for this lver, whatever happens to this node.
  if (value.inp !== BigInt(self.hostId) || value.inp2 !== self.generation) {
    yield* commitForOther(terms, lver, value);
    return { kind: "lost", ownerId: value.inp, ownerGeneration: value.inp2 };
  }
  return yield* commit(terms, ownBlock(block, sequence + 1n), phase2);
}

const NOTHING_ACCEPTED = { released: false, bal: 0n, inp: 0n, inp2: 0n, inp3: 0n };

/** Units of 8 microseconds in a millisecond: two ballots of a host never begin in the same one. */
const SEQUENCE_UNITS_PER_MS = 125;
const SEQUENCE_TIME_BITS = 44n;

/**
 * Higher than that of every block this host has ever written, also of one that only reached a LUN which is not among the
 * majority that was read: counted up from the disk alone, a try that failed on one LUN long ago would later look newer
 * than the SHARED or the accepted value on the others, and hide it.
 */
function firstSequence(terms: BallotTerms, found: bigint): bigint {
  const generation = BigInt.asUintN(64 - Number(SEQUENCE_TIME_BITS), terms.self.generation);
  const time = BigInt.asUintN(
    Number(SEQUENCE_TIME_BITS),
    BigInt(Math.floor(terms.nowMs * SEQUENCE_UNITS_PER_MS)),
  );
  const base = (generation << SEQUENCE_TIME_BITS) + time;
  return base > found ? base : found + 1n;
}

type PhaseOutcome =
  | { readonly kind: "done"; readonly view: LeaseView; readonly turn: Turn }
  | { readonly kind: "failed"; readonly why: string };

function ownBlock(dblock: HostBlock["dblock"], sequence: bigint): HostBlock {
  return { dblock, mode: { shared: false, generation: 0n }, sequence };
}

function* phase(
  terms: BallotTerms,
  sequence: bigint,
  dblock: HostBlock["dblock"],
): DiskProcedure<PhaseOutcome> {
  const { address, luns, self } = terms;
  const turn = yield* io([
    writeBlockOp(address, self.hostId, ownBlock(dblock, sequence)),
    readLeaseOp(address),
  ]);
  if (!isMajority(luns, turn.luns)) {
    return { kind: "failed", why: describeFailures(luns, turn.luns) };
  }
  const outcome = viewLease(address, luns, doneOn(luns, turn.luns), 0);
  switch (outcome.kind) {
    case "view":
      return { kind: "done", view: outcome.view, turn };
    case "missing":
      return { kind: "failed", why: "the lease was deleted meanwhile" };
    case "more-hosts":
      return { kind: "failed", why: `the lease now has ${outcome.numHosts} hosts` };
    case "damaged":
      return { kind: "failed", why: outcome.reason };
  }
}

export function writeBlockOp(address: LeaseAddress, hostId: number, block: HostBlock): WriteOp {
  const { geometry, area } = address;
  return {
    kind: "write",
    offset: dblockOffset(geometry, area, hostId),
    data: encodeHostBlock(geometry, block),
  };
}

/** Rounded down to a multiple of max_hosts, plus max_hosts, plus the host id: unique to this host (facts 2.5.4). */
function nextMbal(highest: bigint, hostId: number, maxHosts: bigint): bigint {
  if (highest === 0n) {
    return BigInt(hostId);
  }
  return (highest / maxHosts) * maxHosts + maxHosts + BigInt(hostId);
}

/** The mbal of somebody who is ahead: in a later lver, or in this one with a larger ballot. */
function higherBallot(
  view: LeaseView,
  hostId: number,
  lver: bigint,
  mbal: bigint,
): bigint | undefined {
  let highest: bigint | undefined;
  view.blocks.forEach((block, index) => {
    if (block === undefined || index === hostId - 1) {
      return;
    }
    const { dblock } = block;
    if (dblock.lver > lver || (dblock.lver === lver && dblock.mbal > mbal)) {
      highest = highest === undefined || dblock.mbal > highest ? dblock.mbal : highest;
    }
  });
  return highest;
}

/** The value accepted with the highest bal for this lver, by anybody; it may have been decided already. */
function acceptedValue(view: LeaseView, lver: bigint): Accepted | undefined {
  let best: HostBlock["dblock"] | undefined;
  for (const block of view.blocks) {
    if (block?.dblock.lver !== lver || block.dblock.inp === 0n) {
      continue;
    }
    if (best === undefined || block.dblock.bal > best.bal) {
      best = block.dblock;
    }
  }
  // The value alone: it is accepted with the ballot of whoever adopts it, never with the one it came from.
  return best === undefined ? undefined : { inp: best.inp, inp2: best.inp2, inp3: best.inp3 };
}

function leaderFor(terms: BallotTerms, lver: bigint, value: Accepted): LeaderRecord {
  const { address, self } = terms;
  return {
    kind: "paxos",
    version: 0x00060004,
    flags: address.geometry.lflFlag | (terms.shortHold ? SHORT_HOLD : 0),
    sectorSize: address.geometry.sectorSize,
    numHosts: BigInt(address.numHosts),
    maxHosts: BigInt(address.geometry.maxHostsFormat),
    ownerId: value.inp,
    ownerGeneration: value.inp2,
    lver,
    spaceName: address.spaceName,
    resourceName: address.resourceName,
    timestamp: value.inp3,
    ioTimeout: 0,
    writeId: BigInt(self.hostId),
    writeGeneration: self.generation,
    writeTimestamp: terms.wallSeconds,
  };
}

function writeLeaderOp(address: LeaseAddress, leader: LeaderRecord): WriteOp {
  return {
    kind: "write",
    offset: leaderOffset(address.geometry, address.area),
    data: encodePaxosLeaderSector(address.geometry, leader),
  };
}

function* commit(
  terms: BallotTerms,
  block: HostBlock,
  phase2: { readonly view: LeaseView; readonly turn: Turn },
): DiskProcedure<BallotOutcome> {
  const { lver } = block.dblock;
  // The ballot took time. Without the right to write, becoming the owner would be a promise to a dead man.
  if (!hasRight(phase2.turn)) {
    return { kind: "undecided", lver, why: "this node's heartbeat became older than T" };
  }
  assert(block.dblock.inp3 !== 0n, "a leader with timestamp 0 would read as free");
  const leader = leaderFor(terms, lver, block.dblock);
  const turn = yield* io([writeLeaderOp(terms.address, leader)]);
  if (!isMajority(terms.luns, turn.luns)) {
    return { kind: "undecided", lver, why: describeFailures(terms.luns, turn.luns) };
  }
  if (!hasRight(turn)) {
    return { kind: "undecided", lver, why: "this node's heartbeat became older than T" };
  }
  return {
    kind: "won",
    held: { address: terms.address, shared: false, leader, block },
    view: phase2.view,
  };
}

/**
 * An earlier ballot of this host was overtaken after its phase 2, and the host that overtook it adopted the value and
 * wrote the leader in our name. The lver is ours all the same: nobody else can have it, and nobody goes past it while we
 * live. Writes the leader once more, on a majority, as `commit` would have.
 *
 * @param view shows the leader with this host and generation as owner, and the own block of that lver, not released
 */
export function* commitDecided(terms: BallotTerms, view: LeaseView): DiskProcedure<BallotOutcome> {
  const { leader } = view;
  const block = view.blocks[terms.self.hostId - 1];
  assert(block?.dblock.lver === leader.lver && !block.dblock.released);
  assert(leader.ownerId === BigInt(terms.self.hostId));
  assert.equal(leader.ownerGeneration, terms.self.generation);
  const value = { inp: leader.ownerId, inp2: leader.ownerGeneration, inp3: leader.timestamp };
  const mine = leaderFor(terms, leader.lver, value);
  const turn = yield* io([writeLeaderOp(terms.address, mine)]);
  if (!isMajority(terms.luns, turn.luns)) {
    return {
      kind: "undecided",
      lver: leader.lver,
      why: describeFailures(terms.luns, turn.luns),
    };
  }
  if (!hasRight(turn)) {
    return {
      kind: "undecided",
      lver: leader.lver,
      why: "this node's heartbeat became older than T",
    };
  }
  return {
    kind: "won",
    held: { address: terms.address, shared: false, leader: mine, block },
    view,
  };
}

/**
 * The lver is decided for another host that has not written the leader itself (it may have died on the way): write it
 * for it, or the lease could never move on. Looks once more first, so that a leader of a later lver is left alone; a
 * write of ours that is overtaken all the same is harmless, because the blocks of the later lver remember its value.
 */
function* commitForOther(terms: BallotTerms, lver: bigint, value: Accepted): DiskProcedure<void> {
  const { address, luns } = terms;
  const turn = yield* io([readLeaseOp(address)]);
  const now = viewLease(address, luns, doneOn(luns, turn.luns), 0);
  if (now.kind !== "view" || now.view.leader.lver >= lver || !hasRight(turn)) {
    return;
  }
  yield* io([
    writeLeaderOp(address, { ...leaderFor(terms, lver, value), flags: address.geometry.lflFlag }),
  ]);
}

export interface HeldLease {
  readonly address: LeaseAddress;
  readonly shared: boolean;
  /** The leader as this host committed it; for a shared hold, as it left it. */
  readonly leader: LeaderRecord;
  /** The own block as last written. */
  readonly block: HostBlock;
}

export type ReleaseOutcome =
  | { readonly kind: "released"; readonly held: HeldLease }
  /**
   * It may or may not be released on a majority: stay armed, look, and release again only what the look still shows as
   * held. Written again blindly, the old leader would replace that of somebody who has taken the lease since.
   */
  | { readonly kind: "unfinished"; readonly why: string };

/**
 * Frees the leader of an exclusive lease: timestamp 0 into the leader, then RELEASED into the own block, for the case that
 * somebody yet commits the same lver in our name (facts section 2.6). In this order: when somebody has committed it in
 * our name before, RELEASED alone frees the lease, and a leader that is written after it may land on that of a later
 * holder. With `keepShared` the block says SHARED before the leader is free: that is how a shared hold is taken (facts
 * section 2.7); with several LUNs a majority says so already. The caller has nothing in flight that the exclusive lease
 * protects.
 */
export function* releaseLeader(
  luns: LunSet,
  self: Self,
  held: HeldLease,
  keepShared: boolean,
): DiskProcedure<ReleaseOutcome> {
  const { address } = held;
  assert.equal(held.leader.ownerId, BigInt(self.hostId), "only the holder releases");
  assert.equal(held.leader.ownerGeneration, self.generation, "only the holder releases");
  const blockAs = (released: boolean, step: bigint): HostBlock => ({
    dblock: { ...held.block.dblock, released },
    mode: { shared: keepShared, generation: keepShared ? self.generation : 0n },
    sequence: held.block.sequence + step,
  });
  const block = blockAs(true, 2n);
  const leader: LeaderRecord = {
    ...held.leader,
    flags: address.geometry.lflFlag,
    timestamp: 0n,
    writeId: BigInt(self.hostId),
    writeGeneration: self.generation,
  };
  const turn = yield* io([
    ...(keepShared ? [writeBlockOp(address, self.hostId, blockAs(false, 1n))] : []),
    writeLeaderOp(address, leader),
    writeBlockOp(address, self.hostId, block),
  ]);
  return isMajority(luns, turn.luns)
    ? { kind: "released", held: { address, shared: keepShared, leader, block } }
    : { kind: "unfinished", why: describeFailures(luns, turn.luns) };
}

/** Ends a shared hold: one write, the own block without SHARED (facts section 2.7). */
export function* releaseShared(
  luns: LunSet,
  self: Self,
  held: HeldLease,
): DiskProcedure<ReleaseOutcome> {
  const block: HostBlock = {
    ...held.block,
    mode: { shared: false, generation: 0n },
    sequence: held.block.sequence + 1n,
  };
  const turn = yield* io([writeBlockOp(held.address, self.hostId, block)]);
  return isMajority(luns, turn.luns)
    ? { kind: "released", held: { ...held, shared: false, block } }
    : { kind: "unfinished", why: describeFailures(luns, turn.luns) };
}
