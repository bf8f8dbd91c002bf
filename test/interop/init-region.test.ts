/** (a) again, with a region as `sharedha init` makes it: sanlock creates a lease in our index, and both use it. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { AREA, areaOffset, geometryOf } from "../../lib/format/geometry.js";
import { decodeRindexEntries } from "../../lib/format/rindex.js";
import { PROFILES } from "../../lib/lease/timings.js";
import { initRegion } from "../../lib/region/format-region.js";
import { Workspace } from "../helpers/workspace.js";
import { MAX_HOSTS, SPACE } from "./image.js";
import { OurNode } from "./our-node.js";
import { buildClient, readLeader, SanlockDaemon, whyNoSanlock } from "./sanlock.js";
import { skipIf } from "../helpers/skip.js";

const geometry = geometryOf(512);
const missing = whyNoSanlock();
const skipped = missing === undefined ? "" : ` (skipped: ${missing})`;

describe(`interop (a): real sanlock in a region made by init${skipped}`, function () {
  this.timeout(60_000);
  let workspace: Workspace;

  before(function () {
    skipIf(this, missing);
    workspace = new Workspace("interop-init");
  });

  after(async () => {
    if (missing === undefined) {
      assert.deepEqual(await workspace.clean(), []);
    }
  });

  it("reads every host id, joins, and creates a lease in our index that both then use", async () => {
    const path = workspace.path("region.img");
    await initRegion({
      paths: [path],
      clusterName: SPACE,
      profile: "default",
      maxHosts: MAX_HOSTS,
      sectorSize: 512,
    });
    const lockspace = areaOffset(geometry, AREA.lockspace);
    for (let hostId = 1; hostId <= MAX_HOSTS; hostId++) {
      const said = readLeader(["-s", `${SPACE}:${hostId}:${path}:${lockspace}`]);
      assert.deepEqual([said.get("magic"), said.get("owner_id")], ["0x12212010", "0"]);
    }
    const size = readFileSync(path).length;
    const options = { path, geometry, size, spaceName: SPACE, maxHosts: MAX_HOSTS };
    const daemon = await SanlockDaemon.start(workspace, 3);
    const [node] = await Promise.all([
      OurNode.join({ ...options, name: "node-1", hostId: 1, timings: PROFILES.default }),
      daemon.askSlowly("add_lockspace", "-s", `${SPACE}:3:${path}:${lockspace}`, "-o", "1"),
    ]);
    const index = areaOffset(geometry, AREA.rindex);
    await daemon.askSlowly("create", "-x", `${SPACE}:${path}:${index}`, "-e", "theirs");
    const bytes = readFileSync(path).subarray(index, index + geometry.areaSize);
    const entry = decodeRindexEntries(geometry, bytes).find((one) => one.name === "theirs");
    assert(entry !== undefined && entry.index > 0, "behind the lease of the configuration");
    assert.equal(entry.offset, BigInt(areaOffset(geometry, AREA.firstResource + entry.index)));

    const lease = node.addressOf(AREA.firstResource + entry.index, "theirs", 2_000);
    const words = `${SPACE}:theirs:${path}:${String(entry.offset)}`;
    const client = daemon.client(buildClient(workspace), "hold", words);
    try {
      assert.match(await client.say("take"), /^taken 1$/);
      assert.equal((await node.acquire(lease)).kind, "held");
      assert.equal(await client.say("release"), "released");
      assert.equal((await node.acquire(lease)).kind, "granted");
      assert.equal(await client.say("take"), "refused 243");
      await node.release(lease.area);
    } finally {
      await client.finish();
    }
    await node.leave();
    await daemon.end();
  });
});
