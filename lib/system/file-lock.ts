import { closeSync, constants, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";

import { EAGAIN, EINTR, errnoName, flock, LOCK_EX, LOCK_NB } from "./libc.js";

export type FileLockResult =
  | { readonly kind: "locked"; readonly fd: number }
  /** Another open file description holds it; `holder` is what its owner wrote into the file (a pid), "" if nothing. */
  | { readonly kind: "held"; readonly holder: string };

const O_NOFOLLOW = constants.O_NOFOLLOW;

/**
 * Takes flock(LOCK_EX) on a file (created with mode 0600 if need be) without waiting, and writes the own pid into it. The
 * lock lives as long as the descriptor; a thread that hangs in the kernel keeps its process, and so the lock, alive.
 * @throws the error of Node's `openSync`; and of flock when the file system has none
 */
export function tryFileLock(path: string): FileLockResult {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | O_NOFOLLOW, 0o600);
  let locked = false;
  try {
    let result: number;
    do {
      result = flock(fd, LOCK_EX | LOCK_NB);
    } while (result === -EINTR);
    if (result === -EAGAIN) {
      return { kind: "held", holder: readFileSync(path, "latin1").slice(0, 20).trim() };
    }
    if (result < 0) {
      throw new Error(`flock ${path}: ${errnoName(result)}`);
    }
    ftruncateSync(fd, 0);
    writeSync(fd, `${process.pid}\n`, 0);
    locked = true;
    return { kind: "locked", fd };
  } finally {
    if (!locked) {
      closeSync(fd);
    }
  }
}
