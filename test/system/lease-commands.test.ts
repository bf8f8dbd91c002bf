/** Leases at the command line with three nodes: shared ones, releases that are refused, and the options of `sharedha run`. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";

import { type AcquiredBody, type LeaseBody } from "../../lib/net/api.js";
import { type Ran, sharedha, type TestNode } from "../helpers/nodes.js";
import { RunningCommand } from "../helpers/running-command.js";
import { Cluster, expectDone, expectError, heldVersion, until } from "./faults/harness.js";

describe("lease commands with three nodes", function () {
  this.timeout(60_000);
  let cluster: Cluster;
  let n1: TestNode;
  let n2: TestNode;
  let n3: TestNode;

  before(async () => {
    // (W - T) / 2, the bound of --kill-after, is 2.5 s in this profile.
    const config = 'accept_guard = true\n[group.data]\ndevice = "lun"\n';
    cluster = await Cluster.make("leases", { profile: "multipath", config });
    [n1, n2, n3] = await Promise.all([
      cluster.joined("n1"),
      cluster.joined("n2"),
      cluster.joined("n3"),
    ]);
    await until("all know all by name", 20_000, async () => {
      const views = await Promise.all([n1, n2, n3].map((node) => node.status()));
      return views.every(
        ({ members }) => members.filter((one) => one.state === "live").length === 3,
      );
    });
    expectDone(await n1.cli("lease", "create", "job"));
  });

  after(async () => {
    await cluster.clean();
  });

  async function show(name = "job"): Promise<LeaseBody> {
    return (await n3.call("GET", `/v1/leases/${name}`)) as LeaseBody;
  }

  async function holders(): Promise<readonly string[]> {
    return (await show()).holders.map((one) => `${one.name}${one.shared ? " shared" : ""}`).sort();
  }

  function expectHeld(ran: Ran, ...names: readonly string[]): void {
    const { message } = expectError(ran, { exitCode: 1, code: "ERR_LEASE_HELD", message: /held/ });
    const named = ["n1", "n2", "n3"].filter((name) => message.includes(`${name} (host`));
    assert.deepEqual(named, names, message);
  }

  function runArgs(node: TestNode, options: readonly string[], script: string): readonly string[] {
    return ["run", "--state-dir", node.stateDir, ...options, "--", "sh", "-c", script];
  }

  async function expectEnded(command: RunningCommand, exitCode: number): Promise<void> {
    const ended = await command.ended;
    assert.deepEqual(ended, { exitCode, signal: null }, command.stdout + command.stderr);
  }

  function fileOf(name: string): string {
    return cluster.workspace.path(name);
  }

  it("a shared lease has several holders, and all of them keep an exclusive one away", async () => {
    expectDone(await n1.cli("lease", "acquire", "job", "--shared"));
    const ran = await n2.cli("lease", "acquire", "job", "--shared", "--json");
    expectDone(ran);
    assert.equal((JSON.parse(ran.stdout) as AcquiredBody).shared, true);
    assert.deepEqual(await holders(), ["n1 shared", "n2 shared"]);
    expectHeld(await n3.cli("lease", "acquire", "job", "--json"), "n1", "n2");
    expectDone(await n1.cli("lease", "release", "job"));
    expectHeld(await n3.cli("lease", "acquire", "job", "--json"), "n2");
    expectDone(await n2.cli("lease", "release", "job"));
    expectDone(await n3.cli("lease", "acquire", "job"));
    assert.deepEqual(await holders(), ["n3"]);
    expectHeld(await n1.cli("lease", "acquire", "job", "--shared", "--json"), "n3");
  });

  it("only the holder releases: ERR_NOT_HELD, and a group that is not up: ERR_NOT_UP", async () => {
    const notHeld = {
      exitCode: 1,
      code: "ERR_NOT_HELD",
      message: /this node does not hold lease job/,
    } as const;
    const error = expectError(await n1.cli("lease", "release", "job", "--json"), notHeld);
    assert.match(error.hint, /sharedha lease show job/);
    assert.deepEqual(await holders(), ["n3"]);
    expectDone(await n3.cli("lease", "release", "job"));
    expectError(await n3.cli("lease", "release", "job", "--json"), notHeld);
    const notUp = { exitCode: 1, code: "ERR_NOT_UP", message: /group data is not up/ } as const;
    expectError(await n1.cli("release", "data", "--json"), notUp);
    expectError(await n1.cli("release", "--json"), notUp);
    const unknown = { exitCode: 2, code: "ERR_NO_SUCH_GROUP", message: /no group web/ } as const;
    expectError(await n1.cli("release", "web", "--json"), unknown);
  });

  it("run --shared: two commands at the same time, and no exclusive one beside them", async () => {
    const end = fileOf("end");
    const both = [n1, n2].map((node) => {
      const started = fileOf(`shared-${node.name}`);
      const script = `echo > ${started}; until [ -e ${end} ]; do sleep 0.05; done; exit 7`;
      const args = runArgs(node, ["--lease", "job", "--shared"], script);
      return { started, command: new RunningCommand(cluster.workspace, args) };
    });
    await until("both run", 20_000, () => both.every(({ started }) => existsSync(started)));
    assert.deepEqual(await holders(), ["n1 shared", "n2 shared"]);
    const touched = fileOf("touched");
    const alone = runArgs(n3, ["--lease", "job", "--json"], `echo > ${touched}`);
    expectHeld(await sharedha(alone), "n1", "n2");
    assert(!existsSync(touched), "the command was never started");
    writeFileSync(end, "");
    for (const { command } of both) {
      await expectEnded(command, 7);
    }
    assert.deepEqual(await holders(), []);
  });

  it("run --wait: the command starts when the holder has released, or not at all", async () => {
    expectDone(await n3.cli("lease", "acquire", "job"));
    const version = await heldVersion(n3, "job");
    const touched = fileOf("too-early");
    const late = runArgs(n2, ["--lease", "job", "--wait", "1", "--json"], `echo > ${touched}`);
    const timedOut = { exitCode: 1, code: "ERR_TIMED_OUT", message: /held by n3/ } as const;
    expectError(await sharedha(late), timedOut);
    assert(!existsSync(touched), "the command was never started");
    const told = fileOf("told");
    const script = `echo $SHAREDHA_LEASE $SHAREDHA_LEASE_VERSION > ${told}; exit 3`;
    const args = runArgs(n1, ["--lease", "job", "--wait", "forever"], script);
    const waiting = new RunningCommand(cluster.workspace, args);
    await until("n1 waits", 20_000, async () => (await show()).queue.includes("n1"));
    assert(!existsSync(told));
    expectDone(await n3.cli("lease", "release", "job"));
    await expectEnded(waiting, 3);
    const [lease, own] = readFileSync(told, "utf8").trim().split(" ");
    assert.equal(lease, "job");
    assert(BigInt(own ?? "0") > BigInt(version ?? "0"));
    assert.deepEqual(await holders(), []);
  });

  it("run --kill-after: so long has a command to tidy up when the lease is lost", async () => {
    const runs = [];
    for (const ms of ["0", "2400"]) {
      const log = fileOf(`killed-after-${ms}`);
      const tidy = `trap 'sleep 0.3; echo tidied >> ${log}; exit' TERM`;
      const script = `${tidy}; echo started >> ${log}; while :; do sleep 0.05; done`;
      expectDone(await n1.cli("lease", "create", `kill-${ms}`));
      const args = runArgs(n1, ["--lease", `kill-${ms}`, "--kill-after", ms], script);
      const command = new RunningCommand(cluster.workspace, args);
      await until("it runs", 20_000, () => existsSync(log) && readFileSync(log).length > 0);
      runs.push({ command, log });
    }
    n1.signal("SIGKILL", "daemon");
    for (const { command } of runs) {
      await expectEnded(command, 1);
      assert.match(command.stderr, /the lease kill-\d+ .*was lost.*the command was ended/);
    }
    const logs = runs.map(({ log }) => readFileSync(log, "utf8"));
    assert.deepEqual(logs, ["started\n", "started\ntidied\n"]);
    expectDone(await n1.join());
    await until("both are released", 20_000, async () => {
      const leases = await Promise.all(["kill-0", "kill-2400"].map((name) => show(name)));
      return leases.every((lease) => lease.holders.length === 0);
    });
    const wrong = await sharedha(runArgs(n1, ["--kill-after", "soon", "--json"], "exit 0"));
    expectError(wrong, { exitCode: 2, code: "ERR_USAGE", message: /soon/ });
  });
});
