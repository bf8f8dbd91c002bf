import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import fc from "fast-check";

import {
  decodeReservationCapabilities,
  reportCapabilities,
  type ReservationCapabilities,
  synchronizeCacheOfOneBlock,
  testUnitReady,
} from "../../../lib/format/scsi-commands.js";
import { findRoot } from "../../helpers/root.js";

function fixture(name: string): string {
  return readFileSync(join(findRoot(), "fixtures/sg_persist", name), "utf8");
}

/** SPC-4, table 209: byte and bit of what sg_persist prints. */
const FIELDS: readonly (readonly [RegExp, number, number])[] = [
  [/\(RLR_C\): 1/, 2, 7],
  [/\(CRH\): 1/, 2, 4],
  [/\(SIP_C\): 1/, 2, 3],
  [/\(ATP_C\): 1/, 2, 2],
  [/\(PTPL_C\): 1/, 2, 0],
  [/\(TMV\): 1/, 3, 7],
  [/Allow Commands: 1/, 3, 4],
  [/\(PTPL_A\): 1/, 3, 0],
  [/Write Exclusive, all registrants: 1/, 4, 7],
  [/Exclusive Access, registrants only: 1/, 4, 6],
  [/Write Exclusive, registrants only: 1/, 4, 5],
  [/Exclusive Access: 1/, 4, 3],
  [/Write Exclusive: 1/, 4, 1],
  [/Exclusive Access, all registrants: 1/, 5, 0],
];

/** The bytes that the device must have sent for sg_persist to print this. */
function bytesOf(words: string): Uint8Array {
  const bytes = Uint8Array.of(0, 8, 0, 0, 0, 0, 0, 0);
  for (const [pattern, byte, bit] of FIELDS) {
    if (pattern.test(words)) {
      bytes[byte]! |= 1 << bit;
    }
  }
  return bytes;
}

function decoded(bytes: Uint8Array): ReservationCapabilities {
  const capabilities = decodeReservationCapabilities(bytes);
  assert.ok(capabilities.kind === "ok", JSON.stringify(capabilities));
  return capabilities.value;
}

describe("PERSISTENT RESERVE IN, REPORT CAPABILITIES", () => {
  it("is asked for with sg_persist's own CDB, but for the room that the answer has", () => {
    const sent = /Persistent reservation in cdb: \[([0-9a-f ]+)\]/.exec(
      fixture("lio-capabilities.txt"),
    );
    const theirs = Buffer.from(sent![1]!.replaceAll(" ", ""), "hex");
    const ours = Buffer.from(reportCapabilities());
    assert.deepEqual([theirs.readUInt16BE(7), ours.readUInt16BE(7)], [8_192, 32]);
    theirs.writeUInt16BE(32, 7);
    assert.equal(ours.toString("hex"), theirs.toString("hex"));
  });

  const lio = {
    replaceLostReservation: false,
    compatibleHandling: true,
    specifyInitiatorPorts: true,
    allTargetPorts: true,
    persistThroughPowerLossCapable: true,
    persistThroughPowerLossActive: false,
    types: ["WE", "EA", "WERO", "EARO", "WEAR", "EAAR"],
  };

  it("of LIO reads as sg_persist reads it", () => {
    const bytes = bytesOf(fixture("lio-capabilities.txt"));
    assert.equal(Buffer.from(bytes).toString("hex"), "00081d90ea010000");
    assert.deepEqual(decoded(bytes), lio);
  });

  it("shows that power loss protection is active after a registration with APTPL", () => {
    assert.deepEqual(decoded(bytesOf(fixture("lio-capabilities-aptpl.txt"))), {
      ...lio,
      persistThroughPowerLossActive: true,
    });
  });

  it("of tgt: every type, and nothing survives a power loss", () => {
    assert.deepEqual(decoded(bytesOf(fixture("tgt-capabilities.txt"))), {
      ...lio,
      compatibleHandling: false,
      specifyInitiatorPorts: false,
      allTargetPorts: false,
      persistThroughPowerLossCapable: false,
    });
  });

  it("each bit is its own field", () => {
    for (const [, byte, bit] of FIELDS) {
      const bytes = Uint8Array.of(0, 8, 0, 0x80, 0, 0, 0, 0);
      const before = JSON.stringify(decoded(bytes));
      bytes[byte]! ^= 1 << bit;
      const isIgnored = byte === 3 && bit === 4; // ALLOW COMMANDS
      assert.equal(JSON.stringify(decoded(bytes)) === before, isIgnored, `byte ${byte} bit ${bit}`);
    }
  });

  it("without a valid mask the types are not known", () => {
    assert.equal(decoded(Uint8Array.of(0, 8, 1, 0, 0xea, 1, 0, 0)).types, undefined);
  });

  it("refuses short answers and lengths that cannot be", () => {
    assert.equal(decodeReservationCapabilities(new Uint8Array(7)).kind, "corrupt");
    assert.equal(decodeReservationCapabilities(new Uint8Array(8)).kind, "corrupt");
    assert.equal(decodeReservationCapabilities(new Uint8Array(0)).kind, "corrupt");
  });

  it("never throws, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        const { kind } = decodeReservationCapabilities(bytes);
        const isLong = bytes.length >= 8 && bytes[0]! * 256 + bytes[1]! >= 8;
        assert.equal(kind, isLong ? "ok" : "corrupt");
      }),
    );
  });
});

describe("commands that change nothing", () => {
  it("are those of the standard", () => {
    assert.deepEqual([...testUnitReady()], [0, 0, 0, 0, 0, 0]);
    assert.deepEqual([...synchronizeCacheOfOneBlock()], [0x35, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
  });
});
