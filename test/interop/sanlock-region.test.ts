/** (b) We read, join and use a lockspace, leases and an index that sanlock formatted. */
import assert from "node:assert/strict";
import { closeSync, ftruncateSync, openSync, readFileSync } from "node:fs";
import { decodeDeltaSector } from "../../lib/format/delta-sector.js";
import {
  AREA,
  areaOffset,
  deltaOffset,
  geometryOf,
  leaderOffset,
  regionLength,
} from "../../lib/format/geometry.js";
import { decodeLeaderRecord } from "../../lib/format/leader-record.js";
import { decodeRindexEntries, decodeRindexHeader } from "../../lib/format/rindex.js";
import { PROFILES } from "../../lib/lease/timings.js";
import { Workspace } from "../helpers/workspace.js";
import { OurNode } from "./our-node.js";
import { buildClient, sanlock, SanlockDaemon, whyNoSanlock } from "./sanlock.js";
import { skipIf } from "../helpers/skip.js";

const geometry = geometryOf(512);
const SPACE = "theirs";
const MAX_HOSTS = 8;
const LOCKSPACE = areaOffset(geometry, AREA.lockspace);
const RINDEX = areaOffset(geometry, AREA.rindex);

const missing = whyNoSanlock();
const skipped = missing === undefined ? "" : ` (skipped: ${missing})`;

describe(`interop (b): we, in a lockspace that sanlock formatted${skipped}`, function () {
  this.timeout(60_000);
  let workspace: Workspace;
  let path = "";
  const size = regionLength(geometry, 3);

  before(function () {
    skipIf(this, missing);
    workspace = new Workspace("interop-b");
    path = workspace.path("theirs.img");
    const fd = openSync(path, "w");
    ftruncateSync(fd, size);
    closeSync(fd);
    sanlock("direct", "init", "-s", `${SPACE}:0:${path}:${LOCKSPACE}`, "-o", "1");
    sanlock("direct", "format", "-x", `${SPACE}:${path}:${RINDEX}`);
  });

  after(async () => {
    if (missing === undefined) {
      assert.deepEqual(await workspace.clean(), []);
    }
  });

  function area(offset: number, length: number): Uint8Array {
    return readFileSync(path).subarray(offset, offset + length);
  }

  it("joins, and takes what `client create` made, beside a daemon that uses it too", async () => {
    const daemon = await SanlockDaemon.start(workspace, 5);
    const [node] = await Promise.all([
      OurNode.join({
        path,
        geometry,
        size,
        spaceName: SPACE,
        name: "node-1",
        hostId: 1,
        maxHosts: MAX_HOSTS,
        timings: PROFILES.default,
      }),
      daemon.askSlowly("add_lockspace", "-s", `${SPACE}:5:${path}:${LOCKSPACE}`, "-o", "1"),
    ]);
    await daemon.askSlowly("create", "-x", `${SPACE}:${path}:${RINDEX}`, "-e", "disk-a");
    await daemon.askSlowly("create", "-x", `${SPACE}:${path}:${RINDEX}`, "-e", "disk-b");

    const header = decodeRindexHeader(area(RINDEX, geometry.sectorSize));
    assert(header.kind === "ok" && header.value.spaceName === SPACE);
    const entries = decodeRindexEntries(geometry, area(RINDEX, geometry.areaSize));
    assert.deepEqual(
      entries.map((entry) => [entry.name, entry.offset]),
      [
        ["disk-a", BigInt(areaOffset(geometry, 6))],
        ["disk-b", BigInt(areaOffset(geometry, 7))],
      ],
    );
    const leader = decodeLeaderRecord(
      area(leaderOffset(geometry, 7), geometry.sectorSize),
      "paxos",
    );
    assert(leader.kind === "ok" && leader.value.numHosts === 2000n);

    // A lease of theirs says how many hosts may be in it: reading fewer would overlook somebody.
    const few = await node.acquire(node.addressOf(7, "disk-b", MAX_HOSTS));
    assert(few.kind === "damaged" && few.reason.includes("2000"));

    const lease = node.addressOf(7, "disk-b", Number(leader.value.numHosts));
    const client = daemon.client(
      buildClient(workspace),
      "hold",
      `${SPACE}:disk-b:${path}:${areaOffset(geometry, 7)}`,
    );
    try {
      const granted = await node.acquire(lease);
      assert(granted.kind === "granted" && granted.held.leader.lver === 1n);
      assert.equal(await client.say("take"), "refused 243");
      await node.release(lease.area);
      assert.equal(await client.say("take"), "taken 2");
      assert.equal((await node.acquire(lease)).kind, "held");
      assert.equal(await client.say("release"), "released");
      const again = await node.acquire(lease, { waitMs: 5_000 });
      assert(again.kind === "granted" && again.held.leader.lver === 3n);
      await node.release(lease.area);
    } finally {
      await client.finish();
    }
    const after = decodeLeaderRecord(area(leaderOffset(geometry, 7), geometry.sectorSize), "paxos");
    assert(after.kind === "ok" && after.value.numHosts === 2000n, "num_hosts stays theirs");
    const foreign = node.record(5);
    assert(foreign?.hostState === "absent", "a sanlock daemon's record has no host record of ours");
    await node.leave();
    const own = decodeDeltaSector(geometry, area(deltaOffset(geometry, 1), geometry.sectorSize));
    assert(
      own.kind === "ok" &&
        own.value.leader.timestamp === 0n &&
        own.value.leader.ownerGeneration === 1n,
    );
    await daemon.end();
  });

  it("does not take the lease of a sanlock daemon that died: nothing proves that it is silent", async () => {
    const daemon = await SanlockDaemon.start(workspace, 6);
    await daemon.askSlowly("add_lockspace", "-s", `${SPACE}:6:${path}:${LOCKSPACE}`, "-o", "1");
    const client = daemon.client(
      buildClient(workspace),
      "hold",
      `${SPACE}:disk-a:${path}:${areaOffset(geometry, 6)}`,
    );
    assert.match(await client.say("take"), /^taken/);
    await daemon.end();
    await client.finish();
    const node = await OurNode.join({
      path,
      geometry,
      size,
      spaceName: SPACE,
      name: "node-2",
      hostId: 2,
      maxHosts: MAX_HOSTS,
      timings: PROFILES.default,
    });
    const outcome = await node.acquire(node.addressOf(6, "disk-a", 2000), { waitMs: 1_000 });
    assert(outcome.kind === "timed-out" && outcome.last.kind === "held");
    assert.equal(outcome.last.holders[0]?.hostId, 6);
    await node.leave();
  });
});
