/**
 * What the lab builds once and keeps outside the checkout: a folder for each kind of thing, named after a hash of
 * everything that went into it. Only the newest of a kind is kept.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { join, relative } from "node:path";

import { findRoot } from "../helpers/root.js";
import { tool } from "./tool.js";

const DEFAULT_DIR = "/var/cache/sharedha-lab";
/** Everything else that this host still has to write comes with it. */
const SYNC_MS = 300_000;

/** `SHAREDHA_LAB_DIR`, else /var/cache/sharedha-lab: about 2 GB. */
export function cacheDir(): string {
  const dir = process.env["SHAREDHA_LAB_DIR"] ?? DEFAULT_DIR;
  // QEMU takes some of these paths inside of lists with commas.
  if (!/^\/[\w./-]+$/.test(dir)) {
    throw new Error(`SHAREDHA_LAB_DIR: ${dir} is not an absolute path of plain characters`);
  }
  return dir;
}

/** Files by content, other inputs by their text. */
export function inputsKey(inputs: readonly string[], files: readonly string[]): string {
  const root = findRoot();
  const hash = createHash("sha256");
  for (const input of inputs) {
    hash.update(`${input}\n`);
  }
  for (const file of files) {
    // Another clone of the same sources makes the same things.
    const name = file.startsWith(`${root}/`) ? relative(root, file) : file;
    hash.update(`${name}\n`).update(readFileSync(file));
  }
  return hash.digest("hex").slice(0, 16);
}

export type Progress = (line: string) => void;

/**
 * The folder `kind-key`, built when it is not there. A build that fails or is interrupted leaves nothing that a later run
 * takes for the finished one.
 */
export async function built(
  kind: string,
  key: string,
  say: Progress,
  build: (dir: string) => Promise<void>,
): Promise<string> {
  const dir = join(cacheDir(), `${kind}-${key}`);
  if (existsSync(dir)) {
    return dir;
  }
  const startedMs = performance.now();
  say(`building ${kind}`);
  dropBuilt(kind);
  const unfinished = join(cacheDir(), `.${kind}-${key}`);
  mkdirSync(unfinished, { recursive: true });
  await build(unfinished);
  // Half a gigabyte still to be written would hold up the disks of the machines that come next.
  await tool("sync", ["--file-system", unfinished], { timeoutMs: SYNC_MS });
  renameSync(unfinished, dir);
  say(`built ${kind} in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`);
  return dir;
}

/** What there is of a kind, finished or not, so that the next `built` makes it anew. */
export function dropBuilt(kind: string): void {
  for (const name of existsSync(cacheDir()) ? readdirSync(cacheDir()) : []) {
    if (name.startsWith(`${kind}-`) || name.startsWith(`.${kind}-`)) {
      rmSync(join(cacheDir(), name), { recursive: true, force: true });
    }
  }
}
