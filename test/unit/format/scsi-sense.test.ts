import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import fc from "fast-check";

import { decodeSense, type Sense, senseText } from "../../../lib/format/scsi-sense.js";
import { findRoot } from "../../helpers/root.js";

/** As LIO sends it: 18 bytes, fixed format, additional length 10. */
function fixed(key: number, asc: number, ascq: number, responseCode = 0x70): Uint8Array {
  const bytes = new Uint8Array(18);
  bytes.set([responseCode, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq]);
  return bytes;
}

function decoded(bytes: Uint8Array): Sense {
  const sense = decodeSense(bytes);
  assert.ok(sense.kind === "ok", JSON.stringify(sense));
  return sense.value;
}

function fixture(name: string): string {
  return readFileSync(join(findRoot(), "fixtures/sg_persist", name), "utf8");
}

describe("SCSI sense data", () => {
  it("says in words what sg_persist said of the same answers", () => {
    const preempted = fixture("lio-unit-attention.txt");
    assert.match(preempted, /Sense key: Unit Attention\nAdditional sense: Reservations preempted/);
    assert.equal(
      senseText(decoded(fixed(6, 0x2a, 0x03))),
      "unit attention (2a/03, reservations preempted)",
    );
    const notReady = fixture("lio-not-ready.txt");
    assert.match(
      notReady,
      /Sense key: Not Ready\nAdditional sense: Logical unit communication failure/,
    );
    assert.equal(
      senseText(decoded(fixed(2, 0x08, 0x00))),
      "not ready (08/00, logical unit communication failure)",
    );
  });

  it("takes the valid bit, deferred errors and both formats", () => {
    const sense = { key: "unit attention", asc: 0x29, ascq: 1, deferred: false };
    assert.deepEqual(decoded(fixed(6, 0x29, 1, 0xf0)), sense);
    assert.deepEqual(decoded(fixed(6, 0x29, 1, 0x71)), { ...sense, deferred: true });
    assert.deepEqual(decoded(Uint8Array.of(0x72, 6, 0x29, 1, 0, 0, 0, 0)), sense);
    assert.deepEqual(decoded(Uint8Array.of(0x73, 6, 0x29, 1, 0, 0, 0, 0)), {
      ...sense,
      deferred: true,
    });
    assert.equal(
      senseText(decoded(fixed(6, 0x29, 1, 0x71))),
      "deferred unit attention (29/01, power on, reset, or bus device reset occurred)",
    );
    assert.equal(senseText(decoded(fixed(9, 0x80, 1))), "vendor specific (80/01)");
  });

  it("does not read a code beyond the additional length", () => {
    const short = fixed(6, 0x29, 1);
    short[7] = 4;
    assert.deepEqual(decoded(short), { key: "unit attention", asc: 0, ascq: 0, deferred: false });
    assert.equal(decoded(fixed(6, 0x29, 1).subarray(0, 13)).ascq, 0);
    short[7] = 5;
    assert.deepEqual([decoded(short).asc, decoded(short).ascq], [0x29, 0]);
    assert.equal(decoded(Uint8Array.of(0x70, 0, 6)).key, "unit attention");
    assert.equal(decoded(Uint8Array.of(0x72, 6, 0x29, 1)).asc, 0x29);
  });

  it("knows empty, short and unknown data", () => {
    assert.equal(decodeSense(new Uint8Array(18)).kind, "empty");
    assert.equal(decodeSense(new Uint8Array(0)).kind, "empty");
    assert.equal(decodeSense(Uint8Array.of(0x70, 0)).kind, "corrupt");
    assert.equal(decodeSense(Uint8Array.of(0x72, 6, 0x29)).kind, "corrupt");
    assert.equal(decodeSense(Uint8Array.of(0x7f, 0, 6)).kind, "foreign");
  });

  it("never throws, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 252 }), (bytes) => {
        const sense = decodeSense(bytes);
        if (sense.kind === "ok") {
          assert.ok(sense.value.asc <= 0xff && sense.value.ascq <= 0xff);
          assert.notEqual(senseText(sense.value), "");
        }
      }),
    );
  });
});
