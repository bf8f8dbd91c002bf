import assert from "node:assert/strict";

import fc from "fast-check";

import { allGeometries, geometryOf } from "../../../lib/format/geometry.js";
import {
  areaOfRindexEntry,
  decodeRindexEntries,
  decodeRindexHeader,
  encodeRindexHeader,
  freeRindexIndex,
  RINDEX_LEASE_NAME,
  RINDEX_VERSION,
  rindexCapacity,
  rindexEntrySector,
  rindexEntrySectorOffset,
  type RindexHeader,
  rindexResourceOffset,
} from "../../../lib/format/rindex.js";
import { decodeLeaderRecord } from "../../../lib/format/leader-record.js";
import { assertNeverThrows } from "./byte-flips.js";
import { goldenImage } from "./golden-image.js";
import { nameOf, u64 } from "./samples.js";

const MIB = 1 << 20;
const g512 = geometryOf(512);
const sample: RindexHeader = {
  version: RINDEX_VERSION,
  geometry: g512,
  maxResources: 4096,
  offset: 4n << 20n,
  spaceName: "cluster",
};

describe("rindex", () => {
  for (const sectorSize of [512, 4096] as const) {
    it(`reads and writes sanlock's index of ${sectorSize}-byte sectors byte for byte`, () => {
      const g = geometryOf(sectorSize, MIB);
      const image = goldenImage(`rindex-${sectorSize}-1M`);
      const header = decodeRindexHeader(image);
      assert.equal(header.kind, "ok");
      assert.deepEqual(header.value, { ...sample, geometry: g, offset: 0n, spaceName: "GOLD" });
      const entries = decodeRindexEntries(g, image.subarray(0, MIB), header.value.maxResources);
      const web = { index: 0, name: "web", offset: 2097152n };
      const db = { index: 1, name: "db", offset: 3145728n };
      assert.deepEqual(entries, sectorSize === 512 ? [web, db] : [web]);

      const rebuilt = new Uint8Array(MIB);
      rebuilt.set(encodeRindexHeader(header.value));
      for (const entry of entries) {
        const at = rindexEntrySectorOffset(g, entry.index);
        const sector = rebuilt.subarray(at, at + sectorSize);
        rebuilt.set(rindexEntrySector(g, sector, entry.index, entry), at);
      }
      assert.deepEqual(rebuilt, image.subarray(0, MIB));
      const lease = decodeLeaderRecord(image.subarray(MIB), "paxos");
      assert.equal(lease.kind === "ok" && lease.value.resourceName, RINDEX_LEASE_NAME);
    });
  }

  it("changes one entry in one sector and leaves its neighbours", () => {
    const place = fc
      .constantFrom(...allGeometries())
      .chain((g) => fc.tuple(fc.constant(g), fc.integer({ min: 0, max: rindexCapacity(g) - 1 })));
    const name = nameOf(48).filter((text) => text !== "");
    fc.assert(
      fc.property(place, name, u64, ([g, index], text, offset) => {
        const area = new Uint8Array(g.areaSize);
        const at = rindexEntrySectorOffset(g, index);
        area.fill(0xee, at, at + g.sectorSize);
        const before = area.subarray(at, at + g.sectorSize);
        const after = rindexEntrySector(g, before, index, { name: text, offset });
        const changed = [...after.keys()].filter((i) => after[i] !== before[i]);
        assert.ok(changed.length <= 64 && changed.at(-1)! - changed[0]! < 64);
        area.set(after, at);
        const found = decodeRindexEntries(g, area).find((entry) => entry.index === index);
        assert.deepEqual(found, { index, name: text, offset });
        const freed = rindexEntrySector(g, after, index, undefined);
        area.set(freed, at);
        assert.ok(!decodeRindexEntries(g, area).some((entry) => entry.index === index));
      }),
      { numRuns: 20 },
    );
  });

  it("keeps the last entry inside its area, and refuses the next", () => {
    for (const g of allGeometries()) {
      const last = rindexCapacity(g) - 1;
      assert.ok(g.sectorSize + (last + 1) * 64 <= g.areaSize);
      assert.throws(() => rindexEntrySectorOffset(g, last + 1), { code: "ERR_GEOMETRY" });
    }
  });

  it("finds the lowest free position, and says when there is none", () => {
    const entries = [0, 1, 3].map((index) => ({ index, name: "x", offset: 0n }));
    assert.equal(freeRindexIndex(entries, 4), 2);
    assert.equal(freeRindexIndex(entries.slice(0, 2), 2), undefined);
  });

  it("trusts an entry's offset only if it is a resource area of the region", () => {
    assert.equal(areaOfRindexEntry(g512, { offset: rindexResourceOffset(g512, 2) }, 10), 8);
    for (const offset of [5n << 20n, 10n << 20n, (8n << 20n) + 512n, (1n << 64n) - 1n]) {
      assert.equal(areaOfRindexEntry(g512, { offset }, 10), undefined);
    }
  });

  it("refuses headers that no index has", () => {
    const header = (): DataView => new DataView(encodeRindexHeader(sample).buffer);
    const kind = (view: DataView): string => decodeRindexHeader(new Uint8Array(view.buffer)).kind;
    const cases: [number, number, string][] = [
      [0, 0x01042019, "foreign"],
      [4, 0x00020000, "foreign"],
      [8, 0x3, "corrupt"],
      [12, 513, "corrupt"],
      [16, 16001, "corrupt"],
      [16, 0xffffffff, "corrupt"],
    ];
    assert.equal(kind(header()), "ok");
    for (const [offset, value, expected] of cases) {
      const view = header();
      view.setUint32(offset, value, true);
      assert.equal(kind(view), expected);
    }
    assert.equal(decodeRindexHeader(new Uint8Array(512)).kind, "empty");
    assert.equal(decodeRindexHeader(new Uint8Array(79)).kind, "corrupt");
    assert.throws(() => encodeRindexHeader({ ...sample, maxResources: 16001 }), {
      code: "ERR_RECORD_FIELD",
    });
  });

  it("refuses to write an entry that would read as a free one, or into a piece of a sector", () => {
    const sector = new Uint8Array(512);
    const code = "ERR_RECORD_FIELD";
    assert.throws(() => rindexEntrySector(g512, sector, 0, { name: "", offset: 0n }), { code });
    assert.throws(() => rindexEntrySector(g512, sector.subarray(1), 0, undefined), { code });
  });

  it("never throws on any bytes, and lists no more entries than there is room for", () => {
    assertNeverThrows(decodeRindexHeader, encodeRindexHeader(sample));
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2000, size: "max" }), u64, (bytes, max) => {
        const entries = decodeRindexEntries(g512, bytes, Number(max));
        assert.ok(entries.length <= Math.max(0, (bytes.length - 512) / 64));
      }),
    );
  });
});
