import assert from "node:assert/strict";
import {
  copyFileSync,
  linkSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
} from "node:fs";

import {
  decodeSuperblock,
  encodeSuperblock,
  type Superblock,
} from "../../../lib/format/superblock.js";
import { whyNotRoot } from "../../helpers/loop-image.js";
import { Cluster, flip, overwrite, refused } from "./clusters.js";
import { skipIf } from "../../helpers/skip.js";

const MIB = 1024 * 1024;

function superblockOf(path: string): Superblock {
  const decoded = decodeSuperblock(readFileSync(path).subarray(0, 512));
  assert(decoded.kind === "ok");
  return decoded.value;
}

/** Both copies. */
function writeSuperblock(path: string, bytes: Uint8Array): void {
  overwrite(path, 0, bytes);
  overwrite(path, MIB - 512, bytes);
}

describe("open-region", function () {
  this.timeout(20_000);
  let cluster: Cluster;

  beforeEach(() => {
    cluster = new Cluster();
  });

  afterEach(async () => {
    await cluster.dispose();
  });

  describe("one LUN", () => {
    it("gives geometry, name, timers and a device that reads and writes the region", async () => {
      const [path = ""] = await cluster.init(["a"]);
      const region = await cluster.open([path]);
      assert.equal(region.spaceName, "demo");
      assert.equal(region.maxHosts, 4);
      assert.deepEqual(region.timings, {
        intervalMs: 1_000,
        deadlineMs: 5_000,
        ttlMs: 15_000,
        watchdogMs: 20_000,
      });
      assert.deepEqual(region.lunSet, { total: 1, counts: [true] });
      const data = new Uint8Array(512).fill(7);
      const result = await region.devices[0]!.submit(
        [
          { kind: "write", offset: 7 * MIB, data },
          { kind: "read", offset: 7 * MIB, length: 512 },
        ],
        5_000,
      );
      assert(result.kind === "done");
      assert.deepEqual(new Uint8Array(result.reads[0]!), data);
      assert.equal(result.timings.length, 2);
    });

    it("refuses a file without a region, and one that is not there", async () => {
      const blank = cluster.workshop.file("blank", 2 * MIB);
      await refused("ERR_NOT_A_REGION", cluster.open([blank]));
      const text = cluster.path("text");
      writeFileSync(text, Buffer.alloc(2 * MIB, "not a region "));
      await refused("ERR_NOT_A_REGION", cluster.open([text]));
      await refused("ERR_NO_SUCH_DEVICE", cluster.open([cluster.path("nowhere")]));
      await refused("ERR_TRUNCATED", cluster.open([cluster.workshop.file("empty", 0)]));
    });

    it("uses the last copy of the superblock for any byte of the first that is flipped", async () => {
      const [path = ""] = await cluster.init(["a"]);
      // Magic, reserved, CRC, uuid, epoch, the packed names; the version is another test's.
      for (const offset of [0, 3, 14, 20, 45, 64, 112, 113, 200, 511]) {
        flip(path, offset);
        const region = await cluster.open([path]);
        assert.equal(region.spaceName, "demo", `byte ${offset}`);
        flip(path, offset);
      }
    });

    it("refuses when both copies are damaged, whatever the byte", async () => {
      const [path = ""] = await cluster.init(["a"]);
      for (const offset of [0, 20, 45, 64, 511]) {
        flip(path, offset);
        flip(path, MIB - 512 + offset);
        const code = offset === 0 ? "ERR_NOT_A_REGION" : "ERR_REGION_DAMAGED";
        await refused(code, cluster.open([path]));
        flip(path, offset);
        flip(path, MIB - 512 + offset);
      }
      await cluster.open([path]);
    });

    it("refuses a newer version, also when only one copy has it", async () => {
      const [path = ""] = await cluster.init(["a"]);
      flip(path, MIB - 512 + 8, 0x02);
      await refused("ERR_NEWER_VERSION", cluster.open([path]));
    });

    it("refuses a truncated file", async () => {
      const [path = ""] = await cluster.init(["a"]);
      truncateSync(path, 10 * MIB);
      const error = await refused("ERR_TRUNCATED", cluster.open([path]));
      assert.match(error.message, /12582912.*10485760/);
    });

    it("refuses a copy of the file", async () => {
      const [path = ""] = await cluster.init(["a"]);
      copyFileSync(path, cluster.path("copy"));
      await refused("ERR_CLONE", cluster.open([cluster.path("copy")]));
      await cluster.open([path]);
    });

    it("refuses 512-byte records on a device with 4096-byte sectors", async function () {
      skipIf(this, whyNotRoot());
      const [path = ""] = await cluster.init(["a"]);
      const device = cluster.workshop.loop(path, "--sector-size", "4096");
      await refused("ERR_SECTOR_SIZE", cluster.open([device]));
    });

    it("refuses a second process of the same name while the lock is held", async () => {
      const [path = ""] = await cluster.init(["a"]);
      const stateDir = cluster.workshop.directory;
      await cluster.open([path], { stateDir, lockName: "pulse" });
      await cluster.open([path], { stateDir, lockName: "daemon" });
      const error = await refused(
        "ERR_LUN_BUSY",
        cluster.open([path], { stateDir, lockName: "pulse" }),
      );
      assert.match(error.message, new RegExp(String(process.pid)));
    });
  });

  describe("three LUNs", () => {
    it("orders them by the set, not by the arguments", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      const region = await cluster.open([c, a, b]);
      assert.deepEqual(
        region.luns.map(({ path }) => path),
        [a, b, c],
      );
      assert.deepEqual(region.lunSet, { total: 3, counts: [true, true, true] });
    });

    it("refuses the same LUN twice: by path, by hard link, by loop device", async function () {
      const [a = "", b = ""] = await cluster.init(["a", "b", "c"]);
      await refused("ERR_SAME_LUN_TWICE", cluster.open([a, b, a]));
      linkSync(a, cluster.path("link"));
      await refused("ERR_SAME_LUN_TWICE", cluster.open([a, b, cluster.path("link")]));
      if (whyNotRoot() === undefined) {
        await refused("ERR_SAME_LUN_TWICE", cluster.open([a, b, cluster.workshop.loop(a)]));
      }
    });

    it("refuses a copy beside its original", async () => {
      const [a = "", b = ""] = await cluster.init(["a", "b", "c"]);
      copyFileSync(a, cluster.path("copy"));
      await refused("ERR_SAME_LUN_TWICE", cluster.open([a, b, cluster.path("copy")]));
    });

    it("counts a copy in the place of its original for nothing", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      copyFileSync(c, cluster.path("copy"));
      const region = await cluster.open([a, b, cluster.path("copy")]);
      assert.deepEqual(region.lunSet.counts, [true, true, false]);
      assert.equal(region.luns[2]!.state, "foreign");
      assert.match(region.luns[2]!.why ?? "", /copy of LUN 3/);
      const before = readFileSync(cluster.path("copy"));
      const write = { kind: "write", offset: 7 * MIB, data: new Uint8Array(512).fill(1) } as const;
      const result = await region.devices[2]!.submit([write], 1_000);
      assert(result.kind === "failed" && result.code === "ENODEV");
      assert(before.equals(readFileSync(cluster.path("copy"))), "a copy is never written to");
      copyFileSync(b, cluster.path("copy2"));
      await refused("ERR_CLONE", cluster.open([a, cluster.path("copy2"), cluster.path("copy")]));
      await cluster.open([a, b, c]);
    });

    it("counts LUNs whose contents were exchanged for nothing", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      const [one, two] = [readFileSync(a), readFileSync(b)];
      overwrite(a, 0, two);
      overwrite(b, 0, one);
      const error = await refused("ERR_LUNS_SWAPPED", cluster.open([a, b, c]));
      assert.match(error.message, /Only 1 of 3/);
    });

    it("opens with one LUN blank, damaged or gone, and not with two", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      renameSync(c, cluster.path("away"));
      const gone = await cluster.open([a, b, c]);
      assert.equal(gone.luns[2]!.state, "failed");
      cluster.workshop.file("c", 12 * MIB);
      const blank = await cluster.open([a, b, c]);
      assert.equal(blank.luns[2]!.state, "blank");
      await refused("ERR_LUN_NOT_COUNTED", cluster.open([a, b, c], { requireAll: true }));
      cluster.workshop.file("b", 12 * MIB);
      await refused("ERR_NOT_A_REGION", cluster.open([a, b, c]));
    });

    it("refuses a LUN of another cluster when it takes the majority, else counts it for nothing", async () => {
      const [a = "", b = ""] = await cluster.init(["a", "b", "c"]);
      const [x = "", y = ""] = await cluster.init(["x", "y", "z"], { clusterName: "other" });
      const region = await cluster.open([a, b, x]);
      assert.deepEqual(region.lunSet.counts, [true, true, false]);
      assert.match(region.luns[2]!.why ?? "", /cluster other/);
      const [single = ""] = await cluster.init(["s"], { clusterName: "single" });
      await refused("ERR_OTHER_CLUSTER", cluster.open([a, x, single]));
      await refused("ERR_LUN_COUNT", cluster.open([x, y]));
      await refused("ERR_OTHER_CLUSTER", cluster.open([a, x]));
    });

    it("refuses a newer superblock on one of three LUNs, and names it", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      flip(b, 8, 0x02);
      flip(b, MIB - 512 + 8, 0x02);
      const error = await refused("ERR_NEWER_VERSION", cluster.open([a, b, c]));
      assert.equal(error.fields["path"], b);
    });

    it("lets the highest epoch decide, and counts a stale LUN that it names", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      // LUN 3 was replaced by another one in epoch 2, which reached LUN 1 only.
      const own = superblockOf(a);
      const luns = own.luns.map((lun, index) =>
        index === 2 ? { ...lun, uuid: "00000000-0000-4000-8000-000000000001" } : lun,
      );
      writeSuperblock(a, encodeSuperblock({ ...own, epoch: 2n, luns }));
      const region = await cluster.open([a, b, c]);
      assert.deepEqual(region.lunSet.counts, [true, true, false]);
      assert.equal(region.luns[1]!.state, "stale");
      assert.match(region.luns[2]!.why ?? "", /has been replaced/);
      assert.equal(region.superblock.epoch, 2n);
    });

    it("counts a LUN whose format incarnation is another for nothing", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      const own = superblockOf(c);
      const luns = own.luns.map((lun, index) => (index === 2 ? { ...lun, incarnation: 9n } : lun));
      writeSuperblock(c, encodeSuperblock({ ...own, luns, incarnation: 9n }));
      const region = await cluster.open([a, b, c]);
      assert.deepEqual(region.lunSet.counts, [true, true, false]);
      assert.match(region.luns[2]!.why ?? "", /incarnation 9/);
    });

    it("takes a LUN back that returns, on reprobe, at once", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      renameSync(c, cluster.path("away"));
      const region = await cluster.open([a, b, c]);
      const { counts } = region.lunSet;
      assert.deepEqual(counts, [true, true, false]);
      assert.equal((await region.reprobe()).changed, false);
      renameSync(cluster.path("away"), c);
      assert.equal((await region.reprobe()).changed, true);
      assert.deepEqual(counts, [true, true, true], "the set that procedures hold has changed");
      const read = { kind: "read", offset: 0, length: 512 } as const;
      assert.equal((await region.devices[2]!.submit([read], 1_000)).kind, "done");
    });

    it("counts no batch that ended after a new set of LUNs was written", async () => {
      const [a = "", b = "", c = ""] = await cluster.init(["a", "b", "c"]);
      const region = await cluster.open([a, b, c]);
      const own = superblockOf(a);
      const luns = own.luns.map((lun, index) =>
        index === 2 ? { ...lun, uuid: "00000000-0000-4000-8000-000000000001" } : lun,
      );
      writeSuperblock(a, encodeSuperblock({ ...own, epoch: 2n, luns }));
      const read = { kind: "read", offset: 7 * MIB, length: 512 } as const;
      const late = await region.devices[0]!.submit([read], 1_000);
      assert(late.kind === "failed" && late.code === "ESTALE");
      await region.reprobe();
      assert.deepEqual(region.lunSet.counts, [true, true, false]);
      const again = await region.devices[0]!.submit([read], 1_000);
      assert(again.kind === "done" && again.reads.length === 1 && again.timings.length === 1);
      const replaced = await region.devices[2]!.submit([read], 1_000);
      assert(replaced.kind === "failed" && replaced.code === "ENODEV");
    });
  });
});
