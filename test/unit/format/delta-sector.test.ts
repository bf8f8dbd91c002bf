import assert from "node:assert/strict";

import fc from "fast-check";

import {
  bitmapHas,
  bitmapWith,
  BITMAP_SIZE,
  decodeDeltaSector,
  type DeltaSector,
  emptyBitmap,
  encodeDeltaSector,
} from "../../../lib/format/delta-sector.js";
import { geometryOf } from "../../../lib/format/geometry.js";
import { acceptedFlips, assertNeverThrows, range } from "./byte-flips.js";
import { goldenImage, usedSectors } from "./golden-image.js";
import {
  anyGeometry,
  anyHostRecord,
  deltaLeader,
  deltaSector,
  nameOf,
  sampleHostRecord,
  u64,
  recordOf,
} from "./samples.js";

const g512 = geometryOf(512);

function decoded(bytes: Uint8Array, g = g512): DeltaSector {
  const result = decodeDeltaSector(g, bytes);
  assert.equal(result.kind, "ok", JSON.stringify(result.kind === "ok" ? "" : result));
  return result.value;
}

describe("delta sector", () => {
  const images = [
    ["lockspace-empty-512-1M", 512, 1, 2000],
    ["lockspace-512-1M", 512, 1, 2000],
    ["lockspace-host2left-512-1M", 512, 1, 2000],
    ["lockspace-4096-1M", 4096, 1, 250],
    ["lockspace-4096-8M", 4096, 8, 2000],
  ] as const;
  for (const [name, sectorSize, mib, hosts] of images) {
    it(`writes every used sector of ${name} byte for byte as sanlock did`, () => {
      const g = geometryOf(sectorSize, mib << 20);
      const image = goldenImage(name);
      const used = usedSectors(image, sectorSize);
      assert.equal(used.length, hosts);
      for (const at of used) {
        const bytes = image.subarray(at, at + sectorSize);
        const sector = decoded(bytes, g);
        assert.equal(sector.hostState, "absent");
        assert.equal(sector.leader.spaceName, "GOLD");
        assert.deepEqual(encodeDeltaSector(g, sector), bytes);
      }
    });
  }

  it("reads host names, event and bitmap as sanlock's dump shows them", () => {
    const image = goldenImage("lockspace-512-1M");
    const first = decoded(image.subarray(0, 512));
    const second = decoded(image.subarray(512, 1024));
    assert.equal(first.leader.resourceName, "host-g512-1M.1");
    assert.equal(second.leader.resourceName, "host-g512-1M.2");
    assert.equal(second.leader.ownerId, 2n);
    assert.equal(second.leader.ioTimeout, 1);
    const { writeId, writeGeneration, writeTimestamp } = second.leader;
    assert.deepEqual([writeId, writeGeneration, writeTimestamp], [1n, 5n, 77n]);
    assert.equal(bitmapHas(second.bitmap, 1), true);
    assert.equal(bitmapHas(second.bitmap, 2), false);
  });

  it("reads a host that left as free, with its name and generation", () => {
    const left = decoded(goldenImage("lockspace-host2left-512-1M").subarray(512, 1024)).leader;
    assert.deepEqual(
      [left.timestamp, left.ownerId, left.ownerGeneration, left.resourceName],
      [0n, 2n, 1n, "host-g512-1M.2"],
    );
  });

  it("comes back as it was written, for any values", () => {
    const bitmap = fc.uint8Array({ minLength: BITMAP_SIZE, maxLength: BITMAP_SIZE });
    const owner = recordOf({ ownerId: u64, ownerGeneration: u64, resourceName: nameOf(48) });
    fc.assert(
      fc.property(anyGeometry, owner, fc.option(anyHostRecord), bitmap, (g, o, host, bits) => {
        const sector: DeltaSector = {
          leader: deltaLeader(g, o),
          host: host ?? undefined,
          hostState: host === null ? "absent" : "ok",
          bitmap: bits,
        };
        assert.deepEqual(decoded(encodeDeltaSector(g, sector), g), sector);
      }),
    );
  });

  it("accepts no changed lease; a changed host record is corrupt, never absent or another", () => {
    const bytes = encodeDeltaSector(g512, deltaSector(g512));
    const accepted = acceptedFlips(bytes, (b) => decodeDeltaSector(g512, b).kind === "ok");
    // sanlock's checksum covers 0..167 and is at 168; 200..255 is the host record, judged below.
    assert.deepEqual(accepted, range(172, 512));
    const believed = acceptedFlips(bytes, (b) => {
      const result = decodeDeltaSector(g512, b);
      return result.kind === "ok" && result.value.hostState !== "corrupt";
    });
    assert.deepEqual(believed, [...range(172, 200), ...range(256, 512)]);
  });

  it("refuses a host record under another generation's lease", () => {
    const bytes = encodeDeltaSector(g512, deltaSector(g512));
    const next = encodeDeltaSector(
      g512,
      deltaSector(g512, {
        leader: deltaLeader(g512, { ownerGeneration: 8n }),
        host: undefined,
        hostState: "absent",
      }),
    );
    next.set(bytes.subarray(200, 256), 200);
    const sector = decoded(next);
    assert.equal(sector.hostState, "corrupt");
    assert.equal(sector.host, undefined);
  });

  it("tells a sector of zeros from one whose lease was zeroed", () => {
    assert.equal(decodeDeltaSector(g512, new Uint8Array(512)).kind, "empty");
    const bytes = encodeDeltaSector(g512, deltaSector(g512));
    bytes.fill(0, 0, 200);
    assert.equal(decodeDeltaSector(g512, bytes).kind, "corrupt");
  });

  it("refuses the other sector size and a piece of a sector", () => {
    const g4096 = geometryOf(4096);
    const bytes = encodeDeltaSector(g512, deltaSector(g512));
    const large = new Uint8Array(4096);
    large.set(bytes);
    assert.equal(decodeDeltaSector(g4096, large).kind, "corrupt");
    assert.equal(decodeDeltaSector(g512, bytes.subarray(0, 511)).kind, "corrupt");
  });

  it("refuses to write a host record that is not whole", () => {
    const code = "ERR_RECORD_FIELD";
    for (const changes of [
      { host: undefined },
      { hostState: "absent" as const },
      { host: undefined, hostState: "corrupt" as const },
      { host: sampleHostRecord, hostState: "corrupt" as const },
      { bitmap: new Uint8Array(255) },
    ]) {
      assert.throws(() => encodeDeltaSector(g512, deltaSector(g512, changes)), { code });
    }
  });

  it("sets and clears one host's bit without touching the given bitmap", () => {
    const empty = emptyBitmap();
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 2000 })), (ids) => {
        const all = ids.reduce((bitmap, id) => bitmapWith(bitmap, id), empty);
        for (let id = 1; id <= 2000; id++) {
          assert.equal(bitmapHas(all, id), ids.includes(id));
        }
        const none = ids.reduce((bitmap, id) => bitmapWith(bitmap, id, false), all);
        assert.deepEqual(none, emptyBitmap());
        assert.deepEqual(empty, emptyBitmap());
      }),
      { numRuns: 20 },
    );
    assert.throws(() => bitmapHas(empty, 0), { code: "ERR_GEOMETRY" });
    assert.throws(() => bitmapWith(empty, 2049), { code: "ERR_GEOMETRY" });
  });

  it("never throws on any bytes", () => {
    assertNeverThrows(
      (b) => decodeDeltaSector(g512, b),
      encodeDeltaSector(g512, deltaSector(g512)),
    );
  });
});
