/**
 * The victim's side (DESIGN section 8): what this node does when it has lost its right to write, within W - T. Whoever uses
 * the file systems is sent SIGKILL, because fsync(2) may lie to a process during the cut, and a killed one cannot pass it on
 * (see guard/expiry.ts); at once the data path is cut, because everything after that could flush; then who came meanwhile
 * is killed, and the dead file system is unmounted. What is not finished in time is finished by the watchdog, and a node with
 * something left over does not join again: also a copy of the mount elsewhere, or a program that has the device to itself.
 */
import { type ProcessId } from "../pulse/messages.js";
import { type MountTarget } from "../system/mounted-filesystem.js";

export interface TeardownEdges {
  bootMs(): number;
  /** Makes every access fail at once, without flushing; bounded. */
  cut(
    targets: readonly MountTarget[],
    boundMs: number,
  ): Promise<readonly { readonly kind: "cut" | "not-mounted" | "failed"; readonly why: string }[]>;
  /** Exact processes that use these file systems, as many as can be found in this time. Never rejects. */
  usersOf(targets: readonly MountTarget[], boundMs: number): Promise<readonly ProcessId[]>;
  /** Never throws. */
  kill(process: ProcessId): void;
  /** Never rejects: "unmounted", "not-mounted", or why not. */
  unmount(path: string, timeoutMs: number): Promise<string>;
  /** Never rejects. */
  detach(path: string): Promise<void>;
  /** Who keeps the device or the file system there alive, in one sentence. Never throws. */
  useOf(path: string): string | undefined;
  pause(ms: number): Promise<void>;
}

export interface TeardownPlan {
  readonly mounts: readonly MountTarget[];
  /** W - T: what is not done by then is the watchdog's. */
  readonly boundMs: number;
}

export interface TeardownReport {
  readonly tookMs: number;
  /** What is left, one sentence each; empty when nothing is. */
  readonly left: readonly string[];
  readonly steps: readonly string[];
}

/** The cut does not wait longer for those who are to be killed first; an eighth of W - T where that is less. */
export const USERS_BOUND_MS = 250;
const UNMOUNT_PAUSE_MS = 50;

export async function tearDown(plan: TeardownPlan, edges: TeardownEdges): Promise<TeardownReport> {
  const startedMs = edges.bootMs();
  const untilMs = startedMs + plan.boundMs;
  const steps: string[] = [];
  const usersBoundMs = Math.min(USERS_BOUND_MS, plan.boundMs / 8);
  await killUsers(plan.mounts, usersBoundMs, edges);
  const outcomes = await edges.cut(plan.mounts, Math.max(50, plan.boundMs / 4));
  const mounts = plan.mounts.map((target, index) => {
    const { kind, why } = outcomes[index] ?? { kind: "failed" as const, why: "no answer" };
    steps.push(`cut ${target.path}: ${kind}, ${why}`);
    return { target, kind };
  });
  const left: string[] = [];
  for (const { target, kind } of mounts) {
    const { path } = target;
    if (kind === "failed") {
      // An unmount would write what is dirty, and nobody may write any more.
      left.push(`${path} could not be cut`);
      continue;
    }
    const outcome = kind === "cut" ? await unmountDead(target, untilMs, edges) : "not-mounted";
    steps.push(`unmount ${path}: ${outcome}`);
    if (outcome === "unmounted" || outcome === "not-mounted") {
      await edges.detach(path);
      const use = edges.useOf(path);
      if (use !== undefined) {
        left.push(use);
      }
    } else {
      left.push(`${path} is cut, but still mounted: ${outcome}`);
    }
  }
  return { tookMs: edges.bootMs() - startedMs, left, steps };
}

async function killUsers(
  targets: readonly MountTarget[],
  boundMs: number,
  edges: TeardownEdges,
): Promise<void> {
  for (const process of await edges.usersOf(targets, boundMs)) {
    edges.kill(process);
  }
}

async function unmountDead(
  target: MountTarget,
  untilMs: number,
  edges: TeardownEdges,
): Promise<string> {
  for (;;) {
    await killUsers([target], USERS_BOUND_MS, edges);
    const restMs = Math.max(200, untilMs - edges.bootMs());
    const outcome = await edges.unmount(target.path, restMs);
    const isDone = outcome === "unmounted" || outcome === "not-mounted";
    if (isDone || edges.bootMs() >= untilMs) {
      return outcome;
    }
    // The killed ones take a moment to let go of their files.
    await edges.pause(UNMOUNT_PAUSE_MS);
  }
}
