import { closeSync, constants, mkdtempSync, openSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import { deviceError } from "./device-error.js";
import { BLKFLSBUF, errnoName, ioctl } from "./libc.js";
import { findMountUsers, type MountUser } from "./mount-users.js";
import { findMounts, type Mount, ownMountNamespace } from "./mounts.js";
import { describeRun, run, type RunResult } from "./process.js";

export type FilesystemType = "ext4" | "xfs";

const MOUNT_TIMEOUT_MS = 60_000;
const CHECK_TIMEOUT_MS = 3_600_000;

/** Writes out and drops what the kernel has cached of a block device. @throws ERR_FLUSH, errors of opening */
export function flushDeviceBuffers(device: string): void {
  let fd: number;
  try {
    fd = openSync(device, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw deviceError(device, error);
  }
  try {
    const result = ioctl(fd, BLKFLSBUF, null);
    if (result < 0) {
      const code = errnoName(result);
      throw new ShareHaError("ERR_FLUSH", `the buffers of ${device} cannot be flushed (${code})`, {
        hint: "The device has to be a block device, and this needs root.",
        fields: { device, errno: code },
      });
    }
  } finally {
    closeSync(fd);
  }
}

export interface MountRequest {
  readonly device: string;
  readonly path: string;
  readonly type: FilesystemType;
  /** As for mount -o; "" or absent for the defaults. */
  readonly options?: string;
  readonly signal?: AbortSignal;
}

/** @throws ERR_MOUNT */
export async function mountFilesystem(request: MountRequest): Promise<Mount> {
  const { device, path, type, options = "", signal } = request;
  const args = ["-t", type, ...(options === "" ? [] : ["-o", options]), "--", device, path];
  const result = await run(`mount ${path}`, "mount", args, {
    timeoutMs: MOUNT_TIMEOUT_MS,
    killSignal: "SIGKILL",
    ...(signal === undefined ? {} : { signal }),
  });
  const mount = result.kind === "ok" ? topMount(path) : undefined;
  if (mount?.type !== type) {
    throw new ShareHaError(
      "ERR_MOUNT",
      `${device} cannot be mounted on ${path}: ${describeRun(result)}`,
      {
        hint: "See dmesg for the file system's own words; the directory has to exist.",
        fields: { device, path, type },
      },
    );
  }
  return mount;
}

/** The mount that is visible at exactly this mount point: the last one made there. */
export function topMount(path: string): Mount | undefined {
  return findMounts().findLast((mount) => mount.mountPoint === path);
}

/**
 * Unmounts; `lazy` only takes the name away, while the file system lives on as long as something uses it (DESIGN 8).
 * @throws ERR_MOUNT_BUSY (its message names the processes), ERR_UNMOUNT
 */
export async function unmount(
  path: string,
  options: { readonly lazy?: boolean; readonly timeoutMs?: number } = {},
): Promise<"unmounted" | "not-mounted"> {
  const mount = topMount(path);
  if (mount === undefined) {
    return "not-mounted";
  }
  const args = [...(options.lazy === true ? ["--lazy"] : []), "--", path];
  const result = await run(`umount ${path}`, "umount", args, {
    timeoutMs: options.timeoutMs ?? MOUNT_TIMEOUT_MS,
  });
  const left = topMount(path);
  if (left?.mountId !== mount.mountId) {
    return "unmounted";
  }
  if (isBusy(result)) {
    throw busyError(path, findMountUsers(mount, ownMountNamespace()));
  }
  throw new ShareHaError("ERR_UNMOUNT", `${path} cannot be unmounted: ${describeRun(result)}`, {
    hint: "See dmesg; while the device hangs, so does the unmount.",
    fields: { path },
  });
}

function isBusy(result: RunResult): boolean {
  return result.kind === "exit" && result.stderr.includes("busy");
}

function busyError(path: string, users: readonly MountUser[]): ShareHaError {
  const shown = users
    .slice(0, 10)
    .map(({ pid, command, uses }) => `${command} (pid ${pid}: ${uses.slice(0, 3).join(", ")})`)
    .join("; ");
  const more = users.length > 10 ? ` and ${users.length - 10} more` : "";
  const who =
    shown === "" ? "no process is seen: a swap file, a loop device, a mount below it?" : shown;
  return new ShareHaError("ERR_MOUNT_BUSY", `${path} is in use by ${who}${more}`, {
    hint: "Stop these programs, or make them leave the directory, and try again.",
    fields: { path, processes: users.length },
  });
}

/**
 * `clean` and `corrected` may be mounted. `damaged` needs a person. `failed`: the checker itself could not do its work.
 */
export type CheckResult =
  | { readonly kind: "clean"; readonly detail: string }
  | { readonly kind: "corrected"; readonly detail: string }
  | { readonly kind: "damaged"; readonly detail: string; readonly remedy: string }
  | { readonly kind: "failed"; readonly detail: string };

/**
 * Checks an unmounted file system as far as it is safe without a person. ext4: `e2fsck -p`, which replays the journal and
 * checks everything when the file system is marked for it. xfs: its log is replayed by mounting, so `quick` has nothing to
 * do (as fsck.xfs(8)); `full` mounts and unmounts it once, then looks through it with `xfs_repair -n`.
 */
export async function fsckFilesystem(
  device: string,
  type: FilesystemType,
  mode: "quick" | "full" = "quick",
  signal?: AbortSignal,
): Promise<CheckResult> {
  if (type === "xfs") {
    return mode === "quick"
      ? { kind: "clean", detail: "xfs replays its log when it is mounted" }
      : await checkXfs(device);
  }
  const args = ["-p", ...(mode === "full" ? ["-f"] : []), device];
  const result = await run(`e2fsck ${device}`, "e2fsck", args, {
    timeoutMs: CHECK_TIMEOUT_MS,
    // After SIGTERM it goes on for a while, and writes.
    killSignal: "SIGKILL",
    ...(signal === undefined ? {} : { signal }),
  });
  const detail = describeRun(result);
  if (result.kind === "ok") {
    return { kind: "clean", detail: lastLine(result.stdout) };
  }
  // e2fsck(8): a bit mask; 1 corrected, 2 corrected and to reboot if it was mounted, 4 left uncorrected, 8 and up trouble.
  if (result.kind === "exit" && result.exitCode <= 3) {
    return { kind: "corrected", detail: lastLine(result.stdout) };
  }
  if (result.kind === "exit" && (result.exitCode & 4) !== 0 && result.exitCode < 8) {
    return { kind: "damaged", detail, remedy: `e2fsck ${device}` };
  }
  return { kind: "failed", detail };
}

async function checkXfs(device: string): Promise<CheckResult> {
  const directory = mkdtempSync(join(tmpdir(), "sharedha-fsck-"));
  try {
    const options = "nosuid,nodev,noexec,nouuid";
    await mountFilesystem({ device, path: directory, type: "xfs", options });
    await unmount(directory);
  } catch (error) {
    if (!(error instanceof ShareHaError) || error.code !== "ERR_MOUNT") {
      throw error;
    }
    const remedy = `xfs_repair ${device}`;
    return { kind: "damaged", detail: error.message, remedy };
  } finally {
    rmdirSync(directory);
  }
  const result = await run(`xfs_repair -n ${device}`, "xfs_repair", ["-n", device], {
    timeoutMs: CHECK_TIMEOUT_MS,
  });
  if (result.kind === "ok") {
    return { kind: "clean", detail: "xfs_repair -n found nothing" };
  }
  const detail = describeRun(result);
  // xfs_repair(8): with -n, 1 means that corruption was found.
  return result.kind === "exit" && result.exitCode === 1
    ? { kind: "damaged", detail, remedy: `xfs_repair ${device}` }
    : { kind: "failed", detail };
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

/**
 * Makes a file system; whatever was on the device is lost. ext4 without multiple mount protection (DESIGN 10: the kernel's
 * own wait is 11 s and more); neither discards blocks first.
 * @throws ERR_MKFS
 */
export async function makeFilesystem(
  device: string,
  type: FilesystemType,
  label?: string,
): Promise<void> {
  const name = label === undefined ? [] : ["-L", label];
  const args =
    type === "ext4"
      ? ["-F", "-q", "-E", "nodiscard", "-O", "^mmp", ...name, device]
      : ["-f", "-q", "-K", ...name, device];
  const result = await run(`mkfs.${type} ${device}`, `mkfs.${type}`, args, {
    timeoutMs: CHECK_TIMEOUT_MS,
  });
  if (result.kind !== "ok") {
    throw new ShareHaError("ERR_MKFS", `no ${type} on ${device}: ${describeRun(result)}`, {
      hint:
        type === "xfs"
          ? "xfs needs a device of at least 300 MiB; the package is xfsprogs."
          : "The package is e2fsprogs; the device must not be in use.",
      fields: { device, type },
    });
  }
}
