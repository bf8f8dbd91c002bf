/** `sharedha-pulse`: composes the parts, from the locks of the state directory to the last exit code. */
import { join as joinPath } from "node:path";

import { ShareHaError } from "../errors.js";
import { encodeDeltaSector } from "../format/delta-sector.js";
import { type Membership } from "../lease/delta-lease.js";
import { petWindowMs } from "../lease/timings.js";
import { listenUnix } from "../net/unix-server.js";
import { type Clock } from "../port/clock.js";
import { openRegion, type Region } from "../region/open-region.js";
import { createClock } from "../system/clock.js";
import { endProcess } from "../system/end-process.js";
import { tryFileLock } from "../system/file-lock.js";
import { hash64, readBootId } from "../system/machine.js";
import { ownIdentity } from "../system/process.js";
import { lockFileMappings, makeThreadRealtime } from "../system/realtime.js";
import { currentPaths } from "../san/current-paths.js";
import { openStateDir } from "../system/state-dir.js";
import { type Entered, type EnterTerms, join, resume } from "./enter.js";
import { PULSE_EXIT, type PulseExit, readTornDown, writeExit } from "./exit-report.js";
import { nodeIdentity } from "./identity.js";
import { readLastMembership, saveLastMembership } from "./last-membership.js";
import { openLog } from "./log.js";
import { Member } from "./member.js";
import { type ProcessId } from "./messages.js";
import {
  type HostGeneration,
  type NodeSettings,
  parsePulseOptions,
  type PulseOptions,
  readNodeSettings,
} from "./options.js";
import { kindOfRecord, openPetter, type PetterGround, watchdogOf } from "./open-petter.js";
import { type Petter } from "./petter.js";
import {
  type PulseState,
  readPulseState,
  removePulseState,
  savePulseState,
  saveProtected,
} from "./saved-state.js";
import { PulseService } from "./service.js";

const HOUSE_MS = 1_000;
const REPROBE_EVERY = 5;
const LOCK_POLL_MS = 50;
const LUN_LOCK_WAIT_MS = 10_000;
/** For the last answers to get out. */
const FAREWELL_MS = 50;

/** What is known from the start to the end. */
interface Ground {
  readonly options: PulseOptions;
  readonly settings: NodeSettings;
  readonly stateId: string;
  readonly bootIdHash: bigint;
  readonly self: ProcessId;
  readonly clock: Clock;
  readonly log: (message: string) => void;
  readonly stop: AbortController;
}

/** Runs as long as the membership; ends the process with one of PULSE_EXIT. */
export async function runPulse(args: readonly string[]): Promise<void> {
  let options: PulseOptions;
  try {
    options = parsePulseOptions(args);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(PULSE_EXIT.usage);
  }
  const bootIdHash = hash64(readBootId());
  let region: Region | undefined;
  const end = (exit: PulseExit): void => {
    finish(options.stateDir, exit, bootIdHash, region);
  };
  process.on("uncaughtException", (error) => {
    end(defectExit(error));
  });
  try {
    const ground = await prepare(options, bootIdHash);
    region = await openRegion({
      paths: currentPaths(ground.settings),
      stateDir: options.stateDir,
      lockName: "pulse",
      lockWaitMs: LUN_LOCK_WAIT_MS,
      realtime: true,
    });
    const exit = await live(ground, region, end);
    if (exit !== undefined) {
      end(exit);
    }
  } catch (error) {
    end(error instanceof ShareHaError ? faultExit(error) : defectExit(error));
  }
}

async function prepare(options: PulseOptions, bootIdHash: bigint): Promise<Ground> {
  const { stateId } = openStateDir(options.stateDir);
  const settings = readNodeSettings(options.stateDir);
  const log = openLog(options.stateDir);
  const stop = new AbortController();
  const own = ownIdentity();
  process.once("SIGTERM", () => {
    stop.abort();
  });
  await takeOwnLock(options.stateDir, log, stop.signal);
  const realtime = makeThreadRealtime();
  const locked = lockFileMappings();
  log(
    `pid ${own.pid}, scheduling ${realtime.kind}, ${Math.round(locked.lockedBytes / 1024)} KiB of memory locked`,
  );
  return {
    options,
    settings,
    stateId,
    bootIdHash,
    self: { pid: own.pid, startTime: String(own.startTime) },
    clock: createClock(),
    log,
    stop,
  };
}

