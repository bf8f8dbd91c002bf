import assert from "node:assert/strict";

import { type HeldLease } from "../../../lib/lease/ballot.js";
import { stampText } from "../../../lib/region/config-document.js";
import { ConfigStore } from "../../../lib/region/config-store.js";
import { type Region } from "../../../lib/region/open-region.js";
import { Cluster, memberOf, mustAcquire, mustLookup, refused } from "./clusters.js";

const GROUP = '[group.web]\nmount = { path = "/srv/web", type = "ext4" }\n';

describe("config-store", function () {
  this.timeout(30_000);
  let cluster: Cluster;
  let region: Region;
  let held: HeldLease;

  beforeEach(async () => {
    cluster = new Cluster();
    region = await cluster.open(await cluster.init(["a"], { groupToml: GROUP }));
    held = await mustAcquire(region, 2, await mustLookup(region, "sharedha:config"));
  });

  afterEach(async () => {
    await cluster.dispose();
  });

  it("reads what init wrote; writes, keeps who and when, and undoes", async () => {
    const store = new ConfigStore(region, memberOf(region));
    const first = await store.read();
    assert.equal(first.document.toml, GROUP);
    assert.equal(first.document.updatedBy, "init");
    assert.equal(first.config.groups[0]?.name, "web");
    const change = { held, hostId: 2, node: "n2" };
    await refused("ERR_NOTHING_TO_UNDO", store.undo(change));
    const second = await store.write({
      ...change,
      toml: "accept_guard = true",
      basedOn: first.stamp,
    });
    assert.equal(second.document.previous, stampText(first.stamp));
    const other = new ConfigStore(region, memberOf(region));
    assert.equal((await other.read()).config.acceptGuard, true);
    const undone = await store.undo(change);
    assert.equal(undone.document.toml, GROUP);
    assert.equal((await other.history()).length, 3);
  });

  it("refuses a text that is not valid, too long, or made from an older version", async () => {
    const store = new ConfigStore(region, memberOf(region));
    const { stamp } = await store.read();
    const change = { held, hostId: 2, node: "n2" };
    await refused("ERR_CONFIG", store.write({ ...change, toml: "x = 1", basedOn: stamp }));
    const long = `# ${"x".repeat(8_000)}`;
    await refused("ERR_CONFIG_TOO_LARGE", store.write({ ...change, toml: long, basedOn: stamp }));
    await store.write({ ...change, toml: "", basedOn: stamp });
    await refused("ERR_CONFIG_CONFLICT", store.write({ ...change, toml: GROUP, basedOn: stamp }));
  });
});
