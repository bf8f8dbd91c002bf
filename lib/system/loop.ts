import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
} from "node:fs";

import { ShareHaError } from "../errors.js";
import { deviceError } from "./device-error.js";
import { errnoName, ioctl, LOOP_GET_STATUS64, LOOP_INFO64_SIZE } from "./libc.js";
import { describeRun, run } from "./process.js";

/** A file by what it is, whatever path leads to it. */
export interface FileIdentity {
  readonly device: bigint;
  readonly inode: bigint;
}

/** What a loop device shows: struct loop_info64 of linux/loop.h. */
export interface LoopStatus {
  readonly backing: FileIdentity;
  /** The backing block device when the loop is over a device node, else 0. */
  readonly backingBlockDevice: bigint;
  readonly offset: bigint;
  /** 0: to the end of the file. */
  readonly sizeLimit: bigint;
  /** As seen where the loop was made; a name, not a proof. */
  readonly path: string;
}

export interface LoopOptions {
  /** A regular file, or a block device. */
  readonly path: string;
  readonly offset?: number;
  /** Bytes; without it, to the end. */
  readonly sizeLimit?: number;
  readonly readOnly?: boolean;
  readonly sectorSize?: 512 | 4096;
  /** Writes of the loop bypass the page cache of the file system below (default true). */
  readonly directIo?: boolean;
}

export interface AttachedLoop {
  /** "/dev/loopN" */
  readonly device: string;
  readonly status: LoopStatus;
  /** False when the kernel refused direct I/O on this file. */
  readonly directIo: boolean;
}

const TIMEOUT_MS = 10_000;
const LOOP_MAJOR = 7n;

/** Major and minor number of a device number as stat gives it (glibc's gnu_dev_makedev). */
export function splitDevice(device: bigint): { major: bigint; minor: bigint } {
  return {
    major: ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n),
    minor: (device & 0xffn) | ((device >> 12n) & 0xffffff00n),
  };
}

export function isLoopNumber(device: bigint): boolean {
  return splitDevice(device).major === LOOP_MAJOR;
}

export function identifyFile(path: string): FileIdentity {
  const { dev, ino } = statSync(path, { bigint: true });
  return { device: dev, inode: ino };
}

