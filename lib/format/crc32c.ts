/**
 * CRC-32C (Castagnoli, polynomial 0x1EDC6F41, reflected 0x82F63B78) in the two flavours of the region: the standard one
 * for our own records, and sanlock's, which starts from 0xFFFFFFFE and has no final inversion (sanlock fact sheet,
 * section 1.2). Slicing by 8 (Kounavis and Berry 2005): a configuration slot costs microseconds, not milliseconds.
 */

const POLYNOMIAL = 0x82f63b78;
const SLICES = 8;

const table = buildTable();

function buildTable(): Int32Array {
  const result = new Int32Array(256 * SLICES);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) {
      crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ POLYNOMIAL;
    }
    result[byte] = crc;
  }
  for (let index = 256; index < result.length; index++) {
    const previous = result[index - 256] ?? 0;
    result[index] = (previous >>> 8) ^ (result[previous & 0xff] ?? 0);
  }
  return result;
}

/* `?? 0` only satisfies noUncheckedIndexedAccess: every index here is inside its array. */

/**
 * Feeds bytes[start..end) into a running CRC without any initial or final inversion.
 * @param state the running value, any 32-bit integer
 * @returns the new running value, a signed 32-bit integer
 */
// eslint-disable-next-line complexity -- it counts every `?? 0`
export function crc32cUpdate(
  state: number,
  bytes: Uint8Array,
  start = 0,
  end = bytes.length,
): number {
  let crc = state | 0;
  let at = start;
  // Indexing a Uint8Array costs less here than making a DataView of it for every range.
  for (; at + 8 <= end; at += 8) {
    crc =
      (table[1792 + ((crc ^ (bytes[at] ?? 0)) & 0xff)] ?? 0) ^
      (table[1536 + (((crc >>> 8) ^ (bytes[at + 1] ?? 0)) & 0xff)] ?? 0) ^
      (table[1280 + (((crc >>> 16) ^ (bytes[at + 2] ?? 0)) & 0xff)] ?? 0) ^
      (table[1024 + (((crc >>> 24) ^ (bytes[at + 3] ?? 0)) & 0xff)] ?? 0) ^
      (table[768 + (bytes[at + 4] ?? 0)] ?? 0) ^
      (table[512 + (bytes[at + 5] ?? 0)] ?? 0) ^
      (table[256 + (bytes[at + 6] ?? 0)] ?? 0) ^
      (table[bytes[at + 7] ?? 0] ?? 0);
  }
  for (; at < end; at++) {
    crc = (crc >>> 8) ^ (table[(crc ^ (bytes[at] ?? 0)) & 0xff] ?? 0);
  }
  return crc;
}

/** Standard CRC-32C of all bytes: "123456789" gives 0xE3069283. @returns unsigned 32-bit */
export function crc32c(bytes: Uint8Array): number {
  return ~crc32cUpdate(-1, bytes) >>> 0;
}

/** Standard CRC-32C of several byte ranges [start, end) of one buffer, in the order given. @returns unsigned 32-bit */
export function crc32cOfRanges(
  bytes: Uint8Array,
  ranges: readonly (readonly [start: number, end: number])[],
): number {
  let state = -1;
  for (const [start, end] of ranges) {
    state = crc32cUpdate(state, bytes, start, end);
  }
  return ~state >>> 0;
}

/** sanlock's checksum of all bytes: "123456789" gives 0xE8C7BB34. @returns unsigned 32-bit */
export function sanlockChecksum(bytes: Uint8Array): number {
  return crc32cUpdate(0xfffffffe, bytes) >>> 0;
}
