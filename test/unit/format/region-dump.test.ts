import assert from "node:assert/strict";

import fc from "fast-check";

import { configSlotOffset, encodeConfigSlot } from "../../../lib/format/config-slot.js";
import { decodeHostBlock, encodeHostBlock } from "../../../lib/format/dblock.js";
import { encodeDeltaSector } from "../../../lib/format/delta-sector.js";
import { allGeometries, geometryOf } from "../../../lib/format/geometry.js";
import { decodeLeaderRecord, encodePaxosLeaderSector } from "../../../lib/format/leader-record.js";
import { encodeOutbox } from "../../../lib/format/outbox.js";
import {
  areaUseOf,
  areaUseOfLayout,
  type AreaUse,
  describeRecord,
  detectLayout,
  type RecordDescription,
  recordPlaces,
} from "../../../lib/format/region-dump.js";
import { decodeRequestRecord, encodeRequestSector } from "../../../lib/format/request-record.js";
import { encodeSuperblock } from "../../../lib/format/superblock.js";
import { goldenImage, usedSectors } from "./golden-image.js";
import { deltaSector, sampleOutbox, superblock } from "./samples.js";

const MIB = 1 << 20;
const g512 = geometryOf(512);

/** Descriptions of an area's records that are not empty, by name. */
function dumpArea(
  area: Uint8Array,
  use: AreaUse,
  g = g512,
  hosts = 2000,
): Map<string, RecordDescription> {
  const found = recordPlaces(g, use, hosts)
    .map((place) => describeRecord(place, area.subarray(place.offset, place.offset + place.length)))
    .filter((description) => description.state !== "empty");
  return new Map(found.map((description) => [description.name, description]));
}

