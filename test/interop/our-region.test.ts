/** (a) sanlock 3.8.5 looks at, joins and uses a region that we wrote. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { decodeHostBlock } from "../../lib/format/dblock.js";
import { decodeDeltaSector } from "../../lib/format/delta-sector.js";
import {
  AREA,
  areaOffset,
  dblockOffset,
  deltaOffset,
  geometryOf,
} from "../../lib/format/geometry.js";
import { decodeLeaderRecord, type LeaderRecord } from "../../lib/format/leader-record.js";
import { PROFILES } from "../../lib/lease/timings.js";
import { Workspace } from "../helpers/workspace.js";
import { MAX_HOSTS, RESOURCES, SPACE, writeRegion } from "./image.js";
import { OurNode } from "./our-node.js";
import { buildClient, readLeader, sanlock, SanlockDaemon, whyNoSanlock } from "./sanlock.js";
import { skipIf } from "../helpers/skip.js";

const geometry = geometryOf(512);
const LOCKSPACE = areaOffset(geometry, AREA.lockspace);

const missing = whyNoSanlock();
const skipped = missing === undefined ? "" : ` (skipped: ${missing})`;

describe(`interop (a): real sanlock in a region that we wrote${skipped}`, function () {
  this.timeout(60_000);
  let workspace: Workspace;
  let path = "";
  let size = 0;
  let client = "";

  before(function () {
    skipIf(this, missing);
    workspace = new Workspace("interop-a");
    client = buildClient(workspace);
  });

  beforeEach(() => {
    path = workspace.path("region.img");
    size = writeRegion(path, geometry);
  });

  after(async () => {
    if (missing === undefined) {
      assert.deepEqual(await workspace.clean(), []);
    }
  });

  function sector(offset: number): Uint8Array {
    return readFileSync(path).subarray(offset, offset + geometry.sectorSize);
  }

  function joinOurs(hostId: number): Promise<OurNode> {
    return OurNode.join({
      path,
      geometry,
      size,
      spaceName: SPACE,
      name: `node-${hostId}`,
      hostId,
      maxHosts: MAX_HOSTS,
      timings: PROFILES.default,
    });
  }

  function resource(index: number, suffix = ""): string {
    const name = RESOURCES[index] ?? "";
    return `${SPACE}:${name}:${path}:${areaOffset(geometry, AREA.firstResource + index)}${suffix}`;
  }

  it("reads every leader as we do, host ids and leases, used and unused", async () => {
    const node = await joinOurs(2);
    const outcome = await node.acquire(node.addressOf(AREA.firstResource, "web", MAX_HOSTS));
    assert.equal(outcome.kind, "granted");
    await node.close();
    for (let hostId = 1; hostId <= MAX_HOSTS; hostId++) {
      const decoded = decodeDeltaSector(geometry, sector(deltaOffset(geometry, hostId)));
      assert.equal(decoded.kind, "ok");
      const said = readLeader(["-s", `${SPACE}:${hostId}:${path}:${LOCKSPACE}`]);
      assertAgrees(said, decoded.value.leader, `host id ${hostId}`);
    }
    ["rindex_lease", ...RESOURCES].forEach((name, index) => {
      const offset = areaOffset(geometry, AREA.rindexLease + index);
      const decoded = decodeLeaderRecord(sector(offset), "paxos");
      assert.equal(decoded.kind, "ok");
      assertAgrees(readLeader(["-r", `${SPACE}:${name}:${path}:${offset}`]), decoded.value, name);
    });
  });

  it("dumps the whole region, with our host records and sequence numbers in it", async () => {
    const node = await joinOurs(2);
    assert.equal((await node.acquire(node.addressOf(6, "web", MAX_HOSTS))).kind, "granted");
    assert.equal(
      (await node.acquire(node.addressOf(7, "db", MAX_HOSTS), { shared: true })).kind,
      "granted",
    );
    await node.close();
    const delta = decodeDeltaSector(geometry, sector(deltaOffset(geometry, 2)));
    assert(delta.kind === "ok" && delta.value.hostState === "ok", "bytes 200..255 are ours");
    const block = decodeHostBlock(geometry, sector(dblockOffset(geometry, 6, 2)));
    assert(block.kind === "ok" && block.value.sequence > 0n, "bytes 152..171 are ours");

    // From the lockspace on: before it lie areas that are ours alone, at which sanlock's dump ends.
    const lines = sanlock("direct", "dump", `${path}:${LOCKSPACE}`, "-f", "2").split("\n");
    const held = lines.find((line) => /interop +web /.test(line)) ?? "";
    assert.match(held, / 0*[1-9]\d* +0002 +0001 +1\//, held);
    const shared = lines.find((line) => /interop +db /.test(line)) ?? "";
    assert.match(shared, / 0000000000 +0002 +0001 +1\//, shared);
    assert(
      lines.some((line) => line.includes("node-2")),
      `the host is listed:\n${lines.join("\n")}`,
    );
    assert(
      lines.some((line) => line.includes("rindex_header")),
      "the index is recognised",
    );
    for (const [index, name] of RESOURCES.entries()) {
      const text = sanlock(
        "direct",
        "lookup",
        "-x",
        `${SPACE}:${path}:${areaOffset(geometry, AREA.rindex)}`,
        "-e",
        name,
      );
      assert.match(
        text,
        new RegExp(`offset ${areaOffset(geometry, AREA.firstResource + index)}\\b`),
      );
    }
  });

  it("joins, takes, shares and releases leases, and is kept out by ours", async () => {
    const node = await joinOurs(1);
    const daemon = await SanlockDaemon.start(workspace, 3);
    await daemon.askSlowly("add_lockspace", "-s", `${SPACE}:3:${path}:${LOCKSPACE}`, "-o", "1");
    const web = node.addressOf(AREA.firstResource, "web", MAX_HOSTS);
    const exclusive = daemon.client(client, "hold", resource(0));
    const sharing = daemon.client(client, "hold", resource(0, ":SH"));
    try {
      // Theirs: exclusive keeps ours out.
      assert.equal(await exclusive.say("take"), "taken 1");
      const held = await node.acquire(web);
      assert(held.kind === "held");
      assert.deepEqual(
        held.holders.map((holder) => [holder.hostId, holder.lver, holder.shared]),
        [[3, 1n, false]],
      );
      assert.equal((await node.acquire(web, { shared: true })).kind, "held");
      assert.equal(await exclusive.say("release"), "released");

      // Ours: exclusive keeps theirs out (-243: the owner is alive).
      const granted = await node.acquire(web);
      assert(granted.kind === "granted" && granted.held.leader.lver === 2n);
      assert.equal(await exclusive.say("take"), "refused 243");
      assert.equal(await sharing.say("take"), "refused 243");
      await node.release(web.area);

      // Shared by both; nobody gets it exclusively meanwhile (-11: EAGAIN).
      assert.equal((await node.acquire(web, { shared: true })).kind, "granted");
      assert.equal(await exclusive.say("take"), "refused 11");
      assert.match(await sharing.say("take"), /^taken/);
      await node.release(web.area);
      const shared = await node.acquire(web);
      assert(shared.kind === "held");
      assert.deepEqual(
        shared.holders.map((holder) => [holder.hostId, holder.shared]),
        [[3, true]],
      );
      assert.equal(await sharing.say("release"), "released");
      assert.equal((await node.acquire(web)).kind, "granted");
      await node.release(web.area);
    } finally {
      await exclusive.finish();
      await sharing.finish();
    }
    const status = daemon.ask("host_status", "-s", SPACE).text;
    assert.match(status, /^\s*1 timestamp/m, `sanlock sees our host:\n${status}`);
    await daemon.askSlowly("rem_lockspace", "-s", `${SPACE}:3:${path}:${LOCKSPACE}`);
    const left = decodeDeltaSector(geometry, sector(deltaOffset(geometry, 3)));
    assert(left.kind === "ok" && left.value.leader.timestamp === 0n, "it freed its host id");
    assert.equal(node.loss, undefined, "our node never lost anything");
    await node.leave();
    await daemon.end();
  });
});

function assertAgrees(said: ReadonlyMap<string, string>, ours: LeaderRecord, what: string): void {
  const fields: Readonly<Record<string, string | number | bigint>> = {
    version: `0x${ours.version.toString(16)}`,
    flags: `0x${ours.flags.toString(16)}`,
    sector_size: ours.sectorSize,
    num_hosts: ours.numHosts,
    max_hosts: ours.maxHosts,
    owner_id: ours.ownerId,
    owner_generation: ours.ownerGeneration,
    lver: ours.lver,
    space_name: ours.spaceName,
    resource_name: ours.resourceName,
    timestamp: ours.timestamp,
    io_timeout: ours.ioTimeout,
  };
  for (const [name, value] of Object.entries(fields)) {
    assert.equal(said.get(name), String(value), `${name} of ${what}`);
  }
}
