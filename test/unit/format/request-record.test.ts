import assert from "node:assert/strict";

import fc from "fast-check";

import { geometryOf } from "../../../lib/format/geometry.js";
import {
  decodeRequestRecord,
  encodeRequestSector,
  FORCE_MODES,
  REQUEST_VERSION,
  type RequestRecord,
} from "../../../lib/format/request-record.js";
import { acceptedFlips, assertNeverThrows, range } from "./byte-flips.js";
import { goldenImage } from "./golden-image.js";
import { anyGeometry, recordOf, u64 } from "./samples.js";

const g512 = geometryOf(512);
const sample: RequestRecord = { version: REQUEST_VERSION, lver: 2n, forceMode: "graceful" };

describe("request record", () => {
  it("reads and writes the one sanlock wrote byte for byte", () => {
    const at = 4 * (1 << 20) + 512;
    const bytes = goldenImage("resources-512-1M").subarray(at, at + 512);
    assert.deepEqual(decodeRequestRecord(bytes), { kind: "ok", value: sample });
    assert.deepEqual(encodeRequestSector(g512, sample), bytes);
  });

  it("comes back as it was written, for any values", () => {
    const record = recordOf<RequestRecord>({
      version: fc.integer({ min: 0x00010000, max: 0x0001ffff }),
      lver: u64,
      forceMode: fc.constantFrom(...FORCE_MODES),
    });
    fc.assert(
      fc.property(anyGeometry, record, (g, value) => {
        assert.deepEqual(decodeRequestRecord(encodeRequestSector(g, value)), { kind: "ok", value });
      }),
    );
  });

  it("has no checksum: only magic, major version and force mode are judged", () => {
    const accepted = acceptedFlips(
      encodeRequestSector(g512, { ...sample, forceMode: "force" }),
      (b) => decodeRequestRecord(b).kind === "ok",
    );
    // Byte 16 is the force mode: 1 becomes 0 by one bit, and 0 is a mode too.
    assert.deepEqual(accepted, [4, 5, ...range(8, 17), ...range(20, 512)]);
  });

  it("tells empty, foreign, unknown and short ones apart", () => {
    assert.equal(decodeRequestRecord(new Uint8Array(512)).kind, "empty");
    assert.equal(decodeRequestRecord(new Uint8Array(512).fill(3)).kind, "foreign");
    assert.equal(decodeRequestRecord(new Uint8Array(19)).kind, "corrupt");
    const bytes = encodeRequestSector(g512, sample);
    bytes[16] = 3;
    assert.equal(decodeRequestRecord(bytes).kind, "corrupt");
  });

  it("refuses to write a version nobody knows", () => {
    assert.throws(() => encodeRequestSector(g512, { ...sample, version: 0x00020000 }), {
      code: "ERR_RECORD_FIELD",
    });
  });

  it("never throws on any bytes", () => {
    assertNeverThrows(decodeRequestRecord, encodeRequestSector(g512, sample));
  });
});
