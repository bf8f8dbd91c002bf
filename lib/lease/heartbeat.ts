/**
 * The heart of pulse: when a renewal may be written, when it counts, when the watchdog may be petted, and when this
 * generation has lost its right for ever (DESIGN section 4). It keeps state and does no I/O; pulse and the simulator
 * carry out what it says.
 *
 * Each LUN beats on its own:  beginBeat -> read -> afterRead -> write -> afterWrite -> pet?
 *
 * - One renewal, one pet: a renewal counts when its write completes within d of its start, and only a renewal that was
 *   just counted may pet. With several LUNs the pet also needs a majority all started within the last d + h.
 * - Loss is for ever: before a renewal is issued, and again after it completed, the gap since the start of the previous
 *   counted one is compared with T.
 */
import assert from "node:assert/strict";
import { type DeltaSector, decodeDeltaSector, encodeDeltaSector } from "../format/delta-sector.js";
import { deltaOffset, type Geometry, leaderOffset } from "../format/geometry.js";
import { decodeLeaderRecord } from "../format/leader-record.js";
import { type BatchResult, type DiskOp, type WriteOp } from "../port/disk.js";
import { isSame, leftRecord, type Membership } from "./delta-lease.js";
import { type LunSet, majorityOf } from "./procedure.js";
import {
  gapBeforeRecheckMs,
  petWindowMs,
  RESTART_GRACE_MS,
  slackMs,
  type Timings,
} from "./timings.js";

/** A lease this node holds: its leader is read again after every long gap, before the next pet. */
export interface WatchedLease {
  readonly area: number;
  readonly lver: bigint;
  readonly resourceName: string;
  /** A shared hold has no leader of its own to look at. */
  readonly shared: boolean;
}

/**
 * - `write`: issue this renewal now.
 * - `wait`: nothing to do for this LUN in this beat (it is blank, or its path failed); `why` goes to status.
 * - `lost`: see `Heartbeat.loss`.
 */
export type AfterRead =
  | { readonly kind: "write"; readonly op: WriteOp }
  | { readonly kind: "wait"; readonly why: string }
  | { readonly kind: "lost"; readonly why: string };

/**
 * `pet`: the petter reads the clock; pets if it is not later than `petUntilMs`; reads the clock again, and resets the
 * machine itself if it is then later than `resetAfterMs`.
 */
export type AfterWrite =
  | { readonly kind: "pet"; readonly petUntilMs: number; readonly resetAfterMs: number }
  | { readonly kind: "counted" }
  | { readonly kind: "not-counted"; readonly why: string }
  | { readonly kind: "lost"; readonly why: string };

interface LunState {
  /** The renewal as last acknowledged, and every later one that may yet land. */
  acknowledged: Uint8Array;
  acknowledgedTimestamp: bigint;
  issuedTimestamp: bigint;
  /** Start of the newest renewal that counted. */
  countedStartMs: number | undefined;
  /** Newest renewal that counted with armed = 1, and with armed = 0. */
  armedStartMs: number | undefined;
  disarmedStartMs: number | undefined;
  writing:
    { readonly bytes: Uint8Array; readonly timestamp: bigint; readonly armed: boolean } | undefined;
  /** Leaders still have to be seen on this LUN since the last long gap. */
  rechecked: boolean;
  /** A later generation of this host id was seen there, and not overwritten since. */
  superseded: boolean;
}

export interface HeartbeatTerms {
  readonly geometry: Geometry;
  readonly luns: LunSet;
  readonly timings: Timings;
  readonly membership: Membership;
  /** A restarted pulse of the same generation carries on; its first renewal must be within T of the record's last. */
  readonly resumedAtMs: number | undefined;
}

export class Heartbeat {
  readonly #terms: HeartbeatTerms;
  readonly #luns: LunState[];
  #record: DeltaSector;
  #timestamp: bigint;
  #armed = false;
  #watched: readonly WatchedLease[] = [];
  #needsRecheck = false;
  #loss: string | undefined;
  #daemonHeardMs: number | undefined;
  #groupUp = false;
  #startedMs: number | undefined;

