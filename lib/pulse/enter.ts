/**
 * Becoming a member: joining with a new generation, or carrying on the one of a pulse that died (DESIGN sections 5 and 6).
 * Everything that was refused or did not work ends as a PulseExit; nothing here pets or renews.
 */
import { decodeDeltaSector, encodeDeltaSector, type DeltaSector } from "../format/delta-sector.js";
import { deltaOffset } from "../format/geometry.js";
import { type Evidence, judgeHost, type Verdict } from "../fence/evidence.js";
import {
  type Identity,
  isSame,
  joinHost,
  type JoinOutcome,
  type Membership,
} from "../lease/delta-lease.js";
import { doneOn, majorityOf } from "../lease/procedure.js";
import { unchangedMsOf } from "../lease/observer.js";
import { chooseRecord, isLater } from "../lease/record-choice.js";
import { renewalSeenMs } from "../lease/timings.js";
import { type Clock } from "../port/clock.js";
import { type BatchResult } from "../port/disk.js";
import { type Region } from "../region/open-region.js";
import { NO_STANDING, type ProcedureHost, runProcedure } from "../region/run-procedure.js";
import { type PulseExit } from "./exit-report.js";
import { type HostGeneration, type PulseOptions } from "./options.js";
import { type PulseState } from "./saved-state.js";
import { View } from "./view.js";

export interface EnterTerms {
  readonly region: Region;
  readonly identity: Identity;
  readonly hostId: number | undefined;
  readonly options: PulseOptions;
  /** Of an earlier pulse of this boot that said so when it ended. */
  readonly tornDown: HostGeneration | undefined;
  readonly lastMembership: HostGeneration | undefined;
  readonly clock: Clock;
  readonly log: (message: string) => void;
  readonly signal: AbortSignal;
}

export type Entered =
  | { readonly kind: "member"; readonly membership: Membership; readonly view: View }
  | { readonly kind: "exit"; readonly exit: PulseExit };

/** Races between joiners and slow LUNs are tried again this often; each try takes a second or more. */
const ATTEMPTS_MAX = 10;
const RETRY_PAUSE_MS = 200;

/** What this join has seen so far. */
interface Seen {
  readonly view: View;
  /** The records that a human's `--confirm-off` is about, generations by host id: those that were there when it was said. */
  readonly confirmed: ReadonlyMap<number, bigint>;
}

export async function join(terms: EnterTerms): Promise<Entered> {
  const { region, clock, log, signal, hostId } = terms;
  if (hostId !== undefined && hostId > region.maxHosts) {
    return refused(
      "ERR_NO_SUCH_HOST_ID",
      `there is no host id ${hostId}: the region was made for ${region.maxHosts}`,
      `Give --host-id 1 to ${region.maxHosts}, or leave it out.`,
    );
  }
  const view = new View(region.geometry, region.maxHosts, region.lunSet, region.maxHosts);
  const startedMs = clock.bootMs();
  await look(terms, view);
  const seen: Seen = {
    view,
    confirmed: terms.options.confirmOff ? generationsOf(view) : new Map<number, bigint>(),
  };
  for (let attempt = 1; ;) {
    const outcome = await runProcedure(joinHost(joinTermsOf(terms, seen)), hostOf(terms));
    if (outcome.kind === "joined") {
      log(
        `joined as host ${outcome.membership.hostId}, generation ${outcome.membership.generation}, evidence ${outcome.evidence}`,
      );
      return { kind: "member", membership: outcome.membership, view };
    }
    if (signal.aborted) {
      return refused("ERR_STOPPED", "stopped while joining", "Join again.");
    }
    if (outcome.kind === "not-free") {
      const verdict = await waitForEvidence(terms, seen, outcome, startedMs);
      if (verdict !== undefined) {
        return verdict;
      }
    } else {
      const final = finalOf(outcome);
      if (final !== undefined || attempt >= ATTEMPTS_MAX) {
        return final ?? gaveUp(outcome);
      }
      log(`trying to join again: ${outcome.kind}`);
      attempt++;
      await pause(RETRY_PAUSE_MS * attempt, signal);
    }
    await look(terms, view);
  }
}

