import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { dumpPath } from "../../../lib/region/dump.js";
import { renderDump } from "../../../lib/region/dump-text.js";
import { SANLOCK_HEADLINE } from "../../../lib/region/sanlock-lines.js";
import { findRoot } from "../../helpers/root.js";
import { goldenImage } from "../format/golden-image.js";
import { Cluster, flip, mustAcquire, mustCreate, refused } from "./clusters.js";

const GOLDEN = join(findRoot(), "fixtures", "sanlock");

describe("dump", function () {
  this.timeout(20_000);
  let cluster: Cluster;

  beforeEach(() => {
    cluster = new Cluster();
  });

  afterEach(async () => {
    await cluster.dispose();
  });

  const names = readdirSync(GOLDEN)
    .filter((name) => name.endsWith(".dump.txt"))
    .map((name) => name.replace(".dump.txt", ""));
  for (const name of names) {
    it(`says of ${name} what sanlock's own dump says`, async () => {
      const path = cluster.path(name);
      writeFileSync(path, goldenImage(name));
      const dump = await dumpPath(path);
      const lines = [SANLOCK_HEADLINE, ...dump.areas.flatMap(({ sanlockLines }) => sanlockLines)];
      assert.equal(`${lines.join("\n")}\n`, readFileSync(join(GOLDEN, `${name}.dump.txt`), "utf8"));
    });
  }

  it("shows superblock, configuration, outboxes, hosts and leases of a region", async () => {
    const [path = ""] = await cluster.init(["a"]);
    const region = await cluster.open([path]);
    await mustAcquire(region, 2, await mustCreate(region, "web"));
    const dump = await dumpPath(path);
    assert.equal(dump.layout, "sharedha");
    assert.deepEqual(
      dump.areas[0]!.records.map(({ name }) => name),
      ["superblock, first copy", "configuration A of host 1", "superblock, last copy"],
    );
    const text = renderDump(dump);
    assert.match(text, /clusterName=demo/);
    assert.match(text, /web 0000000001 0002 0001 2\/0\/0/);
    assert.match(text, /dblock\[0001\]/);
    assert.doesNotMatch(text, /CORRUPT/);
    // The JSON variant is the same object, without anything JSON cannot say.
    assert.deepEqual(
      (JSON.parse(JSON.stringify(dump)) as typeof dump).areas.length,
      region.superblock.areaCount,
    );
  });

  it("shows one area, and every byte with raw", async () => {
    const [path = ""] = await cluster.init(["a"]);
    const only = await dumpPath(path, { area: "lockspace", raw: true });
    assert.deepEqual(
      only.areas.map(({ use }) => use),
      ["lockspace"],
    );
    const [first] = only.areas[0]!.records;
    assert.equal(first?.name, "delta lease of host 1");
    assert.equal(first.hex?.length, 1_024);
    assert.match(renderDump(only), /10202112/);
  });

  it("shows damage as damage", async () => {
    const [path = ""] = await cluster.init(["a"]);
    flip(path, 6 * 1024 * 1024 + 100);
    const text = renderDump(await dumpPath(path, { area: "lease" }));
    assert.match(text, /leader: CORRUPT: the checksum/);
  });

  it("refuses what is neither ours nor sanlock's", async () => {
    const path = cluster.workshop.file("zeros", 1024 * 1024);
    await refused("ERR_NOT_A_REGION", dumpPath(path));
    await refused("ERR_NO_SUCH_DEVICE", dumpPath(cluster.path("none")));
  });
});
