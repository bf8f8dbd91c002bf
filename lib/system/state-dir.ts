import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";

import { ShareHaError } from "../errors.js";

export const STATE_DIR_DEFAULT = "/var/lib/sharedha";

export interface StateDir {
  readonly path: string;
  /**
   * 32 hexadecimal digits, made once for this directory. Two nodes on one machine differ in it, and it tells the same node
   * after a reboot from a clone of the machine whose directory was made afresh.
   */
  readonly stateId: string;
}

/**
 * Opens the node's state directory, and makes it (mode 0700) when it is not there.
 * @throws ERR_STATE_DIR: not a directory, another user's, or open to others; ERR_STATE_ID: the id in it is damaged
 */
export function openStateDir(path: string = STATE_DIR_DEFAULT): StateDir {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw stateDirError(path, `cannot be made (${message})`, error);
  }
  const stat = lstatSync(path);
  if (!stat.isDirectory()) {
    throw stateDirError(path, "is a link or no directory");
  }
  if (stat.uid !== process.getuid?.()) {
    throw stateDirError(path, `belongs to user ${stat.uid}`);
  }
  if ((stat.mode & 0o022) !== 0) {
    throw stateDirError(path, "may be written by others");
  }
  return { path, stateId: readStateId(join(path, "state-id")) };
}

/** The first of several processes that come at once wins: link fails when the name is there. */
function readStateId(path: string): string {
  for (let attempt = 0; ; attempt++) {
    try {
      const id = readFileSync(path, "latin1").trim();
      if (!/^[0-9a-f]{32}$/.test(id)) {
        throw new ShareHaError("ERR_STATE_ID", `${path} holds no state id`, {
          hint: "The file is damaged. Leave the cluster with this node, then remove the file: a new id is a new node.",
          fields: { path },
        });
      }
      return id;
    } catch (error) {
      if (!hasCode(error, "ENOENT") || attempt > 0) {
        throw error;
      }
    }
    const temporary = writeTemporary(path, `${randomBytes(16).toString("hex")}\n`, 0o600);
    try {
      linkSync(temporary, path);
    } catch (error) {
      if (!hasCode(error, "EEXIST")) {
        throw error;
      }
    } finally {
      unlinkSync(temporary);
    }
    syncDirectory(dirname(path));
  }
}

/**
 * Replaces a file so that after a crash there is the old content or the new one, never a part, and the new one once this
 * has returned: temporary file beside it, fsync, rename, fsync of the directory.
 */
export function writeFileAtomic(path: string, data: string | Uint8Array, mode = 0o600): void {
  const temporary = writeTemporary(path, data, mode);
  try {
    renameSync(temporary, path);
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  }
  syncDirectory(dirname(path));
}

function writeTemporary(path: string, data: string | Uint8Array, mode: number): string {
  const name = `.${basename(path)}.${randomBytes(6).toString("hex")}`;
  const temporary = join(dirname(path), name);
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const fd = openSync(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
  let complete = false;
  try {
    const bytes = Buffer.from(data);
    for (let written = 0; written < bytes.length;) {
      written += writeSync(fd, bytes, written);
    }
    fsyncSync(fd);
    complete = true;
  } finally {
    closeSync(fd);
    if (!complete) {
      unlinkSync(temporary);
    }
  }
  return temporary;
}

function syncDirectory(path: string): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

function stateDirError(path: string, why: string, cause?: unknown): ShareHaError {
  return new ShareHaError("ERR_STATE_DIR", `the state directory ${path} ${why}`, {
    hint: "Give a directory of this user's own with --state-dir, or correct owner and mode (0700).",
    fields: { path },
    cause,
  });
}
