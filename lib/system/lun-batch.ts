/** What a batch of operations is on its way to a LUN's worker and back (lun-device.ts). Pure but for the errors. */
import { ShareHaError } from "../errors.js";
import { type BatchResult, type DiskOp } from "../port/disk.js";
import { type LunReply } from "./lun-message.js";

type BatchReply = Exclude<LunReply, { kind: "opened" } | { kind: "refused" }>;

export function batchResult(ops: readonly DiskOp[], reply: BatchReply): BatchResult {
  if (reply.kind === "late") {
    return { kind: "late" };
  }
  if (reply.kind === "failed") {
    return { kind: "failed", code: reply.code, message: reply.message };
  }
  const reads: Uint8Array[] = [];
  let offset = 0;
  for (const op of ops) {
    if (op.kind === "read") {
      reads.push(reply.data.subarray(offset, (offset += op.length)));
    }
  }
  const timings = ops.map((_, index) => ({
    startedMs: reply.times[2 * index] ?? NaN,
    completedMs: reply.times[2 * index + 1] ?? NaN,
  }));
  return { kind: "done", reads, timings };
}

export function copyWriteData(ops: readonly DiskOp[]): Uint8Array<ArrayBuffer> {
  const writes = ops.filter((op) => op.kind === "write");
  const data = new Uint8Array(writes.reduce((sum, op) => sum + op.data.length, 0));
  let offset = 0;
  for (const op of writes) {
    data.set(op.data, offset);
    offset += op.data.length;
  }
  return data;
}

export function isMultiple(bytes: number, sectorSize: number): boolean {
  return Number.isSafeInteger(bytes) && bytes >= 0 && bytes % sectorSize === 0;
}

export function rangeError(path: string, what: string, sectorSize: number): ShareHaError {
  return new ShareHaError(
    "ERR_IO_RANGE",
    `${what} is outside ${path} or not a multiple of ${sectorSize}`,
    { hint: "A defect of the program or of the figures given to it. Please report it." },
  );
}

export function workerError(path: string, cause: unknown): ShareHaError {
  const why = cause instanceof Error ? cause.message : "it ended by itself";
  return new ShareHaError("ERR_LUN_WORKER", `the I/O thread of ${path} is gone: ${why}`, {
    hint: "Usually lack of memory; see the log. The process has to be started again.",
    fields: { path },
    cause,
  });
}

export function crashResult(error: Error): BatchResult {
  return { kind: "failed", code: "EWORKER", message: error.message };
}