/** Undefined when nothing is attached. @throws ERR_NO_SUCH_DEVICE, ERR_PERMISSION, ERR_LOOP */
export function readLoopStatus(device: string): LoopStatus | undefined {
  let fd: number;
  try {
    fd = openSync(device, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw deviceError(device, error);
  }
  try {
    const info = new Uint8Array(LOOP_INFO64_SIZE);
    const result = ioctl(fd, LOOP_GET_STATUS64, info);
    if (result < 0) {
      const code = errnoName(result);
      if (code === "ENXIO") {
        return undefined;
      }
      throw new ShareHaError("ERR_LOOP", `${device} is no loop device (${code})`, {
        hint: "Give a /dev/loopN.",
        fields: { device },
      });
    }
    const view = Buffer.from(info.buffer);
    return {
      backing: { device: view.readBigUInt64LE(0), inode: view.readBigUInt64LE(8) },
      backingBlockDevice: view.readBigUInt64LE(16),
      offset: view.readBigUInt64LE(24),
      sizeLimit: view.readBigUInt64LE(32),
      path: backingPath(device, view),
    };
  } finally {
    closeSync(fd);
  }
}

/** sysfs has the whole path, the structure only its first 63 bytes. */
function backingPath(device: string, info: Buffer): string {
  const file = `/sys/block/${device.slice("/dev/".length)}/loop/backing_file`;
  if (existsSync(file)) {
    return readFileSync(file, "utf8").replace(/\n$/, "");
  }
  const name = info.subarray(56, 56 + 64);
  return name.subarray(0, name.indexOf(0)).toString("utf8");
}

/**
 * Attaches a free loop device and verifies that it shows what was asked for.
 * @throws ERR_LOOP
 */
export async function attachLoop(options: LoopOptions): Promise<AttachedLoop> {
  const { path } = options;
  const result = await run(`losetup ${path}`, "losetup", attachArguments(options), {
    timeoutMs: TIMEOUT_MS,
  });
  const device = result.kind === "ok" ? result.stdout.trim() : "";
  if (!/^\/dev\/loop\d+$/.test(device)) {
    throw new ShareHaError("ERR_LOOP", `no loop device for ${path}: ${describeRun(result)}`, {
      hint: "Run as root; the kernel needs loop devices (modprobe loop).",
      fields: { path },
    });
  }
  const status = readLoopStatus(device);
  if (status === undefined || !isAsAsked(status, options)) {
    throw new ShareHaError("ERR_LOOP", `${device} does not show ${path} as asked`, {
      hint: "Another program changed the loop device at the same moment; try again.",
      fields: { path, device },
    });
  }
  return { device, status, directIo: readDirectIo(device) };
}

function attachArguments(options: LoopOptions): string[] {
  const { path, offset = 0, sizeLimit, readOnly = false, sectorSize, directIo = true } = options;
  return [
    ...["--find", "--show", "--offset", String(offset)],
    ...(sizeLimit === undefined ? [] : ["--sizelimit", String(sizeLimit)]),
    ...(readOnly ? ["--read-only"] : []),
    ...(sectorSize === undefined ? [] : ["--sector-size", String(sectorSize)]),
    ...[`--direct-io=${directIo ? "on" : "off"}`, "--", path],
  ];
}

function isAsAsked(status: LoopStatus, options: LoopOptions): boolean {
  const file = identifyFile(options.path);
  return (
    status.backing.device === file.device &&
    status.backing.inode === file.inode &&
    status.offset === BigInt(options.offset ?? 0) &&
    status.sizeLimit === BigInt(options.sizeLimit ?? 0)
  );
}

function readDirectIo(device: string): boolean {
  const file = `/sys/block/${device.slice("/dev/".length)}/loop/dio`;
  return existsSync(file) && readFileSync(file, "latin1").trim() === "1";
}

/**
 * Detaches a loop device, but only while it still shows the file that the caller attached. `busy`: something has it open
 * (a mount); the kernel detaches it at the last close.
 * @throws ERR_LOOP
 */
export async function detachLoop(
  device: string,
  backing: FileIdentity,
): Promise<"detached" | "not-attached" | "busy"> {
  if (!shows(device, backing)) {
    return "not-attached";
  }
  const args = ["--detach", device];
  const result = await run(`losetup --detach ${device}`, "losetup", args, {
    timeoutMs: TIMEOUT_MS,
  });
  if (result.kind !== "ok") {
    throw new ShareHaError("ERR_LOOP", `${device} cannot be detached: ${describeRun(result)}`, {
      hint: "See losetup --list and who uses the device (lsof).",
      fields: { device },
    });
  }
  return shows(device, backing) ? "busy" : "detached";
}

function shows(device: string, backing: FileIdentity): boolean {
  const status = readLoopStatus(device);
  return status?.backing.device === backing.device && status.backing.inode === backing.inode;
}

/** Every loop device that shows this file, through however many loop devices, with its first byte there. */
export function loopsOf(backing: FileIdentity): { device: string; offset: bigint }[] {
  const found: { device: string; offset: bigint }[] = [];
  for (const name of readdirSync("/sys/block")) {
    if (!/^loop\d+$/.test(name) || !existsSync(`/sys/block/${name}/loop`)) {
      continue;
    }
    const source = backingOfLoop(`/dev/${name}`);
    if (source?.file.device === backing.device && source.file.inode === backing.inode) {
      found.push({ device: `/dev/${name}`, offset: source.offset });
    }
  }
  return found;
}

/** The file below a loop device (through loops over loops), and where in it the device starts; undefined if none. */
export function backingOfLoop(
  device: string,
): { file: FileIdentity; offset: bigint; path: string } | undefined {
  let offset = 0n;
  let current = device;
  // The kernel allows no loops of loops, and nobody stacks more than a few.
  for (let depth = 0; depth < 16; depth++) {
    const status = readLoopStatus(current);
    if (status === undefined) {
      return undefined;
    }
    offset += status.offset;
    if (!isLoopNumber(status.backingBlockDevice)) {
      return { file: status.backing, offset, path: status.path };
    }
    current = `/dev/loop${splitDevice(status.backingBlockDevice).minor}`;
  }
  return undefined;
}
