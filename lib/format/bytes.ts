import { ShareHaError } from "../errors.js";

/**
 * Little-endian fields of records. A value that does not fit its field throws instead of being cut, because DataView
 * wraps silently and a wrapped generation or host id would be another node's.
 */

const U64_LIMIT = 1n << 64n;

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** True when bytes[start..end) are all zero (also for an empty range). */
export function isZero(bytes: Uint8Array, start = 0, end = bytes.length): boolean {
  for (let at = start; at < end; at++) {
    if (bytes[at] !== 0) {
      return false;
    }
  }
  return true;
}

export function putU8(view: DataView, offset: number, value: number, field: string): void {
  requireUnsigned(value, 0xff, field);
  view.setUint8(offset, value);
}

export function putU16(view: DataView, offset: number, value: number, field: string): void {
  requireUnsigned(value, 0xffff, field);
  view.setUint16(offset, value, true);
}

export function putU32(view: DataView, offset: number, value: number, field: string): void {
  requireUnsigned(value, 0xffffffff, field);
  view.setUint32(offset, value, true);
}

export function putU64(view: DataView, offset: number, value: bigint, field: string): void {
  if (value < 0n || value >= U64_LIMIT) {
    throw fieldError(field, `${value} is not an unsigned 64-bit number`);
  }
  view.setBigUint64(offset, value, true);
}

export function getU16(view: DataView, offset: number): number {
  return view.getUint16(offset, true);
}

export function getU32(view: DataView, offset: number): number {
  return view.getUint32(offset, true);
}

export function getU64(view: DataView, offset: number): bigint {
  return view.getBigUint64(offset, true);
}

/** The error of a writer that was handed a value its record cannot hold: always a fault of the caller. */
export function fieldError(field: string, problem: string): ShareHaError {
  return new ShareHaError("ERR_RECORD_FIELD", `Cannot write field ${field}: ${problem}.`, {
    hint: "Nothing was written. This is a fault in sharedha; report it with the command that led to it.",
    fields: { field },
  });
}

function requireUnsigned(value: number, limit: number, field: string): void {
  if (!Number.isInteger(value) || value < 0 || value > limit) {
    throw fieldError(field, `${value} is not a whole number from 0 to ${limit}`);
  }
}

/** The index of a literal in its list of codes; the list's order is the format on disk. */
export function codeOf<T extends string>(codes: readonly T[], value: T, field: string): number {
  const code = codes.indexOf(value);
  if (code < 0) {
    throw fieldError(field, `"${value}" is none of ${codes.join(", ")}`);
  }
  return code;
}
