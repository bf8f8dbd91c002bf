import { readdirSync, readFileSync, readlinkSync } from "node:fs";

import { ShareHaError } from "../errors.js";

/** A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)). */
export interface Mount {
  readonly mountId: number;
  /** "7:3" */
  readonly devMajorMinor: string;
  /** The directory of the file system that is shown at the mount point. */
  readonly root: string;
  readonly mountPoint: string;
  readonly options: string;
  readonly type: string;
  readonly source: string;
  readonly superOptions: string;
}

/** A mount as seen in one mount namespace. */
export interface NamespaceMount extends Mount {
  /** "mnt:[4026531841]" */
  readonly namespace: string;
  /** A process of that namespace; /proc/PID/root leads into it. */
  readonly pid: number;
}

/** More than any machine has; beyond it something is wrong, and half a list would be taken for the whole. */
const MOUNTS_MAX = 100_000;

/** @throws ERR_PROC_FORMAT */
export function parseMountinfo(text: string): Mount[] {
  const lines = text.split("\n").filter((line) => line !== "");
  if (lines.length > MOUNTS_MAX) {
    throw new ShareHaError("ERR_PROC_FORMAT", `${lines.length} mounts in one namespace`, {
      hint: "Something mounts without end on this machine; see /proc/self/mountinfo.",
    });
  }
  return lines.map(parseLine);
}

function parseLine(line: string): Mount {
  const fields = line.split(" ");
  const separator = fields.indexOf("-", 6);
  const [mountId, , devMajorMinor, root, mountPoint, options] = fields;
  const [type, source, superOptions] = separator < 0 ? [] : fields.slice(separator + 1);
  if (
    mountId === undefined ||
    !/^\d+$/.test(mountId) ||
    devMajorMinor === undefined ||
    !/^\d+:\d+$/.test(devMajorMinor) ||
    root === undefined ||
    mountPoint === undefined ||
    options === undefined ||
    type === undefined ||
    source === undefined
  ) {
    throw new ShareHaError("ERR_PROC_FORMAT", `unknown line in mountinfo: ${line.slice(0, 200)}`, {
      hint: "This kernel prints mounts in a form that this version does not know; report it.",
    });
  }
  return {
    mountId: Number(mountId),
    devMajorMinor,
    root: unescape(root),
    mountPoint: unescape(mountPoint),
    options,
    type,
    source: unescape(source),
    superOptions: superOptions ?? "",
  };
}

/** The kernel writes space, tab, line feed and backslash as three octal digits; the bytes are UTF-8 as far as we care. */
function unescape(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

/** The mounts of the own mount namespace. */
export function findMounts(): Mount[] {
  return parseMountinfo(readFileSync("/proc/self/mountinfo", "utf8"));
}

export function ownMountNamespace(): string {
  return readlinkSync("/proc/self/ns/mnt");
}

/**
 * The mounts of every mount namespace that some process lives in. Not seen are namespaces that only a descriptor or a bind
 * mount keeps alive, and file systems that were unmounted lazily.
 */
export function findMountsEverywhere(): NamespaceMount[] {
  const found: NamespaceMount[] = [];
  for (const [namespace, pids] of processesByNamespace()) {
    const seen = readNamespace(namespace, pids);
    if (seen !== undefined) {
      found.push(...seen);
    }
  }
  return found;
}

/** Processes whose root is "/" come first: a chrooted one sees only a part of the mounts. */
function processesByNamespace(): Map<string, number[]> {
  const byNamespace = new Map<string, number[]>();
  for (const name of readdirSync("/proc")) {
    const pid = Number(name);
    const namespace = /^\d+$/.test(name) ? readLink(`/proc/${name}/ns/mnt`) : undefined;
    if (namespace === undefined) {
      continue;
    }
    const pids = byNamespace.get(namespace) ?? [];
    if (readLink(`/proc/${name}/root`) === "/") {
      pids.unshift(pid);
    } else {
      pids.push(pid);
    }
    byNamespace.set(namespace, pids);
  }
  return byNamespace;
}

/** Undefined for a process that has ended, a kernel thread, or one that we may not look into. */
function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    if (isGone(error)) {
      return undefined;
    }
    throw error;
  }
}

/** The error of a look at a process that has just ended or that belongs to somebody else. */
export function isGone(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return ["ENOENT", "ESRCH", "EACCES", "EPERM", "EINVAL"].includes(code);
}

function readNamespace(namespace: string, pids: readonly number[]): NamespaceMount[] | undefined {
  for (const pid of pids) {
    try {
      const text = readFileSync(`/proc/${pid}/mountinfo`, "utf8");
      // The number may have gone to another process meanwhile.
      if (readLink(`/proc/${pid}/ns/mnt`) === namespace) {
        return parseMountinfo(text).map((mount) => ({ ...mount, namespace, pid }));
      }
    } catch (error) {
      if (!isGone(error)) {
        throw error;
      }
    }
  }
  return undefined;
}
