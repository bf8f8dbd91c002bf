import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";

import { decodeDeltaSector, encodeDeltaSector } from "../../../lib/format/delta-sector.js";
import { deltaOffset, geometryOf } from "../../../lib/format/geometry.js";
import { vacantRecord } from "../../../lib/lease/delta-lease.js";
import { listLeases } from "../../../lib/lease/lease-index.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { initRegion } from "../../../lib/region/format-region.js";
import { figuresOf, requireFastEnough } from "../../../lib/region/latency.js";
import { openTarget } from "../../../lib/region/format-target.js";
import { runProcedure } from "../../../lib/region/run-procedure.js";
import { ShareHaError } from "../../../lib/errors.js";
import { whyNotRoot } from "../../helpers/loop-image.js";
import { Cluster, memberOf, overwrite, refused, termsOf } from "./clusters.js";
import { skipIf } from "../../helpers/skip.js";

const MIB = 1024 * 1024;
const common = { clusterName: "demo", profile: "multipath" } as const;

describe("format-region", function () {
  this.timeout(30_000);
  let cluster: Cluster;

  beforeEach(() => {
    cluster = new Cluster();
  });

  afterEach(async () => {
    await cluster.dispose();
  });

  it("makes a file with real blocks and a region with vacant hosts, index and internal leases", async () => {
    const path = cluster.path("a");
    const report = await initRegion({ ...common, paths: [path] });
    const { size, blocks } = statSync(path);
    assert.equal(size, 32 * MIB);
    assert(
      blocks * 512 >= 32 * MIB,
      "no holes: a full file system must not fail a heartbeat later",
    );
    assert.equal(report.leases, 26);
    assert.equal(report.maxHosts, 16);
    assert.equal(report.luns[0]!.latency.count > 0, true);
    const g = geometryOf(512);
    const image = readFileSync(path);
    for (let hostId = 1; hostId <= 16; hostId++) {
      const at = deltaOffset(g, hostId);
      const decoded = decodeDeltaSector(g, image.subarray(at, at + 512));
      assert(decoded.kind === "ok" && decoded.value.host?.watchdog === "vacant");
    }
    const region = await cluster.open([path]);
    const leases = await runProcedure(listLeases(termsOf(region, 1)), memberOf(region));
    assert(leases.kind === "list");
    assert.deepEqual(
      leases.leases.map(({ address, isIndexed }) => [
        address.resourceName,
        address.area,
        isIndexed,
      ]),
      [["sharedha:config", 6, true]],
    );
  });

  it("makes a region with 4096-byte sectors", async () => {
    const path = cluster.path("a");
    const options = { sectorSize: 4096, areaSize: MIB, sizeBytes: 10 * MIB } as const;
    await initRegion({ ...common, paths: [path], ...options });
    const region = await cluster.open([path]);
    assert.equal(region.geometry.sectorSize, 4096);
    assert.equal(region.superblock.areaCount, 10);
  });

  it("refuses options that do not go together, and leaves nothing behind", async () => {
    const [a, b] = [cluster.path("a"), cluster.path("b")];
    await refused("ERR_INIT_OPTIONS", initRegion({ ...common, paths: [a, b] }));
    await refused("ERR_INIT_OPTIONS", initRegion({ ...common, paths: [a], maxHosts: 65 }));
    await refused("ERR_INIT_OPTIONS", initRegion({ ...common, paths: [a], maxHosts: 0 }));
    await refused("ERR_INIT_OPTIONS", initRegion({ ...common, paths: [a], clusterName: "a b" }));
    await refused(
      "ERR_INIT_OPTIONS",
      initRegion({ ...common, paths: [a], whole: true, mkfs: "ext4" }),
    );
    await refused("ERR_GEOMETRY", initRegion({ ...common, paths: [a], areaSize: 2 * MIB }));
    await refused("ERR_CONFIG", initRegion({ ...common, paths: [a], groupToml: "nonsense = 1" }));
    const slow = "[timers]\nttl_ms = 100";
    await refused("ERR_TIMINGS", initRegion({ ...common, paths: [a], groupToml: slow }));
    await refused("ERR_LUN_TOO_SMALL", initRegion({ ...common, paths: [a], sizeBytes: 2 * MIB }));
    await refused("ERR_NO_SUCH_DEVICE", initRegion({ ...common, paths: [cluster.path("no/a")] }));
    await refused("ERR_NO_SUCH_DEVICE", initRegion({ ...common, paths: ["/dev/sharedha-no"] }));
    assert.equal(existsSync(a), false);
  });

  it("refuses a file on a full file system, and removes it", async () => {
    const path = cluster.path("a");
    const sizeBytes = 1024 ** 5;
    await refused("ERR_DISK_FULL", initRegion({ ...common, paths: [path], sizeBytes }));
    assert.equal(existsSync(path), false);
  });

  it("names what a file holds, and overwrites it only with force", async () => {
    const path = cluster.workshop.file("a", 32 * MIB);
    execFileSync("mkfs.ext4", ["-q", "-F", "-L", "precious", path]);
    const before = readFileSync(path);
    const error = await refused("ERR_DEVICE_HAS_DATA", initRegion({ ...common, paths: [path] }));
    assert.match(error.message, /ext4/);
    assert.match(error.message, /precious/);
    assert(before.equals(readFileSync(path)), "nothing was written");
    await initRegion({ ...common, paths: [path], force: true });
    await cluster.open([path]);
  });

  it("refuses a region that is there, without force", async () => {
    const [path = ""] = await cluster.init(["a"]);
    const error = await refused("ERR_DEVICE_HAS_DATA", initRegion({ ...common, paths: [path] }));
    assert.match(error.message, /cluster demo/);
  });

  it("refuses the same LUN twice", async () => {
    const [a, b] = [cluster.workshop.file("a", 12 * MIB), cluster.workshop.file("b", 12 * MIB)];
    await refused("ERR_SAME_LUN_TWICE", initRegion({ ...common, paths: [a, b, a] }));
  });

  describe("over heartbeats", () => {
    const g = geometryOf(512);
    /** Someone else's record, renewed while `init` waits. */
    function record(timestamp: bigint): Uint8Array {
      const vacant = vacantRecord(g, "demo", PROFILES.fast, 1);
      const leader = {
        ...vacant.leader,
        ownerId: 2n,
        ownerGeneration: 1n,
        resourceName: "n2",
        timestamp,
      };
      return encodeDeltaSector(g, {
        ...vacant,
        leader,
        host: { ...vacant.host!, watchdog: "hardware", armed: true },
      });
    }

    async function target(path: string, meanwhile: (ms: number) => void): Promise<void> {
      const found = await openTarget({
        path,
        newFileBytes: 0,
        force: true,
        sleep: async (ms) => {
          meanwhile(ms);
          return Promise.resolve();
        },
      });
      await found.device.close();
    }

    it("refuses even with force while a host renews, also when the superblock is damaged", async () => {
      const [path = ""] = await cluster.init(["a"]);
      const at = deltaOffset(g, 2);
      for (const damage of [false, true]) {
        if (damage) {
          overwrite(path, 0, new Uint8Array(512));
          overwrite(path, MIB - 512, new Uint8Array(512));
        }
        overwrite(path, at, record(10n));
        const before = readFileSync(path);
        const error = await refused(
          "ERR_LIVE_HEARTBEATS",
          target(path, () => {
            overwrite(path, at, record(11n));
          }),
        );
        assert.match(error.message, /host 2 \(n2\)/);
        overwrite(path, at, record(10n));
        assert(before.equals(readFileSync(path)), "nothing else was written");
      }
    });

    it("waits until a record that is not free has expired: max(T, B) + margin", async () => {
      // Of the profile `fast` too, whose vacant records ask for 2 h + d only.
      const [path = ""] = await cluster.init(["a"], { profile: "fast" });
      overwrite(path, deltaOffset(g, 2), record(10n));
      const waits: number[] = [];
      await target(path, (ms) => waits.push(ms));
      // DESIGN section 4: for `fast` with several LUNs, which is the longer one.
      assert.deepEqual(waits, [3_000]);
    });

    it("waits 2 h + d when everybody has left", async () => {
      const [path = ""] = await cluster.init(["a"], { profile: "default" });
      const waits: number[] = [];
      await target(path, (ms) => waits.push(ms));
      assert.deepEqual(waits, [2_000]);
    });
  });

  it("refuses a profile that the LUN is too slow for, with the figures", () => {
    const figures = figuresOf([1, 2, 3, 1_500]);
    assert.deepEqual(figures, { count: 4, p50Ms: 3, p99Ms: 1_500, maxMs: 1_500 });
    assert.throws(
      () => {
        requireFastEnough("/dev/x", figures, PROFILES.fast);
      },
      (error: unknown) =>
        error instanceof ShareHaError &&
        error.code === "ERR_LUN_TOO_SLOW" &&
        error.message.includes("1500.0 ms"),
    );
    requireFastEnough("/dev/x", figures, PROFILES.multipath);
  });

  describe("with partitions", () => {
    it("puts region and ext4 on one file", async function () {
      skipIf(this, whyNotRoot());
      const path = cluster.path("a");
      const sizeBytes = 100 * MIB;
      const report = await initRegion({ ...common, paths: [path], mkfs: "ext4", sizeBytes });
      const { data, region } = report.luns[0]!;
      assert.deepEqual(region, { offset: MIB, length: 32 * MIB });
      assert(data !== undefined);
      const opened = await cluster.open([path]);
      assert.deepEqual(opened.data, { path, ...data });
      // ext4's magic at 1024 + 56 of the data.
      assert.equal(readFileSync(path).readUInt16LE(data.offset + 1080), 0xef53);
    });

    it("partitions a block device, and refuses one that is mounted", async function () {
      skipIf(this, whyNotRoot());
      const file = cluster.workshop.file("a", 64 * MIB);
      const device = cluster.workshop.loop(file);
      await initRegion({ ...common, paths: [device] });
      const region = await cluster.open([device]);
      assert(region.data !== undefined && region.data.length > 0);
      // The same region through the file and through the device is the same LUN.
      await cluster.open([file]);

      const used = cluster.workshop.loop(cluster.workshop.file("b", 64 * MIB));
      execFileSync("mkfs.ext4", ["-q", used]);
      execFileSync("mount", [used, cluster.workshop.mountPoint("mnt")]);
      const error = await refused(
        "ERR_DEVICE_BUSY",
        initRegion({ ...common, paths: [used], force: true }),
      );
      assert.equal(error.fields["path"], used);
    });
  });
});
