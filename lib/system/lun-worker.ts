/**
 * The thread of one LUN: synchronous, aligned, direct I/O, one operation after the other. It is the only code that touches
 * the device. When the device hangs, this thread hangs, and that is the signal (DESIGN section 5).
 */
import { closeSync, constants, fstatSync, openSync } from "node:fs";
import {
  type MessagePort,
  parentPort,
  receiveMessageOnPort,
  workerData,
} from "node:worker_threads";

import { ShareHaError } from "../errors.js";
import { deviceError } from "./device-error.js";
import { tryFileLock } from "./file-lock.js";
import {
  alignedBuffer,
  BLKROGET,
  bootTimeMs,
  EINTR,
  EINVAL,
  errnoName,
  ioctl,
  pread,
  pwrite,
} from "./libc.js";
import {
  type LunReply,
  type LunRequest,
  type LunWorkerSetup,
  transferList,
  type WireOp,
} from "./lun-message.js";
import { lockBuffer, makeThreadRealtime } from "./realtime.js";

/** Larger requests are split into system calls of at most this many bytes. */
const IO_BUFFER_SIZE = 2 * 1024 * 1024;
const LOCK_RETRY_MS = 20;

const buffer = alignedBuffer(IO_BUFFER_SIZE);

/** Blocks this thread; there is nothing else for it to do. */
function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

function takeLock(path: string, waitMs: number): void {
  const giveUpAtMs = bootTimeMs() + waitMs;
  for (;;) {
    const result = tryFileLock(path);
    if (result.kind === "locked") {
      return; // The descriptor stays open until the process ends or `finish` closes the thread's descriptors.
    }
    if (bootTimeMs() >= giveUpAtMs) {
      const holder = result.holder === "" ? "another process" : `process ${result.holder}`;
      throw new ShareHaError("ERR_LUN_BUSY", `${path} is locked by ${holder}`, {
        hint:
          "An earlier process of this node still has I/O out on the LUN. Wait until it has ended; when it hangs in the " +
          "kernel (state D), repair the path to the storage or restart the machine.",
      });
    }
    pause(LOCK_RETRY_MS);
  }
}

function openDevice(setup: LunWorkerSetup): number {
  const access = setup.readOnly ? constants.O_RDONLY : constants.O_RDWR;
  const durable = setup.readOnly ? 0 : constants.O_DSYNC;
  try {
    // Node adds O_CLOEXEC to every open.
    return openSync(setup.path, access | durable | constants.O_DIRECT | constants.O_NOCTTY);
  } catch (error) {
    throw deviceError(setup.path, error);
  }
}

/** Linux lets a read-only block device be opened for writing; only the writes fail. */
function refuseReadOnly(fd: number, setup: LunWorkerSetup): void {
  const flag = new Int32Array(1);
  if (!setup.readOnly && ioctl(fd, BLKROGET, flag) === 0 && flag[0] !== 0) {
    throw deviceError(setup.path, { code: "EROFS" });
  }
}

/** Reads the first and the last sector: proves sector size and length before anybody relies on them. */
function proveAccess(lun: Lun, setup: LunWorkerSetup): void {
  for (const offset of [0, setup.size - setup.sectorSize]) {
    const failure = transfer(lun, false, setup.baseOffset + offset, setup.sectorSize);
    if (failure === undefined) {
      continue;
    }
    if (failure.code === "EINVAL") {
      throw new ShareHaError(
        "ERR_SECTOR_SIZE",
        `${setup.path} does not take direct I/O in units of ${setup.sectorSize} bytes`,
        {
          hint: "Use the device's logical sector size (blockdev --getss), usually 512 or 4096.",
          fields: { path: setup.path, sectorSize: setup.sectorSize },
        },
      );
    }
    if (failure.code === "ESHORT") {
      throw new ShareHaError(
        "ERR_LUN_TOO_SMALL",
        `${setup.path} ends before byte ${setup.baseOffset + setup.size}`,
        { hint: "The device is smaller than the region on it: truncated, or another device." },
      );
    }
    throw new ShareHaError("ERR_LUN_READ", `${setup.path}: ${failure.message}`, {
      hint: "The device was opened but cannot be read; see the kernel log (dmesg).",
      fields: { path: setup.path, errno: failure.code },
    });
  }
}

/** The open LUN. */
interface Lun {
  readonly fd: number;
  readonly baseOffset: number;
  readonly sectorSize: number;
  /** A write beyond the end of a truncated regular file would silently make it longer; a device refuses by itself. */
  readonly isFile: boolean;
}

interface IoFailure {
  readonly code: string;
  readonly message: string;
}

function short(write: boolean, offset: number, moved: number, length: number): IoFailure {
  return {
    code: "ESHORT",
    message: `${write ? "write" : "read"} at byte ${offset} ended after ${moved} of ${length} bytes`,
  };
}

