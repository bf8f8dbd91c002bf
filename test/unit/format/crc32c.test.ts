import assert from "node:assert/strict";

import fc from "fast-check";

import {
  crc32c,
  crc32cOfRanges,
  crc32cUpdate,
  sanlockChecksum,
} from "../../../lib/format/crc32c.js";

/** One bit at a time, straight from the definition. */
function slowCrc(initial: number, bytes: Uint8Array): number {
  let crc = initial;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) {
      crc = (crc & 1) === 0 ? crc >>> 1 : (crc >>> 1) ^ 0x82f63b78;
    }
  }
  return crc >>> 0;
}

describe("crc32c", () => {
  const digits = new TextEncoder().encode("123456789");

  it("gives the published check value", () => {
    assert.equal(crc32c(digits), 0xe3069283);
  });

  it("gives the values of RFC 3720, B.4", () => {
    assert.equal(crc32c(new Uint8Array(32)), 0x8a9136aa);
    assert.equal(crc32c(new Uint8Array(32).fill(0xff)), 0x62a8ab43);
    assert.equal(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
  });

  it("gives sanlock's values in sanlock's flavour", () => {
    assert.equal(sanlockChecksum(digits), 0xe8c7bb34);
    assert.equal(sanlockChecksum(new Uint8Array(48)), 0xcb5ad842);
    assert.equal(sanlockChecksum(new Uint8Array(168)), 0x7e11fbd1);
  });

  it("agrees with the bitwise definition for any bytes at any alignment", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 200, size: "max" }),
        fc.nat({ max: 7 }),
        (bytes, shift) => {
          const moved = new Uint8Array(bytes.length + shift).subarray(shift);
          moved.set(bytes);
          assert.equal(crc32c(moved), ~slowCrc(0xffffffff, bytes) >>> 0);
          assert.equal(sanlockChecksum(moved), slowCrc(0xfffffffe, bytes));
        },
      ),
    );
  });

  it("of ranges is the checksum of their concatenation", () => {
    const bytes = Uint8Array.from({ length: 100 }, (_, i) => i * 3);
    const joined = Uint8Array.from([...bytes.subarray(50, 71), ...bytes.subarray(2, 9)]);
    const ranges = [[50, 71] as const, [2, 9] as const];
    assert.equal(crc32cOfRanges(bytes, ranges), crc32c(joined));
    assert.equal(~crc32cUpdate(-1, joined) >>> 0, crc32c(joined));
  });
});
