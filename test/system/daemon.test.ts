/** Three real nodes (daemon, pulse, guard each) on one file region. */
import assert from "node:assert/strict";
import { request } from "node:http";
import { join } from "node:path";

import { type AcquiredBody, type EventsBody, type LeaseBody } from "../../lib/net/api.js";
import { killExact } from "../../lib/system/process.js";
import { sharedha, TestNode } from "../helpers/nodes.js";
import { Workspace } from "../helpers/workspace.js";

async function until(
  what: string,
  isTrue: () => Promise<boolean>,
  withinMs = 20_000,
): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!(await isTrue())) {
    assert.ok(performance.now() < untilMs, `${what}: not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe("sharedhad", function () {
  this.timeout(120_000);
  let workspace: Workspace;
  let nodes: readonly TestNode[];

  function node(number: number): TestNode {
    const found = nodes[number - 1];
    assert.ok(found);
    return found;
  }

  async function acquire(
    number: number,
    name: string,
    waitMs: number | null,
  ): Promise<AcquiredBody> {
    const body = { shared: false, waitMs, bindToConnection: false };
    return (await node(number).call("POST", `/v1/leases/${name}/acquire`, body)) as AcquiredBody;
  }

  async function show(number: number, name: string): Promise<LeaseBody> {
    return (await node(number).call("GET", `/v1/leases/${name}`)) as LeaseBody;
  }

  before(async () => {
    workspace = new Workspace("daemon");
    const lun = workspace.path("lun");
    const made = await sharedha(["init", lun, "--cluster", "daemon", "--size", "33554432"]);
    assert.equal(made.exitCode, 0, made.stderr);
    nodes = [1, 2, 3].map(
      (number) => new TestNode(workspace, { name: `n${number}`, luns: [lun], watchdog: "guard" }),
    );
    for (const each of nodes) {
      const joined = await each.join();
      assert.equal(joined.exitCode, 0, joined.stderr);
    }
    await node(1).call("POST", "/v1/leases/a/create");
  });

  after(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  it("knows every member", async () => {
    await until("all are live", async () => {
      const { members } = await node(3).status();
      return members.filter((member) => member.state === "live").length === 3;
    });
  });

  it("grants, refuses by name, and hands over to the one who waits, with a higher token", async () => {
    const first = await acquire(1, "a", 0);
    await assert.rejects(acquire(2, "a", 0), /ERR_LEASE_HELD.*held by n1/);
    const waiting = acquire(2, "a", 20_000);
    await until("n2 is in the queue", async () => (await show(3, "a")).queue.includes("n2"));
    await node(1).call("POST", "/v1/leases/a/release");
    const second = await waiting;
    assert.ok(BigInt(second.version) > BigInt(first.version));
    assert.deepEqual(
      (await show(3, "a")).holders.map((holder) => holder.name),
      ["n2"],
    );
    await node(2).call("POST", "/v1/leases/a/release");
  });

  it("keeps a lease over a restart of its daemon, which then releases it", async () => {
    const { version } = await acquire(1, "a", 0);
    const daemon = node(1)
      .processes()
      .find((each) => each.role === "daemon");
    assert.ok(daemon);
    killExact({ pid: daemon.pid, startTime: BigInt(daemon.startTime) }, "SIGKILL");
    const joined = await node(1).join();
    assert.equal(joined.exitCode, 0, joined.stderr);
    const lease = await show(1, "a");
    assert.deepEqual([lease.version, lease.heldHere], [version, true]);
    await assert.rejects(acquire(2, "a", 0), /ERR_LEASE_HELD/);
    await node(1).call("POST", "/v1/leases/a/release");
    await acquire(2, "a", 5_000);
    await node(2).call("POST", "/v1/leases/a/release");
  });

  it("carries its generation on when its pulse is killed", async () => {
    const { version } = await acquire(1, "a", 0);
    const before = (await node(1).status()).node.generation;
    const pulse = node(1)
      .processes()
      .find((each) => each.role === "pulse");
    assert.ok(pulse);
    killExact({ pid: pulse.pid, startTime: BigInt(pulse.startTime) }, "SIGKILL");
    await until("pulse is back", async () => {
      const { events } = (await node(1).call("GET", "/v1/events?after=0")) as EventsBody;
      return events.some((event) => event.event === "resumed" || event.event === "lost");
    });
    const status = await node(1).status();
    assert.deepEqual([status.node.state, status.node.generation], ["joined", before]);
    assert.equal((await show(2, "a")).version, version);
    await node(1).call("POST", "/v1/leases/a/release");
  });

  it("loses for good when its pulse is stopped for longer than T, and joins again as another generation", async () => {
    await acquire(1, "a", 0);
    const before = (await node(1).status()).node.generation;
    const pulse = node(1)
      .processes()
      .find((each) => each.role === "pulse");
    assert.ok(pulse);
    const identity = { pid: pulse.pid, startTime: BigInt(pulse.startTime) };
    killExact(identity, "SIGSTOP");
    try {
      await until("the daemon notices", async () => (await node(1).status()).node.state === "lost");
      await assert.rejects(acquire(1, "a", 0), /ERR_NODE_LOST/);
    } finally {
      killExact(identity, "SIGCONT");
    }
    await until(
      "n1 is a member again",
      async () => (await node(1).status()).node.state === "joined",
      40_000,
    );
    const after = (await node(1).status()).node.generation;
    assert.ok(BigInt(after ?? 0) > BigInt(before ?? 0));
    await acquire(2, "a", 20_000);
    await node(2).call("POST", "/v1/leases/a/release");
  });

  it("releases what was bound to a connection when it closes", async () => {
    await new Promise<void>((resolve, reject) => {
      const call = request(
        {
          socketPath: join(node(1).stateDir, "control.sock"),
          method: "POST",
          path: "/v1/leases/a/acquire",
        },
        (response) => {
          // By the end of the answer the agent has taken the connection back, to keep it open.
          const { socket } = response;
          response.resume();
          response.on("end", () => {
            assert.equal(response.statusCode, 200);
            socket.destroy();
            resolve();
          });
        },
      );
      call.on("error", reject);
      call.end('{"waitMs":5000,"bindToConnection":true}');
    });
    await acquire(2, "a", 5_000);
    await node(2).call("POST", "/v1/leases/a/release");
  });

  it("refuses to leave while it holds something, and leaves nothing running", async () => {
    await acquire(3, "a", 5_000);
    await assert.rejects(node(3).call("POST", "/v1/leave"), /ERR_BUSY.*\ba\b/);
    await node(3).call("POST", "/v1/leases/a/release");
    const left = await node(3).cli("leave");
    assert.equal(left.exitCode, 0, left.stderr);
    await until("its processes have ended", () =>
      Promise.resolve(node(3).processes().length === 0),
    );
    await until("others see it", async () => {
      const { members } = await node(1).status();
      return members.find((member) => member.name === "n3")?.state === "left";
    });
  });
});