function generationsOf(view: View): ReadonlyMap<number, bigint> {
  return new Map(
    view
      .hosts()
      .flatMap(({ hostId, record }): readonly [number, bigint][] =>
        record === undefined ? [] : [[hostId, record.leader.ownerGeneration]],
      ),
  );
}

function joinTermsOf(terms: EnterTerms, seen: Seen): Parameters<typeof joinHost>[0] {
  const { region, identity, hostId, clock, options } = terms;
  return {
    geometry: region.geometry,
    luns: region.lunSet,
    maxHosts: region.maxHosts,
    spaceName: region.spaceName,
    identity,
    timings: region.timings,
    hostId,
    timestamp: BigInt(Math.floor(clock.bootMs() / 1_000)) + 1n,
    // The locks of this state directory were free, so whoever had them has returned from its last I/O.
    predecessorGone: true,
    replacesNamesake: options.confirmOff,
    lastMembership: terms.lastMembership,
    evidenceFor: (id, generation) => {
      const verdict = evidenceFor(terms, seen, id, generation);
      return verdict.kind === "evidence" ? verdict.evidence : undefined;
    },
    unchangedMs: (id, record) => unchangedMsOf(seen.view.host(id), record),
  };
}

function evidenceFor(terms: EnterTerms, seen: Seen, hostId: number, generation: bigint): Verdict {
  const { options, region, clock, tornDown } = terms;
  const { view, confirmed } = seen;
  const own = [options.tornDown, tornDown].find(
    (proof) => proof?.hostId === hostId && proof.generation === generation,
  );
  if (own !== undefined && isOwnOfThisBoot(terms.identity, view.host(hostId).record)) {
    const detail = "this node tore down everything of that generation, in this boot";
    const evidence: Evidence = { kind: "released", hostId, generation, detail };
    return { kind: "evidence", evidence };
  }
  const nowMs = clock.bootMs();
  return judgeHost(
    view.host(hostId),
    generation,
    {
      lunCount: region.lunSet.total,
      vmPauseNever: options.vmPauseNever,
      guardAccepted: options.acceptGuard,
      foreignWatchdog: options.foreignWatchdog,
    },
    confirmed.get(hostId) === generation ? { hostId, generation, confirmedAtMs: nowMs } : undefined,
    nowMs,
  );
}

/** Written by this very node, since the machine started: only then can its own word be about that generation. */
function isOwnOfThisBoot(identity: Identity, record: DeltaSector | undefined): boolean {
  const host = record?.host;
  return (
    host !== undefined &&
    record?.leader.resourceName === identity.name &&
    host.machineIdHash === identity.machineIdHash &&
    host.stateIdHash === identity.stateIdHash &&
    host.bootIdHash === identity.bootIdHash
  );
}

type NotFree = Extract<JoinOutcome, { kind: "not-free" }>;

/** Observes until there is evidence (then undefined: try again), or until it is clear that there will be none. */
async function waitForEvidence(
  terms: EnterTerms,
  seen: Seen,
  found: NotFree,
  startedMs: number,
): Promise<Entered | undefined> {
  const { clock, log, region, signal } = terms;
  const { view } = seen;
  const { hostId, generation, name } = found;
  const first = view.host(hostId).record;
  // Long enough to tell one that renews from one that is silent. A human's word counts only for a host that has been
  // silent for T, so that long nothing is impossible yet.
  const { ttlMs, deadlineMs } = region.timings;
  const patienceMs = terms.options.confirmOff
    ? 2 * ttlMs + deadlineMs
    : renewalSeenMs(first?.host ?? region.timings);
  log(`host id ${hostId} belongs to ${name}, generation ${generation}; observing it for evidence`);
  for (;;) {
    const verdict = verdictOn(terms, seen, found);
    if (verdict.kind === "evidence") {
      return undefined;
    }
    const { record } = view.host(hostId);
    if (record !== undefined && first !== undefined && isLater(record, first)) {
      return inUse(terms.identity, found);
    }
    if (verdict.kind === "impossible" && clock.bootMs() - startedMs >= patienceMs) {
      return refused(
        "ERR_NO_EVIDENCE",
        `${name} (host id ${hostId}) may still be writing: ${verdict.why}`,
        record === undefined
          ? verdict.remedy
          : `${verdict.remedy}. A join that takes its place: --confirm-off`,
      );
    }
    if (signal.aborted) {
      return refused("ERR_STOPPED", "stopped while joining", "Join again.");
    }
    const remainingMs = verdict.kind === "wait" ? verdict.remainingMs + 1 : Infinity;
    await pause(Math.min(remainingMs, region.timings.intervalMs), signal);
    await look(terms, view);
  }
}

