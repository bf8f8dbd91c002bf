/**
 * A file system that was mounted here, and where it is mounted now. Its mount point alone does not tell: after an unmount it
 * may live on in a copy of the mount namespace, as a container has one, and write; and by then something else may be
 * mounted at that point. So it is known by its block device, and that by more than its number, which is given out again as
 * soon as it is free.
 */
import { readFileSync, statSync } from "node:fs";

import { topMount } from "./filesystem.js";
import { splitDevice } from "./loop.js";
import { findMountsEverywhere, type Mount } from "./mounts.js";

export interface BlockDeviceId {
  /** "7:3" */
  readonly majorMinor: string;
  /** `diskseq` of sysfs, never given twice in one boot; undefined before Linux 5.15. */
  readonly sequence: string | undefined;
}

/** What is, was or is being mounted. */
export interface MountTarget {
  readonly path: string;
  readonly device: BlockDeviceId;
}

export interface Found {
  readonly mount: Mount;
  /** Leads to its root: the mount point, through /proc/PID/root for that of another mount namespace. */
  readonly path: string;
  /** At the target's path, in this process's mount namespace. */
  readonly isHere: boolean;
}

/** Of the device that this path leads to. */
export function identifyBlockDevice(path: string): BlockDeviceId {
  const { major, minor } = splitDevice(statSync(path, { bigint: true }).rdev);
  const majorMinor = `${major}:${minor}`;
  return { majorMinor, sequence: sequenceOf(majorMinor) };
}

/** Whether its number still names this very device. */
export function isStillThere(device: BlockDeviceId): boolean {
  return sequenceOf(device.majorMinor) === device.sequence;
}

function sequenceOf(majorMinor: string): string | undefined {
  const directory = `/sys/dev/block/${majorMinor}`;
  // A partition's is that of its disk.
  const sequence = readIfThere(`${directory}/diskseq`) ?? readIfThere(`${directory}/../diskseq`);
  return sequence?.trim();
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
}

/** Where the file system is mounted: here, else everywhere that a process can see it. */
export function findTarget(target: MountTarget): readonly Found[] {
  const { path, device } = target;
  const mount = topMount(path);
  if (mount?.devMajorMinor === device.majorMinor) {
    return [{ mount, path, isHere: true }];
  }
  if (!isStillThere(device)) {
    return [];
  }
  return findMountsEverywhere()
    .filter((each) => each.devMajorMinor === device.majorMinor)
    .map((each) => ({
      mount: each,
      path: `/proc/${each.pid}/root${each.mountPoint}`,
      isHere: false,
    }));
}
