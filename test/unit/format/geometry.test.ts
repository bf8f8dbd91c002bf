import assert from "node:assert/strict";

import {
  allGeometries,
  AREA,
  areaOffset,
  dblockOffset,
  deltaOffset,
  findGeometryOfLeaderFlags,
  geometryOf,
  geometryOfLeaderFlags,
  leaderOffset,
  leaseReadLength,
  lockspaceReadLength,
  outboxesReadLength,
  outboxOffset,
  regionLength,
  requestOffset,
} from "../../../lib/format/geometry.js";

const MIB = 1024 * 1024;
const refused = { code: "ERR_GEOMETRY" };

describe("geometry", () => {
  it("has sanlock's default area size for each sector size", () => {
    assert.equal(geometryOf(512).areaSize, MIB);
    assert.equal(geometryOf(4096).areaSize, 8 * MIB);
  });

  it("refuses every pair sanlock does not know", () => {
    for (const [sector, area] of [
      [512, 2 * MIB],
      [4096, 3 * MIB],
      [1024, MIB],
      [0, MIB],
      [4096, 0],
    ] as const) {
      assert.throws(() => geometryOf(sector, area), refused);
    }
  });

  it("is found again by the flags of its leader records", () => {
    for (const g of allGeometries()) {
      assert.equal(geometryOfLeaderFlags(g.lflFlag | 0x1, g.sectorSize), g);
    }
  });

  it("takes a record without align flag as one of the default size", () => {
    assert.equal(geometryOfLeaderFlags(0, 512), geometryOf(512));
    assert.equal(geometryOfLeaderFlags(0, 4096), geometryOf(4096));
  });

  it("refuses contradictory flags", () => {
    for (const [flags, sector] of [
      [0x30, 4096],
      [0x20, 512],
      [0x10, 513],
    ] as const) {
      assert.equal(findGeometryOfLeaderFlags(flags, sector), undefined);
      assert.throws(() => geometryOfLeaderFlags(flags, sector), refused);
    }
  });

  it("puts records where sanlock puts them", () => {
    const g = geometryOf(4096, 2 * MIB);
    assert.equal(areaOffset(g, AREA.firstResource), 12 * MIB);
    assert.equal(deltaOffset(g, 1), 6 * MIB);
    assert.equal(deltaOffset(g, 64), 6 * MIB + 63 * 4096);
    assert.equal(outboxOffset(g, 2), 2 * MIB + 4096);
    assert.equal(leaderOffset(g, 7), 14 * MIB);
    assert.equal(requestOffset(g, 7), 14 * MIB + 4096);
    assert.equal(dblockOffset(g, 7, 1), 14 * MIB + 2 * 4096);
    assert.equal(dblockOffset(g, 7, 5), 14 * MIB + 6 * 4096);
    assert.equal(regionLength(g, 3), 18 * MIB);
  });

  it("reads only as much as members need", () => {
    const g = geometryOf(512);
    assert.equal(leaseReadLength(g, 16), 18 * 512);
    assert.equal(lockspaceReadLength(g, 16), 16 * 512);
    assert.equal(outboxesReadLength(g, 16), 16 * 512);
  });

  it("keeps every host's last sector inside its area, and refuses the next host", () => {
    for (const g of allGeometries()) {
      const last = g.maxHostsFormat;
      assert.ok(dblockOffset(g, 6, last) + g.sectorSize <= areaOffset(g, 7));
      assert.throws(() => dblockOffset(g, 6, last + 1), refused);
      assert.throws(() => deltaOffset(g, last + 1), refused);
      assert.throws(() => leaseReadLength(g, last + 1), refused);
      assert.throws(() => lockspaceReadLength(g, last + 1), refused);
    }
  });

  it("refuses host ids and areas that do not exist", () => {
    const g = geometryOf(512);
    for (const hostId of [0, -1, 1.5, Number.NaN]) {
      assert.throws(() => deltaOffset(g, hostId), refused);
      assert.throws(() => dblockOffset(g, 6, hostId), refused);
      assert.throws(() => outboxOffset(g, hostId), refused);
    }
    assert.throws(() => outboxOffset(g, 65), refused);
    assert.throws(() => outboxesReadLength(g, 65), refused);
    assert.throws(() => areaOffset(g, -1), refused);
  });
});
