import { ShareHaError } from "../errors.js";

/**
 * Fixed-size name fields: raw bytes, padded with NUL, without terminator when full (sanlock fact sheet, section 1).
 *
 * Bytes become a string without loss. A name of valid UTF-8 without control characters and backslashes is itself;
 * in any other name each byte that is not printable ASCII, and each backslash, becomes `\xNN` (lower case). So every
 * field has exactly one string, every such string has exactly one field, and printing a name never sends a control
 * character from the disk to a terminal. Bytes after an embedded NUL are kept (`\x00...`), and such a name is thus
 * different from the name before the NUL.
 */

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8 = new TextEncoder();
const ESCAPE = /\\x([0-9a-f]{2})/y;
const UNPRINTABLE = /[\p{Cc}\\]/u;

/** @returns the name, "" when the field is all NUL */
export function decodeName(bytes: Uint8Array, offset: number, size: number): string {
  let end = offset + size;
  while (end > offset && bytes[end - 1] === 0) {
    end--;
  }
  let plain = "";
  for (let at = offset; at < end; at++) {
    const byte = bytes[at] ?? 0;
    if (byte < 0x20 || byte > 0x7e || byte === 0x5c) {
      return decodeUnusualName(bytes.subarray(offset, end));
    }
    plain += String.fromCharCode(byte);
  }
  return plain;
}

function decodeUnusualName(bytes: Uint8Array): string {
  const text = tryUtf8(bytes);
  if (text !== undefined && !UNPRINTABLE.test(text)) {
    return text;
  }
  let escaped = "";
  for (const byte of bytes) {
    const printable = byte >= 0x20 && byte <= 0x7e && byte !== 0x5c;
    escaped += printable ? String.fromCharCode(byte) : `\\x${byte.toString(16).padStart(2, "0")}`;
  }
  return escaped;
}

function tryUtf8(bytes: Uint8Array): string | undefined {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    // The one way TextDecoder has to say "not UTF-8"; the caller escapes the bytes instead.
    return undefined;
  }
}

/**
 * Writes a name into an all-zero field.
 * @throws ERR_NAME when it is longer than `size` bytes, or is not the string that `decodeName` gives for any field
 */
export function encodeName(
  bytes: Uint8Array,
  offset: number,
  size: number,
  name: string,
  field: string,
): void {
  if (putPlainName(bytes, offset, size, name)) {
    return;
  }
  const raw = nameBytes(name);
  if (raw.length > size) {
    throw nameError(field, `is ${raw.length} bytes long; ${size} fit`);
  }
  bytes.set(raw, offset);
  if (decodeName(bytes, offset, size) !== name) {
    throw nameError(field, "has characters that no name on disk can have");
  }
}

/** The quick way for printable ASCII, which is every usual name; false when this name is not one or does not fit. */
function putPlainName(bytes: Uint8Array, offset: number, size: number, name: string): boolean {
  if (name.length > size) {
    return false;
  }
  for (let at = 0; at < name.length; at++) {
    const code = name.charCodeAt(at);
    if (code < 0x20 || code > 0x7e || code === 0x5c) {
      bytes.fill(0, offset, offset + size);
      return false;
    }
    bytes[offset + at] = code;
  }
  return true;
}

/** Length in bytes of a name as it would be stored. */
export function nameByteLength(name: string): number {
  return nameBytes(name).length;
}

function nameBytes(name: string): Uint8Array {
  if (!name.includes("\\")) {
    return utf8.encode(name);
  }
  const parts: number[] = [];
  for (let at = 0; at < name.length;) {
    ESCAPE.lastIndex = at;
    const hex = ESCAPE.exec(name)?.[1];
    if (hex !== undefined) {
      parts.push(Number.parseInt(hex, 16));
      at += 4;
    } else {
      const character = String.fromCodePoint(name.codePointAt(at) ?? 0);
      parts.push(...utf8.encode(character));
      at += character.length;
    }
  }
  return Uint8Array.from(parts);
}

function nameError(field: string, problem: string): ShareHaError {
  return new ShareHaError("ERR_NAME", `The ${field} ${problem}.`, {
    hint: "Choose a shorter name of letters, digits, dots and dashes.",
    fields: { field },
  });
}