/** Moves `length` bytes (at most the buffer) between the device and the start of the buffer, whatever short transfers. */
function transfer(lun: Lun, write: boolean, offset: number, length: number): IoFailure | undefined {
  if (write && lun.isFile) {
    const room = fstatSync(lun.fd).size - offset;
    if (room < length) {
      return short(write, offset, Math.max(0, room), length);
    }
  }
  let moved = 0;
  while (moved < length) {
    const rest = buffer.subarray(moved, length);
    const result = (write ? pwrite : pread)(lun.fd, rest, offset + moved);
    if (result > 0) {
      moved += result;
    } else if (result === 0 || (result === -EINVAL && moved % lun.sectorSize !== 0)) {
      // A transfer that stops inside a sector has met the end of a truncated file.
      return short(write, offset, moved, length);
    } else if (result !== -EINTR) {
      const code = errnoName(result);
      return {
        code,
        message: `${write ? "write" : "read"} of ${length} bytes at byte ${offset}: ${code}`,
      };
    }
  }
  return undefined;
}

/** One operation in pieces of the buffer's size; `data` is its source or destination. */
function perform(lun: Lun, op: WireOp, data: Uint8Array): IoFailure | undefined {
  for (let done = 0; done < op.length; done += IO_BUFFER_SIZE) {
    const length = Math.min(IO_BUFFER_SIZE, op.length - done);
    if (op.write) {
      buffer.set(data.subarray(done, done + length));
    }
    const failure = transfer(lun, op.write, lun.baseOffset + op.offset + done, length);
    if (failure !== undefined) {
      return failure;
    }
    if (!op.write) {
      data.set(buffer.subarray(0, length), done);
    }
  }
  return undefined;
}

function performBatch(lun: Lun, request: Extract<LunRequest, { kind: "batch" }>): LunReply {
  const readLength = request.ops.reduce((sum, op) => sum + (op.write ? 0 : op.length), 0);
  const reads = new Uint8Array(readLength);
  const times: number[] = [];
  let readAt = 0;
  let writtenAt = 0;
  for (const op of request.ops) {
    const startedMs = bootTimeMs();
    if (startedMs > request.deadlineAtMs) {
      return { kind: "late", id: request.id };
    }
    const data = op.write
      ? request.data.subarray(writtenAt, (writtenAt += op.length))
      : reads.subarray(readAt, (readAt += op.length));
    const failure = perform(lun, op, data);
    const completedMs = bootTimeMs();
    if (completedMs > request.deadlineAtMs) {
      return { kind: "late", id: request.id };
    }
    if (failure !== undefined) {
      return { kind: "failed", id: request.id, ...failure };
    }
    times.push(startedMs, completedMs);
  }
  return { kind: "done", id: request.id, data: reads, times };
}

function refusal(error: unknown): LunReply {
  if (error instanceof ShareHaError) {
    return { kind: "refused", code: error.code, message: error.message, hint: error.hint };
  }
  const message = error instanceof Error ? error.message : String(error);
  return {
    kind: "refused",
    code: "ERR_LUN_OPEN",
    message,
    hint: "See the message of the operating system above.",
  };
}

function main(setup: LunWorkerSetup): void {
  const port = parentPort;
  if (port === null) {
    throw new Error("lun-worker runs only as a worker thread");
  }
  let lun: Lun;
  let realtime: boolean;
  try {
    realtime = setup.realtime && makeThreadRealtime().kind === "realtime";
    if (setup.realtime) {
      lockBuffer(buffer);
    }
    if (setup.lockFile !== undefined) {
      takeLock(setup.lockFile, setup.lockWaitMs);
    }
    const fd = openDevice(setup);
    const { baseOffset, sectorSize } = setup;
    refuseReadOnly(fd, setup);
    lun = { fd, baseOffset, sectorSize, isFile: fstatSync(fd).isFile() };
    proveAccess(lun, setup);
  } catch (error) {
    port.postMessage(refusal(error));
    port.close();
    return;
  }
  port.postMessage({ kind: "opened", realtime } satisfies LunReply);
  serve(port, lun, setup.wake);
  closeSync(lun.fd);
  port.close();
}

/** Carries out requests until it is told to close. */
function serve(port: MessagePort, lun: Lun, wake: Int32Array<SharedArrayBuffer>): void {
  for (;;) {
    // Read before looking for requests: one that comes in between changes it, and the wait returns at once.
    const seen = Atomics.load(wake, 0);
    let received = receiveMessageOnPort(port) as { readonly message: LunRequest } | undefined;
    while (received !== undefined) {
      if (received.message.kind === "close") {
        return;
      }
      const reply = performBatch(lun, received.message);
      port.postMessage(reply, reply.kind === "done" ? transferList(reply.data) : []);
      received = receiveMessageOnPort(port);
    }
    Atomics.wait(wake, 0, seen);
  }
}

main(workerData as LunWorkerSetup);
