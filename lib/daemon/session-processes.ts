/**
 * Processes that must not outlive a lease: what a client registered, with everything that runs in its session. A session
 * is found by the number of its leader in /proc, and every process is named by pid and start time before it is signalled.
 */
import { ShareHaError } from "../errors.js";
import { type ProcessId } from "../pulse/messages.js";
import { isAlive, killExact } from "../system/process.js";
import { readSessionStat, sessionMembers } from "../system/sessions.js";

/** @throws ERR_NO_SUCH_PROCESS, ERR_NOT_A_SESSION */
export function identifySession(pid: number): ProcessId {
  const stat = readSessionStat(pid);
  if (stat === undefined || stat.isOver) {
    throw new ShareHaError("ERR_NO_SUCH_PROCESS", `there is no process ${pid}`, {
      hint: "It has ended already, or it runs in another pid namespace.",
      fields: { pid },
    });
  }
  if (stat.session !== pid) {
    throw new ShareHaError(
      "ERR_NOT_A_SESSION",
      `process ${pid} does not lead a session of its own`,
      {
        hint: "Start it with setsid; otherwise more than it would have to be killed.",
        fields: { pid },
      },
    );
  }
  return { pid, startTime: stat.startTime };
}

export function killProcess(process: ProcessId): "sent" | "gone" {
  return killExact({ pid: process.pid, startTime: BigInt(process.startTime) }, "SIGKILL");
}

export function isProcessAlive(process: ProcessId): boolean {
  return isAlive({ pid: process.pid, startTime: BigInt(process.startTime) });
}

/**
 * Kills the sessions until nothing of them is left: new members may be born while the old ones are signalled.
 * @returns what is left after `boundMs` (hanging in the kernel)
 */
export async function endSessions(
  leaders: readonly ProcessId[],
  boundMs: number,
): Promise<readonly ProcessId[]> {
  for (let waitedMs = 0; ; waitedMs += 10) {
    const members = sessionMembers(leaders);
    if (members.length === 0 || waitedMs >= boundMs) {
      return members;
    }
    for (const member of members) {
      killProcess(member);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
