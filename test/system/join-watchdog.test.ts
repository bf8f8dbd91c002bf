/** `sharedha join --watchdog hardware` where there is no watchdog device: refused at once, with what to do. */
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";

import { skipIf } from "../helpers/skip.js";
import { Cluster, expectError, until } from "./faults/harness.js";

const DEVICES = "/sys/class/watchdog";

describe("sharedha join --watchdog hardware", function () {
  this.timeout(40_000);
  let cluster: Cluster | undefined;

  before(async function () {
    const hasOne = existsSync(DEVICES) && readdirSync(DEVICES).length > 0;
    skipIf(this, hasOne ? "this machine has a watchdog" : undefined);
    cluster = await Cluster.make("watchdog");
  });

  after(async () => {
    await cluster?.clean();
  });

  it("is refused on a machine without one, and leaves nothing behind", async () => {
    assert(cluster !== undefined);
    const n1 = cluster.node("n1", { watchdog: "hardware" });
    const error = expectError(await n1.join("--json"), {
      exitCode: 3,
      code: "ERR_WATCHDOG",
      message: /^(sharedha: )?this machine has no watchdog device$/m,
    });
    assert.match(error.hint, /modprobe softdog.*--watchdog guard/);
    assert(!existsSync(`${n1.stateDir}/node.json`));
    await until("nothing of n1 runs", 5_000, () => n1.processes().length === 0);
  });
});
