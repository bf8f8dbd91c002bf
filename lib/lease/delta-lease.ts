/**
 * Host ids: joining, leaving, and the record that is the heartbeat (DESIGN section 6, "Host ids"; sanlock facts 2.2).
 *
 * A joiner reads the record, writes its own less than 0.5 s later, waits until every other joiner that had also read
 * the old record must have landed, and verifies that its own is still there. A record that is not free is taken only
 * with evidence, which goes into the new record, because only then is the new generation evidence for others.
 */
import { type Evidence } from "../fence/evidence.js";
import {
  decodeDeltaSector,
  type DeltaSector,
  emptyBitmap,
  encodeDeltaSector,
} from "../format/delta-sector.js";
import {
  deltaOffset,
  type Geometry,
  lockspaceReadLength,
  areaOffset,
  AREA,
  MAX_HOSTS_LIMIT,
  outboxesReadLength,
} from "../format/geometry.js";
import { type HostRecord, type JoinEvidence, type WatchdogKind } from "../format/host-record.js";
import { DELTA_VERSION } from "../format/leader-record.js";
import { decodeOutbox } from "../format/outbox.js";
import { type ReadOp, type WriteOp } from "../port/disk.js";
import {
  describeFailures,
  type DiskProcedure,
  type DoneBatch,
  doneOn,
  io,
  isMajority,
  type LunSet,
  majorityOf,
  sleep,
} from "./procedure.js";
import { chooseRecord } from "./record-choice.js";
import { JOIN_READ_TO_WRITE_MS, renewalSeenMs, sanlockIoTimeout, type Timings } from "./timings.js";

/** As far as one byte of the host record counts. */
const UNPROVEN_MAX = 255;

/** What a node says of itself in its record. */
export interface Identity {
  readonly name: string;
  readonly watchdog: Exclude<WatchdogKind, "vacant">;
  readonly virtual: boolean;
  readonly bootIdHash: bigint;
  readonly machineIdHash: bigint;
  readonly stateIdHash: number;
}

export interface JoinTerms {
  readonly geometry: Geometry;
  readonly luns: LunSet;
  readonly maxHosts: number;
  readonly spaceName: string;
  readonly identity: Identity;
  readonly timings: Timings;
  /** A host id asked for, or undefined: the one this node had, else the lowest free one. */
  readonly hostId: number | undefined;
  /** First timestamp of the generation, not 0; for instance whole seconds since boot. */
  readonly timestamp: bigint;
  /**
   * This very state directory's earlier pulse is gone for sure (its file locks were free), so a record of ours that was
   * not armed held nothing.
   */
  readonly predecessorGone: boolean;
  /** A human says that this node stands in for another machine of its name. The evidence is asked for all the same. */
  readonly replacesNamesake: boolean;
  /**
   * What this state directory last was a member as, also before a reboot. A record of ours of another generation was left
   * behind by a join that failed, and under that generation somebody else may have become a member.
   */
  readonly lastMembership: { readonly hostId: number; readonly generation: bigint } | undefined;
  readonly evidenceFor: (hostId: number, generation: bigint) => Evidence | undefined;
  /** For how long this node has seen this very record in place; 0 for one that it has not seen. */
  readonly unchangedMs: (hostId: number, record: DeltaSector) => number;
}

/** The membership a pulse renews. */
export interface Membership {
  readonly hostId: number;
  readonly generation: bigint;
  readonly record: DeltaSector;
}

export type JoinOutcome =
  | { readonly kind: "joined"; readonly membership: Membership; readonly evidence: JoinEvidence }
  /** The id's last user is not proven silent yet; the caller observes, and tries again. */
  | {
      readonly kind: "not-free";
      readonly hostId: number;
      readonly generation: bigint;
      readonly name: string;
      /** The record is this node's own of an earlier boot: enough to take it, once it has not changed for this long. */
      readonly rebootAfterMs?: number;
    }
  | { readonly kind: "name-taken"; readonly hostId: number; readonly why: string }
  | { readonly kind: "full"; readonly maxHosts: number }
  | { readonly kind: "taken-meanwhile"; readonly hostId: number }
  /** The read was too old when the write was due; try again. */
  | { readonly kind: "too-slow" }
  | { readonly kind: "damaged"; readonly hostId: number; readonly reason: string }
  | { readonly kind: "no-quorum"; readonly why: string };

