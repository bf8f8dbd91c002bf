import assert from "node:assert/strict";

import fc from "fast-check";

import { crc32cOfRanges } from "../../../lib/format/crc32c.js";
import type { Decoded } from "../../../lib/format/decoded.js";
import { allGeometries, geometryOf } from "../../../lib/format/geometry.js";
import {
  currentSuperblock,
  decodeSuperblock,
  encodeSuperblock,
  geometryOfSuperblock,
  type LunIdentity,
  type Superblock,
  SUPERBLOCK_SIZE,
  superblockOffsets,
} from "../../../lib/format/superblock.js";
import { acceptedFlips, assertNeverThrows, range } from "./byte-flips.js";
import { anyGeometry, nameOf, recordOf, superblock, u32, u64 } from "./samples.js";

const g512 = geometryOf(512);

function forge(change: (view: DataView) => void): Uint8Array {
  const bytes = encodeSuperblock(superblock(g512));
  const view = new DataView(bytes.buffer);
  change(view);
  const crc = crc32cOfRanges(bytes, [
    [0, 20],
    [24, 512],
  ]);
  view.setUint32(20, crc, true);
  return bytes;
}

const anyUuid = fc.uint8Array({ minLength: 16, maxLength: 16 }).map((bytes) =>
  Buffer.from(bytes)
    .toString("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5"),
);
const size = fc.maxSafeNat();
const lunSet = fc.constantFrom(1 as const, 3 as const, 5 as const).chain((lunCount) =>
  recordOf<{ lunCount: 1 | 3 | 5; lunIndex: number; luns: LunIdentity[] }>({
    lunCount: fc.constant(lunCount),
    lunIndex: fc.integer({ min: 0, max: lunCount - 1 }),
    luns: fc.array(
      recordOf<LunIdentity>({
        uuid: anyUuid,
        wwid: nameOf(lunCount === 5 ? 41 : 64),
        incarnation: u64,
      }),
      { minLength: lunCount, maxLength: lunCount },
    ),
  }),
);
type Scalars = Omit<
  Superblock,
  "lunUuid" | "wwid" | "incarnation" | "luns" | "lunIndex" | "lunCount" | "sectorSize" | "areaSize"
>;
const scalars = recordOf<Scalars>({
  incompatible: fc.constant(0),
  compatible: u32,
  clusterName: nameOf(48),
  clusterUuid: anyUuid,
  clusterId: fc.integer({ min: 1, max: 0xffffffff }),
  maxHosts: fc.integer({ min: 1, max: 64 }),
  areaCount: fc.integer({ min: 6, max: 0xffffffff }),
  epoch: u64,
  intervalMs: u32,
  deadlineMs: u32,
  ttlMs: u32,
  watchdogMs: u32,
  profile: nameOf(16),
  createdAtUnix: size,
  dataStart: size,
  dataLength: size,
});

