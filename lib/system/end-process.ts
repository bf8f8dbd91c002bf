/** Ending a process that may have a thread in the kernel. */
import { alarm } from "./libc.js";

/** What `exit` handlers and threads that are not stuck may take. */
const PATIENCE_S = 2;

/**
 * `process.exit`, which first waits for every worker thread, and for one that waits for a LUN as long as that takes. After
 * two seconds the kernel ends the process (SIGALRM, whose default action Node leaves in place): that also frees a thread
 * whose wait can be killed. One that cannot be killed keeps the process, and so its locks, until its I/O has returned,
 * which is what the locks are for. The exit code is then lost, so whoever needs it writes it down first.
 */
export function endProcess(exitCode: number): never {
  alarm(PATIENCE_S);
  process.exit(exitCode);
}