  constructor(terms: HeartbeatTerms) {
    this.#terms = terms;
    this.#record = terms.membership.record;
    this.#timestamp = terms.membership.record.leader.timestamp;
    this.#armed = terms.membership.record.host?.armed ?? false;
    this.#startedMs = terms.resumedAtMs;
    this.#needsRecheck = terms.resumedAtMs !== undefined;
    const bytes = encodeDeltaSector(terms.geometry, terms.membership.record);
    this.#luns = terms.luns.counts.map(() => ({
      acknowledged: bytes,
      acknowledgedTimestamp: this.#timestamp,
      issuedTimestamp: this.#timestamp,
      countedStartMs: undefined,
      armedStartMs: undefined,
      disarmedStartMs: undefined,
      writing: undefined,
      rechecked: false,
      superseded: false,
    }));
  }

  /** Why this generation will never renew, pet or write again; `undefined` while it may. */
  get loss(): string | undefined {
    return this.#loss;
  }

  get armed(): boolean {
    return this.#armed;
  }

  get watched(): readonly WatchedLease[] {
    return this.#watched;
  }

  /**
   * Start of the newest counted renewal: a majority of the LUNs was renewed at or after this time. Before the first one
   * `undefined`, and nothing may be held.
   */
  get renewedAtMs(): number | undefined {
    if (this.#terms.luns.total === 1) {
      return this.#luns[0]?.countedStartMs ?? this.#startedMs;
    }
    const starts: number[] = [];
    for (const [index, { countedStartMs }] of this.#luns.entries()) {
      if (countedStartMs !== undefined && this.#terms.luns.counts[index] === true) {
        starts.push(countedStartMs);
      }
    }
    starts.sort((one, other) => other - one);
    return starts[majorityOf(this.#terms.luns) - 1] ?? this.#startedMs;
  }

  /** The record says armed = 1 (or 0) on a majority, by renewals that counted. */
  isPublished(armed: boolean): boolean {
    const published = this.#countingLuns().filter((lun) => {
      const [same, other] = armed
        ? [lun.armedStartMs, lun.disarmedStartMs]
        : [lun.disarmedStartMs, lun.armedStartMs];
      return same !== undefined && same > (other ?? -Infinity);
    });
    return this.#armed === armed && published.length >= majorityOf(this.#terms.luns);
  }

  /** The watchdog is set to W, W was read back, and it was petted: from now on renewals say armed = 1. */
  arm(watchdogMs: number): void {
    const { host } = this.#record;
    assert(host !== undefined);
    assert.equal(this.#loss, undefined, "a lost generation is never armed");
    this.#armed = true;
    this.#record = { ...this.#record, host: { ...host, armed: true, watchdogMs } };
  }

  /** Every lease is released on a majority and nothing is in flight: from now on renewals say armed = 0. */
  disarm(): void {
    const { host } = this.#record;
    assert(host !== undefined);
    assert.equal(this.#watched.length, 0, "disarmed only when nothing is held");
    this.#armed = false;
    this.#record = { ...this.#record, host: { ...host, armed: false } };
  }

  /** Which leaders to look at after a gap. */
  watch(leases: readonly WatchedLease[]): void {
    this.#watched = leases;
  }

  /** The daemon answered; `groupUp`: something of a group is mounted or running. */
  hearDaemon(nowMs: number, groupUp: boolean): void {
    this.#daemonHeardMs = nowMs;
    this.#groupUp = groupUp;
  }

  /** After a gap: look at the leaders again before the next pet. */
  recheck(): void {
    this.#needsRecheck = true;
    for (const lun of this.#luns) {
      lun.rechecked = false;
    }
  }

  /** May a beat start? Sets and returns the loss when the gap is above T. */
  mayRenew(
    nowMs: number,
  ): { readonly kind: "yes" } | { readonly kind: "no" | "lost"; readonly why: string } {
    if (this.#loss !== undefined) {
      return { kind: "lost", why: this.#loss };
    }
    const gap = this.#gapMs(nowMs);
    if (gap > this.#terms.timings.ttlMs) {
      return this.#lose(
        `no renewal counted for ${Math.floor(gap)} ms, T is ${this.#terms.timings.ttlMs} ms`,
      );
    }
    if (gap > gapBeforeRecheckMs(this.#terms.timings) && !this.#needsRecheck) {
      this.recheck();
    }
    return this.#daemonIsGone(nowMs)
      ? {
          kind: "no",
          why: `the daemon has not answered for ${RESTART_GRACE_MS} ms while a group is up`,
        }
      : { kind: "yes" };
  }

  /** What to read of the leaders in this beat: nothing, unless there was a gap. Goes behind the beat's other reads. */
  recheckOps(): readonly DiskOp[] {
    if (!this.#needsRecheck) {
      return [];
    }
    const { geometry } = this.#terms;
    return this.#watched
      .filter((lease) => !lease.shared)
      .map((lease) => ({
        kind: "read",
        offset: leaderOffset(geometry, lease.area),
        length: geometry.sectorSize,
      }));
  }

  /**
   * @param lockspace the used part of the lockspace, as read in this beat
   * @param leaders what `recheckOps` asked for, in its order
   */
  afterRead(
    lunIndex: number,
    lockspace: Uint8Array,
    leaders: readonly Uint8Array[],
    nowMs: number,
  ): AfterRead {
    const may = this.mayRenew(nowMs);
    if (may.kind !== "yes") {
      return may.kind === "lost" ? { kind: "lost", why: may.why } : { kind: "wait", why: may.why };
    }
    const lun = this.#lun(lunIndex);
    const { geometry, membership } = this.#terms;
    const at = (membership.hostId - 1) * geometry.sectorSize;
    const problem = this.#problemOfOwnRecord(lun, lockspace.subarray(at, at + geometry.sectorSize));
    if (problem !== undefined) {
      return problem;
    }
    if (this.#needsRecheck && !lun.rechecked) {
      const foreign = this.#problemOfLeaders(leaders);
      if (foreign !== undefined) {
        return this.#lose(foreign);
      }
      lun.rechecked = true;
    }
    return { kind: "write", op: this.#nextRenewal(lun) };
  }

  /** @param nowMs read after the completion was noticed */
  afterWrite(lunIndex: number, result: BatchResult, nowMs: number): AfterWrite {
    const lun = this.#lun(lunIndex);
    const { writing } = lun;
    lun.writing = undefined;
    assert(writing !== undefined, "a completion without a renewal");
    const timing = result.kind === "done" ? result.timings[0] : undefined;
    if (result.kind === "done") {
      lun.acknowledged = writing.bytes;
      lun.acknowledgedTimestamp = writing.timestamp;
    }
    if (this.#loss !== undefined) {
      return { kind: "lost", why: this.#loss };
    }
    if (timing === undefined) {
      return { kind: "not-counted", why: `the write ended ${result.kind}` };
    }
    const gap = this.#gapMs(nowMs);
    if (gap > this.#terms.timings.ttlMs) {
      return this.#lose(`a renewal completed ${Math.floor(gap)} ms after the previous one began`);
    }
    if (timing.completedMs - timing.startedMs > this.#terms.timings.deadlineMs) {
      return { kind: "not-counted", why: "it completed after its deadline" };
    }
    lun.countedStartMs = timing.startedMs;
    if (writing.armed) {
      lun.armedStartMs = timing.startedMs;
    } else {
      lun.disarmedStartMs = timing.startedMs;
    }
    return this.#petOf(timing.startedMs, nowMs);
  }

  /** The write that leaves: timestamp 0. Only after everything is released, disarmed and nothing is in flight. */
  leaveOp(): WriteOp {
    assert.equal(this.#armed, false, "disarm first");
    assert.equal(this.#watched.length, 0, "release first");
    const { geometry, membership } = this.#terms;
    return {
      kind: "write",
      offset: deltaOffset(geometry, membership.hostId),
      data: encodeDeltaSector(geometry, leftRecord(this.#record)),
    };
  }

  /** A decision from outside: a broken invariant, or a pill. Never taken back. */
  lose(why: string): void {
    this.#lose(why);
  }

  #lun(index: number): LunState {
    const lun = this.#luns[index];
    assert(lun !== undefined, `LUN ${index + 1} does not exist`);
    return lun;
  }

  #countingLuns(): readonly LunState[] {
    return this.#luns.filter((_, index) => this.#terms.luns.counts[index] === true);
  }

  #gapMs(nowMs: number): number {
    const renewedAtMs = this.renewedAtMs;
    return renewedAtMs === undefined ? 0 : nowMs - renewedAtMs;
  }

  #daemonIsGone(nowMs: number): boolean {
    const silentMs = nowMs - (this.#daemonHeardMs ?? nowMs);
    // What is watched is held, and its group may have come up after the daemon last said that none was.
    const mayBeUp = this.#groupUp || this.#watched.length > 0;
    return mayBeUp && silentMs > RESTART_GRACE_MS;
  }

  #lose(why: string): { readonly kind: "lost"; readonly why: string } {
    this.#loss ??= why;
    return { kind: "lost", why: this.#loss };
  }

  #nextRenewal(lun: LunState): WriteOp {
    // Never the same twice: a reader must see every renewal as a change (hazard H7).
    this.#timestamp += 1n;
    this.#record = {
      ...this.#record,
      leader: { ...this.#record.leader, timestamp: this.#timestamp },
    };
    const bytes = encodeDeltaSector(this.#terms.geometry, this.#record);
    lun.writing = { bytes, timestamp: this.#timestamp, armed: this.#armed };
    lun.issuedTimestamp = this.#timestamp;
    return {
      kind: "write",
      offset: deltaOffset(this.#terms.geometry, this.#terms.membership.hostId),
      data: bytes,
    };
  }

  /**
   * The own record must be the one last written, or a later one of ours whose outcome was unknown. An older one means
   * that the medium went back in time; another generation means that somebody else joined under this id.
   */
  #problemOfOwnRecord(lun: LunState, sector: Uint8Array): AfterRead | undefined {
    if (isSame(lun.acknowledged, sector)) {
      lun.superseded = false;
      return undefined;
    }
    const { geometry, luns, membership } = this.#terms;
    const decoded = decodeDeltaSector(geometry, sector);
    lun.superseded =
      decoded.kind === "ok" && decoded.value.leader.ownerGeneration > membership.generation;
    if (this.#countingLuns().filter((each) => each.superseded).length >= majorityOf(luns)) {
      return this.#lose("its host id was taken again, with a later generation");
    }
    if (decoded.kind === "ok") {
      const { leader } = decoded.value;
      const isOwn =
        leader.ownerId === BigInt(membership.hostId) &&
        leader.ownerGeneration === membership.generation &&
        leader.resourceName === membership.record.leader.resourceName;
      if (
        isOwn &&
        leader.timestamp >= lun.acknowledgedTimestamp &&
        leader.timestamp <= lun.issuedTimestamp
      ) {
        return undefined;
      }
      if (isOwn && luns.total === 1) {
        return this.#lose(
          "the own record on the LUN is older than the one written: the LUN has lost writes",
        );
      }
    }
    // Overwritten by a joiner that must see that this id is in use, or a LUN that came back stale. Younger than T, put
    // it back: renewing does just that. (mayRenew has already turned away everybody older.)
    return undefined;
  }

  #problemOfLeaders(leaders: readonly Uint8Array[]): string | undefined {
    const watched = this.#watched.filter((lease) => !lease.shared);
    for (const [index, lease] of watched.entries()) {
      const decoded = decodeLeaderRecord(leaders[index] ?? new Uint8Array(0), "paxos");
      if (decoded.kind !== "ok") {
        if (this.#terms.luns.total === 1) {
          return `the leader of ${lease.resourceName} cannot be read any more`;
        }
        continue;
      }
      const { leader } = { leader: decoded.value };
      if (leader.lver > lease.lver) {
        return `lease ${lease.resourceName} was taken over: lver ${leader.lver}, held was ${lease.lver}`;
      }
      const isOwn =
        leader.ownerId === BigInt(this.#terms.membership.hostId) &&
        leader.ownerGeneration === this.#terms.membership.generation;
      if (leader.lver === lease.lver && !isOwn) {
        return `lease ${lease.resourceName} is owned by host ${leader.ownerId}`;
      }
      if (leader.lver < lease.lver && this.#terms.luns.total === 1) {
        return `the leader of ${lease.resourceName} is older than the one written: the LUN has lost writes`;
      }
    }
    return undefined;
  }

  #petOf(startedMs: number, nowMs: number): AfterWrite {
    if (!this.#armed || !this.#recheckDone()) {
      return { kind: "counted" };
    }
    const { luns, timings } = this.#terms;
    const windowMs = petWindowMs(timings, luns.total);
    const recent = this.#countingLuns()
      .map((lun) => lun.countedStartMs)
      .filter((ms) => ms !== undefined && nowMs - ms <= windowMs)
      .filter((ms) => ms !== undefined)
      .sort((one, other) => other - one);
    const oldestMs = luns.total === 1 ? startedMs : recent[majorityOf(luns) - 1];
    if (oldestMs === undefined) {
      return { kind: "counted" };
    }
    const petUntilMs = oldestMs + windowMs;
    return { kind: "pet", petUntilMs, resetAfterMs: petUntilMs + slackMs(timings) };
  }

  #recheckDone(): boolean {
    if (!this.#needsRecheck) {
      return true;
    }
    const seen = this.#countingLuns().filter((lun) => lun.rechecked).length;
    if (seen < majorityOf(this.#terms.luns)) {
      return false;
    }
    this.#needsRecheck = false;
    return true;
  }
}
