/** What `sharedha doctor` wants to know of the machine: kernel, clock, limits, the state directory's place, programs. */
import { existsSync, statfsSync } from "node:fs";
import { dirname } from "node:path";

import { SEARCH_PATH } from "./process.js";
import { lockBuffer, makeThreadRealtime, type RealtimeResult } from "./realtime.js";
import { alignedBuffer, SCHED_OTHER, setScheduler } from "./libc.js";
import { type SystemTree } from "./system-tree.js";

export interface MachineFacts {
  readonly kernel: string;
  readonly nodeVersion: string;
  readonly isRoot: boolean;
  readonly clocksource: string | undefined;
  readonly clocksources: readonly string[];
  /** /proc/sysrq-trigger is there and may be written: the petter resets the machine through it. */
  readonly hasResetTrigger: boolean;
  readonly swapBytes: number;
  readonly memlock: MemlockFacts;
  readonly realtime: RealtimeResult;
}

export interface MemlockFacts {
  /** RLIMIT_MEMLOCK; Infinity when unlimited. */
  readonly limitBytes: number;
  /** CAP_IPC_LOCK: the limit does not hold. */
  readonly isExempt: boolean;
  /** Whether one page could be locked just now. */
  readonly works: boolean;
}

const CAP_IPC_LOCK = 14n;

export function kernelFacts(
  tree: SystemTree,
): Pick<MachineFacts, "kernel" | "clocksource" | "clocksources" | "hasResetTrigger" | "swapBytes"> {
  const clock = "/sys/devices/system/clocksource/clocksource0";
  const swap = /^SwapTotal:\s+(\d+) kB$/m.exec(tree.text("/proc/meminfo") ?? "")?.[1];
  return {
    kernel: tree.text("/proc/sys/kernel/osrelease") ?? "unknown",
    clocksource: tree.text(`${clock}/current_clocksource`),
    clocksources: (tree.text(`${clock}/available_clocksource`) ?? "").split(/\s+/),
    hasResetTrigger: tree.isWritable("/proc/sysrq-trigger"),
    swapBytes: Number(swap ?? "0") * 1024,
  };
}

export function memlockFacts(tree: SystemTree): Omit<MemlockFacts, "works"> {
  const limits = tree.text("/proc/self/limits") ?? "";
  const limit = /^Max locked memory\s+(\d+|unlimited)/m.exec(limits)?.[1] ?? "0";
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(tree.text("/proc/self/status") ?? "")?.[1];
  return {
    limitBytes: limit === "unlimited" ? Infinity : Number(limit),
    isExempt: ((BigInt(`0x${effective ?? "0"}`) >> CAP_IPC_LOCK) & 1n) === 1n,
  };
}

/** Locks one page, as the heartbeat's I/O buffers will be. The page goes back with the process. */
export function canLockMemory(): boolean {
  return lockBuffer(alignedBuffer(4096));
}

/**
 * Tries it on the calling thread and goes back to the normal policy at once: limits, capabilities and cgroups decide
 * together, and only the kernel knows the sum.
 */
export function tryRealtime(): RealtimeResult {
  const result = makeThreadRealtime();
  if (result.kind === "realtime") {
    setScheduler(SCHED_OTHER, 0);
  }
  return result;
}

export interface StateDirFacts {
  readonly path: string;
  readonly exists: boolean;
  /** Of the nearest directory that exists. */
  readonly freeBytes: number;
  /** Its content is gone after a reboot. */
  readonly isVolatile: boolean;
}

// linux/magic.h
const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;

export function lookAtStateDir(path: string): StateDirFacts {
  let there = path;
  while (!existsSync(there) && dirname(there) !== there) {
    there = dirname(there);
  }
  const { bavail, bsize, type } = statfsSync(there);
  return {
    path,
    exists: there === path,
    freeBytes: bavail * bsize,
    isVolatile: type === TMPFS_MAGIC || type === RAMFS_MAGIC,
  };
}

/** Which of the programs are in no directory that we search. */
export function missingPrograms(tree: SystemTree, names: readonly string[]): readonly string[] {
  const directories = SEARCH_PATH.split(":");
  return names.filter((name) => !directories.some((one) => tree.isExecutable(`${one}/${name}`)));
}
