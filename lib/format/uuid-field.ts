import { fieldError } from "./bytes.js";

/** UUIDs as 16 bytes in the order of their text (RFC 9562), as text in lower case with dashes. */

export const UUID_SIZE = 16;
const UUID_TEXT = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** @throws ERR_RECORD_FIELD for text that is not a lower-case UUID */
export function encodeUuid(bytes: Uint8Array, offset: number, uuid: string, field: string): void {
  if (!UUID_TEXT.test(uuid)) {
    throw fieldError(field, `"${uuid}" is not a UUID in lower case`);
  }
  const digits = uuid.replaceAll("-", "");
  for (let index = 0; index < UUID_SIZE; index++) {
    bytes[offset + index] = Number.parseInt(digits.slice(index * 2, index * 2 + 2), 16);
  }
}

export function decodeUuid(bytes: Uint8Array, offset: number): string {
  let digits = "";
  for (const byte of bytes.subarray(offset, offset + UUID_SIZE)) {
    digits += byte.toString(16).padStart(2, "0");
  }
  return [
    digits.slice(0, 8),
    digits.slice(8, 12),
    digits.slice(12, 16),
    digits.slice(16, 20),
    digits.slice(20),
  ].join("-");
}
