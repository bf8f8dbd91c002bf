/**
 * What the guard does when its time has come (DESIGN section 5 and 8, hazard H3). The order is the point:
 *
 * 1. SIGKILL to whoever is known to write. A process that is inside fsync(2) while the file system is shut down may be told
 *    that everything is written although it is not (ext4, measured); one that has been sent SIGKILL never returns from the
 *    call, so it can tell nobody. To send the signals takes microseconds and flushes nothing.
 * 2. In the same moment the data path is made to fail, so that nothing that is closed or unmounted afterwards can flush.
 * 3. Everybody else is killed, and only what was cut is unmounted, because any other unmount would write.
 */
import { type ProcessId, type Protected } from "../pulse/messages.js";
import { type CutOutcome } from "../system/cut-mount.js";
import { type MountTarget } from "../system/mounted-filesystem.js";

export interface ExpiryEdges {
  bootMs(): number;
  /** All at once, bounded. */
  cut(targets: readonly MountTarget[], boundMs: number): Promise<readonly CutOutcome[]>;
  /** Who has been found by now to use the mounts. Nobody is looked for before the cut: that takes long, and may block. */
  users(): readonly ProcessId[];
  /** This process alone, at once. Never throws: "sent", "gone", or why not. */
  kill(process: ProcessId): string;
  /** The process and everything that it has started. Never throws. */
  killSession(process: ProcessId): string;
  /** Never rejects: "unmounted", "not-mounted", or why not. */
  unmount(path: string, timeoutMs: number): Promise<string>;
  pause(ms: number): Promise<void>;
}

export interface ExpiryReport {
  readonly expiredAtMs: number;
  readonly actedAtMs: number;
  /** When every mount had been cut and every process been sent SIGKILL. */
  readonly silencedAtMs: number;
  readonly mounts: readonly {
    readonly path: string;
    readonly outcome: CutOutcome["kind"];
    readonly why: string;
    readonly unmounted: string;
  }[];
  /** Before the cut. */
  readonly killedFirst: readonly Killed[];
  readonly processes: readonly Killed[];
}

export interface Killed {
  readonly pid: number;
  readonly outcome: string;
}

/** So late the cut may come at most because there are many to kill first: some 600 processes. */
export const KILL_FIRST_BOUND_MS = 20;

/** A hung device must not keep the processes alive. */
export const CUT_BOUND_MS = 300;
const UNMOUNT_TIMEOUT_MS = 2_000;
const UNMOUNT_ATTEMPTS = 10;
const UNMOUNT_PAUSE_MS = 100;

export async function expire(
  protect: Protected,
  expiredAtMs: number,
  edges: ExpiryEdges,
): Promise<ExpiryReport> {
  const actedAtMs = edges.bootMs();
  const killedFirst = killFirst([...edges.users(), ...protect.processes], actedAtMs, edges);
  const outcomes = new Map<MountTarget, CutOutcome>();
  await cutRound(protect.mounts, outcomes, edges);
  const processes = [
    ...protect.processes.map(({ pid, startTime }) => ({
      pid,
      outcome: edges.killSession({ pid, startTime }),
    })),
    // Also those who were found only now.
    ...edges.users().map((user) => ({ pid: user.pid, outcome: edges.kill(user) })),
  ];
  const silencedAtMs = edges.bootMs();
  // A mount(8) that was under way when the daemon was killed may finish after the first round.
  await cutRound(protect.mounts, outcomes, edges);
  const mounts: ExpiryReport["mounts"][number][] = [];
  for (const target of protect.mounts) {
    const { kind, why } = outcomes.get(target) ?? { kind: "failed" as const, why: "was not tried" };
    const unmounted = await unmountDead(target.path, kind, edges);
    mounts.push({ path: target.path, outcome: kind, why, unmounted });
  }
  return { expiredAtMs, actedAtMs, silencedAtMs, mounts, killedFirst, processes };
}

/** The users of the mounts come first: they are the ones who may be inside a call. */
function killFirst(
  known: readonly ProcessId[],
  startedAtMs: number,
  edges: ExpiryEdges,
): readonly Killed[] {
  const killed: Killed[] = [];
  for (const process of known) {
    if (edges.bootMs() - startedAtMs >= KILL_FIRST_BOUND_MS) {
      break;
    }
    killed.push({ pid: process.pid, outcome: edges.kill(process) });
  }
  return killed;
}

async function cutRound(
  targets: readonly MountTarget[],
  outcomes: Map<MountTarget, CutOutcome>,
  edges: ExpiryEdges,
): Promise<void> {
  const open = targets.filter((target) => outcomes.get(target)?.kind !== "cut");
  if (open.length === 0) {
    return;
  }
  for (const [index, outcome] of (await edges.cut(open, CUT_BOUND_MS)).entries()) {
    const target = open[index];
    if (target !== undefined) {
      outcomes.set(target, outcome);
    }
  }
}

/** The killed processes take a moment to let go of their files. */
async function unmountDead(
  path: string,
  kind: CutOutcome["kind"],
  edges: ExpiryEdges,
): Promise<string> {
  if (kind !== "cut") {
    return kind === "not-mounted"
      ? "not-mounted"
      : "left alone: it was not cut, and an unmount would write what is dirty";
  }
  let result = "was not tried";
  for (let attempt = 1; attempt <= UNMOUNT_ATTEMPTS; attempt++) {
    result = await edges.unmount(path, UNMOUNT_TIMEOUT_MS);
    if (result === "unmounted" || result === "not-mounted") {
      break;
    }
    await edges.pause(UNMOUNT_PAUSE_MS);
  }
  return result;
}