/** One pulse per state directory. An earlier one that hangs in the kernel keeps the lock, and so keeps this one waiting. */
async function takeOwnLock(
  stateDir: string,
  log: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  for (let waited = false; ; waited = true) {
    const lock = tryFileLock(joinPath(stateDir, "pulse.lock"));
    if (lock.kind === "locked") {
      return;
    }
    if (!waited) {
      log(`waiting for the earlier pulse, process ${lock.holder}, to end`);
    }
    if (signal.aborted) {
      throw new ShareHaError("ERR_STOPPED", "stopped while waiting for the earlier pulse", {
        hint: "The earlier pulse goes on.",
      });
    }
    await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_MS));
  }
}

/** Joins or resumes, then renews until it ends through `end`; an exit that is returned happened before that. */
async function live(
  ground: Ground,
  region: Region,
  end: (exit: PulseExit) => void,
): Promise<PulseExit | undefined> {
  const { options, settings, bootIdHash, clock, log, stop } = ground;
  const { resumeAtMs } = options;
  const saved = resumeAtMs === undefined ? undefined : readSaved(ground);
  if (resumeAtMs !== undefined && saved === undefined) {
    return notResumed("there is no state of a pulse of this boot to carry on from");
  }
  const petterGround: PetterGround = {
    stateDir: options.stateDir,
    bootIdHash,
    self: ground.self,
    clock,
    log,
    wanted: settings.watchdog,
  };
  const kind = saved === undefined ? watchdogOf(petterGround, region) : kindOfRecord(region, saved);
  const terms: EnterTerms = {
    region,
    identity: nodeIdentity(settings.node, ground.stateId, kind.kind),
    hostId: settings.hostId,
    options,
    tornDown: readTornDown(options.stateDir, bootIdHash),
    lastMembership: lastMembershipOf(ground),
    clock,
    log,
    signal: stop.signal,
  };
  const entered =
    saved === undefined || resumeAtMs === undefined
      ? await join(terms)
      : await resume(terms, saved, resumeAtMs);
  if (entered.kind === "exit") {
    return entered.exit;
  }
  const state: PulseState = {
    pid: ground.self.pid,
    startTime: ground.self.startTime,
    hostId: entered.membership.hostId,
    generation: entered.membership.generation,
    bootIdHash,
    node: settings.node,
    joinEvidence: joinEvidenceOf(entered.membership),
    record: encodeDeltaSector(region.geometry, entered.membership.record),
    keeper: saved?.keeper,
  };
  // Before it can arm: what it may come to hold must be known as a member's.
  saveLastMembership(options.stateDir, entered.membership);
  savePulseState(options.stateDir, state);
  const serving: { member: Member | undefined } = { member: undefined };
  const petter = await openPetter(petterGround, region, kind, state, (why) => {
    serving.member?.lose(why);
  });
  if (saved === undefined) {
    await petter.settle();
  } else if (entered.membership.record.host?.armed === true && resumeAtMs !== undefined) {
    try {
      await petter.resume(resumeAtMs + petWindowMs(region.timings, region.lunSet.total));
    } catch (error) {
      return notResumed(`the watchdog cannot be taken over: ${messageOf(error)}`, state);
    }
  }
  serving.member = await serve(ground, region, entered, petter.petter, end, resumeAtMs);
  return undefined;
}

