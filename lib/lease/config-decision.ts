/**
 * Which configuration is the current one, and how a new one is written (DESIGN section 3, hazard H14).
 *
 * Each host has two sub-slots that only it writes, in turn. The current configuration is the one with the highest stamp
 * (lver of the lease `sharedha:config`, number of the write) on a majority's slots. A write that lands late carries an old
 * stamp and is never current; a writer looks at all slots and at the lease again before it reports success; a reader that
 * saw a higher stamp refuses a lower one.
 */
import {
  type ConfigSlot,
  configSlotOffset,
  configSubslotSize,
  decodeConfigSlot,
  encodeConfigSlot,
} from "../format/config-slot.js";
import { type Geometry } from "../format/geometry.js";
import { compareStamps, newestStamped, type Stamp, ZERO_STAMP } from "../format/stamp.js";
import { type ReadOp } from "../port/disk.js";
import { type HeldLease } from "./ballot.js";
import { readLeaseOp, viewLease } from "./lease-view.js";
import {
  describeFailures,
  type DiskProcedure,
  type DoneBatch,
  doneOn,
  hasRight,
  io,
  isMajority,
  type LunSet,
  majorityOf,
  type Turn,
} from "./procedure.js";

export interface ConfigPlace {
  readonly geometry: Geometry;
  readonly luns: LunSet;
  readonly maxHosts: number;
}

export type ReadConfigOutcome =
  | {
      readonly kind: "ok";
      readonly current: ConfigSlot;
      /** Every whole slot, newest first; the current one is the first. What `undo` goes back to is the second. */
      readonly history: readonly ConfigSlot[];
      /** A majority shows the current one: every later read of any majority will show it or a newer one. */
      readonly isSettled: boolean;
    }
  /** No slot is whole: the region has never had a configuration, or it is damaged. */
  | { readonly kind: "none"; readonly why: string }
  /** A majority shows nothing as new as what this reader has seen before: the LUNs went back in time. */
  | { readonly kind: "rolled-back"; readonly seen: Stamp; readonly found: Stamp }
  | { readonly kind: "no-quorum"; readonly why: string };

export type WriteConfigOutcome =
  | { readonly kind: "written"; readonly stamp: Stamp }
  /** Somebody has written since the version that the change was made from. */
  | { readonly kind: "conflict"; readonly current: Stamp }
  /** The lease is not this host's any more; it is unknown whether others have seen the text. */
  | { readonly kind: "lost"; readonly why: string }
  | Exclude<ReadConfigOutcome, { kind: "ok" | "none" }>;

export interface WriteConfigTerms extends ConfigPlace {
  readonly hostId: number;
  /** The lease `sharedha:config`, held exclusively by this host. */
  readonly held: HeldLease;
  /** Epoch of the set of LUNs. */
  readonly epoch: bigint;
  /** The stamp that the change was made from; undefined to take the place of whatever is there. */
  readonly basedOn: Stamp | undefined;
  /** The highest settled stamp this host has seen. */
  readonly seen: Stamp;
  readonly text: string;
}

/** All sub-slots of the hosts there can be, in one read. */
export function readSlotsOp(place: ConfigPlace): ReadOp {
  const { geometry, maxHosts } = place;
  const offset = configSlotOffset(geometry, 1, 0);
  const end = configSlotOffset(geometry, maxHosts, 1) + configSubslotSize(geometry);
  return { kind: "read", offset, length: end - offset };
}

/** @param seen the highest settled stamp this reader has seen; `ZERO_STAMP` at first */
export function* readConfig(place: ConfigPlace, seen: Stamp): DiskProcedure<ReadConfigOutcome> {
  const turn = yield* io([readSlotsOp(place)]);
  return judgeSlots(place, turn, 0, seen);
}

/** Under the lease. @throws ERR_CONFIG_TOO_LARGE before anything is written */
export function* writeConfig(terms: WriteConfigTerms): DiskProcedure<WriteConfigOutcome> {
  const { geometry, luns, hostId, held, text, epoch } = terms;
  const lver = held.leader.lver;
  const before = yield* io([readSlotsOp(terms)]);
  const found = judgeSlots(terms, before, 0, terms.seen);
  if (found.kind === "no-quorum" || found.kind === "rolled-back") {
    return found;
  }
  const current = found.kind === "ok" ? found.current.stamp : ZERO_STAMP;
  if (terms.basedOn !== undefined && compareStamps(terms.basedOn, current) !== 0) {
    return { kind: "conflict", current };
  }
  if (current.lver > lver) {
    return {
      kind: "lost",
      why: `a configuration of lver ${current.lver} is there, held is ${lver}`,
    };
  }
  const stamp = { lver, generation: current.generation + 1n };
  const sub = spareSubslot(terms, doneOn(luns, before.luns));
  const data = encodeConfigSlot(geometry, { hostId, stamp, epoch, text });
  if (!hasRight(before)) {
    return { kind: "lost", why: "this node's heartbeat became older than T" };
  }
  const written = yield* io([
    { kind: "write", offset: configSlotOffset(geometry, hostId, sub), data },
    readSlotsOp(terms),
    readLeaseOp(held.address),
  ]);
  return judgeWritten(terms, written, stamp);
}

