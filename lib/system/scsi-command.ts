/**
 * One SCSI command through the kernel's pass-through (SG_IO, linux scsi/sg.h), on a disk's own block device (/dev/sdX; never
 * a partition). Blocks until the command is answered; the kernel ends it after `timeoutMs` and then still aborts and resets
 * for as long as that takes, so it belongs into a thread or process that may hang.
 */
import { addressOf, alignedBuffer, errnoName, ioctl } from "./libc.js";

const SG_IO = 0x2285;
const SG_INTERFACE_ID = 0x53; // "S"
const SG_DXFER_NONE = -1;
const SG_DXFER_TO_DEV = -2;
const SG_DXFER_FROM_DEV = -3;
/** struct sg_io_hdr on 64-bit machines, x86-64 and arm64 alike. */
export const SG_IO_HDR_SIZE = 88;
const CDB_BYTES_MAX = 32;
/** The kernel writes at most 96 (SCSI_SENSE_BUFFERSIZE). */
const SENSE_BYTES_MAX = 252;
/** Of the data in the one piece of memory: behind CDB and sense, and aligned for controllers that want it. */
const DATA_OFFSET = 512;
/** Far above any parameter data of ours, and what the kernel takes without splitting. */
const DATA_BYTES_MAX = 64 * 1024;

export type ScsiTransfer =
  | { readonly kind: "none" }
  | { readonly kind: "in"; readonly length: number }
  | { readonly kind: "out"; readonly data: Uint8Array };

/**
 * - `answered`: the device gave a status (SAM-5: 0x00 GOOD, 0x02 CHECK CONDITION, 0x08 BUSY, 0x18 RESERVATION CONFLICT,
 *   0x28 TASK SET FULL, 0x40 TASK ABORTED), sense data, and so many bytes.
 * - `transport`: it never reached the device, or no answer came. `hostStatus` and `driverStatus` are the kernel's DID_ and
 *   DRIVER_ codes. Whether the command was carried out is not known.
 * - `refused`: the kernel did not take the command. ENOTTY and EINVAL: no SCSI device.
 */
export type ScsiResult =
  | {
      readonly kind: "answered";
      readonly status: number;
      readonly sense: Uint8Array;
      readonly data: Uint8Array;
      /** Bytes asked for and not transferred. */
      readonly residual: number;
      readonly durationMs: number;
    }
  | { readonly kind: "transport"; readonly hostStatus: number; readonly driverStatus: number }
  | { readonly kind: "refused"; readonly code: string };

/** DRIVER_SENSE: only says that there is sense data (kernels before 5.14). */
const DRIVER_SENSE = 0x08;

export function scsiCommand(
  fd: number,
  cdb: Uint8Array,
  transfer: ScsiTransfer,
  timeoutMs: number,
): ScsiResult {
  const length =
    transfer.kind === "none" ? 0 : transfer.kind === "in" ? transfer.length : transfer.data.length;
  if (cdb.length > CDB_BYTES_MAX || length > DATA_BYTES_MAX || !(timeoutMs > 0)) {
    throw new RangeError(
      `a CDB of ${cdb.length} bytes, ${length} bytes of data, timeout ${timeoutMs} ms`,
    );
  }
  // One piece of memory that does not move, for everything that the kernel gets the address of.
  const memory = alignedBuffer(DATA_OFFSET + length);
  const sense = memory.subarray(CDB_BYTES_MAX, CDB_BYTES_MAX + SENSE_BYTES_MAX);
  const data = memory.subarray(DATA_OFFSET);
  memory.set(cdb);
  if (transfer.kind === "out") {
    data.set(transfer.data);
  }
  const header = encodeSgHeader({
    direction: transfer.kind,
    cdbLength: cdb.length,
    cdb: addressOf(memory),
    sense: addressOf(memory) + BigInt(CDB_BYTES_MAX),
    data: length === 0 ? 0n : addressOf(memory) + BigInt(DATA_OFFSET),
    dataLength: length,
    timeoutMs,
  });
  const result = ioctl(fd, SG_IO, header);
  if (result < 0) {
    return { kind: "refused", code: errnoName(result) };
  }
  const answer = decodeSgHeader(header);
  const driverStatus = answer.driverStatus & ~DRIVER_SENSE;
  if (answer.hostStatus !== 0 || driverStatus !== 0) {
    return { kind: "transport", hostStatus: answer.hostStatus, driverStatus };
  }
  const residual = Math.min(length, Math.max(0, answer.residual));
  return {
    kind: "answered",
    status: answer.status,
    sense: sense.slice(0, Math.min(SENSE_BYTES_MAX, answer.senseLength)),
    data: transfer.kind === "in" ? data.slice(0, length - residual) : new Uint8Array(0),
    residual,
    durationMs: answer.durationMs,
  };
}

export interface SgHeader {
  readonly direction: ScsiTransfer["kind"];
  readonly cdbLength: number;
  /** Addresses. */
  readonly cdb: bigint;
  readonly sense: bigint;
  readonly data: bigint;
  readonly dataLength: number;
  readonly timeoutMs: number;
}

const DIRECTION = { none: SG_DXFER_NONE, in: SG_DXFER_FROM_DEV, out: SG_DXFER_TO_DEV } as const;

/** Exported for tests. */
export function encodeSgHeader(header: SgHeader): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(SG_IO_HDR_SIZE));
  const view = new DataView(bytes.buffer);
  view.setInt32(0, SG_INTERFACE_ID, true);
  view.setInt32(4, DIRECTION[header.direction], true);
  view.setUint8(8, header.cdbLength);
  view.setUint8(9, SENSE_BYTES_MAX);
  view.setUint32(12, header.dataLength, true);
  view.setBigUint64(16, header.data, true);
  view.setBigUint64(24, header.cdb, true);
  view.setBigUint64(32, header.sense, true);
  view.setUint32(40, Math.ceil(header.timeoutMs), true);
  return bytes;
}

export interface SgAnswer {
  readonly status: number;
  readonly senseLength: number;
  readonly hostStatus: number;
  readonly driverStatus: number;
  readonly residual: number;
  readonly durationMs: number;
}

/** Exported for tests. */
export function decodeSgHeader(bytes: Uint8Array): SgAnswer {
  const view = new DataView(bytes.buffer, bytes.byteOffset, SG_IO_HDR_SIZE);
  return {
    status: view.getUint8(64),
    senseLength: view.getUint8(67),
    hostStatus: view.getUint16(68, true),
    driverStatus: view.getUint16(70, true),
    residual: view.getInt32(72, true),
    durationMs: view.getUint32(76, true),
  };
}
