import assert from "node:assert/strict";

import fc from "fast-check";

import { crc32cOfRanges } from "../../../lib/format/crc32c.js";
import { geometryOf } from "../../../lib/format/geometry.js";
import {
  decodeOutbox,
  encodeOutbox,
  MAX_OUTBOX_ENTRIES,
  MAX_OUTBOX_ENTRIES_OF_A_KIND,
  type OutboxEntry,
  OUTBOX_KINDS,
} from "../../../lib/format/outbox.js";
import { acceptedFlips, assertNeverThrows } from "./byte-flips.js";
import { anyGeometry, anyOutboxEntry, hostId, sampleOutbox, u64, recordOf } from "./samples.js";

const g512 = geometryOf(512);

function fits(entries: readonly OutboxEntry[]): boolean {
  return OUTBOX_KINDS.every(
    (kind) => entries.filter((entry) => entry.kind === kind).length <= MAX_OUTBOX_ENTRIES_OF_A_KIND,
  );
}

describe("outbox", () => {
  const bytes = encodeOutbox(g512, sampleOutbox);

  it("comes back as it was written, for any values", () => {
    const outbox = recordOf({
      hostId,
      generation: u64,
      sequence: u64,
      tableGeneration: u64,
      entries: fc.array(anyOutboxEntry, { maxLength: MAX_OUTBOX_ENTRIES }).filter(fits),
    });
    fc.assert(
      fc.property(anyGeometry, outbox, (g, value) => {
        assert.deepEqual(decodeOutbox(g, encodeOutbox(g, value)), { kind: "ok", value });
      }),
    );
  });

  it("refuses a change of any byte of the sector", () => {
    assert.deepEqual(
      acceptedFlips(bytes, (b) => decodeOutbox(g512, b).kind === "ok"),
      [],
    );
  });

  it("holds 14 entries and 8 of a kind, not more", () => {
    const [ticket, pill] = sampleOutbox.entries;
    const of = (tickets: number, pills: number): Uint8Array =>
      encodeOutbox(g512, {
        ...sampleOutbox,
        entries: [
          ...Array.from({ length: tickets }, () => ticket!),
          ...Array.from({ length: pills }, () => pill!),
        ],
      });
    assert.equal(decodeOutbox(g512, of(8, 6)).kind, "ok");
    assert.throws(() => of(9, 0), { code: "ERR_OUTBOX_FULL" });
    assert.throws(() => of(8, 7), { code: "ERR_OUTBOX_FULL" });
  });

  it("refuses impossible fields even under a good checksum", () => {
    const forge = (offset: number, value: number): Uint8Array => {
      const forged = Uint8Array.from(bytes);
      const view = new DataView(forged.buffer);
      view.setUint8(offset, value);
      const crc = crc32cOfRanges(forged, [
        [0, 60],
        [64, 512],
      ]);
      view.setUint32(60, crc, true);
      return forged;
    };
    assert.equal(decodeOutbox(g512, forge(6, 3)).kind, "ok");
    for (const [offset, value] of [
      [6, 65], // host id
      [6, 0],
      [32, 15], // count
      [33, 255],
      [64, 0], // kind
      [64, 6],
      [65, 2], // flag
    ] as const) {
      assert.equal(decodeOutbox(g512, forge(offset, value)).kind, "corrupt", `${offset}=${value}`);
    }
    assert.equal(decodeOutbox(g512, forge(4, 2)).kind, "foreign");
  });

  it("is empty when all zero, and foreign with another magic", () => {
    assert.equal(decodeOutbox(g512, new Uint8Array(512)).kind, "empty");
    assert.equal(decodeOutbox(g512, new Uint8Array(512).fill(7)).kind, "foreign");
    assert.equal(decodeOutbox(g512, new Uint8Array(4096)).kind, "corrupt");
  });

  it("is not written for a host id that has no outbox", () => {
    for (const id of [0, 65]) {
      assert.throws(() => encodeOutbox(g512, { ...sampleOutbox, hostId: id }), {
        code: "ERR_GEOMETRY",
      });
    }
  });

  it("never throws on any bytes", () => {
    assertNeverThrows((b) => decodeOutbox(g512, b), bytes);
  });
});
