/**
 * One process of a node is killed: the lease and the mount stay where they are, and nobody takes over meanwhile. Without a
 * daemon for longer than restart_grace the node is fenced by its guard, and another takes over (DESIGN section 5).
 */
import assert from "node:assert/strict";

import { type NodeProcess, type Role, type TestNode } from "../../helpers/nodes.js";
import {
  checkRecords,
  type DataCluster,
  eventsOf,
  expectDone,
  expectError,
  generationOf,
  guardReport,
  heldVersion,
  makeWithData,
  recordsOf,
  skipUnlessRoot,
  until,
  untilRejoined,
  Writer,
} from "./harness.js";

const LEASE = "group:data";

describe("a process of a node that is killed", function () {
  this.timeout(60_000);
  let made: DataCluster | undefined;
  let n1: TestNode;
  let n2: TestNode;
  let writer: Writer;
  let version: string | undefined;
  let generation: bigint;

  before(async function () {
    skipUnlessRoot(this);
    // T = 3 s: a new process has time to start also on a busy machine.
    made = await makeWithData("killed", "default");
    const { cluster, dataDir } = made;
    [n1, n2] = await Promise.all([
      cluster.joined("n1", { mountNamespace: true }),
      cluster.joined("n2", { mountNamespace: true }),
    ]);
    expectDone(await n1.cli("reserve", "data"));
    version = await heldVersion(n1, LEASE);
    assert(version !== undefined);
    generation = await generationOf(n1);
    writer = new Writer(n1, `${dataDir}/records`);
    await writer.untilAcknowledged(3);
  });

  after(async () => {
    await made?.cluster.clean();
  });

  function roleOf(role: Role): NodeProcess {
    const [found, ...more] = n1.processes().filter((one) => one.role === role);
    assert(found !== undefined && more.length === 0, `one ${role}, not ${more.length + 1}`);
    return found;
  }

  async function untilReplaced(old: NodeProcess): Promise<void> {
    await until(`a new ${old.role}`, 10_000, () =>
      n1.processes().some((one) => one.role === old.role && one.pid !== old.pid),
    );
  }

  async function refusedToOthers(): Promise<void> {
    const ran = await n2.cli("reserve", "data", "--json");
    expectError(ran, { exitCode: 1, code: "ERR_LEASE_HELD", message: /n1/ });
  }

  /** Longer than anybody needs to take over, with the writer at work all the time. */
  async function staysWithN1(): Promise<void> {
    const waiting = n2.cli("reserve", "data", "--wait", "7", "--json");
    const startedAt = writer.acknowledged;
    expectError(await waiting, { exitCode: 1, code: "ERR_TIMED_OUT", message: /n1/ });
    await writer.untilAcknowledged(startedAt + 3);
    assert.equal(await heldVersion(n1, LEASE), version);
    assert.equal(await generationOf(n1), generation);
    assert.equal(guardReport(n1), undefined);
  }

  it("daemon: a new one finds lease and mount as they were", async () => {
    const [old] = n1.signal("SIGKILL", "daemon");
    assert(old !== undefined);
    await refusedToOthers();
    expectDone(await n1.rejoin());
    await untilReplaced(old);
    await staysWithN1();
    const group = (await n1.status()).groups.find((one) => one.name === "data");
    assert.equal(group?.state, "up");
  });

  it("guard: pulse starts another, which is armed and knows what to cut", async () => {
    const old = roleOf("guard");
    process.kill(old.pid, "SIGKILL");
    await untilReplaced(old);
    await staysWithN1();
    assert.equal((await n1.status()).watchdog.armed, true);
  });

  it("pulse: the daemon starts another, which carries the generation on", async () => {
    const old = roleOf("pulse");
    process.kill(old.pid, "SIGKILL");
    await untilReplaced(old);
    await staysWithN1();
  });

  it("no daemon for longer than restart_grace: the guard cuts, another takes over with evidence", async () => {
    process.kill(roleOf("daemon").pid, "SIGKILL");
    expectDone(await n2.cli("reserve", "data", "--wait", "40"));
    const [takeOver] = await eventsOf(n2, "take-over");
    assert.match(JSON.stringify(takeOver), /expired-guard/);
    assert(guardReport(n1) !== undefined, "the guard of n1 has acted");
    await writer.ended;
    checkRecords(recordsOf(n2, writer.path), writer.acknowledged);
    // By hand, as an administrator would; n2 keeps the group.
    expectDone(await n1.join());
    await untilRejoined(n1, generation, 5_000);
    await refusedByN2();
    expectDone(await n2.cli("release", "data"));
  });

  async function refusedByN2(): Promise<void> {
    const ran = await n1.cli("reserve", "data", "--json");
    expectError(ran, { exitCode: 1, code: "ERR_LEASE_HELD", message: /n2/ });
  }
});
