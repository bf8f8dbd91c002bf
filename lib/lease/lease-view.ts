/**
 * What a majority of the LUNs says about one resource lease: the leader that counts, every host's block, and the
 * highest ballot number seen.
 */
import { type DoneBatch, type LunSet, majorityOf } from "./procedure.js";
import { decodeHostBlock, type HostBlock } from "../format/dblock.js";
import { decodeLeaderRecord, type LeaderRecord } from "../format/leader-record.js";
import { type Geometry, leaderOffset, leaseReadLength } from "../format/geometry.js";
import { type ReadOp } from "../port/disk.js";

/** Where a lease lives and what it must be called, so that a misplaced record is never taken for it. */
export interface LeaseAddress {
  readonly geometry: Geometry;
  /** Index of the area; the lease's sectors start at area * areaSize. */
  readonly area: number;
  readonly spaceName: string;
  readonly resourceName: string;
  /** How many host blocks are read. sanlock's own leases have up to 2000; ours as many as the cluster has ids. */
  readonly numHosts: number;
}

export interface LeaseView {
  readonly leader: LeaderRecord;
  /** It is on a majority, so that no majority can show an earlier one again. */
  readonly isFirm: boolean;
  /** By host index (host id - 1); a host that never wrote has an all-zero block. */
  readonly blocks: readonly (HostBlock | undefined)[];
  readonly mbalHighest: bigint;
}

export type ViewOutcome =
  | { readonly kind: "view"; readonly view: LeaseView }
  /** The lease was deleted (sanlock's "cleared"). */
  | { readonly kind: "missing" }
  /** The leader says that more blocks are in use than were read. */
  | { readonly kind: "more-hosts"; readonly numHosts: number }
  | { readonly kind: "damaged"; readonly reason: string };

export function readLeaseOp(address: LeaseAddress): ReadOp {
  return {
    kind: "read",
    offset: leaderOffset(address.geometry, address.area),
    length: leaseReadLength(address.geometry, address.numHosts),
  };
}

/**
 * Judges the batches in which read number `readIndex` was `readLeaseOp(address)`.
 *
 * The leader that counts is the one with the highest lver among a majority; of two with the same lver the free one,
 * because a lease goes from held to free at one lver and never back.
 */
export function viewLease(
  address: LeaseAddress,
  luns: LunSet,
  done: readonly DoneBatch[],
  readIndex: number,
): ViewOutcome {
  const leaders: LeaderRecord[] = [];
  const blocks: (HostBlock | undefined)[] = [];
  let reason = "no LUN answered";
  for (const batch of done) {
    const bytes = batch.reads[readIndex] ?? new Uint8Array(0);
    const leader = leaderOf(address, bytes);
    if (typeof leader === "string") {
      reason = `LUN ${batch.lun + 1}: ${leader}`;
      continue;
    }
    leaders.push(leader);
    if (leader.kind === "cleared") {
      continue;
    }
    if (leader.numHosts > BigInt(address.numHosts)) {
      return { kind: "more-hosts", numHosts: Number(leader.numHosts) };
    }
    mergeBlocks(address, bytes, blocks);
  }
  if (leaders.length < majorityOf(luns)) {
    return { kind: "damaged", reason };
  }
  const leader = leaders.reduce(laterLeader);
  if (leader.kind === "cleared") {
    return { kind: "missing" };
  }
  const shownBy = leaders.filter((other) => !isLaterLeader(leader, other)).length;
  const isFirm = shownBy >= majorityOf(luns);
  return { kind: "view", view: { leader, isFirm, blocks, mbalHighest: mbalHighestOf(blocks) } };
}

function leaderOf(address: LeaseAddress, bytes: Uint8Array): LeaderRecord | string {
  const decoded = decodeLeaderRecord(bytes, "paxos");
  if (decoded.kind === "empty") {
    return "the leader sector is all zero";
  }
  if (decoded.kind !== "ok") {
    return decoded.reason;
  }
  const leader = decoded.value;
  if (leader.kind === "cleared") {
    return leader;
  }
  if (leader.spaceName !== address.spaceName || leader.resourceName !== address.resourceName) {
    return `the leader names ${leader.spaceName}:${leader.resourceName}, not ${address.spaceName}:${address.resourceName}`;
  }
  if (
    leader.numHosts > leader.maxHosts ||
    leader.maxHosts > BigInt(address.geometry.maxHostsFormat)
  ) {
    return `the leader claims ${leader.numHosts} of ${leader.maxHosts} hosts, which this area cannot hold`;
  }
  return leader;
}

/** Within one lver a lease goes from held to free, and from there to deleted; made again, it starts above it. */
export function isLaterLeader(one: LeaderRecord, other: LeaderRecord): boolean {
  if (one.lver !== other.lver) {
    return one.lver > other.lver;
  }
  const rank = (leader: LeaderRecord): number =>
    leader.kind === "cleared" ? 2 : leader.timestamp === 0n ? 1 : 0;
  return rank(one) > rank(other);
}

