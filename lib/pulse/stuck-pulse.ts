/** An earlier pulse of this node that was killed and still hangs in the kernel: its I/O may land at any time. */
import { closeSync } from "node:fs";
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import { tryFileLock } from "../system/file-lock.js";
import { processStartTime } from "../system/process.js";

/**
 * To be asked before anything of this node touches the LUNs (DESIGN section 4: no second I/O from a new process). A killed
 * process is a zombie for everybody who looks, but a thread of it that waits for the LUN keeps its files open, and so its
 * lock. A pulse that lives and holds the lock is no trouble: the daemon adopts it.
 * @throws ERR_LUN_BUSY with the process
 */
export function refuseStuckPulse(stateDir: string): void {
  const lock = tryFileLock(join(stateDir, "pulse.lock"));
  if (lock.kind === "locked") {
    closeSync(lock.fd);
    return;
  }
  const pid = Number(lock.holder);
  if (Number.isInteger(pid) && pid > 0 && processStartTime(pid) === undefined) {
    throw new ShareHaError(
      "ERR_LUN_BUSY",
      `the earlier pulse of this node, process ${pid}, was killed but hangs in the kernel: its I/O may still land on the LUN`,
      {
        hint: "Repair the path to the LUN, so that the kernel gives it back, or restart the machine; then join again.",
        fields: { pid },
      },
    );
  }
}
