import { Worker } from "node:worker_threads";

import { ShareHaError } from "../errors.js";
import { type BatchResult, type DiskOp, type LunDevice } from "../port/disk.js";
import { bootTimeMs } from "./libc.js";
import {
  batchResult,
  copyWriteData,
  crashResult,
  isMultiple,
  rangeError,
  workerError,
} from "./lun-batch.js";
import {
  type LunReply,
  type LunRequest,
  type LunWorkerSetup,
  transferList,
} from "./lun-message.js";

/** More batches than this waiting on one LUN is a caller that does not wait for its answers. */
export const LUN_QUEUE_MAX = 64;
/** The operations of one batch, all together; far above the largest area of a region. */
export const BATCH_BYTES_MAX = 256 * 1024 * 1024;

const OPEN_TIMEOUT_MS = 10_000;

export interface LunOptions {
  /** Block device or regular file. */
  readonly path: string;
  /** First byte of the region on the device; a multiple of the sector size. */
  readonly baseOffset: number;
  /** Bytes of the region; a multiple of the sector size. */
  readonly size: number;
  readonly sectorSize: 512 | 4096;
  readonly readOnly?: boolean;
  /**
   * flock(LOCK_EX) is held on this file as long as the worker lives, also while it hangs in the kernel: a new process of
   * the node does not send I/O to a LUN on which the old one's is still out (DESIGN section 4).
   */
  readonly lockFile?: string;
  /** How long to wait for the lock; 0 (the default) tries once. */
  readonly lockWaitMs?: number;
  /** Real-time scheduling of the worker, where the machine permits it. */
  readonly realtime?: boolean;
  /** How long opening and the first reads may take (without the wait for the lock); default 10 s. */
  readonly openTimeoutMs?: number;
}

/**
 * - `submit`: `deadlineMs` counts from the call. A batch that is still waiting at its deadline is `late` without ever
 *   being issued; an operation is never started after its deadline. Write data is copied at the call. Rejects only for
 *   programming errors: ERR_IO_QUEUE (more than `LUN_QUEUE_MAX` waiting) and ERR_IO_CLOSED; ERR_IO_RANGE (offsets,
 *   lengths) and ERR_IO_READ_ONLY are thrown at once.
 * - `close`: waits for the batch that is out, at most until its deadline; waiting ones are answered `busy`. `stuck` is
 *   still true afterwards when the worker had to be left behind in the kernel. Such a process can end only by SIGKILL
 *   (`process.exit` waits for its threads), and only when the kernel gives the thread back.
 */
export interface OpenLun extends LunDevice {
  readonly path: string;
  readonly sectorSize: 512 | 4096;
  readonly size: number;
  /** Whether the worker runs with real-time priority. */
  readonly realtime: boolean;
}

/**
 * Opens a LUN for direct, durable (O_DIRECT and O_DSYNC) I/O by a thread of its own, and reads its first and last sector.
 * @throws ERR_NO_SUCH_DEVICE, ERR_PERMISSION, ERR_READ_ONLY_DEVICE, ERR_DIRECT_IO, ERR_SECTOR_SIZE, ERR_LUN_TOO_SMALL,
 *   ERR_LUN_READ, ERR_LUN_BUSY (lock file), ERR_LUN_TIMEOUT (the device does not answer; its thread, and so the lock, is
 *   left behind), ERR_IO_RANGE (options)
 */
export async function openLun(options: LunOptions): Promise<OpenLun> {
  const { path, baseOffset, size, sectorSize } = options;
  if (!isMultiple(baseOffset, sectorSize) || !isMultiple(size, sectorSize) || size === 0) {
    throw rangeError(path, `a region of ${size} bytes at byte ${baseOffset}`, sectorSize);
  }
  const lockWaitMs = options.lockWaitMs ?? 0;
  const setup: LunWorkerSetup = {
    wake: new Int32Array(new SharedArrayBuffer(4)),
    path,
    baseOffset,
    size,
    sectorSize,
    readOnly: options.readOnly ?? false,
    lockFile: options.lockFile,
    lockWaitMs,
    realtime: options.realtime ?? false,
  };
  const worker = new Worker(new URL("./lun-worker.js", import.meta.url), {
    workerData: setup,
    name: "lun",
    // The process's own options (a profiler, --input-type) are not for this thread.
    execArgv: [],
    // The thread copies a few sectors per second: V8 need not reserve a large young generation for it.
    resourceLimits: { maxYoungGenerationSizeMb: 8 },
  });
  const realtime = await opened(
    worker,
    setup,
    lockWaitMs + (options.openTimeoutMs ?? OPEN_TIMEOUT_MS),
  );
  return new WorkerLun(worker, setup, sectorSize, realtime);
}