function laterLeader(one: LeaderRecord, other: LeaderRecord): LeaderRecord {
  return isLaterLeader(one, other) ? one : other;
}

/** A block with a bad checksum is skipped in a ballot (facts section 1.4); its owner will write it again. */
function mergeBlocks(
  address: LeaseAddress,
  bytes: Uint8Array,
  blocks: (HostBlock | undefined)[],
): void {
  const size = address.geometry.sectorSize;
  for (let index = 0; index < address.numHosts; index++) {
    const decoded = decodeHostBlock(
      address.geometry,
      bytes.subarray((2 + index) * size, (3 + index) * size),
    );
    if (decoded.kind !== "ok") {
      continue;
    }
    const known = blocks[index];
    blocks[index] = known === undefined ? decoded.value : mergeBlock(known, decoded.value);
  }
}

/**
 * One host's block as read from two LUNs. Ballot numbers only grow within an lver, so the higher one is the newer one;
 * the accepted value with the highest bal must survive from whichever LUN has it (Gafni and Lamport 2003, section 3.2).
 */
export function mergeBlock(one: HostBlock, other: HostBlock): HostBlock {
  const [older, newer] = isNewerBlock(one, other) ? [other, one] : [one, other];
  if (older.dblock.lver !== newer.dblock.lver) {
    return newer;
  }
  const accepted = older.dblock.bal > newer.dblock.bal ? older.dblock : newer.dblock;
  return {
    ...newer,
    dblock: {
      ...newer.dblock,
      bal: accepted.bal,
      inp: accepted.inp,
      inp2: accepted.inp2,
      inp3: accepted.inp3,
      released: newer.dblock.released || older.dblock.released,
    },
  };
}

function isNewerBlock(one: HostBlock, other: HostBlock): boolean {
  if (one.sequence !== other.sequence) {
    return one.sequence > other.sequence;
  }
  if (one.dblock.lver !== other.dblock.lver) {
    return one.dblock.lver > other.dblock.lver;
  }
  return one.dblock.mbal > other.dblock.mbal;
}

function mbalHighestOf(blocks: readonly (HostBlock | undefined)[]): bigint {
  let highest = 0n;
  for (const block of blocks) {
    if (block !== undefined && block.dblock.mbal > highest) {
      highest = block.dblock.mbal;
    }
  }
  return highest;
}

/**
 * The lver that the next ballot is about: the one after the leader's, or a later one that somebody is already balloting
 * for, and never one whose owner has released it. A leader may be old on a majority, because every host writes it and a
 * write that waited lands over a newer one; a block may not, because only its host writes it. Nobody enters an lver
 * before the one below it has ended.
 */
export function nextLver(view: LeaseView): bigint {
  let lver = view.leader.lver + 1n;
  for (const block of view.blocks) {
    if (block !== undefined) {
      const open = block.dblock.released ? block.dblock.lver + 1n : block.dblock.lver;
      lver = open > lver ? open : lver;
    }
  }
  return lver;
}

/**
 * The lease has no holder: released, never taken, or committed for a holder that had already released it. Also when the
 * leader is known to be out of date; then a ballot finds out who has the lease.
 */
export function isLeaseFree(view: LeaseView): boolean {
  const { leader } = view;
  if (leader.timestamp === 0n || nextLver(view) > leader.lver + 1n) {
    return true;
  }
  const block = view.blocks[Number(leader.ownerId) - 1];
  if (leader.writeId === leader.ownerId || block === undefined) {
    return false;
  }
  // Another host wrote this leader in the owner's name, and its write may have landed after the owner had released the
  // lver: then the owner's block says RELEASED, or is in a later lver already, which it entered only after releasing.
  return (
    block.dblock.lver > leader.lver || (block.dblock.lver === leader.lver && block.dblock.released)
  );
}

/**
 * True when the leader names this host as owner of `lver`, committed by whomever, and the host has not released it. Only
 * for an lver this host proposed itself and has not been granted yet.
 */
export function isDecidedFor(
  view: LeaseView,
  self: { readonly hostId: number; readonly generation: bigint },
  lver: bigint | undefined,
): boolean {
  const { leader } = view;
  const block = view.blocks[self.hostId - 1];
  return (
    lver === leader.lver &&
    leader.timestamp !== 0n &&
    leader.ownerId === BigInt(self.hostId) &&
    leader.ownerGeneration === self.generation &&
    block?.dblock.lver === leader.lver &&
    !block.dblock.released
  );
}

/** Hosts that hold the lease in shared mode, with the generation they wrote. */
export function sharedHolders(
  view: LeaseView,
): readonly { readonly hostId: number; readonly generation: bigint }[] {
  return view.blocks.flatMap((block, index) =>
    block?.mode.shared === true ? [{ hostId: index + 1, generation: block.mode.generation }] : [],
  );
}
