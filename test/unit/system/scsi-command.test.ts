import assert from "node:assert/strict";
import { closeSync, openSync } from "node:fs";

import koffi from "koffi";

import { reportCapabilities } from "../../../lib/format/scsi-commands.js";
import {
  decodeSgHeader,
  encodeSgHeader,
  scsiCommand,
  SG_IO_HDR_SIZE,
} from "../../../lib/system/scsi-command.js";

/** scsi/sg.h in koffi's words: an independent layout, with the compiler's own padding rules. */
const SgIoHdr = koffi.struct("sg_io_hdr", {
  interface_id: "int",
  dxfer_direction: "int",
  cmd_len: "uchar",
  mx_sb_len: "uchar",
  iovec_count: "ushort",
  dxfer_len: "uint",
  dxferp: "uintptr_t",
  cmdp: "uintptr_t",
  sbp: "uintptr_t",
  timeout: "uint",
  flags: "uint",
  pack_id: "int",
  usr_ptr: "uintptr_t",
  status: "uchar",
  masked_status: "uchar",
  msg_status: "uchar",
  sb_len_wr: "uchar",
  host_status: "ushort",
  driver_status: "ushort",
  resid: "int",
  duration: "uint",
  info: "uint",
});

describe("SG_IO", () => {
  it("puts every field of the request where the kernel's header has it", () => {
    const bytes = encodeSgHeader({
      direction: "in",
      cdbLength: 10,
      cdb: 0x7f00_0000_1000n,
      sense: 0x7f00_0000_1020n,
      data: 0x7f00_0000_1200n,
      dataLength: 32,
      timeoutMs: 2_500,
    });
    assert.equal(bytes.length, koffi.sizeof(SgIoHdr));
    assert.equal(SG_IO_HDR_SIZE, koffi.sizeof(SgIoHdr));
    const seen = koffi.decode(bytes, SgIoHdr) as Record<string, unknown>;
    const expected = {
      interface_id: 0x53,
      dxfer_direction: -3,
      cmd_len: 10,
      mx_sb_len: 252,
      iovec_count: 0,
      dxfer_len: 32,
      dxferp: 0x7f00_0000_1200,
      cmdp: 0x7f00_0000_1000,
      sbp: 0x7f00_0000_1020,
      timeout: 2_500,
      flags: 0,
      pack_id: 0,
    };
    for (const [field, value] of Object.entries(expected)) {
      assert.equal(Number(seen[field]), value, field);
    }
  });

  it("knows the directions", () => {
    const rest = { cdbLength: 6, cdb: 1n, sense: 1n, data: 0n, dataLength: 0, timeoutMs: 1 };
    const direction = (kind: "none" | "in" | "out"): number =>
      new DataView(encodeSgHeader({ ...rest, direction: kind }).buffer).getInt32(4, true);
    assert.deepEqual(
      [direction("none"), direction("in"), direction("out")],
      [-1, -3, -2], // SG_DXFER_NONE, SG_DXFER_FROM_DEV, SG_DXFER_TO_DEV
    );
  });

  it("finds the answer's fields where the kernel's header has them", () => {
    const bytes = new Uint8Array(SG_IO_HDR_SIZE);
    koffi.encode(bytes, SgIoHdr, {
      interface_id: 0x53,
      dxfer_direction: -3,
      cmd_len: 10,
      mx_sb_len: 252,
      iovec_count: 0,
      dxfer_len: 32,
      dxferp: 0,
      cmdp: 0,
      sbp: 0,
      timeout: 1,
      flags: 0,
      pack_id: 0,
      usr_ptr: 0,
      status: 2,
      masked_status: 1,
      msg_status: 0,
      sb_len_wr: 18,
      host_status: 3,
      driver_status: 8,
      resid: 24,
      duration: 17,
      info: 1,
    });
    assert.deepEqual(decodeSgHeader(bytes), {
      status: 2,
      senseLength: 18,
      hostStatus: 3,
      driverStatus: 8,
      residual: 24,
      durationMs: 17,
    });
  });

  it("is refused by what is no SCSI device", () => {
    const fd = openSync("/dev/null", "r");
    try {
      assert.deepEqual(scsiCommand(fd, reportCapabilities(), { kind: "in", length: 32 }, 1_000), {
        kind: "refused",
        code: "ENOTTY",
      });
    } finally {
      closeSync(fd);
    }
  });

  it("refuses what the header cannot say", () => {
    const none = { kind: "none" } as const;
    assert.throws(() => scsiCommand(0, new Uint8Array(33), none, 1_000), RangeError);
    assert.throws(() => scsiCommand(0, new Uint8Array(6), none, 0), RangeError);
    assert.throws(
      () => scsiCommand(0, new Uint8Array(6), { kind: "in", length: 65_537 }, 1_000),
      RangeError,
    );
  });
});
