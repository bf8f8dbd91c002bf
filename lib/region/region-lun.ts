/**
 * One LUN of an open region: the window of the device in which the region lies, or a stand-in while the LUN does not count.
 *
 * A LUN that does not count is never written to: it may be another cluster's, or the copy somebody wants to look at later.
 *
 * With several LUNs every batch ends with a read of the superblock. When that shows another set of LUNs than the one this
 * process works with, the batch has failed: whatever it did on this LUN is not counted, and so no majority of an old set
 * can form after a majority of it has taken the new one (the reconfiguration rule of every Paxos; DESIGN section 6).
 */
import { type BatchResult, type DiskOp, type LunDevice } from "../port/disk.js";
import { ShareHaError } from "../errors.js";

/** Where the region lies on the device. */
export interface RegionWindow {
  /** Bytes from the start of the device. */
  readonly offset: number;
  readonly length: number;
}

/** What the last read of every batch must show. */
export interface SuperblockGuard {
  /** Offset in the region of the copy that was believed. */
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** Called when the copy is another one now. */
  readonly onChange: () => void;
}

export const CODE_NOT_COUNTED = "ENODEV";
export const CODE_SET_CHANGED = "ESTALE";

export class RegionLun implements LunDevice {
  #device: LunDevice | undefined;
  #window: RegionWindow = { offset: 0, length: 0 };
  #guard: SuperblockGuard | undefined;
  #why = "it was never opened";
  #isAttached = false;

  /** True also while an I/O is out on a device that does not count any more. */
  get stuck(): boolean {
    return this.#device?.stuck ?? false;
  }

  /** From now on the LUN counts, and batches go to the device. */
  attach(device: LunDevice, window: RegionWindow, guard: SuperblockGuard | undefined): void {
    this.#device = device;
    this.#window = window;
    this.#guard = guard;
    this.#isAttached = true;
  }

  /** From now on every batch fails with ENODEV. `device`: still open, for looking at it again. */
  detach(device: LunDevice | undefined, why: string): void {
    this.#device = device;
    this.#isAttached = false;
    this.#why = why;
  }

  submit(ops: readonly DiskOp[], deadlineMs: number): Promise<BatchResult> {
    const guard = this.#guard;
    const device = this.#device;
    return guard === undefined || device === undefined || !this.#isAttached
      ? this.submitUnguarded(ops, deadlineMs)
      : this.#submitGuarded(device, guard, this.#shift(ops), deadlineMs);
  }

  /** Without the look at the superblock: for the one writer that changes it. */
  submitUnguarded(ops: readonly DiskOp[], deadlineMs: number): Promise<BatchResult> {
    return this.#device === undefined || !this.#isAttached
      ? Promise.resolve({ kind: "failed", code: CODE_NOT_COUNTED, message: this.#why })
      : this.#device.submit(this.#shift(ops), deadlineMs);
  }

  /** The device is closed by the region, which has it open under its lock. */
  close(): Promise<void> {
    return Promise.resolve();
  }

  #shift(ops: readonly DiskOp[]): readonly DiskOp[] {
    const { offset, length } = this.#window;
    return ops.map((op): DiskOp => {
      const size = op.kind === "read" ? op.length : op.data.length;
      if (!(op.offset >= 0) || op.offset + size > length) {
        throw new ShareHaError(
          "ERR_IO_RANGE",
          `${op.kind} of ${size} bytes at ${op.offset} is outside the region of ${length} bytes`,
          { hint: "A defect of the program or of the figures given to it. Please report it." },
        );
      }
      return { ...op, offset: op.offset + offset };
    });
  }

  async #submitGuarded(
    device: LunDevice,
    guard: SuperblockGuard,
    ops: readonly DiskOp[],
    deadlineMs: number,
  ): Promise<BatchResult> {
    const look: DiskOp = {
      kind: "read",
      offset: this.#window.offset + guard.offset,
      length: guard.bytes.length,
    };
    const result = await device.submit([...ops, look], deadlineMs);
    if (result.kind !== "done") {
      return result;
    }
    const seen = result.reads.at(-1);
    if (seen !== undefined && isSame(seen, guard.bytes)) {
      return {
        kind: "done",
        reads: result.reads.slice(0, -1),
        timings: result.timings.slice(0, -1),
      };
    }
    if (this.#guard === guard) {
      guard.onChange();
    }
    return {
      kind: "failed",
      code: CODE_SET_CHANGED,
      message: "the superblock has changed: the set of LUNs is another one now",
    };
  }
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}