/** Resolves with the worker's first message: whether it runs with real-time priority. */
async function opened(worker: Worker, setup: LunWorkerSetup, timeoutMs: number): Promise<boolean> {
  const { path } = setup;
  return await new Promise<boolean>((resolve, reject) => {
    const settle = (): void => {
      clearTimeout(timer);
      // Not removeAllListeners: Node's own listeners on the worker keep its message port going.
      worker.off("message", onMessage);
      worker.off("error", onError);
    };
    const onMessage = (reply: LunReply): void => {
      settle();
      if (reply.kind === "refused") {
        const { code, message, hint } = reply;
        reject(new ShareHaError(code, message, { hint, fields: { path } }));
      } else {
        resolve(reply.kind === "opened" && reply.realtime);
      }
    };
    const onError = (error: unknown): void => {
      settle();
      reject(workerError(path, error));
    };
    const timer = setTimeout(() => {
      settle();
      leaveBehind(worker, setup.wake);
      reject(
        new ShareHaError("ERR_LUN_TIMEOUT", `${path} did not answer within ${timeoutMs} ms`, {
          hint: "Check the path to the storage (iscsiadm -m session, multipath -ll, dmesg).",
          fields: { path, timeoutMs },
        }),
      );
    }, timeoutMs);
    worker.on("message", onMessage);
    worker.on("error", onError);
  });
}

/** Lets a thread that hangs in its opening close itself when the kernel gives it back. */
function leaveBehind(worker: Worker, wake: Int32Array<SharedArrayBuffer>): void {
  worker.on("error", ignoreLeftBehind);
  send(worker, wake, { kind: "close" });
  worker.unref();
}

function send(
  worker: Worker,
  wake: Int32Array<SharedArrayBuffer>,
  request: LunRequest,
  transfer: ArrayBuffer[] = [],
): void {
  worker.postMessage(request, transfer);
  Atomics.add(wake, 0, 1);
  Atomics.notify(wake, 0);
}

/** The thread of a LUN that never opened has been reported already, as ERR_LUN_TIMEOUT. */
function ignoreLeftBehind(): void {
  return undefined;
}

interface Batch {
  readonly id: number;
  readonly ops: readonly DiskOp[];
  /** The data of all writes, copied when the batch was submitted. */
  readonly data: Uint8Array<ArrayBuffer>;
  readonly deadlineAtMs: number;
  readonly resolve: (result: BatchResult) => void;
  timer: NodeJS.Timeout | undefined;
}

class WorkerLun implements OpenLun {
  readonly path: string;
  readonly sectorSize: 512 | 4096;
  readonly size: number;
  readonly realtime: boolean;
  readonly #readOnly: boolean;
  readonly #worker: Worker;
  readonly #wake: Int32Array<SharedArrayBuffer>;
  readonly #waiting: Batch[] = [];
  /** The batch that the worker has; kept after its deadline, until the worker answers. */
  #out: Batch | undefined;
  #outIsLate = false;
  #closing: Promise<void> | undefined;
  #crashed: Error | undefined;
  #nextId = 1;
  /** Called whenever the batch that is out has been answered or is late. */
  #settled: (() => void) | undefined;

  constructor(worker: Worker, setup: LunWorkerSetup, sectorSize: 512 | 4096, realtime: boolean) {
    this.path = setup.path;
    this.size = setup.size;
    this.sectorSize = sectorSize;
    this.realtime = realtime;
    this.#readOnly = setup.readOnly;
    this.#worker = worker;
    this.#wake = setup.wake;
    worker.on("message", (reply: LunReply) => {
      this.#answered(reply);
    });
    worker.on("error", (error) => {
      this.#lost(workerError(this.path, error));
    });
    worker.on("exit", () => {
      if (this.#closing === undefined) {
        this.#lost(workerError(this.path, undefined));
      }
    });
  }

  get stuck(): boolean {
    return this.#outIsLate;
  }

