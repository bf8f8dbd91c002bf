/** What the guard's expiry does to the machine: signals, the cut, the unmount. */
import { type Clock } from "../port/clock.js";
import { type ProcessId } from "../pulse/messages.js";
import { unmount } from "../system/filesystem.js";
import { killExact } from "../system/process.js";
import { sessionMembers } from "../system/sessions.js";
import { type Cutter } from "./cutter.js";
import { type ExpiryEdges } from "./expiry.js";
import { type UserFinder } from "./user-finder.js";

const KILL_ROUNDS_MAX = 5;

export function edgesOf(
  cutter: Pick<Cutter, "cut">,
  finder: Pick<UserFinder, "found">,
  clock: Clock,
): ExpiryEdges {
  return {
    bootMs: () => clock.bootMs(),
    cut: async (targets, boundMs) => await cutter.cut(targets, boundMs),
    users: () => finder.found,
    kill: killAndTell,
    killSession: killWithSession,
    unmount: async (path, timeoutMs) => {
      try {
        return await unmount(path, { timeoutMs });
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
    },
    pause: async (ms) => {
      await new Promise((resolve) => setTimeout(resolve, ms));
    },
  };
}

/**
 * The process, then what it started: its session may have grown since the daemon sent the list, and a daemon that does not
 * run cannot send another.
 */
function killWithSession(target: ProcessId): string {
  const outcome = killAndTell(target);
  let others = 0;
  // Bounded: one that hangs in the kernel stays, and the next rounds find what was just being started.
  for (let round = 1; round <= KILL_ROUNDS_MAX; round++) {
    const members = membersOf(target);
    if (members.length === 0) {
      break;
    }
    others = Math.max(others, members.length);
    for (const member of members) {
      killAndTell(member);
    }
  }
  return others === 0 ? outcome : `${outcome}, and ${others} of its session`;
}

/** Without a list of processes the others are killed all the same. */
function membersOf(target: ProcessId): readonly ProcessId[] {
  try {
    return sessionMembers([target]).filter((member) => member.pid !== target.pid);
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return [];
  }
}

function killAndTell(target: ProcessId): string {
  try {
    return killExact({ pid: target.pid, startTime: BigInt(target.startTime) }, "SIGKILL");
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
