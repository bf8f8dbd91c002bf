import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { ShareHaError } from "../../lib/errors.js";
import {
  DATA_PARTITION_TYPE,
  LOCK_PARTITION_TYPE,
  probeSignatures,
  readGpt,
  writeGpt,
} from "../../lib/system/gpt.js";
import { attachLoop, detachLoop, identifyFile, loopsOf } from "../../lib/system/loop.js";
import { findClaimedLoops } from "../../lib/system/loop-holders.js";
import { requireUnclaimed } from "../../lib/system/device-claim.js";
import { probeLun } from "../../lib/system/lun-probe.js";
import { makeFilesystem, mountFilesystem, unmount } from "../../lib/system/filesystem.js";
import { whyNotRoot, Workshop } from "../helpers/loop-image.js";
import { skipIf } from "../helpers/skip.js";

const MIB = 1024 * 1024;

function code(expected: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShareHaError, String(error));
    assert.equal(error.code, expected, error.message);
    return true;
  };
}

describe("loop devices, probes and partitions", function () {
  this.timeout(30_000);
  let shop: Workshop;

  before(function () {
    skipIf(this, whyNotRoot());
  });
  beforeEach(() => {
    shop = new Workshop();
  });
  afterEach(() => {
    shop.dispose();
  });

  it("attaches a loop at an offset with direct I/O, finds it again, and detaches only what it attached", async () => {
    const path = shop.file("image", 8 * MIB);
    const backing = identifyFile(path);
    const loop = await attachLoop({ path, offset: MIB, sizeLimit: 2 * MIB });
    let detached = false;
    shop.onDispose(() => {
      assert.ok(detached);
    });
    assert.equal(loop.directIo, true);
    assert.equal(loop.status.offset, BigInt(MIB));
    assert.equal(loop.status.path, path);
    const facts = probeLun(loop.device);
    assert.equal(facts.sizeBytes, 2 * MIB);
    const over = await attachLoop({ path: loop.device, offset: 512 * 1024, sectorSize: 4096 });
    assert.deepEqual(
      loopsOf(backing).toSorted((a, b) => Number(a.offset - b.offset)),
      [
        { device: loop.device, offset: BigInt(MIB) },
        { device: over.device, offset: BigInt(MIB + 512 * 1024) },
      ],
    );
    assert.equal(await detachLoop(over.device, backing), "not-attached", "another backing file");
    assert.equal(await detachLoop(over.device, identifyFile(loop.device)), "detached");
    assert.equal(await detachLoop(loop.device, backing), "detached");
    detached = true;
    assert.equal(await detachLoop(loop.device, backing), "not-attached");
    assert.deepEqual(loopsOf(backing), []);
  });

  it("says busy while a mount keeps the loop", async () => {
    const path = shop.file("image", 16 * MIB);
    const { device, status } = await attachLoop({ path });
    await makeFilesystem(device, "ext4");
    const mountPoint = shop.mountPoint("mnt");
    await mountFilesystem({ device, path: mountPoint, type: "ext4" });
    assert.equal(await detachLoop(device, status.backing), "busy");
    await unmount(mountPoint);
    assert.equal(await detachLoop(device, status.backing), "not-attached");
  });

  it("refuses to attach what is not there", async () => {
    await assert.rejects(attachLoop({ path: join(shop.directory, "absent") }), code("ERR_LOOP"));
  });

  it("names a file, a link to it and every loop on it alike, and another file differently", () => {
    const path = shop.file("image", 4 * MIB);
    const link = join(shop.directory, "link");
    symlinkSync(path, link);
    const loop = shop.loop(path, "--sector-size", "4096", "--read-only");
    const outer = shop.loop(loop);
    const facts = [path, link, loop, outer].map((each) => probeLun(each));
    assert.equal(new Set(facts.map(({ wwid }) => wwid)).size, 1);
    assert.notEqual(probeLun(shop.file("other", MIB)).wwid, facts[0]!.wwid);
    const [file, , block] = facts;
    assert.deepEqual(
      [file!.isBlock, file!.isLoop, file!.sizeBytes, file!.sectorSize, file!.readOnly],
      [false, false, 4 * MIB, 512, false],
    );
    assert.deepEqual(
      [block!.isBlock, block!.isLoop, block!.sizeBytes, block!.sectorSize, block!.readOnly],
      [true, true, 4 * MIB, 4096, true],
    );
    assert.equal(block!.loopBacking?.path, path);
  });

  it("finds who has a loop to himself without a mount, and takes no mount for that", async () => {
    const path = shop.file("image", 64 * MIB);
    const backing = identifyFile(path);
    const device = shop.loop(path);
    assert.deepEqual(findClaimedLoops(backing), []);
    const script = `fs.openSync("${device}", fs.constants.O_EXCL); console.log(); setInterval(() => 0, 1000)`;
    const checker = spawn(process.execPath, ["--eval", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    shop.onDispose(() => {
      checker.kill("SIGKILL");
    });
    await once(checker.stdout, "data");
    const [claimed] = findClaimedLoops(backing);
    assert.equal(claimed?.device, device);
    assert.deepEqual(
      claimed.holders.map(({ pid }) => pid),
      [checker.pid],
    );
    checker.kill("SIGKILL");
    await once(checker, "close");
    assert.deepEqual(findClaimedLoops(backing), []);

    await makeFilesystem(device, "ext4");
    const mountPoint = shop.mountPoint("mnt");
    await mountFilesystem({ device, path: mountPoint, type: "ext4" });
    assert.throws(() => {
      requireUnclaimed(device);
    }, code("ERR_DEVICE_BUSY"));
    assert.deepEqual(findClaimedLoops(backing), []);
    await unmount(mountPoint);
  });

  it("tells what a path is not", () => {
    assert.throws(() => probeLun(join(shop.directory, "absent")), code("ERR_NO_SUCH_DEVICE"));
    assert.throws(() => probeLun("/dev/null"), code("ERR_NOT_A_DEVICE"));
    assert.throws(() => probeLun(shop.directory), code("ERR_NOT_A_DEVICE"));
  });

  for (const sectorSize of [512, 4096] as const) {
    it(`writes a partition table and finds it again, ${sectorSize} byte sectors`, async () => {
      const file = shop.file("image", 64 * MIB);
      const path = sectorSize === 512 ? file : shop.loop(file, "--sector-size", "4096");
      assert.deepEqual(await readGpt(path), {});
      assert.deepEqual(await probeSignatures(path), { kind: "clean" });
      const layout = await writeGpt(path, { lockBytes: 16 * MIB, sectorSize });
      assert.deepEqual(layout.lock, { offset: MIB, length: 16 * MIB });
      assert.equal(layout.data.offset, 17 * MIB);
      assert.ok(layout.data.length >= 45 * MIB && layout.data.length <= 47 * MIB);
      assert.deepEqual(await readGpt(path), layout);
      const probe = await probeSignatures(path);
      assert.ok(probe.kind === "found" && probe.what.some((what) => what.startsWith("gpt")));
      // The entry array starts at LBA 2; the first 16 bytes are the type, its first three parts byte-swapped.
      const entry = readFileSync(file).subarray(2 * sectorSize, 2 * sectorSize + 16);
      const hex = Buffer.concat([
        Buffer.from(entry.subarray(0, 4)).reverse(),
        Buffer.from(entry.subarray(4, 6)).reverse(),
        Buffer.from(entry.subarray(6, 8)).reverse(),
        entry.subarray(8),
      ]).toString("hex");
      assert.equal(hex.toUpperCase(), LOCK_PARTITION_TYPE.replaceAll("-", ""));
      assert.notEqual(LOCK_PARTITION_TYPE, DATA_PARTITION_TYPE);
    });
  }

  it("refuses a table for sectors that the device does not have, and odd lengths", async () => {
    const path = shop.file("image", 64 * MIB);
    const wrong = writeGpt(path, { lockBytes: 16 * MIB, sectorSize: 4096 });
    await assert.rejects(wrong, code("ERR_GPT"));
    await assert.rejects(writeGpt(path, { lockBytes: 1000, sectorSize: 512 }), code("ERR_GPT"));
    const small = shop.file("small", 2 * MIB);
    await assert.rejects(
      writeGpt(small, { lockBytes: 16 * MIB, sectorSize: 512 }),
      code("ERR_GPT"),
    );
  });

  it("names the signatures of what a device holds", async () => {
    const path = shop.file("image", 320 * MIB);
    await makeFilesystem(path, "ext4", "web");
    const ext4 = await probeSignatures(path);
    assert.deepEqual(ext4, { kind: "found", what: ['ext4 "web" at 0x438'] });
    await makeFilesystem(path, "xfs");
    const xfs = await probeSignatures(path);
    assert.ok(xfs.kind === "found" && xfs.what.some((what) => what.startsWith("xfs at 0x0")));
    const swap = shop.file("swap", MIB);
    const image = Buffer.alloc(MIB);
    image.write("SWAPSPACE2", 4086, "latin1");
    image.writeUInt32LE(1, 1024);
    image.writeUInt32LE(255, 1028);
    writeFileSync(swap, image);
    const found = await probeSignatures(swap);
    assert.ok(found.kind === "found" && found.what.some((what) => what.startsWith("swap")));
    await assert.rejects(probeSignatures(join(shop.directory, "absent")), code("ERR_PROBE"));
  });
});
