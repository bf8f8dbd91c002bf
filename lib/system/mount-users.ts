import { readdirSync, readFileSync, readlinkSync } from "node:fs";

import {
  findMounts,
  findMountsEverywhere,
  isGone,
  type Mount,
  type NamespaceMount,
} from "./mounts.js";
import { processStartTime } from "./process.js";

/** A process that keeps a mount busy, and with what. */
export interface MountUser {
  readonly pid: number;
  /** Taken before its files were looked at: pid and start time together name the process that uses the mount, or nobody. */
  readonly startTime: bigint;
  readonly command: string;
  /** "cwd", "root", "file 5", "mapping" */
  readonly uses: readonly string[];
}

/**
 * The processes that have something open on a mount. Looks only at /proc, never at the file system itself: it may hang.
 * Open files are recognised by mount id, mappings by device number, directories by their path in the namespace.
 */
export function findMountUsers(mount: Mount, namespace: string): MountUser[] {
  const all = findMounts().map((each) => ({ ...each, namespace, pid: process.pid }));
  return [...lookForUsers([mount], all)].filter((user) => user !== undefined);
}

/**
 * The processes to kill before the file systems of these mounts are cut: whoever uses them, through whatever mount in
 * whatever namespace (a container has one of its own), but neither this very process nor the first one. One step per
 * process, so that the caller can stop in between. A step takes 0.1 ms, but it may also block: to read the mappings of a
 * process takes a lock that it may hold while it waits for its device.
 */
export function* lookForFilesystemUsers(
  mounts: readonly Mount[],
  everywhere: readonly NamespaceMount[] = findMountsEverywhere(),
): Generator<MountUser | undefined> {
  const devices = new Set(mounts.map((mount) => mount.devMajorMinor));
  const wanted = everywhere.filter((mount) => devices.has(mount.devMajorMinor));
  for (const user of lookForUsers(wanted, everywhere)) {
    yield user?.pid === process.pid || user?.pid === 1 ? undefined : user;
  }
}

/** @param all the mounts of the namespaces to look into: a directory belongs to the innermost mount around it */
function* lookForUsers(
  mounts: readonly Mount[],
  all: readonly NamespaceMount[],
): Generator<MountUser | undefined> {
  const what: Wanted = {
    ids: new Set(mounts.map((mount) => mount.mountId)),
    devices: new Set(mounts.map((mount) => mount.devMajorMinor)),
    byNamespace: groupByNamespace(all),
  };
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    const startTime = Number.isInteger(pid) ? processStartTime(pid) : undefined;
    if (startTime === undefined) {
      continue;
    }
    const uses = usesOf(name, what);
    yield uses.length === 0 ? undefined : { pid, startTime, command: commandOf(name), uses };
  }
}

interface Wanted {
  readonly ids: ReadonlySet<number | undefined>;
  readonly devices: ReadonlySet<string>;
  readonly byNamespace: ReadonlyMap<string, readonly Mount[]>;
}

function groupByNamespace(all: readonly NamespaceMount[]): ReadonlyMap<string, readonly Mount[]> {
  const groups = new Map<string, Mount[]>();
  for (const mount of all) {
    const group = groups.get(mount.namespace) ?? [];
    group.push(mount);
    groups.set(mount.namespace, group);
  }
  return groups;
}

function usesOf(pid: string, what: Wanted): string[] {
  const uses: string[] = [];
  attempt(() => {
    const around = what.byNamespace.get(readlinkSync(`/proc/${pid}/ns/mnt`)) ?? [];
    for (const link of ["cwd", "root"]) {
      if (what.ids.has(mountAround(readlinkSync(`/proc/${pid}/${link}`), around)?.mountId)) {
        uses.push(link);
      }
    }
  });
  attempt(() => {
    for (const fd of readdirSync(`/proc/${pid}/fdinfo`)) {
      attempt(() => {
        const info = readFileSync(`/proc/${pid}/fdinfo/${fd}`, "latin1");
        if (what.ids.has(Number(/^mnt_id:\s*(\d+)$/m.exec(info)?.[1]))) {
          uses.push(`file ${fd}`);
        }
      });
    }
  });
  attempt(() => {
    const maps = readFileSync(`/proc/${pid}/maps`, "latin1");
    if ([...what.devices].some((device) => hasMapping(maps, device))) {
      uses.push("mapping");
    }
  });
  return uses;
}

/** A process may end while it is looked at; then it uses nothing. */
function attempt(look: () => void): void {
  try {
    look();
  } catch (error) {
    if (!isGone(error)) {
      throw error;
    }
  }
}

/** The innermost mount around a directory; the last one where several are on one mount point, because it hides the others. */
export function mountAround(path: string, all: readonly Mount[]): Mount | undefined {
  let innermost: Mount | undefined;
  for (const mount of all) {
    const length = innermost?.mountPoint.length ?? 0;
    if (isBelow(path, mount.mountPoint) && mount.mountPoint.length >= length) {
      innermost = mount;
    }
  }
  return innermost;
}

function isBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === "/" ? "/" : `${directory}/`);
}

/** Maps lines give the device in hexadecimal, mountinfo in decimal. */
export function hasMapping(maps: string, devMajorMinor: string): boolean {
  const [major, minor] = devMajorMinor.split(":").map(Number);
  return maps.split("\n").some((line) => {
    const match = /^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) /.exec(line);
    return (
      match !== null &&
      Number.parseInt(match[1] ?? "", 16) === major &&
      Number.parseInt(match[2] ?? "", 16) === minor
    );
  });
}

function commandOf(pid: string): string {
  let command = "?";
  attempt(() => {
    command = readFileSync(`/proc/${pid}/comm`, "utf8").trim();
  });
  return command;
}