async function serve(
  ground: Ground,
  region: Region,
  entered: Extract<Entered, { kind: "member" }>,
  petter: Petter,
  end: (exit: PulseExit) => void,
  resumedAtMs: number | undefined,
): Promise<Member> {
  const { options, bootIdHash, log } = ground;
  const { membership, view } = entered;
  const onEnd = (exit: PulseExit): void => {
    clearInterval(house);
    listening.close();
    removePulseState(options.stateDir);
    // The answer to the `leave` that caused this is sent first.
    setTimeout(() => {
      service.close();
      end(exit);
    }, FAREWELL_MS);
  };
  const member: Member = new Member({
    region,
    membership,
    joinEvidence: joinEvidenceOf(membership),
    found: view.outbox(membership.hostId),
    resumedAtMs,
    waitForWatch: resumedAtMs !== undefined && membership.record.host?.armed === true,
    petter,
    self: ground.self,
    clock: ground.clock,
    log,
    onBeat: () => {
      if (service.hasConnections) {
        service.sendBeat(member.beat());
      }
    },
    onEnd,
    onDefect: (error) => {
      end(defectExit(error));
    },
    saveProtected: (protect) => {
      saveProtected(options.stateDir, protect, bootIdHash);
    },
  });
  const service = new PulseService(member, log);
  const listening = await listenUnix(joinPath(options.stateDir, "pulse.sock"), (socket) => {
    service.accept(socket);
  });
  let rounds = 0;
  const house = setInterval(() => {
    service.sendPing();
    member.keepHouse();
    if (++rounds % REPROBE_EVERY === 0 && region.lunSet.counts.includes(false)) {
      lookAtLunsAgain(region, log);
    }
  }, HOUSE_MS);
  process.removeAllListeners("SIGTERM");
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      void member.terminate();
    });
  }
  if (ground.stop.signal.aborted) {
    void member.terminate();
  }
  member.start();
  return member;
}

function lookAtLunsAgain(region: Region, log: (message: string) => void): void {
  region.reprobe().then(
    ({ changed, notes }) => {
      if (changed) {
        log(`the LUNs that count changed: ${notes.join(" ")}`);
      }
    },
    (error: unknown) => {
      log(`looking at the LUNs again failed: ${messageOf(error)}`);
    },
  );
}

/** Without it nothing is concluded from an own record: safe, and then a human has to say that the earlier one is off. */
function lastMembershipOf(ground: Ground): HostGeneration | undefined {
  try {
    return readLastMembership(ground.options.stateDir);
  } catch (error) {
    ground.log(`member.json cannot be used: ${messageOf(error)}`);
    return undefined;
  }
}

function readSaved(ground: Ground): PulseState | undefined {
  try {
    return readPulseState(ground.options.stateDir, ground.bootIdHash);
  } catch (error) {
    ground.log(`pulse.json cannot be used: ${messageOf(error)}`);
    return undefined;
  }
}

function joinEvidenceOf(membership: Membership): string {
  return membership.record.host?.joinEvidence ?? "none";
}

function notResumed(why: string, state?: PulseState): PulseExit {
  return {
    kind: "not-resumed",
    code: "ERR_NOT_RESUMED",
    message: why,
    hint: "The daemon tears down what is up and joins again.",
    torndown: false,
    ...(state === undefined ? {} : { hostId: state.hostId, generation: state.generation }),
  };
}

function faultExit(error: ShareHaError): PulseExit {
  const { code, message, hint } = error;
  return { kind: exitKindOf(error), code, message, hint, torndown: false };
}

function exitKindOf({ code, fields }: ShareHaError): PulseExit["kind"] {
  if (code === "ERR_NODE_SETTINGS") {
    return "usage";
  }
  // A watchdog that was asked for and is not there does not come by trying again.
  return code === "ERR_WATCHDOG" && fields["inUse"] !== true ? "refused" : "fault";
}

function defectExit(error: unknown): PulseExit {
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  const hint = "A defect of the program. Please report it.";
  return { kind: "defect", code: "ERR_DEFECT", message, hint, torndown: false };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

let finishing = false;

function finish(
  stateDir: string,
  exit: PulseExit,
  bootIdHash: bigint,
  region: Region | undefined,
): void {
  if (finishing) {
    return;
  }
  finishing = true;
  try {
    writeExit(stateDir, exit, bootIdHash);
  } catch (error) {
    process.stderr.write(`pulse-exit.json: ${messageOf(error)}\n${exit.code}: ${exit.message}\n`);
  }
  // `process.exit` waits for its threads, and one that hangs in the kernel does not end: then only SIGKILL is left, and
  // the locks stay with the thread until the kernel gives it back.
  if (region?.devices.some((device) => device.stuck) === true) {
    process.kill(process.pid, "SIGKILL");
  }
  endProcess(PULSE_EXIT[exit.kind]);
}