/** One host's records, as read from the LUNs that answered. */
interface Slot {
  readonly hostId: number;
  readonly newest: DeltaSector | undefined;
  /** The LUNs disagree about who has the newest generation. */
  readonly contested: boolean;
  readonly reason: string;
  /** The highest generation that has written the outbox of this id; every member does so before it arms. */
  readonly outboxGeneration: bigint;
}

export function readLockspaceOp(geometry: Geometry, maxHosts: number): ReadOp {
  return {
    kind: "read",
    offset: areaOffset(geometry, AREA.lockspace),
    length: lockspaceReadLength(geometry, maxHosts),
  };
}

function readOutboxesOp(geometry: Geometry, maxHosts: number): ReadOp {
  return {
    kind: "read",
    offset: areaOffset(geometry, AREA.outboxes),
    length: outboxesReadLength(geometry, Math.min(maxHosts, MAX_HOSTS_LIMIT)),
  };
}

export function writeDeltaOp(geometry: Geometry, hostId: number, sector: DeltaSector): WriteOp {
  return {
    kind: "write",
    offset: deltaOffset(geometry, hostId),
    data: encodeDeltaSector(geometry, sector),
  };
}

export function* joinHost(terms: JoinTerms): DiskProcedure<JoinOutcome> {
  const { geometry, luns, timings } = terms;
  const read = yield* io([
    readLockspaceOp(geometry, terms.maxHosts),
    readOutboxesOp(geometry, terms.maxHosts),
  ]);
  if (!isMajority(luns, read.luns)) {
    return { kind: "no-quorum", why: describeFailures(luns, read.luns) };
  }
  const done = doneOn(luns, read.luns);
  const readStartedMs = Math.min(...done.map((batch) => batch.timings[0]?.startedMs ?? 0));
  const slots = slotsOf(terms, done);
  const choice = chooseSlot(terms, slots);
  if (choice.kind !== "chosen") {
    return choice;
  }
  const { slot, evidence, unproven } = choice;
  const record = firstRecord(terms, slot, evidence, unproven);
  if (read.nowMs - readStartedMs >= JOIN_READ_TO_WRITE_MS) {
    return { kind: "too-slow" };
  }
  const op = writeDeltaOp(geometry, slot.hostId, record);
  const written = yield* io([op]);
  if (!isMajority(luns, written.luns)) {
    return { kind: "no-quorum", why: describeFailures(luns, written.luns) };
  }
  // Between the look at the clock above and the system call the process may have been stopped.
  const startedMs = doneOn(luns, written.luns).map(
    (batch) => batch.timings[0]?.startedMs ?? Infinity,
  );
  const isLate = startedMs.some((ms) => ms - readStartedMs >= JOIN_READ_TO_WRITE_MS);

  yield* sleep(joinWaitMs(timings, slot.newest));
  const verify = yield* io([{ kind: "read", offset: op.offset, length: geometry.sectorSize }]);
  if (!isMajority(luns, verify.luns)) {
    return { kind: "no-quorum", why: describeFailures(luns, verify.luns) };
  }
  const intact = doneOn(luns, verify.luns).filter((batch) => isSame(batch.reads[0], op.data));
  if (intact.length < majorityOf(luns)) {
    return { kind: "taken-meanwhile", hostId: slot.hostId };
  }
  if (isLate) {
    return { kind: "too-slow" };
  }
  const membership = {
    hostId: slot.hostId,
    generation: record.leader.ownerGeneration,
    record,
  };
  return { kind: "joined", membership, evidence };
}

