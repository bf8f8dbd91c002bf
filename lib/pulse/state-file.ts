/** Reading the small files that the processes of a node leave for each other (written by system/state-dir). */
import { readFileSync, rmSync } from "node:fs";
import { join } from "node:path";

/** Larger ones are not ours. */
const STATE_BYTES_MAX = 1024 * 1024;

/** The file's JSON, undefined when there is no such file. @throws Error for anything else than a bounded JSON text */
export function readJsonFile(directory: string, name: string): unknown {
  let text: string;
  try {
    text = readFileSync(join(directory, name), "utf8");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
  if (text.length > STATE_BYTES_MAX) {
    throw new Error(`${name} has ${text.length} characters`);
  }
  return JSON.parse(text) as unknown;
}

export function removeFile(directory: string, name: string): void {
  rmSync(join(directory, name), { force: true });
}