  // Not `async`: a caller's mistake is thrown at the call, not given back as a result that nobody may look at.
  submit(ops: readonly DiskOp[], deadlineMs: number): Promise<BatchResult> {
    this.#validate(ops, deadlineMs);
    if (this.#closing !== undefined) {
      return Promise.reject(
        new ShareHaError("ERR_IO_CLOSED", `${this.path} has been closed`, {
          hint: "A defect of the program: it uses a LUN after closing it. Please report it.",
        }),
      );
    }
    if (this.#waiting.length >= LUN_QUEUE_MAX) {
      return Promise.reject(
        new ShareHaError(
          "ERR_IO_QUEUE",
          `${LUN_QUEUE_MAX} requests already wait for ${this.path}`,
          {
            hint: "A defect of the program: it sends requests without waiting for answers. Please report it.",
          },
        ),
      );
    }
    if (this.#crashed !== undefined) {
      return Promise.resolve(crashResult(this.#crashed));
    }
    if (this.#outIsLate) {
      return Promise.resolve({ kind: "busy" });
    }
    return new Promise((resolve) => {
      const id = this.#nextId++;
      const deadlineAtMs = bootTimeMs() + deadlineMs;
      const data = copyWriteData(ops);
      const batch: Batch = { id, ops, data, deadlineAtMs, resolve, timer: undefined };
      this.#arm(batch);
      this.#waiting.push(batch);
      this.#issueNext();
    });
  }

  async close(): Promise<void> {
    this.#closing ??= this.#close();
    await this.#closing;
  }

  async #close(): Promise<void> {
    this.#refuseWaiting();
    if (this.#out !== undefined && !this.#outIsLate) {
      await new Promise<void>((resolve) => {
        this.#settled = resolve;
      });
    }
    if (this.#outIsLate) {
      this.#worker.unref();
      send(this.#worker, this.#wake, { kind: "close" });
      return;
    }
    if (this.#crashed === undefined) {
      const gone = new Promise<void>((resolve) =>
        this.#worker.once("exit", () => {
          resolve();
        }),
      );
      send(this.#worker, this.#wake, { kind: "close" });
      await gone;
    }
  }

  #validate(ops: readonly DiskOp[], deadlineMs: number): void {
    if (ops.length === 0 || !(deadlineMs > 0) || deadlineMs > 3_600_000) {
      throw new ShareHaError(
        "ERR_IO_RANGE",
        `a batch of ${ops.length} operations with a deadline of ${deadlineMs} ms`,
        { hint: "A defect of the program: at least one operation, 0 < deadline <= 1 h." },
      );
    }
    let total = 0;
    for (const op of ops) {
      const length = op.kind === "read" ? op.length : op.data.length;
      total += length;
      const fits =
        isMultiple(op.offset, this.sectorSize) &&
        isMultiple(length, this.sectorSize) &&
        length > 0 &&
        op.offset + length <= this.size &&
        total <= BATCH_BYTES_MAX;
      if (!fits) {
        throw rangeError(
          this.path,
          `${op.kind} of ${length} bytes at ${op.offset}`,
          this.sectorSize,
        );
      }
      if (op.kind === "write" && this.#readOnly) {
        throw new ShareHaError("ERR_IO_READ_ONLY", `${this.path} was opened for reading only`, {
          hint: "A defect of the program: it writes to a LUN that it opened to look at. Please report it.",
        });
      }
    }
  }

  /** Node's timers may fire up to a millisecond early, and they stand still during suspend: the clock has the last word. */
  #arm(batch: Batch): void {
    const restMs = batch.deadlineAtMs - bootTimeMs();
    batch.timer = setTimeout(
      () => {
        if (bootTimeMs() < batch.deadlineAtMs) {
          this.#arm(batch);
        } else {
          this.#deadlinePassed(batch);
        }
      },
      Math.max(1, Math.ceil(restMs)),
    );
  }

  #deadlinePassed(batch: Batch): void {
    if (batch !== this.#out) {
      this.#waiting.splice(this.#waiting.indexOf(batch), 1);
      batch.resolve({ kind: "late" });
      return;
    }
    this.#outIsLate = true;
    batch.resolve({ kind: "late" });
    this.#refuseWaiting();
    this.#settled?.();
  }

  #refuseWaiting(): void {
    for (const batch of this.#waiting.splice(0)) {
      clearTimeout(batch.timer);
      batch.resolve({ kind: "busy" });
    }
  }

  #issueNext(): void {
    if (this.#out !== undefined) {
      return;
    }
    const batch = this.#waiting.shift();
    if (batch === undefined) {
      return;
    }
    this.#out = batch;
    const request: LunRequest = {
      kind: "batch",
      id: batch.id,
      deadlineAtMs: batch.deadlineAtMs,
      ops: batch.ops.map((op) => ({
        write: op.kind === "write",
        offset: op.offset,
        length: op.kind === "write" ? op.data.length : op.length,
      })),
      data: batch.data,
    };
    send(this.#worker, this.#wake, request, transferList(batch.data));
  }

  #answered(reply: LunReply): void {
    const batch = this.#out;
    if (reply.kind === "opened" || reply.kind === "refused" || batch?.id !== reply.id) {
      this.#lost(workerError(this.path, new Error(`unexpected answer: ${reply.kind}`)));
      return;
    }
    const wasLate = this.#outIsLate;
    this.#out = undefined;
    this.#outIsLate = false;
    clearTimeout(batch.timer);
    if (!wasLate) {
      batch.resolve(batchResult(batch.ops, reply));
      this.#settled?.();
    }
    if (this.#closing === undefined) {
      this.#issueNext();
    }
  }

  /** The thread is gone, which only a defect or lack of memory can cause: everything fails from now on. */
  #lost(error: Error): void {
    this.#crashed ??= error;
    const result = crashResult(error);
    const batches = [...(this.#out === undefined ? [] : [this.#out]), ...this.#waiting.splice(0)];
    this.#out = undefined;
    this.#outIsLate = false;
    for (const batch of batches) {
      clearTimeout(batch.timer);
      batch.resolve(result);
    }
    this.#settled?.();
  }
}
