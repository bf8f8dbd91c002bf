import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Why a test that needs root must be skipped, or undefined. */
export function whyNotRoot(): string | undefined {
  return process.getuid?.() === 0 ? undefined : "needs root (loop devices, mounts)";
}

/** Temporary files, loop devices and mounts of one test; `dispose` removes them in reverse order, whatever happened. */
export class Workshop {
  readonly directory = mkdtempSync(join(tmpdir(), "sharedha-test-"));
  readonly #steps: (() => void)[] = [];

  /** Adds something to undo. */
  onDispose(step: () => void): void {
    this.#steps.push(step);
  }

  file(name: string, sizeBytes: number): string {
    const path = join(this.directory, name);
    writeFileSync(path, "");
    truncateSync(path, sizeBytes);
    return path;
  }

  loop(file: string, ...options: string[]): string {
    const args = ["--find", "--show", ...options, file];
    const device = execFileSync("losetup", args, { encoding: "utf8" }).trim();
    this.onDispose(() => {
      execFileSync("losetup", ["--detach", device]);
    });
    return device;
  }

  /** A directory below the workshop; it is unmounted as often as it is mounted. */
  mountPoint(name: string): string {
    const path = join(this.directory, name);
    mkdirSync(path);
    this.onDispose(() => {
      unmountAll(path);
    });
    return path;
  }

  dispose(): void {
    const errors: unknown[] = [];
    for (const step of this.#steps.splice(0).reverse()) {
      try {
        step();
      } catch (error) {
        errors.push(error);
      }
    }
    rmSync(this.directory, { recursive: true });
    if (errors.length > 0) {
      throw new AggregateError(errors, "something was left behind");
    }
  }
}

function unmountAll(path: string): void {
  const isMounted = (): boolean => {
    try {
      execFileSync("mountpoint", ["-q", path]);
      return true;
    } catch {
      return false;
    }
  };
  while (isMounted()) {
    execFileSync("umount", [path]);
  }
}