describe("superblock", () => {
  const bytes = encodeSuperblock(superblock(g512));

  it("comes back as it was written, for any values", () => {
    fc.assert(
      fc.property(anyGeometry, scalars, lunSet, (g, rest, set) => {
        const own = set.luns[set.lunIndex]!;
        const value: Superblock = {
          ...rest,
          ...set,
          sectorSize: g.sectorSize,
          areaSize: g.areaSize,
          lunUuid: own.uuid,
          wwid: own.wwid,
          incarnation: own.incarnation,
        };
        const encoded = encodeSuperblock(value);
        assert.equal(encoded.length, g.sectorSize);
        assert.deepEqual(decodeSuperblock(encoded), { kind: "ok", value });
        assert.equal(geometryOfSuperblock(value), g);
      }),
    );
  });

  it("begins with the magic and can be read before the sector size is known", () => {
    assert.equal(Buffer.from(bytes.subarray(0, 8)).toString("latin1"), "SHAREDHA");
    const large = encodeSuperblock(superblock(geometryOf(4096)));
    assert.deepEqual(decodeSuperblock(large.subarray(0, SUPERBLOCK_SIZE)), decodeSuperblock(large));
  });

  it("refuses a change of any byte of the record", () => {
    const accepts = (b: Uint8Array): boolean => decodeSuperblock(b).kind === "ok";
    assert.deepEqual(acceptedFlips(bytes, accepts), []);
    const large = encodeSuperblock(superblock(geometryOf(4096)));
    assert.deepEqual(acceptedFlips(large, accepts), range(512, 4096));
  });

  it("calls a newer version newer, before it looks at the checksum", () => {
    const newer = Uint8Array.from(bytes);
    newer[8] = 2;
    const result = decodeSuperblock(newer);
    assert.equal(result.kind, "foreign");
    assert.match(result.reason, /newer version 2/);
    const features = decodeSuperblock(
      forge((view) => {
        view.setUint32(12, 1, true);
      }),
    );
    assert.equal(features.kind, "foreign");
    assert.match(features.reason, /newer/);
  });

  it("refuses impossible fields even under a good checksum", () => {
    const changes: [string, (view: DataView) => void][] = [
      [
        "version 0",
        (v) => {
          v.setUint16(8, 0, true);
        },
      ],
      [
        "sector size",
        (v) => {
          v.setUint16(10, 1024, true);
        },
      ],
      [
        "area size",
        (v) => {
          v.setUint32(24, 2 << 20, true);
        },
      ],
      [
        "max hosts",
        (v) => {
          v.setUint16(28, 65, true);
        },
      ],
      [
        "no hosts",
        (v) => {
          v.setUint16(28, 0, true);
        },
      ],
      [
        "LUN index",
        (v) => {
          v.setUint8(30, 3);
        },
      ],
      [
        "two LUNs",
        (v) => {
          v.setUint8(31, 2);
        },
      ],
      [
        "more LUNs than identities",
        (v) => {
          v.setUint8(31, 255);
        },
      ],
      [
        "areas",
        (v) => {
          v.setUint32(32, 5, true);
        },
      ],
      [
        "cluster id",
        (v) => {
          v.setUint32(36, 0, true);
        },
      ],
      [
        "length of a name",
        (v) => {
          v.setUint8(112, 255);
        },
      ],
      [
        "size beyond 2^53",
        (v) => {
          v.setBigUint64(80, 1n << 53n, true);
        },
      ],
    ];
    for (const [name, change] of changes) {
      assert.equal(decodeSuperblock(forge(change)).kind, "corrupt", name);
    }
    assert.equal(decodeSuperblock(forge(() => undefined)).kind, "ok");
  });

  it("is empty when all zero, foreign with another magic, corrupt when cut", () => {
    assert.equal(decodeSuperblock(new Uint8Array(512)).kind, "empty");
    assert.equal(decodeSuperblock(new Uint8Array(512).fill(9)).kind, "foreign");
    assert.equal(decodeSuperblock(bytes.subarray(0, 511)).kind, "corrupt");
  });

  it("refuses to write what a reader would refuse", () => {
    const wrong: [Partial<Superblock>, string][] = [
      [{ clusterId: 0 }, "ERR_RECORD_FIELD"],
      [{ maxHosts: 65 }, "ERR_RECORD_FIELD"],
      [{ lunIndex: 0 }, "ERR_RECORD_FIELD"],
      [{ lunCount: 5 }, "ERR_RECORD_FIELD"],
      [{ wwid: "other" }, "ERR_RECORD_FIELD"],
      [{ clusterUuid: "FEDCBA98-7654-4321-8FED-CBA987654321" }, "ERR_RECORD_FIELD"],
      [{ clusterName: "x".repeat(49) }, "ERR_RECORD_FIELD"],
      [{ profile: "x".repeat(17) }, "ERR_RECORD_FIELD"],
      [{ clusterName: "a\u0007" }, "ERR_NAME"],
      [{ dataStart: 0.5 }, "ERR_RECORD_FIELD"],
      [{ dataStart: -512 }, "ERR_RECORD_FIELD"],
    ];
    for (const [changes, code] of wrong) {
      assert.throws(() => encodeSuperblock(superblock(g512, changes)), { code });
    }
  });

  it("says when five LUNs with very long wwids do not fit", () => {
    const luns = [1, 2, 3, 4, 5].map((n) => ({
      uuid: `0123456${n}-89ab-4cde-8f01-23456789abcd`,
      wwid: `t10.${"x".repeat(59)}${n}`,
      incarnation: 1n,
    }));
    const own = { lunUuid: luns[1]!.uuid, wwid: luns[1]!.wwid, incarnation: 1n };
    assert.throws(() => encodeSuperblock(superblock(g512, { luns, lunCount: 5, ...own })), {
      code: "ERR_SUPERBLOCK_FULL",
    });
  });

  it("has its two copies at the ends of area 0", () => {
    for (const g of allGeometries()) {
      assert.deepEqual(superblockOffsets(g), [0, g.areaSize - g.sectorSize]);
    }
  });

  it("believes the valid copy with the highest epoch, and none beside a newer version", () => {
    const of = (epoch: bigint): Decoded<Superblock> =>
      decodeSuperblock(encodeSuperblock(superblock(g512, { epoch })));
    const corrupt = decodeSuperblock(bytes.subarray(1));
    const empty = decodeSuperblock(new Uint8Array(512));
    const newer = decodeSuperblock(new Uint8Array(512).fill(9));
    const epochOf = (copies: Decoded<Superblock>[]): unknown => {
      const result = currentSuperblock(copies);
      return result.kind === "ok" ? result.value.epoch : result.kind;
    };
    assert.equal(epochOf([of(1n), of(2n)]), 2n);
    assert.equal(epochOf([of(2n), of(1n)]), 2n);
    assert.equal(epochOf([corrupt, of(1n)]), 1n);
    assert.equal(epochOf([of(1n), corrupt]), 1n);
    assert.equal(epochOf([empty, corrupt]), "corrupt");
    assert.equal(epochOf([of(1n), newer]), "foreign");
    assert.equal(epochOf([newer, of(1n)]), "foreign");
    assert.equal(epochOf([empty, empty]), "empty");
  });

  it("never throws on any bytes, also behind a good checksum", () => {
    assertNeverThrows(decodeSuperblock, bytes);
    const noise = fc.uint8Array({ minLength: 488, maxLength: 488 });
    fc.assert(
      fc.property(noise, (random) => {
        const result = decodeSuperblock(
          forge((view) => {
            new Uint8Array(view.buffer).set(random, 24);
          }),
        );
        assert.ok(result.kind === "corrupt" || result.kind === "ok");
      }),
    );
  });
});
