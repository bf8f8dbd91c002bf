import assert from "node:assert/strict";

import fc from "fast-check";

import {
  decodeHostRecord,
  encodeHostRecord,
  HOST_RECORD_SIZE,
} from "../../../lib/format/host-record.js";
import { acceptedFlips, assertNeverThrows } from "./byte-flips.js";
import { anyHostRecord, sampleHostRecord, u64 } from "./samples.js";

describe("host record", () => {
  const bytes = encodeHostRecord(sampleHostRecord, 3n, 7n);

  it("comes back as it was written, for any values", () => {
    fc.assert(
      fc.property(anyHostRecord, u64, u64, (record, ownerId, generation) => {
        const encoded = encodeHostRecord(record, ownerId, generation);
        assert.equal(encoded.length, HOST_RECORD_SIZE);
        assert.deepEqual(decodeHostRecord(encoded, ownerId, generation), {
          kind: "ok",
          value: record,
        });
      }),
    );
  });

  it("keeps its layout", () => {
    assert.equal(
      Buffer.from(bytes.subarray(0, 52)).toString("hex"),
      "53484852" +
        "0100" +
        "01" +
        "03" +
        "88130000" +
        "b80b0000" +
        "e8030000" +
        "f4010000" +
        "8877665544332211" +
        "00ffeeddccbbaa99" +
        "efbeadde" +
        "05" +
        "00000000000000",
    );
  });

  it("refuses a change of any byte", () => {
    const accepted = acceptedFlips(bytes, (b) => decodeHostRecord(b, 3n, 7n).kind === "ok");
    assert.deepEqual(accepted, []);
  });

  it("does not travel to another host or another generation", () => {
    assert.equal(decodeHostRecord(bytes, 4n, 7n).kind, "corrupt");
    assert.equal(decodeHostRecord(bytes, 3n, 8n).kind, "corrupt");
  });

  it("is empty when all zero, as sanlock leaves it", () => {
    assert.equal(decodeHostRecord(new Uint8Array(HOST_RECORD_SIZE), 3n, 7n).kind, "empty");
  });

  it("refuses to write a time that does not fit", () => {
    for (const watchdogMs of [-1, 0.5, 2 ** 32, Number.NaN]) {
      assert.throws(() => encodeHostRecord({ ...sampleHostRecord, watchdogMs }, 3n, 7n), {
        code: "ERR_RECORD_FIELD",
      });
    }
  });

  it("never throws on any bytes", () => {
    assertNeverThrows((b) => decodeHostRecord(b, 3n, 7n), bytes);
  });
});
