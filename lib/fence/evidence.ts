/**
 * What counts as proof that a host is silent (DESIGN section 8). Nobody's lease is taken without one of these, and the
 * one that was used is recorded with the take-over.
 *
 * Writing a poison pill, waiting, or an agent's exit code alone proves nothing and has no kind here.
 */
import { type HostObservation } from "../lease/observer.js";
import {
  CONFIRMATION_VALID_MS,
  expiredAfterMs,
  sanlockHostDeadMs,
  type Timings,
} from "../lease/timings.js";
import { type HostRecord, type JoinEvidence } from "../format/host-record.js";

/**
 * `released` is the only kind after which the target cannot hold commands of the silent host any more. `reboot`: its
 * machine has booted again and said so at its next join. `rejoined`: a later generation has its host id, which took
 * evidence, and this one ended without giving anything back.
 */
export type EvidenceKind =
  "released" | "expired" | "expired-guard" | "confirmed" | "reboot" | "rejoined";

export interface Evidence {
  readonly kind: EvidenceKind;
  readonly hostId: number;
  /** The generation that is silent; nothing is said about a later one. */
  readonly generation: bigint;
  /** For people: what was seen, with figures. */
  readonly detail: string;
}

/** A human's word that a node is off: bound to one generation, valid ten minutes. */
export interface Confirmation {
  readonly hostId: number;
  readonly generation: bigint;
  readonly confirmedAtMs: number;
}

/** What the configuration and this machine allow to be concluded. */
export interface EvidencePolicy {
  readonly lunCount: number;
  /** No host of this cluster is ever stopped, snapshotted or migrated while running (configuration `vm_pause`). */
  readonly vmPauseNever: boolean;
  /** Configuration `accept_guard`, or all data is in a regular file or loop device on this very machine. */
  readonly guardAccepted: boolean;
  /** Configuration `foreign_watchdog`: a human says that sanlock's hosts have a watchdog. */
  readonly foreignWatchdog: boolean;
}

export type Verdict =
  | { readonly kind: "evidence"; readonly evidence: Evidence }
  /** Nothing yet; the record must stay unchanged for this much longer. */
  | { readonly kind: "wait"; readonly remainingMs: number; readonly boundMs: number }
  /** Waiting alone will never be enough. */
  | { readonly kind: "impossible"; readonly why: string; readonly remedy: string };

const CONFIRM_REMEDY = "make sure that it is off, then: sharedha fence NODE --confirm-off";

/**
 * Is `generation` of this host silent?
 *
 * @param generation of the lease's owner, as its leader record has it
 * @param nowMs only for the age of a human's confirmation
 */
export function judgeHost(
  host: HostObservation,
  generation: bigint,
  policy: EvidencePolicy,
  confirmation: Confirmation | undefined,
  nowMs: number,
): Verdict {
  const { record } = host;
  if (record === undefined) {
    return {
      kind: "impossible",
      why: `its host record cannot be read: ${host.trouble ?? "never read"}`,
      remedy: "repair the LUN (sharedha dump PATH --area lockspace shows the record)",
    };
  }
  const current = record.leader.ownerGeneration;
  if (current > generation) {
    return supersededBy(host, generation, current, record.host, policy);
  }
  if (current < generation) {
    return {
      kind: "impossible",
      why: `its host record has generation ${current}, older than the lease's ${generation}: the LUN has lost writes`,
      remedy: "find out which LUN is stale before anything is taken over",
    };
  }
  if (record.leader.timestamp === 0n) {
    return evidence("released", host.hostId, generation, "it left and freed its host id");
  }
  if (isConfirmed(host, generation, confirmation, nowMs)) {
    return evidence("confirmed", host.hostId, generation, "a human confirmed that it is off");
  }
  if (record.hostState === "corrupt") {
    // A damaged record of ours is not a sanlock daemon's: nothing is known of its watchdog.
    return {
      kind: "impossible",
      why: "the part of its record that says how it is protected is damaged",
      remedy: CONFIRM_REMEDY,
    };
  }
  return record.host === undefined
    ? judgeForeign(host, generation, record.leader.ioTimeout, policy)
    : judgeExpired(host, generation, record.host, policy);
}

/** A later generation exists. It only exists because somebody had evidence against the earlier one and recorded it. */
function supersededBy(
  host: HostObservation,
  generation: bigint,
  current: bigint,
  record: HostRecord | undefined,
  policy: EvidencePolicy,
): Verdict {
  if (record === undefined && host.record?.hostState === "absent" && policy.foreignWatchdog) {
    // sanlock's own rule (facts 2.5.3), which rests on its watchdogs: only where a human vouches for those.
    const detail = `a sanlock daemon took its host id again as generation ${current}`;
    return evidence("rejoined", host.hostId, generation, detail);
  }
  // Nothing is known of the generations that failed joins claimed, and the evidence is about the one before those.
  const provenBefore = current - BigInt(record?.unproven ?? 0);
  if (record === undefined || record.joinEvidence === "none" || generation >= provenBefore) {
    return {
      kind: "impossible",
      why: `generation ${current} took its host id without recording evidence that ${generation} was silent`,
      remedy: CONFIRM_REMEDY,
    };
  }
  return evidence(
    kindOfSuperseded(generation, provenBefore, record.joinEvidence),
    host.hostId,
    generation,
    `its host id was taken again as generation ${current} (evidence then: ${record.joinEvidence})`,
  );
}

