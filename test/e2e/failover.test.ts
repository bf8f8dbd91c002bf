/** The holder loses its power: another node has the groups mounted within seconds, and nothing that was acknowledged is lost. */
import assert from "node:assert/strict";

import { type GuestProcess } from "../lab/agent-client.js";
import { FILES, useCluster, WEB } from "./cluster.js";

/** A reset node has booted, joined and so on, under emulation. */
const PATIENCE_MS = 240_000;

describe("the holder loses its power", function () {
  this.timeout(PATIENCE_MS);
  const cluster = useCluster();
  let next: readonly GuestProcess[] = [];

  it("power cut of the holder of both groups: the evidence is `expired`", async () => {
    const { timeline } = cluster;
    const held = [await cluster.reserve("n1", WEB), await cluster.reserve("n1", FILES)];
    const writers = [WEB, FILES].map((group, index) =>
      cluster.startWriter("n1", group, held[index]?.version ?? ""),
    );
    await cluster.untilRecords(WEB, 20);
    await cluster.untilRecords(FILES, 20);
    const waiting = [await cluster.queue("n2", WEB), await cluster.queue("n3", FILES)];
    const cutMs = timeline.mark("n1's power is cut");
    await cluster.node("n1").powerCut();
    assert.deepEqual(await Promise.all(writers.map((one) => one.ended)), ["lost", "lost"]);
    const took = waiting.map(async ({ taken }) => {
      const reserved = await taken;
      return { reserved, tookMs: reserved.atMs - cutMs };
    });
    const [web, files] = await Promise.all(took);
    assert(web !== undefined && files !== undefined);
    for (const { reserved, tookMs } of [web, files]) {
      const steps = reserved.steps.map(({ step, ms }) => `${step} ${Math.round(ms)}`).join(", ");
      timeline.mark(
        `${reserved.group}: ${(tookMs / 1000).toFixed(1)} s after the cut (${steps} ms)`,
      );
    }
    const [takeOver] = await cluster.events("n2", "take-over");
    assert.match(takeOver?.text ?? "", /expired/);
    next = [
      cluster.startWriter("n2", WEB, web.reserved.version),
      cluster.startWriter("n3", FILES, files.reserved.version),
    ];
    await cluster.untilRecords(WEB, 10);
    await cluster.untilRecords(FILES, 10);
    await cluster.checkRecords("n2", WEB);
    await cluster.checkRecords("n3", FILES);
  });

  it("the node comes back by its own boot, is a member again, and is refused the groups", async () => {
    await cluster.node("n1").boot();
    await cluster.untilMember("n1");
    const refused = await cluster.refused("n1", ["reserve", WEB.name]);
    assert.match(refused.stdout, /ERR_LEASE_HELD/);
    assert.match(refused.stdout, /n2/);
    const [web, files] = next;
    assert(web !== undefined && files !== undefined);
    await cluster.endAndCheck("n2", WEB, web);
    await cluster.endAndCheck("n3", FILES, files);
  });
});
