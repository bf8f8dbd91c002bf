/**
 * `sharedha join --foreground`, as a service manager runs it: it lives as long as the daemon does, whichever way that ends,
 * and a stop by SIGTERM is a restart to come: pulse goes on and what was held stays held.
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";

import { type ErrorBody } from "../../lib/net/api.js";
import { type TestNode } from "../helpers/nodes.js";
import { RunningCommand } from "../helpers/running-command.js";
import { Cluster, expectDone, generationOf, heldVersion, until } from "./faults/harness.js";

describe("sharedha join --foreground", function () {
  this.timeout(60_000);
  let cluster: Cluster;
  let n1: TestNode;
  let second: RunningCommand;

  before(async () => {
    cluster = await Cluster.make("foreground", { profile: "default" });
    n1 = cluster.node("n1");
  });

  after(async () => {
    await cluster.clean();
  });

  function start(node: TestNode, ...more: readonly string[]): RunningCommand {
    const words = ["join", ...cluster.luns, "--foreground", "--node", "n1", "--watchdog", "guard"];
    const rest = ["--state-dir", node.stateDir, ...more];
    return new RunningCommand(cluster.workspace, [...words, ...rest]);
  }

  async function startedAndJoined(): Promise<RunningCommand> {
    const command = start(n1);
    await until("n1 is a member", 20_000, async () => {
      assert(!command.isOver, `it has ended: ${command.stderr}`);
      const ran = await n1.cli("status", "--json");
      return ran.exitCode === 0 && (await n1.status()).node.state === "joined";
    });
    return command;
  }

  function roles(): readonly string[] {
    return n1
      .processes()
      .map((one) => one.role)
      .sort();
  }

  it("stays while the daemon does; SIGTERM ends both with 0, and the next one goes on", async () => {
    const first = await startedAndJoined();
    expectDone(await n1.cli("lease", "create", "job"));
    expectDone(await n1.cli("lease", "acquire", "job"));
    const generation = await generationOf(n1);
    const version = await heldVersion(n1, "job");
    assert(version !== undefined);
    assert(!first.isOver);
    assert.deepEqual(await first.end("SIGTERM"), { exitCode: 0, signal: null });
    assert.equal(first.stderr, "");
    assert.deepEqual(roles(), ["guard", "pulse"]);
    second = await startedAndJoined();
    assert.equal(await generationOf(n1), generation);
    assert.equal(await heldVersion(n1, "job"), version);
  });

  it("a first join that is refused ends as any other does, and leaves no node.json", async () => {
    const twin = cluster.node("twin");
    const command = start(twin, "--json");
    assert.deepEqual(await command.ended, { exitCode: 1, signal: null });
    const { error } = JSON.parse(command.stdout) as ErrorBody;
    assert.equal(error.code, "ERR_NAME_TAKEN");
    assert.match(command.stderr, /n1[^]*remedy: .*--node/);
    assert(!existsSync(`${twin.stateDir}/node.json`));
  });

  it("ends as the daemon does when that is killed, and with 0 when the node leaves", async () => {
    n1.signal("SIGKILL", "daemon");
    assert.deepEqual(await second.ended, { exitCode: 128 + 9, signal: null });
    const left = await startedAndJoined();
    expectDone(await n1.cli("lease", "release", "job"));
    expectDone(await n1.cli("leave"));
    assert.deepEqual(await left.ended, { exitCode: 0, signal: null });
    await until("all of n1 has ended", 10_000, () => roles().length === 0);
    assert(!existsSync(`${n1.stateDir}/node.json`));
  });
});
