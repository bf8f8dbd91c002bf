import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";

import { UserFinder } from "../../../lib/guard/user-finder.js";
import { processStartTime } from "../../../lib/system/process.js";
import { topMount } from "../../../lib/system/filesystem.js";
import { noSuchMount } from "../../helpers/mount-target.js";

const ROOT = {
  path: "/",
  device: { majorMinor: topMount("/")?.devMajorMinor ?? "", sequence: undefined },
};

/** Of the root file system, which every process of this machine uses that is not in a container. */
describe("who uses a file system", function () {
  this.timeout(20_000);
  let finder: UserFinder;
  let child: ChildProcess;

  beforeEach(async () => {
    finder = new UserFinder();
    child = spawn("/bin/sleep", ["1000"], { cwd: "/", stdio: "ignore" });
    await once(child, "spawn");
  });
  afterEach(async () => {
    finder.close();
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  });

  it("is found by pid and start time, but never this process or the first one", async () => {
    const found = await finder.find([ROOT], 10_000);
    const pid = child.pid ?? 0;
    const startTime = String(processStartTime(pid));
    assert.deepEqual(
      found.filter((user) => user.pid === pid),
      [{ pid, startTime }],
    );
    assert.ok(found.every((user) => user.pid !== process.pid && user.pid !== 1));
    assert.deepEqual(await finder.find([noSuchMount("/no/such/mount")], 10_000), []);
  });

  it("is told while the search goes on, and forgotten when it is dropped", async () => {
    await finder.prepare();
    assert.equal(finder.begin([ROOT]), true);
    while (finder.found.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    finder.drop();
    assert.deepEqual(finder.found, []);
    // The next search waits for the end of this one, and is told nothing of it.
    assert.deepEqual(await finder.find([noSuchMount("/no/such/mount")], 10_000), []);
  });

  it("is not waited for longer than the bound, and a search that blocks keeps few others waiting", async () => {
    const mute = new UserFinder(new URL("data:text/javascript,setInterval(() => 0, 1000)"));
    try {
      await mute.prepare();
      const startedMs = performance.now();
      assert.deepEqual(await mute.find([ROOT], 50), []);
      assert.ok(performance.now() - startedMs < 1_000);
      const begun = Array.from({ length: 5 }, () => mute.begin([ROOT]));
      assert.deepEqual(begun, [true, true, true, false, false]);
    } finally {
      mute.close();
    }
  });

  it("is looked for again after many searches that were dropped", async () => {
    await finder.prepare();
    for (let search = 0; search < 10; search++) {
      finder.begin([ROOT]);
    }
    while (!finder.begin([ROOT])) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  });
});
