import assert from "node:assert/strict";

import fc from "fast-check";

import { allGeometries, geometryOf } from "../../../lib/format/geometry.js";
import {
  decodeLeaderRecord,
  encodeLeaderRecord,
  encodePaxosLeaderSector,
  isFree,
  LEADER_RECORD_SIZE,
  type LeaderRecord,
  SHORT_HOLD,
} from "../../../lib/format/leader-record.js";
import { acceptedFlips, assertNeverThrows, range } from "./byte-flips.js";
import { goldenImage } from "./golden-image.js";
import { anyGeometry, deltaLeader, nameOf, paxosLeader, u16, u64, recordOf } from "./samples.js";

const g512 = geometryOf(512);

function decoded(bytes: Uint8Array, expect?: "delta" | "paxos"): LeaderRecord {
  const result = decodeLeaderRecord(bytes, expect);
  assert.equal(result.kind, "ok", JSON.stringify(result.kind === "ok" ? "" : result));
  return result.value;
}

describe("leader record", () => {
  it("reads what sanlock wrote for a held lease", () => {
    const image = goldenImage("resources-512-1M");
    assert.deepEqual(decoded(image.subarray(1 << 20, (1 << 20) + 512), "paxos"), {
      kind: "paxos",
      version: 0x00060004,
      flags: 0x10,
      sectorSize: 512,
      numHosts: 2000n,
      maxHosts: 2000n,
      ownerId: 1n,
      ownerGeneration: 1n,
      lver: 1n,
      spaceName: "GOLD",
      resourceName: "held",
      timestamp: 1989n,
      ioTimeout: 0,
      writeId: 1n,
      writeGeneration: 1n,
      writeTimestamp: 1989n,
    });
  });

  it("is free with timestamp 0, whoever was the last owner", () => {
    assert.equal(isFree(paxosLeader(g512, { timestamp: 0n })), true);
    assert.equal(isFree(paxosLeader(g512, { timestamp: 1n })), false);
  });

  it("comes back as it was written, for any values", () => {
    const record = fc
      .tuple(
        anyGeometry,
        fc.constantFrom("delta" as const, "paxos" as const, "cleared" as const),
        recordOf({ ownerId: u64, ownerGeneration: u64, lver: u64, timestamp: u64 }),
        recordOf({ ioTimeout: u16, writeId: u64, writeGeneration: u64, writeTimestamp: u64 }),
        recordOf({ spaceName: nameOf(48), resourceName: nameOf(48) }),
        fc.boolean(),
      )
      .map(([g, kind, owner, rest, names, short]) => {
        const base = kind === "delta" ? deltaLeader(g) : paxosLeader(g, { kind });
        return {
          ...base,
          ...owner,
          ...rest,
          ...names,
          flags: g.lflFlag | (short ? SHORT_HOLD : 0),
        };
      });
    fc.assert(
      fc.property(record, (value) => {
        assert.deepEqual(decoded(encodeLeaderRecord(value)), value);
      }),
    );
  });

  it("refuses a change of any byte its checksum covers; io_timeout and write_* are not covered", () => {
    for (const record of [paxosLeader(g512), deltaLeader(g512)]) {
      const bytes = encodeLeaderRecord(record);
      const accepted = acceptedFlips(bytes, (b) => decodeLeaderRecord(b).kind === "ok");
      assert.deepEqual(accepted, range(172, LEADER_RECORD_SIZE));
    }
  });

  it("tells empty, foreign and short ones apart", () => {
    assert.equal(decodeLeaderRecord(new Uint8Array(512)).kind, "empty");
    assert.equal(decodeLeaderRecord(new Uint8Array(199)).kind, "corrupt");
    assert.equal(decodeLeaderRecord(new Uint8Array(512).fill(1)).kind, "foreign");
    const delta = encodeLeaderRecord(deltaLeader(g512));
    const paxos = encodeLeaderRecord(paxosLeader(g512));
    const cleared = encodeLeaderRecord(paxosLeader(g512, { kind: "cleared" }));
    assert.equal(decodeLeaderRecord(delta, "paxos").kind, "foreign");
    assert.equal(decodeLeaderRecord(paxos, "delta").kind, "foreign");
    assert.equal(decodeLeaderRecord(cleared, "delta").kind, "foreign");
    assert.equal(decoded(cleared, "paxos").kind, "cleared");
  });

  it("refuses another major version and accepts another minor one", () => {
    const newer = encodeLeaderRecord(paxosLeader(g512, { version: 0x00070000 }));
    assert.equal(decodeLeaderRecord(newer).kind, "foreign");
    const minor = encodeLeaderRecord(paxosLeader(g512, { version: 0x00060005 }));
    assert.equal(decoded(minor).version, 0x00060005);
  });

  it("refuses impossible geometry and host counts, even with a good checksum", () => {
    for (const changes of [
      { flags: 0x30 },
      { flags: 0x20 },
      { numHosts: 2001n },
      { maxHosts: 2001n },
      { numHosts: 1n << 63n, maxHosts: 1n << 63n },
    ]) {
      const bytes = encodeLeaderRecord(paxosLeader(g512, changes));
      assert.equal(decodeLeaderRecord(bytes).kind, "corrupt", Object.keys(changes).join());
    }
  });

  it("refuses to write what does not fit", () => {
    const wrong: [Partial<LeaderRecord>, string][] = [
      [{ ownerId: -1n }, "ERR_RECORD_FIELD"],
      [{ lver: 1n << 64n }, "ERR_RECORD_FIELD"],
      [{ ioTimeout: 65536 }, "ERR_RECORD_FIELD"],
      [{ spaceName: "x".repeat(49) }, "ERR_NAME"],
    ];
    for (const [changes, code] of wrong) {
      assert.throws(() => encodeLeaderRecord(paxosLeader(g512, changes)), { code });
    }
    assert.throws(() => encodePaxosLeaderSector(g512, deltaLeader(g512)), {
      code: "ERR_RECORD_FIELD",
    });
    assert.throws(() => encodePaxosLeaderSector(g512, paxosLeader(geometryOf(4096))), {
      code: "ERR_RECORD_FIELD",
    });
  });

  it("fills its sector with zeros", () => {
    for (const g of allGeometries()) {
      const sector = encodePaxosLeaderSector(g, paxosLeader(g));
      assert.equal(sector.length, g.sectorSize);
      assert.ok(sector.subarray(LEADER_RECORD_SIZE).every((byte) => byte === 0));
      assert.deepEqual(decoded(sector, "paxos"), paxosLeader(g));
    }
  });

  it("never throws on any bytes", () => {
    assertNeverThrows(decodeLeaderRecord, encodeLeaderRecord(paxosLeader(g512)));
  });
});