describe("region dump", () => {
  const images = [
    ["lockspace-512-1M", "sanlock-lockspace", 512, 1],
    ["lockspace-empty-512-1M", "sanlock-lockspace", 512, 1],
    ["lockspace-4096-1M", "sanlock-lockspace", 4096, 1],
    ["lockspace-4096-8M", "sanlock-lockspace", 4096, 8],
    ["resources-512-1M", "sanlock-resource", 512, 1],
    ["resources-4096-1M", "sanlock-resource", 4096, 1],
    ["rindex-512-1M", "sanlock-rindex", 512, 1],
    ["rindex-4096-1M", "sanlock-rindex", 4096, 1],
  ] as const;
  for (const [name, kind, sectorSize, mib] of images) {
    it(`knows ${name} by its first 16 KiB`, () => {
      const layout = detectLayout(goldenImage(name).subarray(0, 16384));
      assert.equal(layout.kind, kind);
      assert.deepEqual(layout.g, geometryOf(sectorSize, mib * MIB));
    });
  }

  for (const [name, sectorSize] of [
    ["resources-empty-512-1M", 512],
    ["resources-512-1M", 512],
    ["resources-4096-1M", 4096],
  ] as const) {
    it(`writes every used sector of ${name} byte for byte as sanlock did`, () => {
      const g = geometryOf(sectorSize, MIB);
      const image = goldenImage(name);
      const used = usedSectors(image, sectorSize);
      assert.ok(used.length >= (2 * image.length) / MIB);
      for (const at of used) {
        const bytes = image.subarray(at, at + sectorSize);
        const sector = (at % MIB) / sectorSize;
        if (sector === 0) {
          const leader = decodeLeaderRecord(bytes, "paxos");
          assert.equal(leader.kind, "ok");
          assert.deepEqual(encodePaxosLeaderSector(g, leader.value), bytes);
        } else if (sector === 1) {
          const request = decodeRequestRecord(bytes);
          assert.equal(request.kind, "ok");
          assert.deepEqual(encodeRequestSector(g, request.value), bytes);
        } else {
          const block = decodeHostBlock(g, bytes);
          assert.equal(block.kind, "ok");
          assert.deepEqual(encodeHostBlock(g, block.value), bytes);
        }
      }
    });
  }

  it("knows our region in every geometry, from one sector", () => {
    for (const g of allGeometries()) {
      const value = superblock(g);
      assert.deepEqual(detectLayout(encodeSuperblock(value)), {
        kind: "sharedha",
        g,
        superblock: value,
      });
    }
  });

  it("says why it does not know: zeros, damage, a newer version, anything else", () => {
    const why = (bytes: Uint8Array): string => {
      const layout = detectLayout(bytes);
      assert.equal(layout.kind, "unknown");
      return layout.why;
    };
    assert.match(why(new Uint8Array(16384)), /all zero/);
    assert.match(why(new Uint8Array(16384).fill(0x41)), /neither/);
    const damaged = encodeSuperblock(superblock(g512));
    damaged[200]! ^= 1;
    assert.match(why(damaged), /checksum of the superblock/);
    const newer = encodeSuperblock(superblock(g512));
    newer[8] = 9;
    assert.match(why(newer), /newer version 9/);
    const lease = Uint8Array.from(goldenImage("resources-512-1M").subarray(0, 512));
    lease[40]! ^= 1;
    assert.match(why(lease), /checksum of the leader record/);
  });

  it("says of a plain sanlock lease what sanlock's own dump says", () => {
    const image = goldenImage("resources-512-1M");
    const lease = dumpArea(image.subarray(2 * MIB, 3 * MIB), "lease");
    assert.deepEqual(
      [...lease.keys()],
      ["leader", "request", "block of host 1", "block of host 2"],
    );
    const leader = lease.get("leader")!.fields;
    assert.equal(leader["resourceName"], "shared");
    assert.equal(leader["ownerId"], "2");
    assert.equal(leader["lver"], "2");
    const second = lease.get("block of host 2")!.fields;
    assert.deepEqual(second["mode"], { shared: true, generation: "1" });
  });

  it("lists the hosts of a plain sanlock lockspace and the ids in a bitmap", () => {
    const hosts = dumpArea(goldenImage("lockspace-512-1M"), "lockspace");
    assert.equal(hosts.size, 2000);
    const second = hosts.get("delta lease of host 2")!.fields;
    assert.deepEqual(second["bitmap"], [1]);
    assert.equal(second["hostState"], "absent");
  });

  it("lists an index", () => {
    const index = dumpArea(goldenImage("rindex-512-1M").subarray(0, MIB), "rindex");
    assert.deepEqual(index.get("index entries")!.fields["entries"], [
      { index: 0, name: "web", offset: "2097152" },
      { index: 1, name: "db", offset: "3145728" },
    ]);
  });

  it("describes our own areas, with damage named at its place", () => {
    const first = new Uint8Array(MIB);
    const block = encodeSuperblock(superblock(g512));
    first.set(block);
    first.set(block, MIB - 512);
    first[MIB - 1]! ^= 1;
    const slot = { hostId: 4, stamp: { lver: 2n, generation: 1n }, epoch: 1n, text: "a = 1\n" };
    first.set(encodeConfigSlot(g512, slot), configSlotOffset(g512, 4, 1));
    const area = dumpArea(first, "superblock");
    assert.deepEqual(
      [...area].map(([name, { state }]) => [name, state]),
      [
        ["superblock, first copy", "ok"],
        ["configuration B of host 4", "ok"],
        ["superblock, last copy", "corrupt"],
      ],
    );
    assert.match(area.get("superblock, last copy")!.reason!, /checksum/);

    const outboxes = new Uint8Array(MIB);
    outboxes.set(encodeOutbox(g512, sampleOutbox), 2 * 512);
    assert.deepEqual([...dumpArea(outboxes, "outboxes").keys()], ["outbox of host 3"]);

    const lockspace = new Uint8Array(MIB);
    lockspace.set(encodeDeltaSector(g512, deltaSector(g512)));
    const host = dumpArea(lockspace, "lockspace").get("delta lease of host 1")!.fields["host"];
    assert.ok(typeof host === "object" && "bootIdHash" in host);
    assert.equal(host["bootIdHash"], "1234605616436508552");
  });

  it("names the use of every area, and reads no place outside its area", () => {
    const uses = [0, 1, 2, 3, 4, 5, 6, 99].map(areaUseOf);
    assert.deepEqual(uses, [
      "superblock",
      "outboxes",
      "reservations",
      "lockspace",
      "rindex",
      "lease",
      "lease",
      "lease",
    ]);
    assert.equal(areaUseOfLayout({ kind: "sanlock-resource", g: g512 }), "lease");
    assert.equal(areaUseOfLayout({ kind: "sanlock-lockspace", g: g512 }), "lockspace");
    assert.equal(areaUseOfLayout({ kind: "sanlock-rindex", g: g512 }), "rindex");
    for (const g of allGeometries()) {
      for (const use of uses) {
        for (const place of recordPlaces(g, use, 2000)) {
          assert.ok(place.offset >= 0 && place.offset + place.length <= g.areaSize, place.name);
          assert.equal(place.offset % g.sectorSize, 0);
        }
      }
    }
  });

  it("never throws on any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096, size: "max" }), (bytes) => {
        assert.equal(detectLayout(bytes).kind, "unknown");
        for (const use of [
          "superblock",
          "outboxes",
          "reservations",
          "lockspace",
          "lease",
        ] as const) {
          for (const place of recordPlaces(g512, use, 2)) {
            const piece = bytes.subarray(place.offset, place.offset + place.length);
            assert.notEqual(describeRecord(place, piece).state, "ok");
          }
        }
        const [header, entries] = recordPlaces(g512, "rindex", 2);
        assert.notEqual(describeRecord(header!, bytes).state, "ok");
        // An entry has no checksum: noise may well be one.
        assert.match(describeRecord(entries!, bytes).state, /^(ok|empty)$/);
      }),
      { numRuns: 50 },
    );
  });
});