/** What the next generation recorded is said about the one before it, and about no earlier one. */
function kindOfSuperseded(
  generation: bigint,
  provenBefore: bigint,
  joinEvidence: Exclude<JoinEvidence, "none">,
): EvidenceKind {
  if (provenBefore !== generation + 1n) {
    return "rejoined";
  }
  return joinEvidence === "free" ? "released" : joinEvidence;
}

function isConfirmed(
  host: HostObservation,
  generation: bigint,
  confirmation: Confirmation | undefined,
  nowMs: number,
): boolean {
  // A host that renews is not off, whatever was said about it.
  const quietMs =
    host.record?.host?.ttlMs ?? 8_000 * Math.max(1, host.record?.leader.ioTimeout ?? 1);
  return (
    confirmation?.hostId === host.hostId &&
    confirmation.generation === generation &&
    host.unchangedMs >= quietMs &&
    nowMs - confirmation.confirmedAtMs < CONFIRMATION_VALID_MS
  );
}

function judgeExpired(
  host: HostObservation,
  generation: bigint,
  record: HostRecord,
  policy: EvidencePolicy,
): Verdict {
  const impossible = whyExpiryProvesNothing(record, policy);
  if (impossible !== undefined) {
    return { kind: "impossible", ...impossible };
  }
  const boundMs = expiredAfterMs(timingsOf(record), policy.lunCount);
  if (host.unchangedMs < boundMs) {
    return { kind: "wait", remainingMs: boundMs - host.unchangedMs, boundMs };
  }
  return evidence(
    record.watchdog === "guard" ? "expired-guard" : "expired",
    host.hostId,
    generation,
    `record unchanged for ${Math.floor(host.unchangedMs)} ms, bound ${boundMs} ms, watchdog ${record.watchdogMs} ms`,
  );
}

function whyExpiryProvesNothing(
  record: HostRecord,
  policy: EvidencePolicy,
): { readonly why: string; readonly remedy: string } | undefined {
  if (record.watchdog === "none" || record.watchdog === "vacant") {
    return {
      why: "it runs without a watchdog, so silence does not mean that it has stopped writing",
      remedy: CONFIRM_REMEDY,
    };
  }
  if (!record.armed) {
    return {
      why: "its watchdog was not armed when it was last seen, so nothing resets it",
      remedy: CONFIRM_REMEDY,
    };
  }
  if (record.watchdog === "guard") {
    return policy.guardAccepted
      ? undefined
      : {
          why: "it is protected by a guard process only, which cannot stop writes the kernel already has",
          remedy: `${CONFIRM_REMEDY}; or accept_guard = true in the configuration`,
        };
  }
  if (record.virtual && !policy.vmPauseNever) {
    return {
      why: "it is a virtual machine, and the watchdog of a paused one stands still",
      remedy: `${CONFIRM_REMEDY}; or vm_pause = "never" in the configuration, if no host is ever paused, snapshotted or migrated`,
    };
  }
  return undefined;
}

function judgeForeign(
  host: HostObservation,
  generation: bigint,
  ioTimeout: number,
  policy: EvidencePolicy,
): Verdict {
  if (!policy.foreignWatchdog) {
    return {
      kind: "impossible",
      why: "it is a sanlock daemon, whose watchdog cannot be seen on disk",
      remedy: `${CONFIRM_REMEDY}; or foreign_watchdog = true in the configuration, if every sanlock host has one`,
    };
  }
  const boundMs = sanlockHostDeadMs(Math.max(1, ioTimeout));
  if (host.unchangedMs < boundMs) {
    return { kind: "wait", remainingMs: boundMs - host.unchangedMs, boundMs };
  }
  return evidence(
    "expired",
    host.hostId,
    generation,
    `sanlock host unchanged for ${Math.floor(host.unchangedMs)} ms, bound ${boundMs} ms`,
  );
}

export function timingsOf(record: HostRecord): Timings {
  return {
    intervalMs: record.intervalMs,
    deadlineMs: record.deadlineMs,
    ttlMs: record.ttlMs,
    watchdogMs: record.watchdogMs,
  };
}

function evidence(kind: EvidenceKind, hostId: number, generation: bigint, detail: string): Verdict {
  return { kind: "evidence", evidence: { kind, hostId, generation, detail } };
}
