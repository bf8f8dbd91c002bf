/**
 * The service of the end-to-end tests, run in a guest: appends numbered records to FILE, each flushed to the device before it
 * is acknowledged on standard output. It goes on after the last record that it finds, so the numbers of all writers of one
 * file form one row. One record for each line:
 *
 *     NUMBER NODE VERSION          VERSION: the lease's version (lver), the fencing token
 *
 * Usage: writer.js FILE NODE VERSION. Exit code 1 when a record cannot be written; the reason is on standard error.
 */
import { closeSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

/** Some six records a second: faster ones would take the emulated processors from the heartbeats, a fault nobody asked for. */
const PAUSE_MS = 100;

const [path = "", node = "", version = ""] = process.argv.slice(2);
const file = openSync(path, "a+");
const directory = openSync(path.slice(0, path.lastIndexOf("/")), "r");
fsyncSync(directory);
closeSync(directory);
const last = readFileSync(file, "utf8").trimEnd().split("\n").at(-1) ?? "";
for (let record = Number(last.split(" ")[0]) + 1; ; record++) {
  const line = `${record} ${node} ${version}\n`;
  try {
    writeSync(file, line);
    fsyncSync(file);
  } catch (error) {
    process.stderr.write(`record ${record} was not written: ${String(error)}\n`);
    process.exit(1);
  }
  process.stdout.write(line);
  await pause(PAUSE_MS);
}
