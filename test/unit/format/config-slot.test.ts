import assert from "node:assert/strict";

import fc from "fast-check";

import {
  type ConfigSlot,
  configSlotOffset,
  configSubslotSize,
  decodeConfigSlot,
  encodeConfigSlot,
  maxConfigBytes,
} from "../../../lib/format/config-slot.js";
import { allGeometries, geometryOf } from "../../../lib/format/geometry.js";
import { superblockOffsets } from "../../../lib/format/superblock.js";
import { acceptedFlips, assertNeverThrows, range } from "./byte-flips.js";
import { anyGeometry, hostId, recordOf, u64 } from "./samples.js";

const g512 = geometryOf(512);
const sample: ConfigSlot = {
  hostId: 3,
  stamp: { lver: 12n, generation: 7n },
  epoch: 9n,
  text: '[group.web]\ndevice = "lun" # größe\n',
};

describe("configuration slot", () => {
  it("comes back as it was written, for any text that fits", () => {
    const slot = recordOf<ConfigSlot>({
      hostId,
      stamp: recordOf<ConfigSlot["stamp"]>({ lver: u64, generation: u64 }),
      epoch: u64,
      text: fc.string({ unit: "binary" }),
    });
    fc.assert(
      fc.property(anyGeometry, slot, (g, value) => {
        assert.deepEqual(decodeConfigSlot(g, encodeConfigSlot(g, value)), { kind: "ok", value });
      }),
    );
  });

  it("holds exactly its limit in bytes, not in characters", () => {
    for (const g of allGeometries()) {
      const text = "ö".repeat(maxConfigBytes(g) / 2);
      const bytes = encodeConfigSlot(g, { ...sample, text });
      const result = decodeConfigSlot(g, bytes);
      assert.equal(result.kind === "ok" && result.value.text, text);
      assert.throws(() => encodeConfigSlot(g, { ...sample, text: `${text}x` }), {
        code: "ERR_CONFIG_TOO_LARGE",
      });
    }
  });

  it("has room for 4000 bytes of configuration in every geometry, 7616 in the usual one", () => {
    assert.equal(maxConfigBytes(g512), 7616);
    for (const g of allGeometries()) {
      assert.ok(maxConfigBytes(g) >= 4000);
    }
  });

  it("lies between the superblocks, on sector borders, and overlaps no other slot", () => {
    for (const g of allGeometries()) {
      const [first, last] = superblockOffsets(g);
      let end = first + g.sectorSize;
      for (let host = 1; host <= 64; host++) {
        for (const sub of [0, 1] as const) {
          const offset = configSlotOffset(g, host, sub);
          assert.equal(offset % g.sectorSize, 0);
          assert.ok(offset >= end);
          end = offset + configSubslotSize(g);
        }
      }
      assert.ok(end <= last);
    }
    assert.throws(() => configSlotOffset(g512, 65, 0), { code: "ERR_GEOMETRY" });
  });

  it("refuses a change of any byte of header and text", () => {
    const bytes = encodeConfigSlot(g512, sample);
    const end = 64 + Buffer.byteLength(sample.text);
    const accepted = acceptedFlips(
      bytes,
      (b) => decodeConfigSlot(g512, b).kind === "ok",
      end + 512,
    );
    assert.deepEqual(accepted, range(end, end + 512));
  });

  it("refuses a torn write", () => {
    const old = encodeConfigSlot(g512, { ...sample, text: "a".repeat(2000) });
    const next = encodeConfigSlot(g512, { ...sample, text: "b".repeat(2000) });
    for (const torn of [512, 1024, 1536]) {
      const bytes = Uint8Array.from(old);
      bytes.set(next.subarray(0, torn));
      assert.equal(decodeConfigSlot(g512, bytes).kind, "corrupt");
    }
  });

  it("never reads beyond the slot, whatever the length says", () => {
    const bytes = encodeConfigSlot(g512, sample);
    for (const length of [maxConfigBytes(g512) + 1, 0xffffffff]) {
      new DataView(bytes.buffer).setUint32(32, length, true);
      assert.equal(decodeConfigSlot(g512, bytes).kind, "corrupt");
    }
  });

  it("tells empty, foreign and cut ones apart, and refuses what is not Unicode", () => {
    const size = configSubslotSize(g512);
    assert.equal(decodeConfigSlot(g512, new Uint8Array(size)).kind, "empty");
    assert.equal(decodeConfigSlot(g512, new Uint8Array(size).fill(1)).kind, "foreign");
    assert.equal(decodeConfigSlot(g512, new Uint8Array(512)).kind, "corrupt");
    assert.throws(() => encodeConfigSlot(g512, { ...sample, text: "\ud800" }), {
      code: "ERR_RECORD_FIELD",
    });
    assert.throws(() => encodeConfigSlot(g512, { ...sample, hostId: 65 }), {
      code: "ERR_GEOMETRY",
    });
  });

  it("never throws on any bytes", () => {
    assertNeverThrows((b) => decodeConfigSlot(g512, b), encodeConfigSlot(g512, sample));
  });
});