/** The node's own record of an earlier boot needs only to stand still for a moment. */
function verdictOn(terms: EnterTerms, seen: Seen, found: NotFree): Verdict {
  const { hostId, generation, rebootAfterMs } = found;
  const verdict = evidenceFor(terms, seen, hostId, generation);
  if (verdict.kind === "evidence" || rebootAfterMs === undefined) {
    return verdict;
  }
  const { unchangedMs } = seen.view.host(hostId);
  if (unchangedMs < rebootAfterMs) {
    return { kind: "wait", remainingMs: rebootAfterMs - unchangedMs, boundMs: rebootAfterMs };
  }
  const detail = `its machine has booted again, and its record has not changed for ${Math.floor(unchangedMs)} ms`;
  return { kind: "evidence", evidence: { kind: "reboot", hostId, generation, detail } };
}

/** Somebody renews the record that was found. */
function inUse(identity: Identity, { hostId, name, rebootAfterMs }: NotFree): Entered {
  if (rebootAfterMs !== undefined) {
    return refused(
      "ERR_CLONED_MACHINE",
      `${name} (host id ${hostId}) is running elsewhere, from a copy of this machine's disk: its record is of another boot, and is renewed`,
      "Switch one of the two off. A copy that is to be a node of its own needs its own machine id (systemd-machine-id-setup), an empty state directory and another --node name.",
    );
  }
  return refused(
    "ERR_HOST_ID_TAKEN",
    `host id ${hostId} is in use by ${name}, which renews it`,
    name === identity.name
      ? "That machine is not off. Give this node another --node name."
      : "Choose another --host-id, or leave it out.",
  );
}

/** What another try cannot change. */
function finalOf(outcome: JoinOutcome): Entered | undefined {
  switch (outcome.kind) {
    case "name-taken":
      return refused(
        "ERR_NAME_TAKEN",
        outcome.why,
        "Give this node another --node name. If it stands in for a machine that is off for good, or has lost its state directory: --confirm-off.",
      );
    case "full":
      return refused(
        "ERR_NO_FREE_HOST_ID",
        `none of the ${outcome.maxHosts} host ids is free`,
        "Let a member leave, or give the host id of one that is off for good with --host-id and --confirm-off.",
      );
    case "damaged":
      return refused(
        "ERR_HOST_RECORD_DAMAGED",
        `the record of host id ${outcome.hostId} cannot be read: ${outcome.reason}`,
        "It may be somebody's. Look at it with `sharedha dump PATH --area lockspace`, or choose another --host-id.",
      );
    default:
      return undefined;
  }
}

function gaveUp(outcome: JoinOutcome): Entered {
  if (outcome.kind === "no-quorum") {
    return exitOf(
      "fault",
      "ERR_NO_QUORUM",
      `no majority of the LUNs answers: ${outcome.why}`,
      "Check the paths to the LUNs.",
    );
  }
  const why =
    outcome.kind === "too-slow"
      ? "the LUN or this machine is too slow"
      : "other nodes were always quicker";
  return refused(
    "ERR_JOIN_RACE",
    `not joined after ${ATTEMPTS_MAX} tries: ${why}`,
    "Try again; `sharedha doctor` measures the LUN.",
  );
}

function refused(code: string, message: string, hint: string): Entered {
  return exitOf("refused", code, message, hint);
}

function exitOf(kind: PulseExit["kind"], code: string, message: string, hint: string): Entered {
  return { kind: "exit", exit: { kind, code, message, hint, torndown: false } };
}

/** One look at lockspace and outboxes on every LUN. */
async function look(terms: EnterTerms, view: View): Promise<void> {
  const { devices, timings } = terms.region;
  const results = await Promise.all(
    devices.map(async (device) => await device.submit(view.readOps(true), timings.deadlineMs)),
  );
  results.forEach((result, lun) => {
    if (result.kind === "done") {
      view.note(lun, result);
    }
  });
}

