/**
 * What a protocol may ask of a LUN, and what comes back. Offsets are bytes from the start of the region (not of the
 * device); offsets and lengths are multiples of the sector size. Times are milliseconds of CLOCK_BOOTTIME.
 */

export interface ReadOp {
  readonly kind: "read";
  readonly offset: number;
  readonly length: number;
}

export interface WriteOp {
  readonly kind: "write";
  readonly offset: number;
  readonly data: Uint8Array;
}

export type DiskOp = ReadOp | WriteOp;

/** When one operation was started (just before the system call) and completed (just after it). */
export interface OpTiming {
  readonly startedMs: number;
  readonly completedMs: number;
}

/**
 * The outcome of a batch: operations carried out one after the other on one LUN, stopping at the first failure.
 *
 * - `done`: every operation completed, each within its deadline. `reads` holds one buffer per read, in order;
 *   `timings` one entry per operation.
 * - `failed`: the LUN answered with an error (`EIO`, `EROFS`, `ENOSPC` ...). A write among the operations may or may not
 *   have reached the medium.
 * - `late`: the deadline passed first. The operation may still land at any later time.
 * - `busy`: nothing was issued, because an operation past its deadline is still out on this LUN (DESIGN section 4).
 */
export type BatchResult =
  | {
      readonly kind: "done";
      readonly reads: readonly Uint8Array[];
      readonly timings: readonly OpTiming[];
    }
  | { readonly kind: "failed"; readonly code: string; readonly message: string }
  | { readonly kind: "late" }
  | { readonly kind: "busy" };

/** One LUN, as the processes use it. Batches of one LUN are carried out in the order they were submitted. */
export interface LunDevice {
  /** Resolves, never rejects, at the latest `deadlineMs` after the batch's first operation could start. */
  submit(ops: readonly DiskOp[], deadlineMs: number): Promise<BatchResult>;
  /** True while an operation past its deadline has not returned from the kernel. */
  readonly stuck: boolean;
  close(): Promise<void>;
}