/**
 * Long enough for any write to land whose read showed the old record: 0.5 s from read to write and d for the write. A
 * sanlock daemon keeps other times, so its io_timeout counts where one wrote the record that was found.
 */
function joinWaitMs(timings: Timings, found: DeltaSector | undefined): number {
  const foundDeadlineMs = found?.host?.deadlineMs ?? 0;
  const ours = JOIN_READ_TO_WRITE_MS + Math.max(timings.deadlineMs, foundDeadlineMs);
  return found?.host === undefined ? Math.max(ours, 2_000 * (found?.leader.ioTimeout ?? 0)) : ours;
}

function slotsOf(terms: JoinTerms, done: readonly DoneBatch[]): readonly Slot[] {
  const { geometry } = terms;
  return Array.from({ length: terms.maxHosts }, (_, index) => {
    const records: DeltaSector[] = [];
    let reason = "nothing was read";
    let outboxGeneration = 0n;
    for (const { reads } of done) {
      const at = index * geometry.sectorSize;
      const decoded = decodeDeltaSector(geometry, sectorAt(reads[0], at, geometry));
      if (decoded.kind !== "ok") {
        reason = decoded.kind === "empty" ? "the record is all zero" : decoded.reason;
      } else if (decoded.value.leader.spaceName !== terms.spaceName) {
        reason = `the record belongs to lockspace ${decoded.value.leader.spaceName}`;
      } else {
        records.push(decoded.value);
      }
      const outbox = decodeOutbox(geometry, sectorAt(reads[1], at, geometry));
      if (outbox.kind === "ok" && outbox.value.hostId === index + 1) {
        const { generation } = outbox.value;
        outboxGeneration = generation > outboxGeneration ? generation : outboxGeneration;
      }
    }
    const choice = chooseRecord(records, terms.luns.total);
    return { hostId: index + 1, ...choice, reason, outboxGeneration };
  });
}

function sectorAt(bytes: Uint8Array | undefined, at: number, geometry: Geometry): Uint8Array {
  return bytes?.subarray(at, at + geometry.sectorSize) ?? new Uint8Array(0);
}

type Choice =
  | {
      readonly kind: "chosen";
      readonly slot: Slot;
      readonly evidence: JoinEvidence;
      readonly unproven: number;
    }
  | Exclude<JoinOutcome, { kind: "joined" }>;

function chooseSlot(terms: JoinTerms, slots: readonly Slot[]): Choice {
  // The name may stand in several records; those that are free, or this node's own, are no reason to refuse.
  const namesake = slots.find(
    (slot) =>
      isOfName(slot, terms.identity.name) && !isWrittenByUs(terms, slot) && !isFreeSlot(slot),
  );
  const isReplaced =
    terms.replacesNamesake && (terms.hostId ?? namesake?.hostId) === namesake?.hostId;
  if (namesake !== undefined && !isReplaced) {
    return {
      kind: "name-taken",
      hostId: namesake.hostId,
      why: `${terms.identity.name} is host id ${namesake.hostId} on another machine or state directory`,
    };
  }
  const wanted =
    terms.hostId ?? (namesake ?? ownSlot(terms, slots))?.hostId ?? lowestFree(terms, slots);
  if (wanted === undefined) {
    return { kind: "full", maxHosts: terms.maxHosts };
  }
  const slot = slots[wanted - 1];
  if (slot === undefined) {
    return { kind: "full", maxHosts: terms.maxHosts };
  }
  // A zeroed or broken record is an error and never "free": it may be the live record of somebody (hazard M25).
  if (slot.newest === undefined) {
    return { kind: "damaged", hostId: slot.hostId, reason: slot.reason };
  }
  return judgeSlot(terms, slot, slot.newest);
}

