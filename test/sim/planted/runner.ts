/**
 * Copies the compiled code to a directory of its own, plants the bug there, and runs the simulator on it in a process of
 * its own. Nothing in production code knows of this.
 */
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { type PlantedBug } from "./entry.js";

/** dist/test/sim/planted -> dist */
const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const NEEDED = [
  "lib/errors.js",
  "lib/format",
  "lib/lease",
  "lib/fence",
  "lib/port",
  "lib/pulse/petter.js",
  "lib/daemon/lease-adoption.js",
  "test/sim",
];
const RUN_MS_MAX = 120_000;

export interface Catch {
  /** 1: the first seed tried; undefined: not caught. */
  readonly seeds: number | undefined;
  readonly message: string;
}

export function catchBug(bug: PlantedBug): Catch {
  const directory = mkdtempSync(join(tmpdir(), "sharedha-planted-"));
  try {
    for (const path of NEEDED) {
      cpSync(join(ROOT, path), join(directory, path), {
        recursive: true,
        filter: (name) => !name.endsWith(".map"),
      });
    }
    writeFileSync(join(directory, "package.json"), '{"type":"module"}');
    for (const mutation of bug.mutations) {
      plant(join(directory, mutation.file), mutation.find, mutation.replace);
    }
    return run(directory, bug);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function plant(file: string, find: string, replace: string): void {
  const text = readFileSync(file, "utf8");
  const occurs = text.split(find).length - 1;
  if (occurs !== 1) {
    throw new Error(`${file}: "${find}" occurs ${occurs} times instead of once`);
  }
  writeFileSync(
    file,
    text.replace(find, () => replace),
  );
}

function run(directory: string, bug: PlantedBug): Catch {
  const child = spawnSync(
    process.execPath,
    [
      join(directory, "test/sim/planted/child.js"),
      JSON.stringify(bug.options),
      String(bug.seedsMax),
      bug.expect ?? "",
    ],
    { encoding: "utf8", timeout: RUN_MS_MAX, maxBuffer: 16 * 1024 * 1024 },
  );
  const last = child.stdout.trim().split("\n").at(-1) ?? "";
  if (child.status !== 0 || !last.startsWith("{")) {
    throw new Error(
      `the simulator ended with ${child.status ?? child.signal}: ${last} ${child.stderr.slice(-2_000)}`,
    );
  }
  return JSON.parse(last) as Catch;
}
