import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ShareHaError } from "../../lib/errors.js";
import { type BatchResult } from "../../lib/port/disk.js";
import { LUN_QUEUE_MAX, openLun, type OpenLun } from "../../lib/system/lun-device.js";
import { createFaultyLun, type FaultyLun, whyNoFaultyLun } from "../helpers/hanging-lun.js";
import { skipIf } from "../helpers/skip.js";

const MIB = 1024 * 1024;

function done(result: BatchResult): Extract<BatchResult, { kind: "done" }> {
  if (result.kind !== "done") {
    assert.fail(JSON.stringify(result));
  }
  return result;
}

function code(expected: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShareHaError, String(error));
    assert.equal(error.code, expected, error.message);
    assert.notEqual(error.hint, "");
    return true;
  };
}

describe("LUN device on a file", () => {
  let directory: string;
  let path: string;
  let lun: OpenLun | undefined;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "sharedha-lun-"));
    path = join(directory, "lun");
    writeFileSync(path, "");
    truncateSync(path, 9 * MIB);
  });
  afterEach(async () => {
    await lun?.close();
    lun = undefined;
    rmSync(directory, { recursive: true });
  });

  async function open(options: Partial<Parameters<typeof openLun>[0]> = {}): Promise<OpenLun> {
    lun = await openLun({ path, baseOffset: MIB, size: 8 * MIB, sectorSize: 512, ...options });
    return lun;
  }

  it("writes and reads where the region says, with times in order", async () => {
    const device = await open();
    const data = new Uint8Array(1024).fill(7);
    const result = done(
      await device.submit(
        [
          { kind: "write", offset: 512, data },
          { kind: "read", offset: 0, length: 2048 },
          { kind: "read", offset: 1024, length: 512 },
        ],
        1000,
      ),
    );
    const [first, second] = result.reads;
    assert.deepEqual(first, new Uint8Array(2048).fill(7, 512, 1536));
    assert.deepEqual(second, new Uint8Array(512).fill(7));
    const times = result.timings.flatMap(({ startedMs, completedMs }) => [startedMs, completedMs]);
    assert.equal(times.length, 6);
    assert.deepEqual(
      times,
      times.toSorted((a, b) => a - b),
    );
    assert.equal(readFileSync(path)[MIB + 512], 7);
    assert.equal(readFileSync(path)[MIB + 1536], 0);
  });

  it("splits requests larger than its buffer", async () => {
    const device = await open();
    const data = new Uint8Array(5 * MIB + 512).map((_, index) => index % 251);
    done(await device.submit([{ kind: "write", offset: 512, data }], 10_000));
    const result = done(
      await device.submit([{ kind: "read", offset: 512, length: data.length }], 10_000),
    );
    assert.ok(Buffer.from(data).equals(result.reads[0]!));
  });

  it("takes the data as it was at the call, also from the middle of a larger buffer", async () => {
    const device = await open();
    const pool = new Uint8Array(4096).fill(1);
    const view = pool.subarray(1024, 1536);
    const promise = device.submit([{ kind: "write", offset: 0, data: view }], 1000);
    pool.fill(2);
    done(await promise);
    const { reads } = done(await device.submit([{ kind: "read", offset: 0, length: 1024 }], 1000));
    assert.deepEqual(reads[0], new Uint8Array(1024).fill(1, 0, 512));
  });

  it("throws at once for ranges that are no sectors of the region", async () => {
    const device = await open();
    const bad = [
      { kind: "read", offset: 1, length: 512 },
      { kind: "read", offset: 0, length: 0 },
      { kind: "read", offset: 0, length: 100 },
      { kind: "read", offset: -512, length: 512 },
      { kind: "read", offset: NaN, length: 512 },
      { kind: "read", offset: 8 * MIB, length: 512 },
      { kind: "read", offset: 0, length: 8 * MIB + 512 },
      { kind: "write", offset: 8 * MIB - 512, data: new Uint8Array(1024) },
    ] as const;
    for (const op of bad) {
      assert.throws(() => void device.submit([op], 1000), code("ERR_IO_RANGE"));
    }
    assert.throws(() => void device.submit([], 1000), code("ERR_IO_RANGE"));
    const good = { kind: "read", offset: 0, length: 512 } as const;
    for (const deadline of [0, -1, NaN, Infinity]) {
      assert.throws(() => void device.submit([good], deadline), code("ERR_IO_RANGE"));
    }
    assert.equal((await device.submit([good], 1000)).kind, "done");
  });

  it("reports the end of a truncated file, and never makes the file longer", async () => {
    const device = await open();
    truncateSync(path, 4 * MIB + 100);
    const read = await device.submit([{ kind: "read", offset: 3 * MIB - 512, length: 2048 }], 1000);
    assert.equal(read.kind === "failed" && read.code, "ESHORT");
    const data = new Uint8Array(512);
    const write = await device.submit([{ kind: "write", offset: 3 * MIB, data }], 1000);
    assert.equal(write.kind === "failed" && write.code, "ESHORT");
    assert.equal(readFileSync(path).length, 4 * MIB + 100);
  });

  it("stops a batch at the first failure", async () => {
    const device = await open();
    truncateSync(path, 2 * MIB);
    const data = new Uint8Array(512).fill(9);
    const result = await device.submit(
      [
        { kind: "read", offset: 4 * MIB, length: 512 },
        { kind: "write", offset: 0, data },
      ],
      1000,
    );
    assert.equal(result.kind, "failed");
    assert.equal(readFileSync(path)[MIB], 0);
  });

  it("refuses to write when opened for reading", async () => {
    const device = await open({ readOnly: true });
    const write = { kind: "write", offset: 0, data: new Uint8Array(512) } as const;
    assert.throws(() => void device.submit([write], 1000), code("ERR_IO_READ_ONLY"));
    done(await device.submit([{ kind: "read", offset: 0, length: 512 }], 1000));
  });

  it("answers in the order of submission and refuses more than the queue holds", async () => {
    const device = await open();
    const order: number[] = [];
    const read = { kind: "read", offset: 0, length: 512 } as const;
    const all = Array.from({ length: LUN_QUEUE_MAX + 1 }, async (_, index) => {
      assert.equal((await device.submit([read], 5000)).kind, "done");
      order.push(index);
    });
    await assert.rejects(device.submit([read], 5000), code("ERR_IO_QUEUE"));
    await Promise.all(all);
    assert.deepEqual(
      order,
      all.map((_, index) => index),
    );
  });

  it("cannot be used after close, and close may be called twice", async () => {
    const device = await open();
    await Promise.all([device.close(), device.close()]);
    assert.equal(device.stuck, false);
    const read = { kind: "read", offset: 0, length: 512 } as const;
    await assert.rejects(device.submit([read], 1000), code("ERR_IO_CLOSED"));
  });

  it("close waits for the batch that is out", async () => {
    const device = await open();
    const data = new Uint8Array(8 * MIB).fill(5);
    const write = device.submit([{ kind: "write", offset: 0, data }], 10_000);
    const waiting = device.submit([{ kind: "read", offset: 0, length: 512 }], 10_000);
    await device.close();
    assert.equal((await write).kind, "done");
    assert.equal((await waiting).kind, "busy");
    assert.equal(readFileSync(path).at(-1), 5);
  });

  it("names what is wrong with a path", async () => {
    await assert.rejects(open({ path: join(directory, "absent") }), code("ERR_NO_SUCH_DEVICE"));
    await assert.rejects(open({ path: directory }), code("ERR_NOT_A_DEVICE"));
    await assert.rejects(open({ size: 9 * MIB }), code("ERR_LUN_TOO_SMALL"));
    await assert.rejects(open({ size: 1000 }), code("ERR_IO_RANGE"));
    await assert.rejects(open({ baseOffset: 100 }), code("ERR_IO_RANGE"));
  });

  it("holds the lock file while open; a second one names the holder, or waits for it", async () => {
    const lockFile = join(directory, "lock");
    const first = await open({ lockFile });
    await assert.rejects(
      openLun({ path, baseOffset: 0, size: MIB, sectorSize: 512, lockFile }),
      (error) =>
        code("ERR_LUN_BUSY")(error) &&
        error instanceof Error &&
        error.message.includes(`process ${process.pid}`),
    );
    const second = openLun({
      path,
      baseOffset: 0,
      size: MIB,
      sectorSize: 512,
      lockFile,
      lockWaitMs: 5000,
    });
    await first.close();
    lun = await second;
    assert.equal((await lun.submit([{ kind: "read", offset: 0, length: 512 }], 1000)).kind, "done");
  });

  it("never follows a link when it makes the lock file", async () => {
    const lockFile = join(directory, "lock");
    symlinkSync(join(directory, "elsewhere"), lockFile);
    await assert.rejects(open({ lockFile }), code("ERR_LUN_OPEN"));
  });

  it("works with 4096 byte sectors and refuses 512 byte offsets then", async () => {
    const device = await open({ sectorSize: 4096 });
    const data = new Uint8Array(4096).fill(3);
    done(await device.submit([{ kind: "write", offset: 4096, data }], 1000));
    const half = { kind: "read", offset: 512, length: 512 } as const;
    assert.throws(() => void device.submit([half], 1000), code("ERR_IO_RANGE"));
  });
});

