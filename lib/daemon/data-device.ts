/**
 * From what a group calls its device to a block device that can be mounted, and the things that are done to it around a
 * mount. All effects of group-manager.ts on the machine are here, behind one interface.
 */
import { closeSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { setTimeout as setTimer } from "node:timers";
import { setTimeout } from "node:timers/promises";

import { ShareHaError } from "../errors.js";
import { claimDevice, requireUnclaimed } from "../system/device-claim.js";
import {
  type CheckResult,
  type FilesystemType,
  flushDeviceBuffers,
  fsckFilesystem,
  mountFilesystem,
  type MountRequest,
  topMount,
  unmount,
} from "../system/filesystem.js";
import { type CutMount, cutForeignMounts, findForeignMounts } from "../system/foreign-mounts.js";
import { type ClaimedLoop, findClaimedLoops } from "../system/loop-holders.js";
import { attachLoop, detachLoop, type FileIdentity, identifyFile } from "../system/loop.js";
import { openLun, type OpenLun } from "../system/lun-device.js";
import { probeLun } from "../system/lun-probe.js";
import {
  type BlockDeviceId,
  identifyBlockDevice,
  isStillThere,
} from "../system/mounted-filesystem.js";
import { findMountsEverywhere, type Mount, type NamespaceMount } from "../system/mounts.js";
import { partitionAt } from "../system/partition.js";
import { killExact, type ProcessIdentity } from "../system/process.js";

/** How long the device may take for one sector, before the group is not started. */
const SETTLE_MS = 30_000;
/** After an unmount something may still be on its way out: a namespace that ends, a process that dies. Looked for 2 s. */
const UNUSED_LOOKS = 20;
const UNUSED_PAUSE_MS = 100;

/** Bytes of a device that hold data: the whole of it, or what lies behind the lock region. */
export interface DataPlace {
  readonly path: string;
  readonly offset: number;
  /** Undefined: to the end. */
  readonly length: number | undefined;
}

export interface DataDevice {
  /** What is mounted: "/dev/sdb2", "/dev/loop7". */
  readonly device: string;
  readonly id: BlockDeviceId;
  /** The regular file below, when there is one: then the same data can be mounted elsewhere on this machine. */
  readonly backing: FileIdentity | undefined;
  /** The loop device was attached here and goes with the mount. */
  readonly attached: FileIdentity | undefined;
}

export interface GroupEdges {
  /** The regular file in which this place lies, if any; reads only. */
  backingOf(place: DataPlace): FileIdentity | undefined;
  attach(place: DataPlace): Promise<DataDevice>;
  detach(device: DataDevice): Promise<void>;
  /** Mounts of the same file in other namespaces of this machine. */
  findForeign(backing: FileIdentity): readonly NamespaceMount[];
  cutForeign(backing: FileIdentity): readonly CutMount[];
  /** Programs on this machine that have the file to themselves through a loop device without a mount. */
  findClaimed(backing: FileIdentity): readonly ClaimedLoop[];
  /** Never this process or the first one. */
  kill(holder: ProcessIdentity): void;
  /** Write, flush and read back through the same queue (DESIGN section 8). */
  settle(device: string): Promise<void>;
  flush(device: string): void;
  check(device: string, type: FilesystemType, signal: AbortSignal): Promise<CheckResult>;
  mount(request: Required<MountRequest>): Promise<Mount>;
  findMount(path: string): Mount | undefined;
  /** @throws ERR_MOUNT_BUSY with the processes */
  unmount(path: string): Promise<void>;
  /**
   * After the unmount: whether the file system has ended with it. Another mount of it keeps it alive and writing, most
   * often a copy in the mount namespace of a container; and whoever has the device to himself is still at work on it.
   * @throws ERR_STILL_MOUNTED, ERR_DEVICE_BUSY
   */
  requireUnused(device: DataDevice): Promise<void>;
  /** As `requireUnused`, now: the problem. */
  problemOfUse(device: DataDevice): ShareHaError | undefined;
}

export const GROUP_EDGES: GroupEdges = {
  backingOf,
  attach,
  detach: async (device) => {
    if (device.attached !== undefined) {
      await detachLoop(device.device, device.attached);
    }
  },
  findForeign: (backing) => findForeignMounts(backing),
  cutForeign: (backing) => cutForeignMounts(backing),
  findClaimed: findClaimedLoops,
  kill: (holder) => {
    if (holder.pid !== process.pid && holder.pid !== 1) {
      killExact(holder, "SIGKILL");
    }
  },
  settle,
  flush: flushDeviceBuffers,
  check: async (device, type, signal) => await fsckFilesystem(device, type, "quick", signal),
  mount: async (request) => {
    await mkdir(request.path, { recursive: true });
    return await mountFilesystem(request);
  },
  findMount: topMount,
  unmount: async (path) => {
    await unmount(path);
  },
  requireUnused,
  problemOfUse,
};

export function stillMounted(what: string, mount: NamespaceMount, cause?: Error): ShareHaError {
  const where = describeMount(mount);
  return new ShareHaError(
    "ERR_STILL_MOUNTED",
    `${what} is still mounted on this machine: ${where}`,
    {
      hint: `Unmount it there (nsenter --target ${mount.pid} --mount -- umount ${mount.mountPoint}), or end that process; until then two could write.`,
      fields: { pid: mount.pid, path: mount.mountPoint },
      cause,
    },
  );
}

export function describeMount(mount: NamespaceMount): string {
  return `${mount.source} on ${mount.mountPoint} (mount namespace of process ${mount.pid})`;
}

async function requireUnused(data: DataDevice): Promise<void> {
  for (let look = 1; ; look++) {
    const problem = problemOfUse(data);
    if (problem === undefined) {
      return;
    }
    if (look >= UNUSED_LOOKS) {
      throw problem;
    }
    await setTimeout(UNUSED_PAUSE_MS);
  }
}

/** Undefined when no file system lives on this device and nobody has it to himself. */
function problemOfUse({ device, id }: DataDevice): ShareHaError | undefined {
  // A loop device is free as soon as nothing uses it, and may be another file's by now.
  if (!isStillThere(id)) {
    return undefined;
  }
  const left = findMountsEverywhere().find((each) => each.devMajorMinor === id.majorMinor);
  return left === undefined ? problemOfClaim(device) : stillMounted(device, left);
}

function problemOfClaim(device: string): ShareHaError | undefined {
  try {
    requireUnclaimed(device);
    return undefined;
  } catch (error) {
    if (error instanceof ShareHaError) {
      return error;
    }
    throw error;
  }
}

function backingOf(place: DataPlace): FileIdentity | undefined {
  const facts = probeLun(place.path);
  if (!facts.isBlock) {
    return identifyFile(place.path);
  }
  const { loopBacking } = facts;
  return loopBacking === undefined
    ? undefined
    : { device: loopBacking.device, inode: loopBacking.inode };
}

async function attach(place: DataPlace): Promise<DataDevice> {
  const { path, offset, length } = place;
  const facts = probeLun(path);
  const backing = backingOf(place);
  if (facts.isBlock && offset === 0 && length === undefined) {
    return { device: path, id: identifyBlockDevice(path), backing, attached: undefined };
  }
  const partition = facts.isBlock ? partitionAt(path, offset) : undefined;
  if (partition !== undefined) {
    return { device: partition, id: identifyBlockDevice(partition), backing, attached: undefined };
  }
  const loop = await attachLoop({
    path,
    offset,
    ...(length === undefined ? {} : { sizeLimit: length }),
  });
  const id = identifyBlockDevice(loop.device);
  return { device: loop.device, id, backing, attached: loop.status.backing };
}

/**
 * What a dead node's kernel or the path to the storage still holds comes before this write, or never: the first sector is
 * read, written back as it is and read again, durably and around every cache. Claimed meanwhile, so that it is not the
 * superblock of somebody's mount (xfs keeps it there) that is written back.
 */
async function settle(device: string): Promise<void> {
  const claim = claimDevice(device);
  let lun: OpenLun | undefined;
  try {
    const { sectorSize } = probeLun(device);
    const size = sectorSize === 4096 ? 4096 : 512;
    lun = await openLun({ path: device, baseOffset: 0, size, sectorSize: size });
    await writeThrough(device, lun, size);
  } finally {
    closeWhenReturned(claim, lun);
  }
}

/** A write that is past its deadline may still land: until it has returned, the device counts as in use. */
function closeWhenReturned(claim: number, lun: OpenLun | undefined): void {
  if (lun?.stuck === true) {
    setTimer(closeWhenReturned, UNUSED_PAUSE_MS, claim, lun).unref();
  } else {
    closeSync(claim);
  }
}

async function writeThrough(device: string, lun: OpenLun, size: number): Promise<void> {
  try {
    const first = await lun.submit([{ kind: "read", offset: 0, length: size }], SETTLE_MS);
    const bytes = first.kind === "done" ? first.reads[0] : undefined;
    if (bytes === undefined) {
      throw settleError(device, first.kind);
    }
    const second = await lun.submit(
      [
        { kind: "write", offset: 0, data: bytes },
        { kind: "read", offset: 0, length: size },
      ],
      SETTLE_MS,
    );
    if (second.kind !== "done") {
      throw settleError(device, second.kind);
    }
    if (!bytes.every((byte, at) => second.reads[0]?.[at] === byte)) {
      throw settleError(device, "and somebody else has written in between");
    }
  } finally {
    await lun.close();
  }
}

function settleError(device: string, why: string): ShareHaError {
  return new ShareHaError(
    "ERR_DATA_DEVICE",
    `${device} cannot be read, written and read again: ${why}`,
    {
      hint: "Check the path to the storage (dmesg); the group is not started on it.",
      fields: { device },
    },
  );
}
