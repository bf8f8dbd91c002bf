/**
 * A record that a writer was told is on the disk is there after the cut, although fsync(2) lies during it: ext4 aborts its
 * journal, and an fsync that is just waiting for its data pages then finds its transaction neither running nor committing
 * and returns success, with nothing written. So whoever cuts sends SIGKILL first (lib/guard/expiry.ts).
 *
 * Real writers, a real ext4 on a loop device, cut by the very code of the guard, of the daemon and of a taker. Records of
 * 1 MiB make fsync spend most of its time where it can be hit. Measured on Linux 6.18 with the cut first: 41 of 210 rounds
 * lost a record (guard 12 of 80, daemon 21 of 80, taker 8 of 50). So when the signals come too late, the guard's rounds
 * pass with a chance of 1 in 3000, the daemon's of 1 in 100 000, the taker's of 1 in 400.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, constants, openSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";

import { LossHandler } from "../../lib/daemon/loss.js";
import { Cutter } from "../../lib/guard/cutter.js";
import { expire } from "../../lib/guard/expiry.js";
import { edgesOf } from "../../lib/guard/expiry-edges.js";
import { UserFinder } from "../../lib/guard/user-finder.js";
import { createClock } from "../../lib/system/clock.js";
import {
  flushDeviceBuffers,
  fsckFilesystem,
  makeFilesystem,
  mountFilesystem,
  unmount,
} from "../../lib/system/filesystem.js";
import { cutForeignMounts } from "../../lib/system/foreign-mounts.js";
import { identifyFile } from "../../lib/system/loop.js";
import { whyNotRoot, Workshop } from "../helpers/loop-image.js";
import { eventually, pause } from "./pulse-harness.js";
import { mountTarget } from "../helpers/mount-target.js";
import { GROUP_EDGES } from "../../lib/daemon/data-device.js";
import { skipIf } from "../helpers/skip.js";

const MIB = 1024 * 1024;
const RECORD_BYTES = MIB;
const FREE_RECORDS = 200;

/** Appends records, each synced before it is acknowledged with one byte on stdout. */
const WRITER = `
  const { fsyncSync, openSync, writeSync } = require("node:fs");
  const file = openSync(process.argv[1], "w");
  for (let record = 1; record <= ${FREE_RECORDS}; record++) {
    writeSync(file, Buffer.alloc(${RECORD_BYTES}, record));
    fsyncSync(file);
    writeSync(1, ".");
  }
  setInterval(() => undefined, 1000);`;

describe("fsync during a cut", function () {
  this.timeout(60_000);
  let shop: Workshop;
  let image: string;
  let device: string;
  let path: string;
  let records: string;
  let acknowledgements: string;

  before(function () {
    skipIf(this, whyNotRoot());
  });
  beforeEach(async () => {
    shop = new Workshop();
    image = shop.file("image", (FREE_RECORDS + 56) * MIB);
    device = shop.loop(image);
    await makeFilesystem(device, "ext4");
    path = shop.mountPoint("mnt");
    records = join(path, "records");
    acknowledgements = join(shop.directory, "acknowledgements");
  });
  afterEach(() => {
    shop.dispose();
  });

  /** @returns how the writer ended; `prefix` may start it elsewhere */
  async function writeAndCut(
    prefix: readonly string[],
    cut: () => Promise<void>,
  ): Promise<readonly unknown[]> {
    const output = openSync(acknowledgements, "w");
    const words = [...prefix, process.execPath, "--eval", WRITER, records];
    const writer = spawn("env", words, { stdio: ["ignore", output, "ignore"] });
    closeSync(output);
    const ended = once(writer, "exit") as Promise<unknown[]>;
    await eventually("it writes", () => statSync(acknowledgements).size >= 3);
    await pause(Math.random() * 20);
    await cut();
    return await ended;
  }

  /** After the journal has been replayed. */
  async function lostRecords(): Promise<number> {
    flushDeviceBuffers(device);
    const check = await fsckFilesystem(device, "ext4");
    assert.ok(check.kind === "clean" || check.kind === "corrected", JSON.stringify(check));
    await mountFilesystem({ device, path, type: "ext4" });
    const found = readFileSync(records);
    rmSync(records);
    assert.equal(await unmount(path), "unmounted");
    const acknowledged = statSync(acknowledgements).size;
    for (let record = 1; record <= acknowledged; record++) {
      const end = record * RECORD_BYTES - 1;
      if (found[end + 1 - RECORD_BYTES] !== record || found[end] !== record) {
        return acknowledged - record + 1;
      }
    }
    return 0;
  }

  async function losesNothing(
    rounds: number,
    cut: () => Promise<void>,
    prefix: readonly string[] = [],
  ): Promise<void> {
    const losses: string[] = [];
    const ends: unknown[] = [];
    for (let round = 1; round <= rounds; round++) {
      if (prefix.length === 0) {
        await mountFilesystem({ device, path, type: "ext4" });
      }
      const ended = await writeAndCut(prefix, cut);
      ends.push(ended);
      const lost = await lostRecords();
      if (lost > 0) {
        losses.push(`round ${round}: ${lost} lost, the writer ended with ${ended.join()}`);
      }
    }
    assert.deepEqual(losses, [], `${losses.length} of ${rounds} rounds`);
    // Nobody has lived long enough to be told EIO.
    assert.deepEqual(ends, new Array(rounds).fill([null, "SIGKILL"]));
  }

  it("the guard, which has looked for users ahead of its time", async () => {
    const cutter = new Cutter();
    const finder = new UserFinder();
    const clock = createClock();
    await Promise.all([cutter.prepare(1), finder.prepare()]);
    try {
      await losesNothing(50, async () => {
        finder.begin([mountTarget(path)]);
        await eventually("the writer is found", () => finder.found.length > 0);
        const protect = { mounts: [mountTarget(path)], processes: [] };
        const report = await expire(protect, clock.bootMs(), edgesOf(cutter, finder, clock));
        finder.drop();
        assert.equal(report.mounts[0]?.unmounted, "unmounted", JSON.stringify(report));
      });
    } finally {
      finder.close();
      await cutter.prepare(0);
    }
  });

  it("the daemon that has lost its right to write", async () => {
    const loss = new LossHandler({
      clock: createClock(),
      groupEdges: GROUP_EDGES,
      onEvent: () => undefined,
    });
    await loss.prepare(1);
    try {
      await losesNothing(40, async () => {
        const target = mountTarget(path);
        const data = { device, id: target.device, backing: undefined, attached: undefined };
        await loss.tearDownAll([{ name: "data", target, data }], 2_000, () => true);
        assert.deepEqual(loss.left, []);
      });
    } finally {
      await loss.close();
    }
  });

  it("who takes over on the same machine, from a node of which only the service still runs", async () => {
    const backing = identifyFile(image);
    const mount = `mount -t ext4 ${device} ${path} && exec "$@"`;
    const apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", mount, "sh"];
    await losesNothing(
      35,
      async () => {
        assert.deepEqual(
          cutForeignMounts(backing).map(({ kind }) => kind),
          ["cut"],
        );
        // The namespace goes with its last process, and the mount with the namespace.
        await eventually("the device is free", () => isFree(device));
      },
      apart,
    );
  });
});

/** No file system of it is mounted anywhere: then it can be opened exclusively. */
function isFree(device: string): boolean {
  try {
    closeSync(openSync(device, constants.O_RDONLY | constants.O_EXCL));
    return true;
  } catch (error) {
    assert.match(String(error), /EBUSY/);
    return false;
  }
}
