/**
 * Why a daemon that `join` started has ended: `sharedhad-exit.json` in the state directory, so that the command can say it
 * with its own code and remedy.
 */
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import { readJsonFile } from "../pulse/state-file.js";
import { writeFileAtomic } from "../system/state-dir.js";

const EXIT_FILE = "sharedhad-exit.json";

/** Never throws: the reason is on standard error already, and the state directory itself may be the trouble. */
export function noteExit(stateDir: string, reason: unknown): void {
  if (!(reason instanceof ShareHaError)) {
    return;
  }
  const { code, message, hint, fields } = reason;
  const body = { pid: process.pid, code, message, hint, fields };
  try {
    writeFileAtomic(join(stateDir, EXIT_FILE), `${JSON.stringify(body)}\n`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    process.stderr.write(`${EXIT_FILE} was not written: ${why}\n`);
  }
}

/** @returns undefined when this daemon left no reason, or none that can be read */
export function readDaemonExit(stateDir: string, pid: number): ShareHaError | undefined {
  let found: unknown;
  try {
    found = readJsonFile(stateDir, EXIT_FILE);
  } catch {
    return undefined;
  }
  if (typeof found !== "object" || found === null) {
    return undefined;
  }
  const { pid: writer, code, message, hint } = found as Record<string, unknown>;
  const isWhole =
    typeof code === "string" && typeof message === "string" && typeof hint === "string";
  return isWhole && writer === pid ? new ShareHaError(code, message, { hint }) : undefined;
}