const noRoot = process.getuid?.() === 0 ? undefined : "needs root (loop device, mount)";

describe("LUN device on a loop device", function () {
  const clean: (() => void)[] = [];
  before(function () {
    skipIf(this, noRoot);
  });
  afterEach(() => {
    for (const step of clean.splice(0).reverse()) {
      step();
    }
  });

  function loop(...options: string[]): string {
    const directory = mkdtempSync(join(tmpdir(), "sharedha-loop-"));
    clean.push(() => {
      rmSync(directory, { recursive: true });
    });
    const file = join(directory, "image");
    writeFileSync(file, "");
    truncateSync(file, 4 * MIB);
    const device = execFileSync("losetup", ["--find", "--show", ...options, file], {
      encoding: "utf8",
    }).trim();
    clean.push(() => {
      execFileSync("losetup", ["--detach", device]);
    });
    return device;
  }

  it("does direct I/O on a block device", async () => {
    const path = loop();
    const lun = await openLun({ path, baseOffset: 0, size: 4 * MIB, sectorSize: 512 });
    const data = new Uint8Array(512).fill(4);
    const last = 4 * MIB - 512;
    const result = await lun.submit(
      [
        { kind: "write", offset: last, data },
        { kind: "read", offset: last, length: 512 },
      ],
      5000,
    );
    await lun.close();
    assert.deepEqual(done(result).reads[0], data);
  });

  it("refuses units smaller than the device's logical sector", async () => {
    const path = loop("--sector-size", "4096");
    await assert.rejects(
      openLun({ path, baseOffset: 0, size: 4 * MIB, sectorSize: 512 }),
      code("ERR_SECTOR_SIZE"),
    );
  });

  it("refuses a read-only device", async () => {
    const path = loop("--read-only");
    await assert.rejects(
      openLun({ path, baseOffset: 0, size: MIB, sectorSize: 512 }),
      code("ERR_READ_ONLY_DEVICE"),
    );
  });

  it("refuses a file system without direct I/O", async () => {
    const directory = mkdtempSync(join(tmpdir(), "sharedha-ramfs-"));
    clean.push(() => {
      rmSync(directory, { recursive: true });
    });
    mkdirSync(join(directory, "m"));
    execFileSync("mount", ["-t", "ramfs", "none", join(directory, "m")]);
    clean.push(() => {
      execFileSync("umount", [join(directory, "m")]);
    });
    const path = join(directory, "m", "file");
    writeFileSync(path, new Uint8Array(MIB));
    await assert.rejects(
      openLun({ path, baseOffset: 0, size: MIB, sectorSize: 512 }),
      code("ERR_DIRECT_IO"),
    );
  });
});

