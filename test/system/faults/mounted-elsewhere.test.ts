/**
 * The data of a group is also mounted where the node does not look by itself: a copy of its mount namespace, as a
 * container has one, or a mount that somebody made by hand. As long as it lives, the kernel may write.
 */
import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { type Readable } from "node:stream";

import { type TestNode } from "../../helpers/nodes.js";
import { must } from "../../helpers/workspace.js";
import {
  type DataCluster,
  expectDone,
  expectError,
  generationOf,
  guardReport,
  makeWithData,
  never,
  skipUnlessRoot,
  until,
} from "./harness.js";

type Holder = ChildProcessByStdio<null, Readable, null>;

interface LoopList {
  readonly loopdevices: readonly {
    readonly name: string;
    readonly offset: number;
    readonly sizelimit: number;
    readonly "back-file": string;
  }[];
}

describe("data that is mounted elsewhere on this machine", function () {
  this.timeout(60_000);
  let made: DataCluster | undefined;
  let n1: TestNode;
  let n2: TestNode;
  const holders: Holder[] = [];
  const loops: string[] = [];

  before(async function () {
    skipUnlessRoot(this);
    made = await makeWithData("elsewhere", "default");
    const { cluster } = made;
    [n1, n2] = await Promise.all([
      cluster.joined("n1", { mountNamespace: true }),
      cluster.joined("n2", { mountNamespace: true }),
    ]);
  });

  after(async () => {
    await Promise.all(holders.map(end));
    for (const loop of loops) {
      must("losetup", ["--detach", loop]);
    }
    await made?.cluster.clean();
  });

  /** A process with a mount namespace of its own, copied from where `words` run, that runs `first` and then waits. */
  async function hold(words: readonly string[], first: string): Promise<Holder> {
    const unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
    const [file, ...args] = [...words, ...unshare, `${first} && echo ready && exec sleep 300`];
    const child = spawn(file, args, { stdio: ["ignore", "pipe", "inherit"] });
    holders.push(child);
    const [output] = (await once(child.stdout, "data")) as [Buffer];
    assert.equal(output.toString(), "ready\n");
    return child;
  }

  async function end(child: Holder): Promise<void> {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, "close");
      child.kill("SIGKILL");
      await ended;
    }
  }

  it("a copy of the mount keeps the lease here, until it has gone", async () => {
    assert(made !== undefined);
    expectDone(await n1.cli("reserve", "data"));
    const copy = await hold(n1.inside(), "true");
    const kept = expectError(await n1.cli("release", "data", "--json"), {
      exitCode: 1,
      code: "ERR_STILL_MOUNTED",
      message: new RegExp(`${made.dataDir}.*process ${copy.pid}`),
    });
    assert.match(kept.hint, /nsenter/);
    const group = (await n1.status()).groups.find(({ name }) => name === "data");
    assert.equal(group?.state, "failed");
    expectError(await n2.cli("reserve", "data", "--json"), {
      exitCode: 1,
      code: "ERR_LEASE_HELD",
      message: /n1/,
    });

    // A new daemon knows of it too.
    const [old] = n1.signal("SIGKILL", "daemon");
    expectDone(await n1.rejoin());
    await until("the new daemon has the lease", 10_000, async () => {
      const daemon = n1.processes().find(({ role }) => role === "daemon");
      const { leases } = await n1.status();
      return daemon?.pid !== old?.pid && leases.some(({ heldHere }) => heldHere);
    });
    expectError(await n1.cli("release", "data", "--json"), {
      exitCode: 1,
      code: "ERR_STILL_MOUNTED",
      message: new RegExp(`process ${copy.pid}`),
    });
    await end(copy);
    expectDone(await n1.cli("release", "data"));
    expectDone(await n2.cli("reserve", "data"));
    expectDone(await n2.cli("release", "data"));
  });

  /** n1 cannot release, and only the copy is left. */
  async function onlyTheCopy(): Promise<Holder> {
    expectDone(await n1.cli("reserve", "data"));
    const copy = await hold(n1.inside(), "true");
    expectError(await n1.cli("release", "data", "--json"), {
      exitCode: 1,
      code: "ERR_STILL_MOUNTED",
      message: new RegExp(`process ${copy.pid}`),
    });
    assert.equal(writesIn(copy), true);
    return copy;
  }

  function writesIn(copy: Holder): boolean {
    const where = [`--mount=/proc/${copy.pid}/ns/mnt`, "--"];
    const script = 'echo more >> "$0" && sync "$0"';
    const words = ["nsenter", ...where, "sh", "-c", script, `${made?.dataDir}/from-the-copy`];
    return spawnSync(words[0] ?? "", words.slice(1)).status === 0;
  }

  it("a copy of the mount, and the guard's time comes: the copy is cut too", async () => {
    const copy = await onlyTheCopy();
    n1.signal("SIGKILL", "daemon", "pulse");
    const report = await until("the guard has acted", 20_000, () => guardReport(n1));
    assert.match(JSON.stringify(report), /"cut".*lived on at \/proc\/\d+\/root/);
    assert.equal(writesIn(copy), false);
    await end(copy);
    expectDone(await n1.join());
    expectDone(await n2.cli("reserve", "data", "--wait", "30"));
    expectDone(await n2.cli("release", "data"));
  });

  it("a copy of the mount, and nothing else of the node: it is no member before the copy has gone", async () => {
    const copy = await onlyTheCopy();
    const before = String(await generationOf(n1));
    n1.signal("SIGKILL", "daemon");
    n1.signal("SIGKILL");
    const joining = n1.join();
    await until("the copy is cut", 10_000, () => !writesIn(copy));
    await never("n1 is a member again", 2_000, async () => {
      const { members } = await n2.status();
      return members.some(({ name, generation }) => name === "n1" && generation !== before);
    });
    await end(copy);
    expectDone(await joining);
    expectDone(await n2.cli("reserve", "data", "--wait", "30"));
    expectDone(await n2.cli("release", "data"));
  });

  it("a mount by hand: the group is not started, and the lease is given back", async () => {
    assert(made !== undefined);
    expectDone(await n1.cli("reserve", "data"));
    const device = must("findmnt", [
      ...["--task", String(n1.processes()[0]?.pid), "--noheadings", "--output", "SOURCE"],
      made.dataDir,
    ]).trim();
    const listed = JSON.parse(
      must("losetup", ["--json", "--output", "NAME,OFFSET,SIZELIMIT,BACK-FILE", device]),
    ) as LoopList;
    const [data] = listed.loopdevices;
    assert(data !== undefined);
    expectDone(await n1.cli("release", "data"));

    const span = ["--offset", String(data.offset), "--sizelimit", String(data.sizelimit)];
    const loop = must("losetup", ["--find", "--show", ...span, data["back-file"]]).trim();
    loops.push(loop);
    const stranger = await hold([], `mount ${loop} ${made.dataDir}`);
    for (const node of [n1, n2]) {
      expectError(await node.cli("reserve", "data", "--json"), {
        exitCode: 1,
        code: "ERR_STILL_MOUNTED",
        message: new RegExp(`group data.*${loop}.*process ${stranger.pid}`),
      });
    }
    await end(stranger);
    await until("n2 has it", 5_000, async () => (await n2.cli("reserve", "data")).exitCode === 0);
    expectDone(await n2.cli("release", "data"));
  });
});
