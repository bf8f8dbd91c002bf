import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import fc from "fast-check";

import { ShareHaError } from "../../../lib/errors.js";
import { deviceError } from "../../../lib/system/device-error.js";
import { layoutOf, LOCK_PARTITION_NAME, LOCK_PARTITION_TYPE } from "../../../lib/system/gpt.js";
import { splitDevice } from "../../../lib/system/loop.js";
import { diskName, normalizeWwid } from "../../../lib/system/lun-probe.js";
import { hasMapping } from "../../../lib/system/mount-users.js";
import { findMounts, findMountsEverywhere, parseMountinfo } from "../../../lib/system/mounts.js";

const LINE =
  "36 35 98:0 /mnt1 /mnt2\\040with\\011odd\\134names rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";

describe("mountinfo", () => {
  it("reads the manual page's example, with optional fields and escapes", () => {
    assert.deepEqual(parseMountinfo(`${LINE}\n`), [
      {
        mountId: 36,
        devMajorMinor: "98:0",
        root: "/mnt1",
        mountPoint: "/mnt2 with\todd\\names",
        options: "rw,noatime",
        type: "ext3",
        source: "/dev/root",
        superOptions: "rw,errors=continue",
      },
    ]);
  });

  it("refuses any other line with an error and never with a crash", () => {
    for (const line of ["x", "36 35 98:0 / /mnt rw", "a b c d e f - g h i", LINE.slice(0, 60)]) {
      assert.throws(
        () => parseMountinfo(line),
        (error) => error instanceof ShareHaError && error.code === "ERR_PROC_FORMAT",
      );
    }
    fc.assert(
      fc.property(fc.string(), (text) => {
        try {
          parseMountinfo(text);
        } catch (error) {
          assert.ok(error instanceof ShareHaError);
        }
      }),
    );
  });

  it("refuses more mounts than any machine has, instead of giving a part of them", () => {
    assert.throws(() => parseMountinfo(`${LINE}\n`.repeat(100_001)), /100001 mounts/);
  });

  it("sees the own mounts, also when looking everywhere", () => {
    const own = findMounts();
    assert.ok(own.some(({ type }) => type === "proc"));
    const everywhere = findMountsEverywhere();
    for (const { mountId } of own) {
      assert.ok(everywhere.some((mount) => mount.mountId === mountId));
    }
  });

  it("recognises a mapping by its device number, hexadecimal in one file, decimal in the other", () => {
    const maps = "7f00-7f10 r-xp 00000000 103:1f 12   /x\n7f20-7f30 rw-p 00000000 00:00 0\n";
    assert.equal(hasMapping(maps, `259:31`), true);
    assert.equal(hasMapping(maps, "103:1"), false);
  });
});

describe("disk names", () => {
  let sysfs: string;
  beforeEach(() => {
    sysfs = mkdtempSync(join(tmpdir(), "sharedha-sysfs-"));
    mkdirSync(join(sysfs, "dev/block"), { recursive: true });
  });
  afterEach(() => {
    rmSync(sysfs, { recursive: true });
  });

  function disk(number: string, path: string, files: Record<string, string>): void {
    const directory = join(sysfs, "devices", path);
    for (const [name, text] of Object.entries(files)) {
      mkdirSync(join(directory, name, ".."), { recursive: true });
      writeFileSync(join(directory, name), text);
    }
    symlinkSync(directory, join(sysfs, "dev/block", number));
  }

  it("are equal for two paths, their partitions and their multipath map", () => {
    const wwid = "naa.600140552ab9c2f9fd14b0cb2c9f2b13\n";
    disk("8:0", "sda", { "device/wwid": wwid });
    disk("8:16", "sdb", { "device/wwid": wwid });
    disk("8:17", "sdb/sdb1", { partition: "1\n" });
    disk("254:0", "dm-0", { "dm/uuid": "mpath-3600140552ab9c2f9fd14b0cb2c9f2b13\n" });
    disk("254:1", "dm-1", { "dm/uuid": "part1-mpath-3600140552ab9c2f9fd14b0cb2c9f2b13\n" });
    const names = ["8:0", "8:16", "8:17", "254:0", "254:1"].map((number) => {
      const [major = "", minor = ""] = number.split(":");
      return diskName(BigInt(major), BigInt(minor), sysfs);
    });
    assert.deepEqual(new Set(names), new Set(["3600140552ab9c2f9fd14b0cb2c9f2b13"]));
  });

  it("fall back to wwid of NVMe, serial, and the disk's number", () => {
    disk("259:0", "nvme0n1", { wwid: "eui.0025388b01\n" });
    disk("253:0", "vda", { serial: "abc\n", dev: "253:0\n" });
    disk("253:16", "vdb", { serial: "\n", dev: "253:16\n" });
    disk("253:17", "vdb/vdb1", { partition: "1\n" });
    assert.equal(diskName(259n, 0n, sysfs), "20025388b01");
    assert.equal(diskName(253n, 0n, sysfs), "serial:abc");
    assert.equal(diskName(253n, 16n, sysfs), "dev:253:16");
    assert.equal(diskName(253n, 17n, sysfs), "dev:253:16");
    assert.equal(diskName(9n, 9n, sysfs), "dev:9:9");
    assert.equal(normalizeWwid("t10.ATA     QEMU  HARDDISK"), "1ATA_QEMU_HARDDISK");
    assert.equal(normalizeWwid("uuid.1"), "uuid.1");
  });

  it("take major and minor numbers apart as the C library does", () => {
    assert.deepEqual(splitDevice(0x0700n), { major: 7n, minor: 0n });
    assert.deepEqual(splitDevice(0x1234507feabn), { major: 0x7fen, minor: 0x123450abn });
  });
});

describe("what a device answers", () => {
  it("becomes an error with a remedy for each errno", () => {
    const codes = ["ENOENT", "ENXIO", "EACCES", "EROFS", "EISDIR", "EBUSY", "EINVAL", "EIO"];
    assert.deepEqual(
      codes.map((code) => deviceError("/x", Object.assign(new Error(code), { code })).code),
      [
        "ERR_NO_SUCH_DEVICE",
        "ERR_NO_SUCH_DEVICE",
        "ERR_PERMISSION",
        "ERR_READ_ONLY_DEVICE",
        "ERR_NOT_A_DEVICE",
        "ERR_DEVICE_BUSY",
        "ERR_DIRECT_IO",
        "ERR_DEVICE_OPEN",
      ],
    );
    assert.equal(deviceError("/x", "odd").code, "ERR_DEVICE_OPEN");
  });

  it("is not trusted when sfdisk prints something unknown", () => {
    const lock = { type: LOCK_PARTITION_TYPE, name: LOCK_PARTITION_NAME, start: 8, size: 8 };
    const table = (partitions: unknown, sectorsize: unknown = 512): unknown => ({
      partitiontable: { label: "gpt", sectorsize, partitions },
    });
    assert.deepEqual(layoutOf("x", table([lock])), { lock: { offset: 4096, length: 4096 } });
    assert.deepEqual(layoutOf("x", table(undefined)), {});
    assert.deepEqual(layoutOf("x", { partitiontable: { label: "dos" } }), {});
    assert.deepEqual(layoutOf("x", null), {});
    for (const bad of [
      table([lock, lock]),
      table([{ ...lock, start: -1 }]),
      table([{ ...lock, size: "8" }]),
      table([{ ...lock, size: 2 ** 53 }]),
      table([lock], 520),
      table({}),
    ]) {
      assert.throws(
        () => layoutOf("x", bad),
        (error) => error instanceof ShareHaError && error.code === "ERR_GPT",
      );
    }
  });
});
