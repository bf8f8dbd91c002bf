import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

import { ShareHaError } from "../../lib/errors.js";
import { adoptFromKeeper, startKeeper, stopKeeper } from "../../lib/system/keeper.js";
import { F_GETFD, fcntl, FD_CLOEXEC, SCHED_OTHER } from "../../lib/system/libc.js";
import { isAlive, type ProcessIdentity } from "../../lib/system/process.js";
import { whyNotRoot, Workshop } from "../helpers/loop-image.js";
import { skipIf } from "../helpers/skip.js";

/** CAP_SYS_RESOURCE is bit 24 (linux/capability.h); containers often lack it. */
function mayLowerOomScore(): boolean {
  const effective = /^CapEff:\s+([0-9a-f]+)$/m.exec(readFileSync("/proc/self/status", "latin1"));
  return ((BigInt(`0x${effective![1]!}`) >> 24n) & 1n) === 1n;
}

describe("watchdog keeper (with a file in place of the watchdog)", () => {
  let shop: Workshop;
  let keeper: ProcessIdentity | undefined;

  before(function () {
    skipIf(this, whyNotRoot());
  });
  beforeEach(() => {
    shop = new Workshop();
  });
  afterEach(() => {
    if (keeper !== undefined) {
      stopKeeper(keeper);
    }
    keeper = undefined;
    shop.dispose();
  });

  it("holds the open file after the owner's death, and hands over the same one", () => {
    const path = shop.file("device", 4096);
    const module = new URL("../../lib/system/keeper.js", import.meta.url).href;
    // The owner opens, moves the file position (which belongs to the open file), starts the keeper, and is gone.
    const owner = `
      import { openSync, readSync } from "node:fs";
      import { startKeeper } from ${JSON.stringify(module)};
      const fd = openSync(${JSON.stringify(path)}, "r");
      readSync(fd, Buffer.alloc(100));
      const { pid, startTime } = await startKeeper(fd);
      console.log(pid + " " + startTime);
      process.kill(process.pid, "SIGKILL");`;
    let output = "";
    try {
      execFileSync(process.execPath, ["--input-type=module", "-e", owner], { encoding: "utf8" });
      assert.fail("the owner was to kill itself");
    } catch (error) {
      assert.ok(typeof error === "object" && error !== null && "stdout" in error);
      output = String(error.stdout);
    }
    const [pid, startTime] = output.trim().split(" ");
    keeper = { pid: Number(pid), startTime: BigInt(startTime!) };
    assert.ok(isAlive(keeper));
    const oomScore = readFileSync(`/proc/${keeper.pid}/oom_score_adj`, "latin1").trim();
    assert.equal(oomScore, mayLowerOomScore() ? "-1000" : "0");
    const fd = adoptFromKeeper(keeper);
    assert.match(readFileSync(`/proc/self/fdinfo/${fd}`, "latin1"), /^pos:\s+100$/m);
    assert.equal(fcntl(fd, F_GETFD, 0), FD_CLOEXEC);
    readSync(fd, Buffer.alloc(20));
    const seenByKeeper = readFileSync(`/proc/${keeper.pid}/fdinfo/3`, "latin1");
    assert.match(seenByKeeper, /^pos:\s+120$/m);
    closeSync(fd);
  });

  it("is not mistaken for another process, nor adopted when gone", async () => {
    const fd = openSync(shop.file("device", 4096), "r");
    const started = await startKeeper(fd);
    keeper = started;
    closeSync(fd);
    const gone = (error: unknown): boolean =>
      error instanceof ShareHaError && error.code === "ERR_KEEPER_GONE";
    const other = { ...started, startTime: started.startTime + 1n };
    assert.throws(() => adoptFromKeeper(other), gone);
    assert.equal(stopKeeper(started), "sent");
    const giveUpAtMs = performance.now() + 5000;
    while (isAlive(started)) {
      assert.ok(performance.now() < giveUpAtMs);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert.throws(() => adoptFromKeeper(started), gone);
    assert.equal(stopKeeper(started), "gone");
  });

  it("real-time scheduling is this thread's alone and its children do not inherit it", () => {
    const module = new URL("../../lib/system/realtime.js", import.meta.url).href;
    const libc = new URL("../../lib/system/libc.js", import.meta.url).href;
    const source = `
      import { execFileSync } from "node:child_process";
      import { getScheduler } from ${JSON.stringify(libc)};
      import { makeThreadRealtime } from ${JSON.stringify(module)};
      const before = getScheduler();
      const result = makeThreadRealtime();
      const policy = getScheduler();
      const child = execFileSync("cat", ["/proc/self/stat"], { encoding: "latin1" });
      console.log(JSON.stringify({ before, result, policy, child: child.slice(child.lastIndexOf(")") + 2).split(" ")[38] }));`;
    const output = execFileSync(process.execPath, ["--input-type=module", "-e", source], {
      encoding: "utf8",
    });
    const { before, result, policy, child } = JSON.parse(output) as Record<string, unknown>;
    assert.equal(before, SCHED_OTHER);
    const SCHED_RR_RESET = 0x40000002;
    assert.deepEqual([result, policy], [{ kind: "realtime", priority: 10 }, SCHED_RR_RESET]);
    assert.equal(child, "0", "field 41 of /proc/PID/stat is the policy");
  });
});
