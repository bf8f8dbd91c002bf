/**
 * A temporary directory with everything that was made for a test, a demo or a benchmark, undone in reverse order, also
 * after a failure and on Ctrl-C: processes (by pid and start time), mounts, loop devices, files.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export class Workspace {
  readonly dir: string;
  readonly #undo: { readonly what: string; readonly action: () => void | Promise<void> }[] = [];

  constructor(name: string) {
    this.dir = mkdtempSync(join(tmpdir(), `sharedha-${name}-`));
    this.defer(`remove ${this.dir}`, () => {
      rmSync(this.dir, { recursive: true, force: true });
    });
  }

  path(...names: readonly string[]): string {
    return join(this.dir, ...names);
  }

  /** Runs `action` when the workspace is cleaned up, last in first out. */
  defer(what: string, action: () => void | Promise<void>): void {
    this.#undo.push({ what, action });
  }

  /** Undoes everything; what could not be undone is reported, and the rest is undone all the same. */
  async clean(): Promise<readonly string[]> {
    const problems: string[] = [];
    for (let entry = this.#undo.pop(); entry !== undefined; entry = this.#undo.pop()) {
      try {
        await entry.action();
      } catch (error) {
        problems.push(`${entry.what}: ${error instanceof Error ? error.message : String(error)}`);
      }
    }
    return problems;
  }

  /** Attaches a loop device that is detached at the end. Needs root. */
  loop(file: string): string {
    const device = must("losetup", ["--find", "--show", file]).trim();
    this.defer(`detach ${device}`, () => {
      detachLoop(device, file);
    });
    return device;
  }
}

/** Detaches the device if it still belongs to `file`; somebody else may have got its number meanwhile. */
function detachLoop(device: string, file: string): void {
  const listed = must("losetup", ["--noheadings", "--output", "NAME,BACK-FILE", "--list"]);
  const isOurs = listed.split("\n").some((line) => {
    const [name, ...backing] = line.trim().split(/\s+/);
    return name === device && backing.join(" ").startsWith(file);
  });
  if (isOurs) {
    must("losetup", ["--detach", device]);
  }
}

/** Runs a program to its end and returns its output; throws with its words when it fails. */
export function must(file: string, args: readonly string[]): string {
  const result = spawnSync(file, args, {
    encoding: "utf8",
    env: { ...process.env, PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` },
  });
  if (result.error !== undefined) {
    throw result.error;
  }
  if (result.status !== 0) {
    throw new Error(
      `${file} ${args.join(" ")}: exit ${String(result.status)}: ${result.stderr.trim()}`,
    );
  }
  return result.stdout;
}