function judgeSlot(terms: JoinTerms, slot: Slot, record: DeltaSector): Choice {
  const { leader, host } = record;
  // A joiner's write that was held up for long has landed over the record of a later generation. That one may live, and
  // will put its record back; if it is gone, its generation must never be given out again.
  if (isOverwritten(slot)) {
    return {
      kind: "not-free",
      hostId: slot.hostId,
      generation: slot.outboxGeneration,
      name: leader.resourceName,
    };
  }
  if (isFreeSlot(slot)) {
    return chosen(slot, "free");
  }
  if (isLeftByFailedJoin(terms, slot)) {
    return host !== undefined && host.unproven < UNPROVEN_MAX
      ? chosen(slot, host.joinEvidence, host.unproven + 1)
      : chosen(slot, "none");
  }
  if (isOwnRecord(terms, slot) && wasMember(terms, slot)) {
    if (host?.bootIdHash !== terms.identity.bootIdHash) {
      return judgeReboot(terms, slot, record);
    }
    if (terms.predecessorGone && !host.armed) {
      return chosen(slot, "released");
    }
  }
  const proof = terms.evidenceFor(slot.hostId, leader.ownerGeneration);
  if (proof?.generation === leader.ownerGeneration && proof.hostId === slot.hostId) {
    return chosen(slot, proof.kind);
  }
  return {
    kind: "not-free",
    hostId: slot.hostId,
    generation: leader.ownerGeneration,
    name: leader.resourceName,
  };
}

/**
 * Same machine and state directory, another boot: whatever ran then is gone with that kernel. Unless one of the two is a
 * copy of the other's disk: then the record moves, or moves on after a moment.
 */
function judgeReboot(terms: JoinTerms, slot: Slot, record: DeltaSector): Choice {
  const { ownerGeneration, resourceName } = record.leader;
  const rebootAfterMs = renewalSeenMs(record.host ?? terms.timings);
  return terms.unchangedMs(slot.hostId, record) >= rebootAfterMs
    ? chosen(slot, "reboot")
    : {
        kind: "not-free",
        hostId: slot.hostId,
        generation: ownerGeneration,
        name: resourceName,
        rebootAfterMs,
      };
}

/**
 * The id this node had. A join that failed may have left a record of ours under another id; the one that was a member may
 * still stand in a lease, and only taking its id again proves to the others that it is gone.
 */
function ownSlot(terms: JoinTerms, slots: readonly Slot[]): Slot | undefined {
  const own = slots.filter((slot) => isOwnRecord(terms, slot) && !isOverwritten(slot));
  return own.find((slot) => wasMember(terms, slot)) ?? own[0];
}

function wasMember(terms: JoinTerms, slot: Slot): boolean {
  return (
    terms.lastMembership?.hostId === slot.hostId &&
    terms.lastMembership.generation === slot.newest?.leader.ownerGeneration
  );
}

function chosen(slot: Slot, evidence: JoinEvidence, unproven = 0): Choice {
  return { kind: "chosen", slot, evidence, unproven };
}

/**
 * By this node's own, or by several at once. Somebody may have won this generation all the same: once it can arm, the outbox
 * shows it, and before that it finds a later generation in the place of its own. So nothing is claimed about this one.
 */
function isLeftByFailedJoin(terms: JoinTerms, slot: Slot): boolean {
  const isOwn =
    isOwnRecord(terms, slot) &&
    !wasMember(terms, slot) &&
    terms.predecessorGone &&
    slot.newest?.host?.armed === false;
  const hadMember = slot.outboxGeneration >= (slot.newest?.leader.ownerGeneration ?? 0n);
  return (isOwn || slot.contested) && !hadMember;
}

/** Its record is of an earlier generation than one that has been a member. */
function isOverwritten(slot: Slot): boolean {
  return slot.outboxGeneration > (slot.newest?.leader.ownerGeneration ?? 0n);
}

function isFreeSlot(slot: Slot): boolean {
  return slot.newest?.leader.timestamp === 0n && !slot.contested && !isOverwritten(slot);
}

function isOfName(slot: Slot, name: string): boolean {
  return slot.newest?.leader.resourceName === name && slot.newest.leader.ownerGeneration > 0n;
}

function isOwnRecord(terms: JoinTerms, slot: Slot): boolean {
  return isWrittenByUs(terms, slot) && !slot.contested;
}

