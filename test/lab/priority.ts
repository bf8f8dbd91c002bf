/**
 * Four emulated machines on two cores, and in tests with a lease that lives three seconds: while one of them boots, the
 * others must not stand still for as long, and neither when something else works on this host. A real cluster's members
 * have a processor each.
 */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { setPriority } from "node:os";

/** As of nice(2). */
export const NICE = { working: -10, booting: 5 } as const;

let isRefused = false;

/** Of every thread of a process, and where the kernel schedules by sessions (sched(7), autogroup), of its session. */
export function setNice(pid: number, nice: number): void {
  try {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      setPriority(Number(thread), nice);
    }
    const autogroup = `/proc/${pid}/autogroup`;
    if (existsSync(autogroup)) {
      writeFileSync(autogroup, String(nice));
    }
  } catch (error) {
    // A thread or all of the process may have just ended; a container may not be allowed to do this.
    if (!isRefused && existsSync(`/proc/${pid}`)) {
      const why = error instanceof Error ? error.message : String(error);
      process.stderr.write(`lab: nice ${nice} for ${pid}: ${why}; nodes may lose leases\n`);
      isRefused = true;
    }
  }
}
