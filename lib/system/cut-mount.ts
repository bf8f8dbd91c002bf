/**
 * Shutting down the file system of one mount, and of no other one. A path alone does not do: if the mount goes away in the
 * same moment (somebody else tears down too, or the process behind /proc/PID/root ends), it names the file system below, in
 * the worst case the root file system. So the open descriptor is compared with the mount that was meant, by mount id and by
 * device number, before the ioctl; from the open on the descriptor keeps the file system.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";

import { ShareHaError } from "../errors.js";
import { errnoName, FS_IOC_SHUTDOWN, FS_SHUTDOWN_FLAGS_NOLOGFLUSH, ioctl } from "./libc.js";
import { splitDevice } from "./loop.js";
import { findTarget, type MountTarget } from "./mounted-filesystem.js";
import { type Mount } from "./mounts.js";

/** open(2): a descriptor of the place alone; the file system is not asked. Node has no name for it. */
const O_PATH = 0o10000000;

/**
 * Makes every further access to the file system fail at once (EIO) and throws away what has not been written: the dirty
 * pages and the unwritten log never reach the device (FS_IOC_SHUTDOWN with NOLOGFLUSH, of ext4, xfs and f2fs). What was
 * handed to the block layer before may still land. ext4 notes the abort in its journal's superblock, which is one write
 * that may block while the device hangs. One that is shut down already is as good: somebody else was quicker.
 * @param path leads to the mount's root; /proc/PID/root and the mount point for a mount of another namespace
 * @param justBefore is called when the file system is held open and known to be the right one
 * @throws ERR_FS_SHUTDOWN, also when the path does not lead to this very mount (any more); then nothing was shut down
 */
export function shutdownMount(
  mount: Mount,
  path: string = mount.mountPoint,
  justBefore?: () => void,
): void {
  const fd = openRoot(mount, path);
  if (fd === undefined) {
    return;
  }
  try {
    refuseOther(fd, mount, path);
    justBefore?.();
    const result = ioctl(fd, FS_IOC_SHUTDOWN, Uint32Array.of(FS_SHUTDOWN_FLAGS_NOLOGFLUSH));
    if (result < 0) {
      const errno = errnoName(result);
      throw new ShareHaError(
        "ERR_FS_SHUTDOWN",
        `${mount.type} at ${path} cannot be shut down (${errno})`,
        {
          hint: "Only ext4, xfs and f2fs know this, and only for root.",
          fields: { path, errno },
        },
      );
    }
  } finally {
    closeSync(fd);
  }
}

/**
 * - `cut`: everything fails with EIO from now on; what was dirty is thrown away.
 * - `not-mounted`: it is mounted nowhere (yet).
 * - `failed`: the file system does not know the request, or the mount vanished meanwhile.
 */
export interface CutOutcome {
  readonly kind: "cut" | "not-mounted" | "failed";
  readonly why: string;
}

/** `shutdownMount` through any one of its mounts: that ends the file system for all of them. Never throws; may block. */
export function cutMount(target: MountTarget): CutOutcome {
  let failure: string | undefined;
  try {
    for (const { mount, path, isHere } of findTarget(target)) {
      try {
        shutdownMount(mount, path);
        const where = isHere ? "" : `, which lived on at ${path}`;
        return { kind: "cut", why: `${mount.type} was shut down${where}` };
      } catch (error) {
        failure ??= whyOf(error);
      }
    }
  } catch (error) {
    failure = whyOf(error);
  }
  return failure === undefined
    ? { kind: "not-mounted", why: "it is mounted nowhere" }
    : { kind: "failed", why: failure };
}

/** @returns undefined when this mount's file system is shut down already, so that it cannot even be opened */
function openRoot(mount: Mount, path: string): number | undefined {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if (isSystemError(error, "EIO") && isShutDownXfs(mount, path)) {
      return undefined;
    }
    throw new ShareHaError("ERR_FS_SHUTDOWN", `${path} cannot be opened to shut it down`, {
      hint: "The mount may just have gone; look for it in /proc/self/mountinfo.",
      fields: { path },
      cause: error,
    });
  }
}

/**
 * A shut down xfs refuses even to be opened, where ext4 and f2fs take the request again (measured, Linux 6.18). EIO at an
 * open proves nothing, it may come from the device. But the attributes of the root, which the kernel keeps as long as it is
 * mounted, are read without any I/O: for those xfs says EIO only when it is shut down (xfs_vn_getattr).
 */
function isShutDownXfs(mount: Mount, path: string): boolean {
  if (mount.type !== "xfs") {
    return false;
  }
  const fd = openSync(path, O_PATH);
  try {
    if (mountIdOf(fd) !== mount.mountId) {
      return false;
    }
    fstatSync(fd);
    return false;
  } catch (error) {
    if (isSystemError(error, "EIO")) {
      return true;
    }
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** Undefined is no mount's id. */
function mountIdOf(fd: number): number | undefined {
  const match = /^mnt_id:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"));
  return match === null ? undefined : Number(match[1]);
}

function isSystemError(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}

function refuseOther(fd: number, mount: Mount, path: string): void {
  const mountId = mountIdOf(fd);
  const { major, minor } = splitDevice(fstatSync(fd, { bigint: true }).dev);
  const device = `${major}:${minor}`;
  if (mountId !== mount.mountId || device !== mount.devMajorMinor) {
    const found = `mount ${mountId ?? "?"} of device ${device}`;
    throw new ShareHaError(
      "ERR_FS_SHUTDOWN",
      `${path} is ${found} and not mount ${mount.mountId} of device ${mount.devMajorMinor}`,
      {
        hint: "The mount went away in this moment; nothing was shut down.",
        fields: { path, found, wanted: mount.mountId },
      },
    );
  }
}

function whyOf(error: unknown): string {
  const cause =
    error instanceof Error && error.cause instanceof Error ? `: ${error.cause.message}` : "";
  return `${error instanceof Error ? error.message : String(error)}${cause}`;
}