function judgeWritten(terms: WriteConfigTerms, turn: Turn, stamp: Stamp): WriteConfigOutcome {
  const { luns, held } = terms;
  const now = judgeSlots(terms, turn, 0, stamp);
  if (now.kind === "no-quorum" || now.kind === "rolled-back") {
    return now;
  }
  if (now.kind === "none" || compareStamps(now.current.stamp, stamp) !== 0) {
    const newer = now.kind === "ok" ? now.current.stamp : ZERO_STAMP;
    return {
      kind: "lost",
      why: `stamp ${newer.lver}.${newer.generation} is current, not the own one`,
    };
  }
  const lease = viewLease(held.address, luns, doneOn(luns, turn.luns), 1);
  if (lease.kind !== "view") {
    return { kind: "lost", why: `the lease of the configuration is ${lease.kind}` };
  }
  const { leader } = lease.view;
  const isOwn =
    leader.lver === held.leader.lver &&
    leader.ownerId === held.leader.ownerId &&
    leader.ownerGeneration === held.leader.ownerGeneration &&
    leader.timestamp !== 0n;
  if (!isOwn || !hasRight(turn)) {
    return { kind: "lost", why: `the lease is at lver ${leader.lver} of host ${leader.ownerId}` };
  }
  return { kind: "written", stamp };
}

function judgeSlots(
  place: ConfigPlace,
  turn: Turn,
  readIndex: number,
  seen: Stamp,
): ReadConfigOutcome {
  const { luns } = place;
  if (!isMajority(luns, turn.luns)) {
    return { kind: "no-quorum", why: describeFailures(luns, turn.luns) };
  }
  const slots: ConfigSlot[] = [];
  const newestByLun: Stamp[] = [];
  let damage = "every slot is empty";
  for (const batch of doneOn(luns, turn.luns)) {
    const read = slotsOf(place, batch.reads[readIndex] ?? new Uint8Array(0));
    slots.push(...read.slots);
    newestByLun.push(newestStamped(read.slots)?.stamp ?? ZERO_STAMP);
    damage = read.damage ?? damage;
  }
  const current = newestStamped(slots);
  if (current === undefined) {
    return compareStamps(seen, ZERO_STAMP) > 0
      ? { kind: "rolled-back", seen, found: ZERO_STAMP }
      : { kind: "none", why: damage };
  }
  if (compareStamps(current.stamp, seen) < 0) {
    return { kind: "rolled-back", seen, found: current.stamp };
  }
  const showing = newestByLun.filter((stamp) => compareStamps(stamp, current.stamp) === 0);
  const isSettled = showing.length >= majorityOf(luns);
  return { kind: "ok", current, history: historyOf(slots), isSettled };
}

function historyOf(slots: readonly ConfigSlot[]): readonly ConfigSlot[] {
  const sorted = [...slots].sort((one, other) => compareStamps(other.stamp, one.stamp));
  return sorted.filter((slot, index) => {
    const earlier = sorted[index - 1];
    return earlier === undefined || compareStamps(earlier.stamp, slot.stamp) !== 0;
  });
}

function slotsOf(
  place: ConfigPlace,
  bytes: Uint8Array,
): { readonly slots: readonly ConfigSlot[]; readonly damage: string | undefined } {
  const { geometry, maxHosts } = place;
  const size = configSubslotSize(geometry);
  const start = configSlotOffset(geometry, 1, 0);
  const slots: ConfigSlot[] = [];
  let damage: string | undefined;
  for (let hostId = 1; hostId <= maxHosts; hostId++) {
    for (const sub of [0, 1] as const) {
      const at = configSlotOffset(geometry, hostId, sub) - start;
      const decoded = decodeConfigSlot(geometry, bytes.subarray(at, at + size));
      if (decoded.kind === "ok" && decoded.value.hostId === hostId) {
        slots.push(decoded.value);
      } else if (decoded.kind === "ok") {
        damage = `the slot of host ${hostId} holds one of host ${decoded.value.hostId}`;
      } else if (decoded.kind !== "empty") {
        damage = `the slot of host ${hostId}: ${decoded.reason}`;
      }
    }
  }
  return { slots, damage };
}

/** The own sub-slot that does not hold the newest of the own two, on any LUN: a torn write may never hit that. */
function spareSubslot(terms: WriteConfigTerms, done: readonly DoneBatch[]): 0 | 1 {
  const { geometry, hostId } = terms;
  const size = configSubslotSize(geometry);
  const start = configSlotOffset(geometry, 1, 0);
  let newest: { readonly stamp: Stamp; readonly sub: 0 | 1 } | undefined;
  for (const batch of done) {
    for (const sub of [0, 1] as const) {
      const at = configSlotOffset(geometry, hostId, sub) - start;
      const bytes = (batch.reads[0] ?? new Uint8Array(0)).subarray(at, at + size);
      const decoded = decodeConfigSlot(geometry, bytes);
      if (decoded.kind !== "ok" || decoded.value.hostId !== hostId) {
        continue;
      }
      const { stamp } = decoded.value;
      if (newest === undefined || compareStamps(stamp, newest.stamp) > 0) {
        newest = { stamp, sub };
      }
    }
  }
  return newest?.sub === 0 ? 1 : 0;
}
