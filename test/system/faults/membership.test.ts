/**
 * Who may be a member, on real nodes: host ids and names that are taken, the same name from another machine, joining twice,
 * formatting under live heartbeats, and a joiner whose predecessor still hangs in the kernel.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { writeFileSync } from "node:fs";

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
    const prefix = otherMachine("0123456789abcdef0123456789abcdef");
    const stateDir = cluster.workspace.path("state-clone");
    // A clone of the whole machine: also the state directory's own id is the same.
    must("cp", ["-a", n1.stateDir, stateDir]);
    for (const name of ["control.sock", "pulse.sock", "guard.sock", "pulse.json", "node.json"]) {
      must("rm", ["-f", `${stateDir}/${name}`]);
    }
    const clone = cluster.node("n1", { hostId: 1, stateDir, joinPrefix: prefix });
    const ran = await clone.join("--json");
    expectError(ran, { exitCode: 1, code: "ERR_NAME_TAKEN", message: /n1.*machine/ });
    assert.equal((await n1.status()).node.state, "joined");
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

  /** The words that run a program where /etc/machine-id has other contents. */
  function otherMachine(id: string): readonly string[] {
    const file = cluster.workspace.path("machine-id");
    writeFileSync(file, `${id}\n`);
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
    must("nsenter", [...inside.slice(1), "mount", "--bind", file, "/etc/machine-id"]);
    return inside;
  }
});
