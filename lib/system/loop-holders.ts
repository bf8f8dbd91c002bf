/**
 * Programs that have a loop device to themselves although nothing is mounted from it: a file system check, a mount(8) that
 * is not there yet, an umount(8) that still flushes. In no list of mounts, and they write.
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { basename } from "node:path";

import { ShareHaError } from "../errors.js";
import { requireUnclaimed } from "./device-claim.js";
import { identifyBlockDevice } from "./mounted-filesystem.js";
import { type FileIdentity, loopsOf } from "./loop.js";
import { findMountsEverywhere, isGone } from "./mounts.js";
import { type ProcessIdentity, processStartTime } from "./process.js";

export interface ClaimedLoop {
  readonly device: string;
  /** Who has it open, as far as it can be seen. */
  readonly holders: readonly ProcessIdentity[];
}

/** The loop devices over this file, through loops over loops, that are taken without being mounted. */
export function findClaimedLoops(backing: FileIdentity): readonly ClaimedLoop[] {
  const mounted = new Set(findMountsEverywhere().map((mount) => mount.devMajorMinor));
  return loopsOf(backing)
    .filter(
      ({ device }) => !numbersOf(device).some((each) => mounted.has(each)) && isClaimed(device),
    )
    .map(({ device }) => ({ device, holders: holdersOf(device) }));
}

/** Its own and those of its partitions: one that is mounted claims the whole device. */
function numbersOf(device: string): readonly string[] {
  const name = basename(device);
  const partitions = readdirSync(`/sys/block/${name}`).filter((each) =>
    each.startsWith(`${name}p`),
  );
  return [
    identifyBlockDevice(device).majorMinor,
    ...partitions.map((each) => readFileSync(`/sys/block/${name}/${each}/dev`, "latin1").trim()),
  ];
}

function isClaimed(device: string): boolean {
  try {
    requireUnclaimed(device);
    return false;
  } catch (error) {
    if (error instanceof ShareHaError && error.code === "ERR_DEVICE_BUSY") {
      return true;
    }
    throw error;
  }
}

function holdersOf(device: string): readonly ProcessIdentity[] {
  return readdirSync("/proc").flatMap((name) => {
    const pid = Number(name);
    const startTime = Number.isInteger(pid) ? processStartTime(pid) : undefined;
    return startTime !== undefined && hasOpen(pid, device) ? [{ pid, startTime }] : [];
  });
}

/** A process may end while it is looked at; then it has nothing open. */
function hasOpen(pid: number, device: string): boolean {
  try {
    const directory = `/proc/${pid}/fd`;
    return readdirSync(directory).some((fd) => readlinkSync(`${directory}/${fd}`) === device);
  } catch (error) {
    if (isGone(error)) {
      return false;
    }
    throw error;
  }
}
