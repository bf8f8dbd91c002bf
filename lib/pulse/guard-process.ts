/** The guard as a process: started detached, found again through its lock file, ended by its exact identity. */
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import {
  isAlive,
  isEnded,
  killExact,
  type ProcessIdentity,
  processStartTime,
  startDetached,
} from "../system/process.js";
import { REALTIME_NODE_FLAGS } from "../system/realtime.js";

/** With a small heap. */
const NODE_FLAGS = [...REALTIME_NODE_FLAGS, "--max-semi-space-size=1", "--max-old-space-size=32"];

/** SIGKILL works at once, also on a stopped process; only one that hangs in the kernel takes longer. */
const END_TIMEOUT_MS = 1_000;
const END_POLL_MS = 5;

/** @param program path of the guard's program, run by this same Node. @throws ERR_SPAWN */
export async function startGuard(stateDir: string, program: string): Promise<void> {
  const log = openSync(join(stateDir, "guard.log"), "a", 0o600);
  try {
    await startDetached(process.execPath, [...NODE_FLAGS, program, "--state-dir", stateDir], {
      stdio: ["ignore", log, log],
    });
  } finally {
    closeSync(log);
  }
}

/** The guard of this state directory, by the pid in its lock file, if that is a guard of this directory indeed. */
export function findGuard(stateDir: string): ProcessIdentity | undefined {
  const pid = Number(readIfThere(join(stateDir, "guard.lock")));
  if (!Number.isInteger(pid) || pid <= 1) {
    return undefined;
  }
  const startTime = processStartTime(pid);
  const isGuard = readIfThere(`/proc/${pid}/cmdline`).endsWith(`\0--state-dir\0${stateDir}\0`);
  if (startTime === undefined || !isGuard) {
    return undefined;
  }
  const identity = { pid, startTime };
  // The command line was read of this process, and not of one that got its number meanwhile.
  return isAlive(identity) ? identity : undefined;
}

/** Ends a guard that does not answer, by SIGKILL; resolves when its lock and socket are free. @throws ERR_GUARD, ERR_KILL */
export async function endGuard(guard: ProcessIdentity, bootMs: () => number): Promise<void> {
  killExact(guard, "SIGKILL");
  const giveUpAtMs = bootMs() + END_TIMEOUT_MS;
  while (!isEnded(guard)) {
    if (bootMs() > giveUpAtMs) {
      throw guardError(
        `the guard (pid ${guard.pid}) does not end: it hangs in the kernel`,
        undefined,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, END_POLL_MS));
  }
}

export function guardError(why: string, cause: unknown): ShareHaError {
  return new ShareHaError("ERR_GUARD", why, {
    hint: "See guard.log and guard-expired.json in the state directory.",
    cause,
  });
}

/** The guard answered, and said no: it runs, and may be acting. */
export function guardRefusal(why: string): ShareHaError {
  return new ShareHaError("ERR_GUARD_REFUSED", `the guard refused: ${why}`, {
    hint: "See guard.log and guard-expired.json in the state directory.",
  });
}

export function isRefusal(error: unknown): boolean {
  return error instanceof ShareHaError && error.code === "ERR_GUARD_REFUSED";
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ESRCH") {
      return "";
    }
    throw error;
  }
}
