/** The commands that go on and show what happens: `status --watch` and `events --follow`. */
import assert from "node:assert/strict";

import { type ErrorBody, type EventBody, type StatusBody } from "../../lib/net/api.js";
import { type TestNode } from "../helpers/nodes.js";
import { RunningCommand } from "../helpers/running-command.js";
import { Cluster, expectDone, until } from "./faults/harness.js";

describe("commands that go on", function () {
  this.timeout(60_000);
  let cluster: Cluster;
  let n1: TestNode;

  before(async () => {
    cluster = await Cluster.make("watching", { profile: "default" });
    n1 = await cluster.joined("n1");
  });

  after(async () => {
    await cluster.clean();
  });

  function start(...args: readonly string[]): RunningCommand {
    return new RunningCommand(cluster.workspace, [...args, "--state-dir", n1.stateDir]);
  }

  async function endDaemon(): Promise<void> {
    n1.signal("SIGTERM", "daemon");
    await until("the daemon has ended", 10_000, () => {
      return !n1.processes().some((one) => one.role === "daemon");
    });
  }

  /** An answer of the daemon, or why there is none. */
  function views(watch: RunningCommand): readonly (Partial<StatusBody> & Partial<ErrorBody>)[] {
    return watch.lines.map((line) => JSON.parse(line) as Partial<StatusBody> & Partial<ErrorBody>);
  }

  it("status --watch shows what changes, once a second, also over a restart of the daemon", async () => {
    const startedMs = performance.now();
    const watch = start("status", "--watch", "--json");
    const text = start("status", "--watch");
    const untilShown = async (
      what: string,
      isShown: (view: Partial<StatusBody> & Partial<ErrorBody>) => boolean,
    ): Promise<void> => {
      await until(`${what} is shown`, 20_000, () => views(watch).some(isShown));
    };
    await untilShown("the node", (view) => view.node?.state === "joined");
    assert(views(watch).every((view) => view.leases?.length === 0));
    expectDone(await n1.cli("lease", "create", "job"));
    expectDone(await n1.cli("lease", "acquire", "job"));
    await untilShown("the lease", (view) => view.leases?.[0]?.heldHere === true);
    await until("the lease is shown as text", 20_000, () => /^.*job.*n1/m.test(text.stdout));
    await endDaemon();
    await untilShown("that no daemon answers", (view) => view.error?.code === "ERR_NO_DAEMON");
    await until("the remedy is shown", 20_000, () => {
      return /no sharedhad answers on .*\n {2}remedy: Start it/.test(text.stdout);
    });
    expectDone(await n1.join());
    await until("the node is shown again", 20_000, () => {
      const view = views(watch).at(-1);
      return view?.node?.state === "joined" && view.leases?.[0]?.heldHere === true;
    });
    const count = views(watch).length;
    const seconds = (performance.now() - startedMs) / 1_000;
    assert(count <= seconds + 1, `${count} views in ${seconds} s`);
    assert(!text.stdout.includes("\u001b"), "no screen is cleared where there is none");
    for (const one of [watch, text]) {
      assert.deepEqual(await one.end("SIGINT"), { exitCode: null, signal: "SIGINT" });
      assert.equal(one.stderr, "");
    }
  });

  it("events --follow begins with what was, goes on with what happens, and ends with the daemon", async () => {
    const follow = start("events", "--follow", "--json");
    const text = start("events", "--follow");
    const events = (): readonly EventBody[] =>
      follow.lines.map((line) => JSON.parse(line) as EventBody);
    await until("what was is shown", 20_000, () => {
      return events().some((one) => one.event === "lease-adopted");
    });
    const former = events().length;
    assert.equal(former, plainLines((await n1.cli("events", "--json")).stdout).length);
    expectDone(await n1.cli("lease", "release", "job"));
    expectDone(await n1.cli("lease", "delete", "job"));
    await until("both events are shown", 15_000, () => events().length === former + 2);
    const [released, deleted] = events().slice(former);
    assert.equal(released?.event, "lease-released");
    assert.match(released.text, /^lease job, version \d+$/);
    assert.deepEqual([deleted?.event, deleted?.fields["lease"]], ["lease-deleted", "job"]);
    const numbers = events().map((one) => one.seq);
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => (numbers[0] ?? 0) + index),
      "each event once, in order",
    );
    await until("they are shown as text", 15_000, () => {
      return /lease-released +lease job, [^\n]*\n[^\n]*lease-deleted +lease job\n/.test(
        text.stdout,
      );
    });
    assert.deepEqual(await text.end("SIGTERM"), { exitCode: null, signal: "SIGTERM" });
    assert(!follow.isOver);
    await endDaemon();
    const { exitCode } = await follow.ended;
    assert.equal(exitCode, 3);
    const last = JSON.parse(follow.lines.at(-1) ?? "") as ErrorBody;
    assert.match(last.error.code, /^ERR_(CONNECTION_LOST|NO_DAEMON)$/);
    assert.match(follow.stderr, /^ {2}remedy: \w/m);
  });
});

function plainLines(text: string): readonly string[] {
  return text.split("\n").slice(0, -1);
}