describe("LUN device that hangs or fails", function () {
  this.timeout(20_000);
  let faulty: FaultyLun;
  let lun: OpenLun | undefined;
  const write = (value: number): { kind: "write"; offset: number; data: Uint8Array } => ({
    kind: "write",
    offset: 0,
    data: new Uint8Array(512).fill(value),
  });
  const read = { kind: "read", offset: 0, length: 512 } as const;

  before(function () {
    skipIf(this, whyNoFaultyLun());
  });
  beforeEach(async () => {
    faulty = await createFaultyLun({ sizeBytes: MIB });
  });
  afterEach(async () => {
    await faulty.drop();
    await lun?.close();
    lun = undefined;
    await faulty.close();
  });

  async function open(options: Partial<Parameters<typeof openLun>[0]> = {}): Promise<OpenLun> {
    const { path } = faulty;
    lun = await openLun({ path, baseOffset: 0, size: MIB, sectorSize: 512, ...options });
    return lun;
  }

  async function untilFree(device: OpenLun): Promise<void> {
    const giveUpAtMs = performance.now() + 5000;
    while (device.stuck) {
      assert.ok(performance.now() < giveUpAtMs, "still stuck after 5 s");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  it("is late at the deadline, busy while stuck, and usable again when the kernel answers", async () => {
    const device = await open();
    done(await device.submit([write(1)], 2000));
    await faulty.hang();
    const startMs = performance.now();
    const hung = device.submit([write(2)], 300);
    const queued = device.submit([write(3)], 5000);
    assert.equal((await hung).kind, "late");
    const tookMs = performance.now() - startMs;
    assert.ok(tookMs >= 299 && tookMs < 1000, `${tookMs} ms`);
    assert.equal((await queued).kind, "busy");
    assert.equal(device.stuck, true);
    assert.equal((await device.submit([read], 1000)).kind, "busy");
    assert.equal(readFileSync(faulty.backingPath)[0], 1);
    assert.equal((await faulty.counts()).held, 1);
    await faulty.release();
    await untilFree(device);
    // The late write has landed, the queued one was never issued, and the late answer belongs to nobody.
    assert.equal(readFileSync(faulty.backingPath)[0], 2);
    const { reads } = done(await device.submit([read], 1000));
    assert.equal(reads[0]![0], 2);
  });

  it("never issues a write that waited past its deadline", async () => {
    const device = await open();
    await faulty.hang();
    const hung = device.submit([write(2)], 3000);
    const expired = device.submit([write(3)], 100);
    assert.equal((await expired).kind, "late");
    assert.equal(device.stuck, false, "what was never issued is not out");
    await faulty.release();
    assert.equal((await hung).kind, "done");
    done(await device.submit([read], 1000));
    assert.equal(readFileSync(faulty.backingPath)[0], 2);
  });

  it("does not start the next operation of a batch after the deadline", async () => {
    const device = await open();
    await faulty.hang({ reads: true, writes: false });
    const batch = device.submit([read, write(8)], 100);
    assert.equal((await batch).kind, "late");
    await faulty.release();
    await untilFree(device);
    done(await device.submit([read], 1000));
    assert.equal(readFileSync(faulty.backingPath)[0], 0);
  });

  it("gives the errno of a failing device, and goes on when it is healed", async () => {
    const device = await open();
    await faulty.failWith("EIO");
    for (const op of [read, write(1)]) {
      const result = await device.submit([op], 1000);
      assert.equal(result.kind === "failed" && result.code, "EIO");
    }
    await faulty.readOnly();
    done(await device.submit([read], 1000));
    const refused = await device.submit([write(1)], 1000);
    assert.equal(refused.kind === "failed" && refused.code, "EROFS");
    await faulty.heal();
    done(await device.submit([write(1)], 1000));
  });

  it("close does not wait for a stuck worker, which keeps the lock until it returns", async () => {
    const lockFile = `${faulty.backingPath}.lock`;
    const device = await open({ lockFile });
    await faulty.hang();
    assert.equal((await device.submit([write(6)], 100)).kind, "late");
    await device.close();
    assert.equal(device.stuck, true);
    await assert.rejects(open({ lockFile, lockWaitMs: 100 }), code("ERR_LUN_BUSY"));
    await faulty.release();
    done(await (await open({ lockFile, lockWaitMs: 5000 })).submit([read], 1000));
  });

  it("a device that hangs while it is opened is an error in bounded time", async () => {
    await faulty.hang();
    await assert.rejects(open({ openTimeoutMs: 200 }), code("ERR_LUN_TIMEOUT"));
  });

  it("a killed process with I/O out keeps the lock until the kernel lets go", async () => {
    const lockFile = `${faulty.backingPath}.lock`;
    const module = new URL("../../lib/system/lun-device.js", import.meta.url).pathname;
    const script = `
      import { openLun } from ${JSON.stringify(module)};
      const lun = await openLun(${JSON.stringify({ path: faulty.path, baseOffset: 0, size: MIB, sectorSize: 512, lockFile })});
      process.send("open");
      process.once("message", () => void lun.submit([{ kind: "write", offset: 0, data: new Uint8Array(512).fill(7) }], 50));
    `;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    const exited = once(child, "exit");
    await once(child, "message");
    await faulty.hang();
    child.send("write");
    await faulty.untilHeld(1);
    child.kill("SIGKILL");
    await assert.rejects(open({ lockFile, lockWaitMs: 200 }), (error) => {
      assert.match(String(error), new RegExp(`process ${child.pid}`));
      return code("ERR_LUN_BUSY")(error);
    });
    await faulty.release();
    await exited;
    const device = await open({ lockFile, lockWaitMs: 5000 });
    assert.equal(done(await device.submit([read], 1000)).reads[0]![0], 7);
  });
});
