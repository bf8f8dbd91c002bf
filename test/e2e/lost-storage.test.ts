/** The storage goes away: for the holder alone, or for all because the target restarts. */
import assert from "node:assert/strict";

import { PROFILES, resetBoundMs } from "../../lib/lease/timings.js";
import { useLab } from "../lab/mocha.js";
import { lunUrl } from "../lab/san.js";
import { Cluster, configText, FILES, type NodeName, useCluster, WEB } from "./cluster.js";

const BOUND_MS = resetBoundMs(PROFILES.default, 1);

/** The holder writes on both groups; what it was told is on record. */
async function holdBoth(cluster: Cluster, name: NodeName): Promise<void> {
  for (const group of [WEB, FILES]) {
    const { version } = await cluster.reserve(name, group);
    cluster.startWriter(name, group, version);
    await cluster.untilRecords(group, 20);
  }
}

async function goOnAndCheck(
  cluster: Cluster,
  name: NodeName,
  versions: readonly string[],
): Promise<void> {
  for (const [index, group] of [WEB, FILES].entries()) {
    const writer = cluster.startWriter(name, group, versions[index] ?? "");
    await cluster.untilRecords(group, 10);
    await cluster.endAndCheck(name, group, writer);
  }
}

describe("the holder's path to the storage is cut", function () {
  this.timeout(300_000);
  const cluster = useCluster();

  it("it stops within B, another takes over, and it comes back as a member", async () => {
    const { timeline, lab } = cluster;
    await holdBoth(cluster, "n1");
    const waiting = [await cluster.queue("n2", WEB), await cluster.queue("n2", FILES)];
    const clock = await cluster.node("n1").clock();
    const cutMs = timeline.mark("n1 is cut off from the SAN");
    await lab.network.cut("n1", "san");
    const taken = await Promise.all(waiting.map((one) => one.taken));
    for (const { group, atMs } of taken) {
      const tookMs = atMs - cutMs;
      assert(tookMs > BOUND_MS, `${group} after ${Math.round(tookMs)} ms, which is within B`);
    }
    const [takeOver] = await cluster.events("n2", "take-over");
    assert.match(takeOver?.text ?? "", /expired/);
    const firedMs = cluster.node("n1").softdogFiredMs(clock);
    if (firedMs !== undefined) {
      timeline.mark(`n1 was reset ${((firedMs - cutMs) / 1000).toFixed(2)} s after the cut`);
      assert(firedMs - cutMs <= BOUND_MS, "a reset comes within B");
    }
    for (const group of [WEB, FILES]) {
      const last = cluster.acknowledged(group).at(-1);
      assert.equal(last?.node, "n1");
      assert(
        last.atMs - cutMs <= BOUND_MS,
        "what n1 writes later than B is acknowledged to nobody",
      );
    }
    await lab.network.heal();
    timeline.mark("the path is back");
    await goOnAndCheck(
      cluster,
      "n2",
      taken.map(({ version }) => version),
    );
    await cluster.untilMember("n1");
  });
});

describe("the target restarts under load, profile default", function () {
  this.timeout(300_000);
  const cluster = useCluster();

  it("away for longer than T: the holder loses the groups, and one node has them afterwards", async () => {
    const { timeline, lab } = cluster;
    await holdBoth(cluster, "n1");
    timeline.mark("the target stops");
    await lab.san.stopTarget();
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    await lab.san.startTarget();
    timeline.mark("the target is back");
    await cluster.untilMember("n2");
    const taken = [await cluster.reserve("n2", WEB, 120), await cluster.reserve("n2", FILES, 120)];
    await goOnAndCheck(
      cluster,
      "n2",
      taken.map(({ version }) => version),
    );
  });
});

describe("the target restarts under load, profile multipath", function () {
  this.timeout(300_000);
  const cluster = new Cluster(useLab({ vms: ["san", "n1"] }));

  after(() => {
    cluster.timeline.print();
  });

  it("away for less than T: the holder waits, and stays the holder", async () => {
    const { timeline, lab } = cluster;
    const path = "/root/cluster.toml";
    await cluster.node("n1").steps([{ do: "write", path, text: configText("never") }]);
    const options = ["--profile", "multipath", "--mkfs", "ext4", "--config", path];
    await cluster.must("n1", ["init", lunUrl("lun0"), "--cluster", "patient", ...options], 120_000);
    await cluster.join("n1");
    const { version } = await cluster.reserve("n1", WEB);
    const writer = cluster.startWriter("n1", WEB, version);
    await cluster.untilRecords(WEB, 20);
    const stoppedMs = timeline.mark("the target stops");
    await lab.san.stopTarget();
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    await lab.san.startTarget();
    timeline.mark("the target is back");
    await cluster.untilRecords(WEB, 20, 60_000);
    const gaps = cluster.acknowledged(WEB).map(({ atMs }, index, all) => {
      return atMs - (all[index - 1]?.atMs ?? atMs);
    });
    const longestMs = Math.max(...gaps);
    timeline.mark(`the longest wait of the writer was ${(longestMs / 1000).toFixed(1)} s`);
    assert(longestMs > 4_000, "the target was away, and the writer did not notice");
    const resets = (await cluster.node("n1").events()).filter(
      ({ name, atMs }) => name === "RESET" && atMs > stoppedMs,
    );
    assert.deepEqual(resets, []);
    const { leases } = await cluster.status("n1");
    assert.deepEqual(
      leases.filter(({ heldHere }) => heldHere).map((lease) => lease.version),
      [version],
    );
    await cluster.endAndCheck("n1", WEB, writer);
  });
});