function isWrittenByUs(terms: JoinTerms, slot: Slot): boolean {
  const host = slot.newest?.host;
  return (
    host !== undefined &&
    isOfName(slot, terms.identity.name) &&
    host.machineIdHash === terms.identity.machineIdHash &&
    host.stateIdHash === terms.identity.stateIdHash
  );
}

/**
 * Ids that nobody ever used come first, so that the history of the others stays readable; those that only failed joins
 * have claimed come last, because somebody may be joining there.
 */
function lowestFree(terms: JoinTerms, slots: readonly Slot[]): number | undefined {
  const free = slots.filter(isFreeSlot);
  const slot =
    free.find(({ newest }) => newest?.leader.ownerGeneration === 0n) ??
    free[0] ??
    slots.find((each) => isLeftByFailedJoin(terms, each));
  return slot?.hostId;
}

function firstRecord(
  terms: JoinTerms,
  slot: Slot,
  evidence: JoinEvidence,
  unproven: number,
): DeltaSector {
  const { geometry, identity, timings } = terms;
  return {
    leader: {
      kind: "delta",
      version: DELTA_VERSION,
      flags: geometry.lflFlag,
      sectorSize: geometry.sectorSize,
      numHosts: 0n,
      maxHosts: 1n,
      ownerId: BigInt(slot.hostId),
      ownerGeneration: (slot.newest?.leader.ownerGeneration ?? 0n) + 1n,
      lver: 0n,
      spaceName: terms.spaceName,
      resourceName: identity.name,
      timestamp: terms.timestamp,
      ioTimeout: sanlockIoTimeout(timings, terms.luns.total),
      writeId: 0n,
      writeGeneration: 0n,
      writeTimestamp: 0n,
    },
    host: { ...hostRecordOf(identity, timings, evidence), unproven },
    hostState: "ok",
    bitmap: emptyBitmap(),
  };
}

function hostRecordOf(identity: Identity, timings: Timings, evidence: JoinEvidence): HostRecord {
  return {
    watchdog: identity.watchdog,
    armed: false,
    virtual: identity.virtual,
    ...timings,
    bootIdHash: identity.bootIdHash,
    machineIdHash: identity.machineIdHash,
    stateIdHash: identity.stateIdHash,
    joinEvidence: evidence,
    unproven: 0,
  };
}

export function isSame(one: Uint8Array | undefined, other: Uint8Array): boolean {
  if (one?.length !== other.length) {
    return false;
  }
  for (let at = 0; at < other.length; at++) {
    if (one[at] !== other[at]) {
      return false;
    }
  }
  return true;
}

/** The record of a host that has left: timestamp 0, everything else stays (facts section 1.3). */
export function leftRecord(record: DeltaSector): DeltaSector {
  return {
    ...record,
    leader: { ...record.leader, timestamp: 0n },
    bitmap: emptyBitmap(),
  };
}

/** A record of a fresh lockspace: nobody ever joined, and it was us who wrote it. */
export function vacantRecord(
  geometry: Geometry,
  spaceName: string,
  timings: Timings,
  lunCount: number,
): DeltaSector {
  return {
    leader: {
      kind: "delta",
      version: DELTA_VERSION,
      flags: geometry.lflFlag,
      sectorSize: geometry.sectorSize,
      numHosts: 0n,
      maxHosts: 1n,
      ownerId: 0n,
      ownerGeneration: 0n,
      lver: 0n,
      spaceName,
      resourceName: "",
      timestamp: 0n,
      ioTimeout: sanlockIoTimeout(timings, lunCount),
      writeId: 0n,
      writeGeneration: 0n,
      writeTimestamp: 0n,
    },
    host: {
      watchdog: "vacant",
      armed: false,
      virtual: false,
      ...timings,
      bootIdHash: 0n,
      machineIdHash: 0n,
      stateIdHash: 0,
      joinEvidence: "none",
      unproven: 0,
    },
    hostState: "ok",
    bitmap: emptyBitmap(),
  };
}
