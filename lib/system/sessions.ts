/**
 * Who belongs to a session: found by the number of its leader in /proc, and named by pid and start time, so that nobody else
 * is signalled.
 */
import { readdirSync, readFileSync } from "node:fs";

export interface SessionProcess {
  readonly pid: number;
  /** Ticks since boot, decimal. */
  readonly startTime: string;
}

interface Stat {
  readonly pid: number;
  readonly session: number;
  readonly startTime: string;
  readonly isOver: boolean;
}

/** proc_pid_stat(5): the name in parentheses may hold anything, so fields are counted from the last ")". */
function parseStat(pid: number, text: string): Stat | undefined {
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, , , session] = fields;
  const startTime = fields[19];
  if (state === undefined || session === undefined || startTime === undefined) {
    return undefined;
  }
  return { pid, session: Number(session), startTime, isOver: state === "Z" || state === "X" };
}

export function readSessionStat(pid: number): Stat | undefined {
  try {
    return parseStat(pid, readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ESRCH") {
      return undefined;
    }
    throw error;
  }
}

/** Everything of the sessions that these processes lead (or led: members outlive their leader), the leaders included. */
export function sessionMembers(leaders: readonly SessionProcess[]): readonly SessionProcess[] {
  const sessions = new Map(leaders.map((leader) => [leader.pid, BigInt(leader.startTime)]));
  if (sessions.size === 0) {
    return [];
  }
  const stats = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((name) => readSessionStat(Number(name)))
    .filter((stat) => stat !== undefined);
  for (const stat of stats) {
    // The number of a session that is over may be used again, by a later process: then nothing is left of the session.
    const since = sessions.get(stat.pid);
    if (since !== undefined && BigInt(stat.startTime) !== since) {
      sessions.delete(stat.pid);
    }
  }
  return stats
    .filter((stat) => {
      const since = sessions.get(stat.session);
      return since !== undefined && !stat.isOver && BigInt(stat.startTime) >= since;
    })
    .map(({ pid, startTime }) => ({ pid, startTime }));
}
