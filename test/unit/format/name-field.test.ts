import assert from "node:assert/strict";

import fc from "fast-check";

import { decodeName, encodeName, nameByteLength } from "../../../lib/format/name-field.js";
import { nameOf } from "./samples.js";

const SIZE = 48;

function encoded(name: string): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  encodeName(bytes, 0, SIZE, name, "name");
  return bytes;
}

describe("name field", () => {
  it("needs no terminator when full", () => {
    const name = "x".repeat(SIZE);
    assert.equal(decodeName(encoded(name), 0, SIZE), name);
    assert.throws(() => encoded(`${name}x`), { code: "ERR_NAME" });
  });

  it("keeps names of any script and counts their bytes", () => {
    assert.equal(decodeName(encoded("größe-サーバ"), 0, SIZE), "größe-サーバ");
    assert.equal(nameByteLength("ö"), 2);
    fc.assert(
      fc.property(nameOf(SIZE), (name) => {
        assert.equal(decodeName(encoded(name), 0, SIZE), name);
      }),
    );
  });

  it("gives every field one string, and that string the same field", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: SIZE, maxLength: SIZE }), (bytes) => {
        assert.deepEqual(encoded(decodeName(bytes, 0, SIZE)), bytes);
      }),
    );
  });

  it("never gives a control character, and tells names apart that differ behind a NUL", () => {
    const bytes = new Uint8Array(SIZE);
    bytes.set([0x61, 0, 0x62, 0x1b]);
    assert.equal(decodeName(bytes, 0, SIZE), "a\\x00b\\x1b");
    const c1 = new Uint8Array(SIZE);
    c1.set([0xc2, 0x9b]);
    assert.equal(decodeName(c1, 0, SIZE), "\\xc2\\x9b");
  });

  it("refuses strings that no field decodes to", () => {
    for (const name of ["a\\b", "\\x41", "\u001b[31m", "a\u0000", "\ud800", "\\xC2"]) {
      assert.throws(() => encoded(name), { code: "ERR_NAME" }, JSON.stringify(name));
    }
  });
});
