import assert from "node:assert/strict";

import fc from "fast-check";

import {
  decodeHostBlock,
  EMPTY_HOST_BLOCK,
  encodeHostBlock,
  type HostBlock,
} from "../../../lib/format/dblock.js";
import { geometryOf } from "../../../lib/format/geometry.js";
import { acceptedFlips, assertNeverThrows, range } from "./byte-flips.js";
import { goldenImage } from "./golden-image.js";
import { anyGeometry, sampleHostBlock, u64, recordOf } from "./samples.js";

const g512 = geometryOf(512);

function decoded(bytes: Uint8Array, g = g512): HostBlock {
  const result = decodeHostBlock(g, bytes);
  assert.equal(result.kind, "ok", JSON.stringify(result.kind === "ok" ? "" : result));
  return result.value;
}

describe("host block", () => {
  it("reads the blocks of a shared lease as sanlock's dump shows them", () => {
    const image = goldenImage("resources-512-1M");
    const second = image.subarray(2 * (1 << 20) + 3 * 512, 2 * (1 << 20) + 4 * 512);
    assert.deepEqual(decoded(second), {
      dblock: { mbal: 2002n, bal: 2002n, inp: 2n, inp2: 1n, inp3: 1989n, lver: 2n, released: true },
      mode: { shared: true, generation: 1n },
      sequence: 0n,
    });
  });

  it("comes back as it was written, for any values", () => {
    const dblock = recordOf({
      // mbal is never 0 once a host has taken part in a ballot.
      mbal: u64.map((value) => value | 1n),
      bal: u64,
      inp: u64,
      inp2: u64,
      inp3: u64,
      lver: u64,
      released: fc.boolean(),
    });
    const mode = recordOf({ shared: fc.boolean(), generation: u64 });
    fc.assert(
      fc.property(anyGeometry, recordOf({ dblock, mode, sequence: u64 }), (g, block) => {
        assert.deepEqual(decoded(encodeHostBlock(g, block), g), block);
      }),
    );
  });

  it("is valid and zero when nobody has written it, and is written back as zeros", () => {
    assert.deepEqual(decoded(new Uint8Array(512)), EMPTY_HOST_BLOCK);
    assert.deepEqual(encodeHostBlock(g512, EMPTY_HOST_BLOCK), new Uint8Array(512));
  });

  it("believes nothing of an unused block but its mode", () => {
    const bytes = new Uint8Array(512);
    bytes.set([1], 24); // inp2 and the flags are outside sanlock's rule for an unused block
    bytes.set([1], 52);
    bytes.set([1], 128);
    assert.deepEqual(decoded(bytes), {
      ...EMPTY_HOST_BLOCK,
      mode: { shared: true, generation: 0n },
    });
  });

  it("ignores garbage outside its fields, as a converting sanlock daemon leaves it", () => {
    const bytes = encodeHostBlock(g512, { ...sampleHostBlock, sequence: 0n });
    bytes.fill(0xa5, 144);
    assert.deepEqual(decoded(bytes), { ...sampleHostBlock, sequence: 0n });
  });

  it("refuses a changed ballot; flags and mode are not covered by sanlock's checksum", () => {
    const bytes = encodeHostBlock(g512, sampleHostBlock);
    const accepted = acceptedFlips(bytes, (b) => decodeHostBlock(g512, b).kind === "ok");
    assert.deepEqual(accepted, range(52, 512));
  });

  it("loses its sequence when a byte of the block, its flags, the mode or the sequence changes", () => {
    const bytes = encodeHostBlock(g512, sampleHostBlock);
    const kept = acceptedFlips(bytes, (b) => {
      const result = decodeHostBlock(g512, b);
      return result.kind === "ok" && result.value.sequence !== 0n;
    });
    assert.deepEqual(kept, [...range(56, 128), ...range(144, 152), ...range(172, 512)]);
  });

  it("refuses a piece of a sector and numbers that do not fit", () => {
    assert.equal(decodeHostBlock(g512, new Uint8Array(511)).kind, "corrupt");
    const tooBig = { ...sampleHostBlock, sequence: 1n << 64n };
    assert.throws(() => encodeHostBlock(g512, tooBig), { code: "ERR_RECORD_FIELD" });
  });

  it("never throws on any bytes", () => {
    assertNeverThrows((b) => decodeHostBlock(g512, b), encodeHostBlock(g512, sampleHostBlock));
  });
});