function hostOf(terms: EnterTerms): ProcedureHost {
  const { region, clock } = terms;
  return {
    devices: region.devices,
    luns: region.lunSet,
    deadlineMs: region.timings.deadlineMs,
    clock,
    standing: () => NO_STANDING,
    post: async () => await Promise.resolve(false),
    arm: async () => await Promise.resolve(false),
  };
}

/**
 * Carries on the generation of `saved`, if the LUNs still show it and the last renewal known is younger than T: the record
 * with the highest timestamp is the one that the old pulse wrote last, for all of its I/O has returned (its locks are free).
 */
export async function resume(
  terms: EnterTerms,
  saved: PulseState,
  resumeAtMs: number,
): Promise<Entered> {
  const { region, clock, options, identity } = terms;
  const { geometry, lunSet, timings } = region;
  const view = new View(geometry, region.maxHosts, lunSet, region.maxHosts);
  await look(terms, view);
  const { hostId, generation } = saved;
  const op = {
    kind: "read",
    offset: deltaOffset(geometry, hostId),
    length: geometry.sectorSize,
  } as const;
  const results = await Promise.all(
    region.devices.map(async (device) => await device.submit([op], timings.deadlineMs)),
  );
  const notResumed = (why: string): Entered => ({
    kind: "exit",
    exit: {
      kind: "not-resumed",
      code: "ERR_NOT_RESUMED",
      message: `generation ${generation} of host ${hostId} cannot be carried on: ${why}`,
      hint: "The daemon tears down what is up and joins again.",
      hostId,
      generation,
      torndown: false,
    },
  });
  const newest = newestOwn(terms, results);
  if (newest.kind === "problem") {
    return notResumed(newest.why);
  }
  const { leader, host } = newest.record;
  if (leader.ownerId !== BigInt(hostId) || leader.ownerGeneration !== generation) {
    return notResumed(
      `the LUNs show generation ${leader.ownerGeneration} of host ${leader.ownerId}`,
    );
  }
  if (!isOwnOfThisBoot(identity, newest.record) || leader.timestamp === 0n) {
    return notResumed("the record on the LUNs is not this node's, or it has left");
  }
  if (options.resumeArmed && host?.armed !== true) {
    return notResumed("the daemon believes it armed, the LUNs do not show that");
  }
  const gapMs = clock.bootMs() - resumeAtMs;
  if (gapMs < 0 || gapMs >= timings.ttlMs) {
    return notResumed(`its last renewal is ${Math.floor(gapMs)} ms old, T is ${timings.ttlMs} ms`);
  }
  return { kind: "member", membership: { hostId, generation, record: newest.record }, view };
}

type NewestOwn =
  | { readonly kind: "record"; readonly record: DeltaSector }
  | { readonly kind: "problem"; readonly why: string };

function newestOwn(terms: EnterTerms, results: readonly BatchResult[]): NewestOwn {
  const { geometry, lunSet } = terms.region;
  const done = doneOn(lunSet, results);
  if (done.length < majorityOf(lunSet)) {
    return { kind: "problem", why: "no majority of the LUNs answers" };
  }
  const records: DeltaSector[] = [];
  for (const batch of done) {
    const sector = batch.reads[0] ?? new Uint8Array(0);
    const decoded = decodeDeltaSector(geometry, sector);
    if (decoded.kind !== "ok" && lunSet.total === 1) {
      return { kind: "problem", why: `the record on the LUN is ${decoded.kind}` };
    }
    // What was read must be what the heartbeat would write, byte for byte, or it would take it for somebody else's.
    if (
      decoded.kind === "ok" &&
      decoded.value.hostState === "ok" &&
      isSame(encodeDeltaSector(geometry, decoded.value), sector)
    ) {
      records.push(decoded.value);
    }
  }
  const { newest } = chooseRecord(records, lunSet.total);
  return newest === undefined
    ? { kind: "problem", why: "no LUN shows a whole record" }
    : { kind: "record", record: newest };
}

async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) {
    return;
  }
  await new Promise<void>((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal.addEventListener("abort", finish, { once: true });
  });
}
