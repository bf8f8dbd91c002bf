/**
 * A virtual machine that is stopped by its hypervisor: its clocks and its watchdog stand still, so silence proves nothing
 * about it (DESIGN section 8). Without reservations nobody takes over, unless the configuration promises that no machine
 * is ever paused.
 */
import assert from "node:assert/strict";

import { expiredAfterMs, PROFILES } from "../../lib/lease/timings.js";
import { configText, useCluster, WEB } from "./cluster.js";

const EXPIRED_MS = expiredAfterMs(PROFILES.default, 1);

describe("the holder's virtual machine is paused", function () {
  this.timeout(300_000);
  const cluster = useCluster("for each test");

  it("vm_pause possible: nobody takes over, and status names the missing proof", async () => {
    const { timeline } = cluster;
    const path = "/root/possible.toml";
    await cluster.node("n2").steps([{ do: "write", path, text: configText("possible") }]);
    await cluster.must("n2", ["config", "apply", path]);
    const { version } = await cluster.reserve("n1", WEB);
    const writer = cluster.startWriter("n1", WEB, version);
    await cluster.untilRecords(WEB, 20);
    await cluster.node("n1").pause();
    timeline.mark("n1 is paused");
    await new Promise((resolve) => setTimeout(resolve, EXPIRED_MS + 3_000));
    const { stdout } = await cluster.refused("n2", ["reserve", WEB.name, "--wait", "10"]);
    timeline.mark("n2 is refused");
    assert.match(stdout, /virtual machine|paused/);
    const status = await cluster.status("n2");
    const paused = status.members.find(({ name }) => name === "n1");
    assert.equal(paused?.expiresAfterMs, null);
    assert.match(paused.whyNoExpiry ?? "", /virtual machine/);
    const text = await cluster.must("n2", ["status"]);
    assert.match(text, /virtual machine/);
    await cluster.node("n1").resume();
    timeline.mark("n1 goes on");
    await cluster.untilRecords(WEB, 10);
    await cluster.endAndCheck("n1", WEB, writer);
  });

  it("vm_pause never: the promise counts, and they do", async () => {
    const { timeline } = cluster;
    const { version } = await cluster.reserve("n1", WEB);
    const writer = cluster.startWriter("n1", WEB, version);
    await cluster.untilRecords(WEB, 20);
    const waiting = await cluster.queue("n3", WEB);
    await cluster.node("n1").pause();
    timeline.mark("n1 is paused");
    const taken = await waiting.taken;
    // It must never run again: that is what the configuration has promised.
    await cluster.node("n1").powerCut();
    await writer.ended;
    const next = cluster.startWriter("n3", WEB, taken.version);
    await cluster.untilRecords(WEB, 10);
    await cluster.endAndCheck("n3", WEB, next);
  });
});
