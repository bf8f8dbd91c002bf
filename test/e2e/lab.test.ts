/** The lab itself: each fault does what its name says, seen from inside the guests. What the other tests rest on. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";

import { cacheDir } from "../lab/cache.js";
import { useLab } from "../lab/mocha.js";
import { diskOf } from "../lab/san.js";
import { type NODES, SPECS } from "../lab/settings.js";

const LUN = diskOf("lun1");
type NodeName = (typeof NODES)[number];

describe("the lab's faults", function () {
  this.timeout(180_000);
  const lab = useLab({ vms: ["san", "n1", "n2"] });

  before(async () => {
    await Promise.all([lab.attach("n1"), lab.attach("n2")]);
  });

  /** Exit code of a direct read or write of the LUN; 124 when it has not ended in time. */
  async function io(name: NodeName, kind: "read" | "write", boundS = 3): Promise<number | null> {
    const words =
      kind === "read"
        ? [`if=${LUN}`, "of=/dev/null", "iflag=direct"]
        : ["if=/dev/zero", `of=${LUN}`, "oflag=direct", "conv=notrunc"];
    const dd = ["dd", ...words, "bs=4096", "count=1", "status=none"];
    const { exitCode } = await lab.vm(name).run(["timeout", String(boundS), ...dd]);
    return exitCode;
  }

  async function pings(from: NodeName, to: string): Promise<boolean> {
    const ping = ["-c", "1", "-W", "1", to];
    return (await lab.vm(from).run(["busybox", "ping", ...ping])).exitCode === 0;
  }

  /** Echo requests that have arrived there. */
  async function echoesAt(name: NodeName): Promise<number> {
    const text = await lab.vm(name).must(["cat", "/proc/net/snmp"]);
    const [names, values] = text.split("\n").filter((line) => line.startsWith("Icmp:"));
    const index = (names ?? "").split(" ").indexOf("InEchos");
    return Number(values?.split(" ")[index]);
  }

  async function untilReads(name: NodeName, boundMs: number): Promise<void> {
    const startedMs = performance.now();
    while ((await io(name, "read")) !== 0) {
      assert(performance.now() - startedMs < boundMs, `${name} reads again within ${boundMs} ms`);
    }
  }

  it("a LUN that is read-only: writes are refused, reads go on", async () => {
    await lab.san.setReadOnly("lun1", true);
    assert.equal(await io("n1", "read"), 0);
    assert.equal(await io("n1", "write"), 1);
    await lab.san.setReadOnly("lun1", false);
    // The kernel has noted the write protection, and looks again only when it is told to.
    const disk = (await lab.vm("n1").must(["readlink", "-f", LUN])).trim().slice("/dev/".length);
    const path = `/sys/block/${disk}/device/rescan`;
    await lab.vm("n1").steps([{ do: "write", path, text: "1" }]);
    await lab.vm("n1").must(["blockdev", "--setrw", LUN]);
    assert.equal(await io("n1", "write"), 0);
  });

  it("a LUN that fails, one that hangs, one that is slow", async () => {
    await lab.san.fail("lun1");
    assert.equal(await io("n1", "read"), 1);
    await lab.san.heal("lun1");
    assert.equal(await io("n1", "read"), 0);
    await lab.san.hang("lun1");
    const hanging = io("n1", "read", 30);
    const outcome = await Promise.race([hanging, sleep(2_000)]);
    assert.equal(outcome, undefined, "it has not answered after 2 s");
    await lab.san.heal("lun1");
    assert.equal(await hanging, 0);
    await lab.san.slow("lun1", 1_500);
    const startedMs = performance.now();
    assert.equal(await io("n1", "read", 30), 0);
    assert(performance.now() - startedMs >= 1_500);
    await lab.san.heal("lun1");
  });

  it("links: cut, cut one way, lossy, isolated, healed", async () => {
    const n2 = SPECS.n2.address;
    assert(await pings("n1", n2));
    await lab.network.cut("n1", "n2");
    assert(!(await pings("n1", n2)));
    assert.equal(await io("n1", "read"), 0, "the path to the SAN is another one");
    await lab.network.heal();
    const asked = await echoesAt("n2");
    await lab.network.cutOneWay("n2", "n1");
    assert(!(await pings("n1", n2)), "the answer does not come back");
    assert((await echoesAt("n2")) > asked, "the question arrives");
    await lab.network.heal();
    await lab.network.lose("n1", "n2", 30);
    const some = ["ping", "-q", "-c", "15", "-i", "0.2", "-W", "1", n2];
    const { stdout } = await lab.vm("n1").run(["busybox", ...some]);
    const received = Number(/(\d+) packets received/.exec(stdout)?.[1]);
    assert(received > 0 && received < 15, `some arrive and some do not: ${stdout}`);
    await lab.network.heal();
    await lab.network.lose("n1", "n2", 100);
    assert(!(await pings("n1", n2)));
    await lab.network.heal();
    await lab.network.isolate("n1");
    assert(!(await pings("n1", n2)) && !(await pings("n1", SPECS.san.address)));
    await lab.network.heal();
    assert(await pings("n1", n2));
  });

  it("a reservation with APTPL outlives a restart of the target, one without does not", async () => {
    const n1 = lab.vm("n1");
    const lun2 = diskOf("lun2");
    const out = ["sg_persist", "--out", "--register-ignore"];
    await n1.must([...out, "--param-sark=0xa1", "--param-aptpl", LUN]);
    await n1.must([...out, "--param-sark=0xb2", lun2]);
    await lab.san.restartTarget();
    await untilReads("n1", 60_000);
    // Twice: the first command after the restart may be answered by a unit attention.
    const keys = ["sg_persist", "--in", "--read-keys"];
    await n1.run([...keys, LUN]);
    await n1.run([...keys, lun2]);
    assert.match(await n1.must([...keys, LUN]), /0xa1/);
    assert.doesNotMatch(await n1.must([...keys, lun2]), /0xb2/);
    await n1.must(["sg_persist", "--out", "--clear", "--param-rk=0xa1", LUN]);
  });

  it("a clock step, and a process that is stopped", async () => {
    const n1 = lab.vm("n1");
    await n1.stepClock(3_600);
    const aheadS = Number(await n1.must(["date", "+%s"])) - Date.now() / 1000;
    assert(Math.abs(aheadS - 3_600) < 10, `${aheadS} s ahead`);
    await n1.stepClock(0);
    const sleeper = n1.start(["sleep", "4321"], () => undefined);
    await sleep(1_000);
    await n1.signal("sleep 4321", "SIGSTOP");
    const state = await n1.must(["ps", "-C", "sleep", "-o", "stat=,args="]);
    assert.match(state, /^T\S* +sleep 4321$/m);
    sleeper.drop();
  });

  it("a paused machine does nothing; a reverted one does not know what it did", async () => {
    const n2 = lab.vm("n2");
    const dir = mkdtempSync(join(cacheDir(), "revert-"));
    try {
      await n2.saveTo(dir);
      await n2.resume();
      await n2.steps([{ do: "write", path: "/state/later", text: "1" }]);
      await n2.must(["sync"]);
      await n2.pause();
      await assert.rejects(n2.run(["true"], { timeoutMs: 1_000 }), /late/);
      await n2.revertTo(dir);
      assert.equal((await n2.run(["ls", "/state/later"])).exitCode, 2);
      await untilReads("n2", 60_000);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it("power: reset boots the same machine again, and its records log in by themselves", async () => {
    const n1 = lab.vm("n1");
    const boot = ["cat", "/proc/sys/kernel/random/boot_id"];
    const [before, id] = [await n1.must(boot), await n1.must(["cat", "/etc/machine-id"])];
    await n1.reset();
    await sleep(1_000);
    await n1.untilAgent();
    assert.notEqual(await n1.must(boot), before);
    assert.equal(await n1.must(["cat", "/etc/machine-id"]), id);
    await untilReads("n1", 60_000);
  });

  it("each machine's clock is as fast as the host's: from a snapshot, and n1's after a boot", async () => {
    for (const vm of lab.runningVms()) {
      const rate = await vm.clockRate(3_000);
      assert(Math.abs(rate - 1) < 0.02, `the clock of ${vm.name} runs ${rate} times as fast`);
    }
  });
});

async function sleep(ms: number): Promise<undefined> {
  await new Promise((resolve) => setTimeout(resolve, ms));
  return undefined;
}
