/**
 * Finds our partitions in a GUID partition table (UEFI 2.10, chapter 5) from bytes that were read by direct I/O. Opening a
 * region must neither trust the page cache nor start a program on a device that may hang.
 */
import { crc32 } from "node:zlib";

import {
  DATA_PARTITION_NAME,
  DATA_PARTITION_TYPE,
  type Extent,
  type GptLayout,
  LOCK_PARTITION_NAME,
  LOCK_PARTITION_TYPE,
} from "../system/gpt.js";

/** Enough for the protective MBR, the header and 128 entries with either sector size. */
export const GPT_READ_BYTES = 32 * 1024;

const HEADER_SIZE_MIN = 92;
const ENTRY_SIZE = 128;
const ENTRIES_MAX = 128;

/**
 * @param bytes the first `GPT_READ_BYTES` of the device, or fewer when it is smaller
 * @returns empty when there is no whole table, or none of ours in it
 */
export function findOurPartitions(bytes: Uint8Array, sectorSize: number): GptLayout {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = view.subarray(sectorSize, 2 * sectorSize);
  if (header.length < HEADER_SIZE_MIN || header.toString("latin1", 0, 8) !== "EFI PART") {
    return {};
  }
  const headerSize = header.readUInt32LE(12);
  if (headerSize < HEADER_SIZE_MIN || headerSize > header.length || !isWhole(header, headerSize)) {
    return {};
  }
  const start = Number(header.readBigUInt64LE(72)) * sectorSize;
  const count = header.readUInt32LE(80);
  const size = header.readUInt32LE(84);
  const end = start + count * size;
  if (size !== ENTRY_SIZE || count > ENTRIES_MAX || !(end <= view.length)) {
    return {};
  }
  if (crc32(view.subarray(start, end)) !== header.readUInt32LE(88)) {
    return {};
  }
  const entries = Array.from({ length: count }, (_, index) =>
    view.subarray(start + index * size, start + (index + 1) * size),
  );
  const lock = extentOf(entries, LOCK_PARTITION_TYPE, LOCK_PARTITION_NAME, sectorSize);
  const data = extentOf(entries, DATA_PARTITION_TYPE, DATA_PARTITION_NAME, sectorSize);
  return { ...(lock === undefined ? {} : { lock }), ...(data === undefined ? {} : { data }) };
}

/** The header's CRC is computed with its own field as zero. */
function isWhole(header: Buffer, headerSize: number): boolean {
  const copy = Buffer.from(header.subarray(0, headerSize));
  copy.writeUInt32LE(0, 16);
  return crc32(copy) === header.readUInt32LE(16);
}

function extentOf(
  entries: readonly Buffer[],
  type: string,
  name: string,
  sectorSize: number,
): Extent | undefined {
  const found = entries.filter((entry) => guidOf(entry) === type && nameOf(entry) === name);
  const [entry] = found;
  if (entry === undefined || found.length > 1) {
    return undefined;
  }
  const first = Number(entry.readBigUInt64LE(32));
  const last = Number(entry.readBigUInt64LE(40));
  const extent = { offset: first * sectorSize, length: (last - first + 1) * sectorSize };
  const isSane = first > 0 && last >= first && Number.isSafeInteger(extent.offset + extent.length);
  return isSane ? extent : undefined;
}

/** The first three fields of a GUID are little-endian. */
function guidOf(entry: Buffer): string {
  const hex = (bytes: Buffer): string => bytes.toString("hex").toUpperCase();
  return [
    hex(Buffer.from(entry.subarray(0, 4)).reverse()),
    hex(Buffer.from(entry.subarray(4, 6)).reverse()),
    hex(Buffer.from(entry.subarray(6, 8)).reverse()),
    hex(entry.subarray(8, 10)),
    hex(entry.subarray(10, 16)),
  ].join("-");
}

function nameOf(entry: Buffer): string {
  const name = entry.toString("utf16le", 56, 128);
  const end = name.indexOf("\0");
  return end < 0 ? name : name.slice(0, end);
}
