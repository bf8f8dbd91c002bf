import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  realpathSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";

import { ShareHaError } from "../errors.js";
import { deviceError } from "./device-error.js";
import { BLKGETSIZE64, BLKPBSZGET, BLKROGET, BLKSSZGET, errnoName, ioctl } from "./libc.js";
import { backingOfLoop, isLoopNumber, splitDevice } from "./loop.js";

export interface LunFacts {
  readonly sizeBytes: number;
  /** Logical sector size: the unit of direct I/O. A regular file counts as 512; opening it tells whether it takes that. */
  readonly sectorSize: number;
  readonly physicalSectorSize: number;
  readonly isBlock: boolean;
  readonly isLoop: boolean;
  readonly loopBacking?: {
    readonly device: bigint;
    readonly inode: bigint;
    readonly path: string;
    readonly offset: bigint;
  };
  readonly readOnly: boolean;
  /**
   * Names the disk, not the path to it: equal for all paths of a LUN, for a partition and its disk, for a file and the
   * loop devices on it. "3..." as multipath prints it (SCSI, NAA), "file:DEVICE:INODE", or "dev:MAJOR:MINOR" when the
   * disk has no name of its own.
   */
  readonly wwid: string;
}

/**
 * What a path given as a LUN is. Blocks as long as opening the device does.
 * @throws ERR_NO_SUCH_DEVICE, ERR_PERMISSION, ERR_NOT_A_DEVICE, ERR_DEVICE_OPEN, ERR_DEVICE_IOCTL
 */
export function probeLun(path: string): LunFacts {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw deviceError(path, error);
  }
  try {
    const stat = statSync(`/proc/self/fd/${fd}`, { bigint: true });
    if (stat.isFile()) {
      return {
        sizeBytes: Number(stat.size),
        sectorSize: 512,
        physicalSectorSize: Number(stat.blksize),
        isBlock: false,
        isLoop: false,
        readOnly: (stat.mode & 0o222n) === 0n,
        wwid: `file:${stat.dev}:${stat.ino}`,
      };
    }
    if (!stat.isBlockDevice()) {
      throw new ShareHaError("ERR_NOT_A_DEVICE", `${path} is no block device and no file`, {
        hint: "Give a block device or a regular file.",
        fields: { path },
      });
    }
    return { ...probeBlock(path, fd), ...identifyBlock(stat.rdev) };
  } finally {
    closeSync(fd);
  }
}

function probeBlock(path: string, fd: number): Omit<LunFacts, "isLoop" | "wwid" | "loopBacking"> {
  return {
    sizeBytes: Number(askBlock(path, fd, BLKGETSIZE64, "BLKGETSIZE64")),
    // The size is 64 bits, the others are an int: on little-endian machines one reader does for both.
    sectorSize: Number(askBlock(path, fd, BLKSSZGET, "BLKSSZGET")),
    physicalSectorSize: Number(askBlock(path, fd, BLKPBSZGET, "BLKPBSZGET")),
    isBlock: true,
    readOnly: askBlock(path, fd, BLKROGET, "BLKROGET") !== 0n,
  };
}

function askBlock(path: string, fd: number, request: number, name: string): bigint {
  const answer = new BigUint64Array(1);
  const result = ioctl(fd, request, answer);
  if (result < 0) {
    const code = errnoName(result);
    throw new ShareHaError("ERR_DEVICE_IOCTL", `${path} does not answer ${name} (${code})`, {
      hint: "The block device's driver is not usable for this; see dmesg.",
      fields: { path, errno: code },
    });
  }
  return answer[0] ?? 0n;
}

function identifyBlock(rdev: bigint): Pick<LunFacts, "isLoop" | "wwid" | "loopBacking"> {
  const { major, minor } = splitDevice(rdev);
  if (!isLoopNumber(rdev)) {
    return { isLoop: false, wwid: diskName(major, minor) };
  }
  const backing = backingOfLoop(`/dev/loop${minor}`);
  if (backing === undefined) {
    return { isLoop: true, wwid: `dev:${major}:${minor}` };
  }
  const { file, offset, path } = backing;
  return {
    isLoop: true,
    wwid: `file:${file.device}:${file.inode}`,
    loopBacking: { ...file, path, offset },
  };
}

/** The name of the disk that a block device number belongs to. `sysfs` is given by tests. */
export function diskName(major: bigint, minor: bigint, sysfs = "/sys"): string {
  const fallback = `dev:${major}:${minor}`;
  const link = join(sysfs, "dev/block", `${major}:${minor}`);
  if (!existsSync(link)) {
    return fallback;
  }
  const own = realpathSync(link);
  const disk = existsSync(join(own, "partition")) ? dirname(own) : own;
  const dm = readLine(join(disk, "dm/uuid"));
  if (dm !== undefined) {
    // A partition of a map is "partN-mpath-WWID"; both are the LUN.
    return dm.replace(/^part\d+-/, "").replace(/^mpath-/, "");
  }
  const wwid = readLine(join(disk, "device/wwid")) ?? readLine(join(disk, "wwid"));
  if (wwid !== undefined) {
    return normalizeWwid(wwid);
  }
  const serial = readLine(join(disk, "serial"));
  return serial === undefined
    ? (readLine(join(disk, "dev"), "dev:") ?? fallback)
    : `serial:${serial}`;
}

function readLine(path: string, prefix = ""): string | undefined {
  if (!existsSync(path)) {
    return undefined;
  }
  const line = readFileSync(path, "latin1").trim();
  return line === "" ? undefined : prefix + line;
}

/** As scsi_id and multipath write it: the designator type's digit and the designator (SPC-4, 7.8.6). */
export function normalizeWwid(wwid: string): string {
  const match = /^(naa|eui|t10)\.(.+)$/.exec(wwid);
  if (match === null) {
    return wwid;
  }
  const [, kind, name = ""] = match;
  const digit = kind === "naa" ? "3" : kind === "eui" ? "2" : "1";
  return digit + name.replaceAll(/\s+/g, "_");
}
