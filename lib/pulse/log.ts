/** `pulse.log`: transitions only, from the main thread only, never on the path of a beat. */
import bunyan from "bunyan";
import { renameSync, statSync } from "node:fs";
import { join } from "node:path";

const LOG_BYTES_MAX = 8 * 1024 * 1024;

export function openLog(stateDir: string): (message: string) => void {
  const path = join(stateDir, "pulse.log");
  const found = statSync(path, { throwIfNoEntry: false });
  if (found !== undefined && found.size > LOG_BYTES_MAX) {
    renameSync(path, `${path}.1`);
  }
  const logger = bunyan.createLogger({ name: "sharedha-pulse", streams: [{ path }] });
  // A full disk must not end the heartbeat.
  logger.on("error", (error: unknown) => {
    process.stderr.write(`pulse.log: ${error instanceof Error ? error.message : String(error)}\n`);
  });
  return (message) => {
    logger.info(message);
  };
}
