import { readFileSync } from "node:fs";

import { ShareHaError } from "../errors.js";
import {
  addressOf,
  errnoName,
  lockPagesInUse,
  SCHED_RESET_ON_FORK,
  SCHED_RR,
  setScheduler,
} from "./libc.js";

/**
 * For Node programs whose main thread is real-time: V8 collects garbage in that thread alone. Else its marking waits for
 * helper threads of normal priority, and while it waits the main thread asks again and again; with the processors busy it
 * kept the helpers, and everything else, from one of them until the kernel stepped in after 0.95 s (measured).
 */
export const REALTIME_NODE_FLAGS = ["--single-threaded-gc"] as const;

export type RealtimeResult =
  | { readonly kind: "realtime"; readonly priority: number }
  | { readonly kind: "refused"; readonly code: string };

/**
 * Gives the calling thread (not the process) the lowest real-time priorities' round robin, where the machine permits it.
 * Children of the thread get the normal policy again.
 */
export function makeThreadRealtime(priority = 10): RealtimeResult {
  const result = setScheduler(SCHED_RR | SCHED_RESET_ON_FORK, priority);
  return result < 0 ? { kind: "refused", code: errnoName(result) } : { kind: "realtime", priority };
}

export interface LockedMemory {
  readonly lockedBytes: number;
  /** Mappings that the kernel refused to lock, by reason: `ENOMEM` is RLIMIT_MEMLOCK, `EPERM` no permission at all. */
  readonly refused: Readonly<Record<string, number>>;
}

/** More mappings than any Node process has; a map file that goes on is cut here. */
const MAPPINGS_MAX = 10_000;

/**
 * Keeps what is mapped from files (program, libraries) in memory once it has been used, where permitted, so that a page
 * fault on the way of a heartbeat cannot wait for a disk. Not all of it at once: that would make 90 MB of Node resident
 * of which a third is ever used. The anonymous memory stays unlocked on purpose: V8 aborts when `madvise(MADV_DONTNEED)`
 * fails, and it fails on locked pages, so never `mlockall`. `MemorySwapMax=0` covers the rest.
 */
export function lockFileMappings(maps = readFileSync("/proc/self/maps", "utf8")): LockedMemory {
  let lockedBytes = 0;
  const refused: Record<string, number> = {};
  for (const range of fileMappings(maps)) {
    const result = lockPagesInUse(range.address, range.length);
    if (result < 0) {
      const code = errnoName(result);
      refused[code] = (refused[code] ?? 0) + 1;
    } else {
      lockedBytes += range.length;
    }
  }
  return { lockedBytes, refused };
}

/** Locks one buffer of our own (an I/O buffer that is never given back to V8). Returns whether it was permitted. */
export function lockBuffer(buffer: Uint8Array): boolean {
  return lockPagesInUse(addressOf(buffer), buffer.length) === 0;
}

interface MappedRange {
  readonly address: bigint;
  readonly length: number;
}

/** The readable mappings of /proc/PID/maps that have a file (inode) behind them. */
export function fileMappings(maps: string): MappedRange[] {
  const ranges: MappedRange[] = [];
  for (const line of maps.split("\n").slice(0, MAPPINGS_MAX)) {
    if (line === "") {
      continue;
    }
    const match = /^([0-9a-f]+)-([0-9a-f]+) (r|-)\S+ \S+ \S+ (\d+)/.exec(line);
    if (match === null) {
      throw new ShareHaError("ERR_PROC_FORMAT", `unknown line in /proc/self/maps: ${line}`, {
        hint: "This kernel prints memory maps in a form that this version does not know; report it.",
      });
    }
    const [, start, end, readable, inode] = match;
    if (readable === "r" && inode !== "0") {
      const address = BigInt(`0x${start ?? ""}`);
      ranges.push({ address, length: Number(BigInt(`0x${end ?? ""}`) - address) });
    }
  }
  return ranges;
}
