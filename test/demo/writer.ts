/**
 * The demo's service: appends numbered records, each flushed to the device before it is acknowledged on stdout.
 *
 *   writer FILE FIRST --state-dir DIR      (the directory only names the node this process belongs to)
 */
import { fsyncSync, openSync, writeSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

const [path = "", first = "1"] = process.argv.slice(2);
const file = openSync(path, "a");
for (let record = Number(first); ; record++) {
  try {
    writeSync(file, `${record}\n`);
    fsyncSync(file);
  } catch (error) {
    process.stderr.write(`record ${record} was not written: ${String(error)}\n`);
    process.exit(1);
  }
  process.stdout.write(`${record}\n`);
  await pause(10);
}
