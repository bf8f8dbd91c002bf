/**
 * What the kernel and the distribution say in files: /sys, /proc and /etc below a root that tests give. "Not there" is an
 * answer (another kernel, another driver); anything else that goes wrong is thrown and becomes the caller's finding.
 */
import {
  accessSync,
  closeSync,
  constants,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  realpathSync,
} from "node:fs";
import { join } from "node:path";

/** An attribute has a page at most; configuration files and /proc/cpuinfo a little more. */
const TEXT_BYTES_MAX = 256 * 1024;
const NAMES_MAX = 20_000;

/** No such file, the device behind it has gone, or its driver does not have this attribute. */
const ABSENT = new Set([
  "ENOENT",
  "ENOTDIR",
  "ENODEV",
  "ENXIO",
  "EINVAL",
  "EOPNOTSUPP",
  "ENOSYS",
  "ESRCH",
]);

export class SystemTree {
  readonly #root: string;

  constructor(root = "/") {
    this.#root = realpathSync(root);
  }

  /** A path of the machine, as the path below the root. */
  at(path: string): string {
    return join(this.#root, path);
  }

  /** The file's text without blanks around it, cut at 256 KiB; undefined when there is none. */
  text(path: string): string | undefined {
    return unlessAbsent(() => readStart(this.at(path)));
  }

  /** A whole number; undefined when there is none, or something else ("off", "none"). */
  number(path: string): number | undefined {
    const text = this.text(path);
    return text === undefined || !/^-?\d{1,15}$/.test(text) ? undefined : Number(text);
  }

  /** Names in a directory, sorted; empty when there is none. */
  list(path: string): readonly string[] {
    const names = unlessAbsent(() => readdirSync(this.at(path)));
    return (names ?? []).slice(0, NAMES_MAX).sort();
  }

  /** Where the path really leads, as a path of the machine; undefined when nowhere. */
  real(path: string): string | undefined {
    const real = unlessAbsent(() => realpathSync(this.at(path)));
    if (real === undefined || this.#root === "/") {
      return real;
    }
    return real.startsWith(`${this.#root}/`) ? real.slice(this.#root.length) : undefined;
  }

  /** The text of a symbolic link, followed nowhere. */
  link(path: string): string | undefined {
    return unlessAbsent(() => readlinkSync(this.at(path)));
  }

  has(path: string): boolean {
    return this.#may(path, constants.F_OK);
  }

  isWritable(path: string): boolean {
    return this.#may(path, constants.W_OK);
  }

  isExecutable(path: string): boolean {
    return this.#may(path, constants.X_OK);
  }

  #may(path: string, mode: number): boolean {
    try {
      accessSync(this.at(path), mode);
      return true;
    } catch (error) {
      if (error instanceof Error && "code" in error) {
        return false;
      }
      throw error;
    }
  }
}

function readStart(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const buffer = Buffer.alloc(TEXT_BYTES_MAX);
    let length = 0;
    for (;;) {
      const read = readSync(fd, buffer, length, buffer.length - length, null);
      length += read;
      if (read === 0 || length === buffer.length) {
        return buffer.toString("latin1", 0, length).trim();
      }
    }
  } finally {
    closeSync(fd);
  }
}

function unlessAbsent<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (ABSENT.has(code)) {
      return undefined;
    }
    throw error;
  }
}
