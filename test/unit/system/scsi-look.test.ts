import assert from "node:assert/strict";

import { askScsiDisk, type ScsiLook } from "../../../lib/system/scsi-look.js";
import { type ScsiResult } from "../../../lib/system/scsi-command.js";

const GOOD = answered(0);
const LIO_CAPABILITIES = Uint8Array.of(0, 8, 0x1d, 0x90, 0xea, 1, 0, 0);

function answered(status: number, sense = new Uint8Array(0), data = new Uint8Array(0)): ScsiResult {
  return { kind: "answered", status, sense, data, residual: 0, durationMs: 1 };
}

function check(key: number, asc: number, ascq: number): ScsiResult {
  const sense = new Uint8Array(18);
  sense.set([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq]);
  return answered(2, sense);
}

/** Answers each operation code with its results, the last one over and over. */
function disk(
  answers: Readonly<Record<number, readonly ScsiResult[]>>,
): ScsiLook & { sent: number } {
  const left = new Map(Object.entries(answers).map(([code, list]) => [Number(code), [...list]]));
  let sent = 0;
  const look = askScsiDisk((cdb) => {
    sent += 1;
    const list = left.get(cdb[0]!) ?? [];
    return (list.length > 1 ? list.shift() : list[0]) ?? GOOD;
  });
  return { ...look, sent };
}

const READY = 0x00;
const FLUSH = 0x35;
const RESERVE_IN = 0x5e;
const capable = answered(0, undefined, LIO_CAPABILITIES);

describe("what a SCSI disk is asked", () => {
  it("of a healthy disk: its reservations, and that it flushes", () => {
    const look = disk({ [RESERVE_IN]: [capable] });
    assert.deepEqual(look.flush, { kind: "ok", value: undefined });
    assert.ok(look.reservations.kind === "ok");
    assert.equal(look.reservations.value.persistThroughPowerLossCapable, true);
    assert.deepEqual([look.attentions, look.sent], [[], 3]);
  });

  it("clears unit attentions as long as they come, and tells each", () => {
    const look = disk({
      [READY]: [check(6, 0x29, 0), check(6, 0x2a, 3), GOOD],
      [RESERVE_IN]: [capable],
    });
    assert.equal(look.reservations.kind, "ok");
    assert.equal(look.sent, 5);
    assert.deepEqual(look.attentions, [
      "unit attention (29/00, power on, reset, or bus device reset occurred)",
      "unit attention (2a/03, reservations preempted)",
    ]);
  });

  it("gives up a disk whose unit attentions never end", () => {
    const look = disk({ [RESERVE_IN]: [check(6, 0x29, 0)] });
    assert.deepEqual(look.reservations, {
      kind: "failed",
      why: "more than 8 unit attentions, one after the other",
    });
    assert.equal(look.sent, 1 + 9 + 1);
  });

  it("tells a disk without the command from one that fails", () => {
    const unsupported = disk({ [RESERVE_IN]: [check(5, 0x20, 0)], [FLUSH]: [check(5, 0x24, 0)] });
    assert.deepEqual(unsupported.reservations, {
      kind: "unsupported",
      why: "illegal request (20/00, invalid command operation code)",
    });
    assert.equal(unsupported.flush.kind, "unsupported");
    // A bad parameter is our fault, and a medium error with the same code is no missing command.
    for (const other of [check(5, 0x26, 0), check(3, 0x20, 0)]) {
      assert.equal(disk({ [RESERVE_IN]: [other] }).reservations.kind, "failed");
    }
    const failed = disk({ [RESERVE_IN]: [check(2, 8, 0)] });
    assert.deepEqual(failed.reservations, {
      kind: "failed",
      why: "not ready (08/00, logical unit communication failure)",
    });
  });

  it("knows conflicts, other statuses, and answers that make no sense", () => {
    const of = (result: ScsiResult): ScsiLook["reservations"] =>
      disk({ [RESERVE_IN]: [result] }).reservations;
    assert.deepEqual(of(answered(0x18)), { kind: "conflict" });
    assert.deepEqual(of(answered(0x08)), { kind: "failed", why: "SCSI status 0x8" });
    assert.deepEqual(of(answered(2, Uint8Array.of(0x7f, 1, 1))), {
      kind: "failed",
      why: "SCSI status 0x2: sense data with response code 0x7f",
    });
    assert.deepEqual(of(GOOD), {
      kind: "failed",
      why: "REPORT CAPABILITIES answered with 0 bytes, not 8",
    });
    assert.deepEqual(of({ kind: "transport", hostStatus: 15, driverStatus: 0 }), {
      kind: "failed",
      why: "no answer from the disk (DID_TRANSPORT_FAILFAST, driver status 0)",
    });
  });

  it("asks no more of what is no SCSI disk", () => {
    const look = disk({ [READY]: [{ kind: "refused", code: "ENOTTY" }] });
    assert.deepEqual(look.reservations, { kind: "not-scsi", code: "ENOTTY" });
    assert.equal(look.sent, 1);
    const denied = disk({ [READY]: [{ kind: "refused", code: "EPERM" }] });
    assert.equal(denied.sent, 3);
    const standby = disk({ [READY]: [check(2, 4, 0x0b)], [RESERVE_IN]: [capable] });
    assert.equal(standby.reservations.kind, "ok");
  });
});
