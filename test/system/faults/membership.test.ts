/**
 * Who may be a member, on real nodes: host ids and names that are taken, the same name from another machine, joining twice,
 * formatting under live heartbeats, and a joiner whose predecessor still hangs in the kernel.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { basename } from "node:path";

import { sharedha, type TestNode } from "../../helpers/nodes.js";
import { createFaultyLun, whyNoFaultyLun } from "../../helpers/hanging-lun.js";
import { must } from "../../helpers/workspace.js";
import {
  Cluster,
  expectDone,
  expectError,
  generationOf,
  skipUnlessRoot,
  until,
} from "./harness.js";
import { skipIf } from "../../helpers/skip.js";

describe("membership", function () {
  this.timeout(40_000);
  let cluster: Cluster;
  let n1: TestNode;

  before(async () => {
    cluster = await Cluster.make("members");
    n1 = await cluster.joined("n1", { hostId: 1 });
  });

  after(async () => {
    await cluster.clean();
  });

  it("refuses a host id that another node renews, and leaves that node alone", async () => {
    const before = await generationOf(n1);
    const ran = await cluster.node("n2", { hostId: 1 }).join("--json");
    const error = expectError(ran, {
      exitCode: 1,
      code: "ERR_HOST_ID_TAKEN",
      message: /host id 1 .*n1/,
    });
    assert.match(error.hint, /--host-id/);
    const { node } = await n1.status();
    assert.equal(node.state, "joined");
    assert.equal(BigInt(node.generation ?? "0"), before);
  });

  it("refuses a second node of the same name", async () => {
    const stateDir = cluster.workspace.path("state-twin");
    const ran = await cluster.node("n1", { stateDir }).join("--json");
    const error = expectError(ran, { exitCode: 1, code: "ERR_NAME_TAKEN", message: /n1/ });
    assert.match(error.hint, /--node/);
    assert.equal((await n1.status()).node.state, "joined");
  });

  it("refuses the same name and host id from another machine", async function () {
    skipUnlessRoot(this);
    const joinPrefix = otherMachine({ "/etc/machine-id": "0123456789abcdef0123456789abcdef" });
    const stateDir = copyOfState("state-copy");
    const ran = await cluster.node("n1", { hostId: 1, stateDir, joinPrefix }).join("--json");
    expectError(ran, { exitCode: 1, code: "ERR_NAME_TAKEN", message: /n1.*machine/ });
    assert.equal((await n1.status()).node.state, "joined");
  });

  it("refuses a copy of the whole machine: its own name and ids, of another boot, and renewed", async function () {
    skipUnlessRoot(this);
    const before = await generationOf(n1);
    const bootId = "01234567-89ab-4def-8123-456789abcdef";
    const joinPrefix = otherMachine({ "/proc/sys/kernel/random/boot_id": bootId });
    const stateDir = copyOfState("state-clone");
    const ran = await cluster.node("n1", { hostId: 1, stateDir, joinPrefix }).join("--json");
    const error = expectError(ran, {
      exitCode: 1,
      code: "ERR_CLONED_MACHINE",
      message: /n1 \(host id 1\) is running elsewhere/,
    });
    assert.match(error.hint, /Switch one of the two off/);
    const { node } = await n1.status();
    assert.equal(node.state, "joined");
    assert.equal(BigInt(node.generation ?? "0"), before);
  });

  it("lets a new machine take the place of one that is off, by a human's word and not before it is silent", async () => {
    const old = await cluster.joined("n4");
    const { hostId } = (await old.status()).node;
    const anew = cluster.node("n4", { stateDir: cluster.workspace.path("state-anew") });
    const alive = await anew.join("--confirm-off", "--json");
    const inUse = expectError(alive, {
      exitCode: 1,
      code: "ERR_HOST_ID_TAKEN",
      message: /in use by n4, which renews it/,
    });
    assert.match(inUse.hint, /not off/);
    old.signal("SIGKILL", "daemon", "pulse", "guard");
    await until("the old one has ended", 5_000, () => old.processes().length === 0);
    const taken = await anew.join("--json");
    const error = expectError(taken, { exitCode: 1, code: "ERR_NAME_TAKEN", message: /n4/ });
    assert.match(error.hint, /--confirm-off/);
    expectDone(await anew.join("--confirm-off"));
    assert.equal((await anew.status()).node.hostId, hostId);
    expectDone(await anew.cli("leave"));
  });

  it("counts a human's word for the first try alone: later it would be about whoever has the name by then", async () => {
    const old = await cluster.joined("n5");
    old.signal("SIGKILL", "daemon", "pulse", "guard");
    await until("the old one has ended", 5_000, () => old.processes().length === 0);
    const anew = cluster.node("n5", { stateDir: cluster.workspace.path("state-word") });
    const joining = anew.join("--confirm-off", "--json");
    await until(
      "the first try was killed, while it watches the silence",
      10_000,
      () => anew.signal("SIGKILL", "pulse").length > 0,
    );
    expectError(await joining, { exitCode: 1, code: "ERR_NAME_TAKEN", message: /n5/ });
  });

  it("takes a second join of the same node for what it is, and refuses one that differs", async () => {
    const again = await n1.join();
    expectDone(again);
    assert.match(again.stdout, /already joined/);
    const args = ["join", ...cluster.luns, "--node", "other", "--state-dir", n1.stateDir];
    const ran = await sharedha([...args, "--json"]);
    const error = expectError(ran, { exitCode: 2, code: "ERR_ALREADY_A_MEMBER", message: /n1/ });
    assert.match(error.hint, /leave|--state-dir/);
  });

  it("never formats under live heartbeats, whatever the superblock says", async () => {
    const ran = await sharedha(["init", ...cluster.luns, "--force", "--profile", "fast", "--json"]);
    const error = expectError(ran, {
      exitCode: 1,
      code: "ERR_LIVE_HEARTBEATS",
      message: /host 1 \(n1\).*renews/,
    });
    assert.match(error.hint, /leave/);
    const { node } = await n1.status();
    assert.equal(node.state, "joined");
  });

  it("does not join while an earlier pulse of the node hangs in the kernel, and names its process", async function () {
    skipIf(this, whyNoFaultyLun());
    const lun = await createFaultyLun({ sizeBytes: 32 * 1024 * 1024 });
    cluster.workspace.defer("close the faulty LUN", async () => {
      await lun.close();
    });
    const other = await Cluster.make("stuck", {
      workspace: cluster.workspace,
      luns: [lun.path],
      initArgs: ["--force"],
    });
    const node = await other.joined("stuck");
    cluster.workspace.defer("end the fault", async () => {
      await lun.drop();
      await lun.heal();
    });
    await lun.hang();
    await lun.untilHeld(1);
    const [pulse] = node.signal("SIGKILL", "daemon", "pulse", "guard").filter(isPulse);
    assert(pulse !== undefined);
    await until("the daemon has ended", 5_000, () => !node.processes().some(isDaemon));
    const early = await node.join("--json");
    const error = expectError(early, {
      exitCode: 1,
      code: "ERR_LUN_BUSY",
      message: new RegExp(`process ${pulse.pid}`),
    });
    assert.match(error.hint, /path|restart|kernel/);
    await lun.release();
    await until("the old pulse is gone", 5_000, () => !node.processes().some(isPulse));
    expectDone(await node.join());
    expectDone(await node.cli("leave"));
  });

  const isPulse = (one: { role: string }): boolean => one.role === "pulse";
  const isDaemon = (one: { role: string }): boolean => one.role === "daemon";

  /** As a copy of n1's disk has it: also the state directory's own id is the same. */
  function copyOfState(name: string): string {
    const stateDir = cluster.workspace.path(name);
    must("cp", ["-a", n1.stateDir, stateDir]);
    for (const own of ["control.sock", "pulse.sock", "guard.sock", "pulse.json", "node.json"]) {
      must("rm", ["-f", `${stateDir}/${own}`]);
    }
    return stateDir;
  }

  /** The words that run a program where these files have other contents. */
  function otherMachine(contents: Readonly<Record<string, string>>): readonly string[] {
    const holder: ChildProcess = spawn(
      "unshare",
      ["--mount", "--propagation", "private", "--", "sleep", "600"],
      { stdio: "ignore" },
    );
    cluster.workspace.defer("end the other machine", () => {
      holder.kill("SIGKILL");
    });
    const own = must("readlink", ["/proc/self/ns/mnt"]);
    const inside = ["nsenter", `--mount=/proc/${holder.pid ?? 0}/ns/mnt`, "--"];
    for (let tries = 0; ; tries++) {
      // Until unshare(1) has made its namespace.
      if (must("readlink", [`/proc/${holder.pid ?? 0}/ns/mnt`]) !== own) {
        break;
      }
      assert(tries < 1_000, "unshare made no namespace");
    }
    for (const [path, text] of Object.entries(contents)) {
      const file = cluster.workspace.path(basename(path));
      writeFileSync(file, `${text}\n`);
      must("nsenter", [...inside.slice(1), "mount", "--bind", file, path]);
    }
    return inside;
  }
});
