import assert from "node:assert/strict";

import fc from "fast-check";

import type { Decoded } from "../../../lib/format/decoded.js";

/** Changes to one byte that are tried: each single bit, and all bits. */
const PATTERNS = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff];

/** Offsets at which some change is accepted in silence: decoded as `ok`, though not to the original bytes' checksum. */
export function acceptedFlips(
  bytes: Uint8Array,
  accepts: (mutated: Uint8Array) => boolean,
  length = bytes.length,
): number[] {
  assert.ok(accepts(bytes), "the record itself must be accepted");
  const accepted: number[] = [];
  for (let offset = 0; offset < length; offset++) {
    const some = PATTERNS.some((pattern) => {
      const mutated = Uint8Array.from(bytes);
      mutated[offset]! ^= pattern;
      return accepts(mutated);
    });
    if (some) {
      accepted.push(offset);
    }
  }
  return accepted;
}

/** [start, end) as a list. */
export function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, index) => start + index);
}

/** The parser gives a Decoded, never an exception, for random bytes, for mutated and for cut ones. */
export function assertNeverThrows(
  decode: (bytes: Uint8Array) => Decoded<unknown>,
  valid: Uint8Array,
): void {
  const kinds = new Set(["ok", "empty", "foreign", "corrupt"]);
  const check = (bytes: Uint8Array): void => {
    assert.ok(kinds.has(decode(bytes).kind));
  };
  const random = fc.uint8Array({ minLength: 0, maxLength: valid.length, size: "max" });
  fc.assert(fc.property(random, check), { numRuns: 100 });
  // Random bytes never get past the magic; keep it and randomise the rest.
  const behindMagic = fc.uint8Array({ minLength: valid.length, maxLength: valid.length });
  fc.assert(
    fc.property(behindMagic, fc.integer({ min: 4, max: 16 }), (noise, kept) => {
      const bytes = Uint8Array.from(noise);
      bytes.set(valid.subarray(0, kept));
      check(bytes);
    }),
    { numRuns: 100 },
  );
  const changes = fc.array(fc.tuple(fc.nat({ max: valid.length - 1 }), fc.nat({ max: 255 })));
  fc.assert(
    fc.property(changes, fc.nat({ max: valid.length }), (list, cut) => {
      const bytes = Uint8Array.from(valid);
      list.forEach(([at, byte]) => {
        bytes[at] = byte;
      });
      check(bytes);
      check(bytes.subarray(0, cut));
    }),
    { numRuns: 100 },
  );
}
