/**
 * The whole node stands still - daemon, pulse, guard and a service that writes - for longer than it takes another to take
 * over, and then goes on: nothing of it reaches the data any more (hazard H6), and it comes back as a new generation.
 */
import assert from "node:assert/strict";

import { type TestNode } from "../../helpers/nodes.js";
import { must } from "../../helpers/workspace.js";
import {
  checkRecords,
  type DataCluster,
  eventsOf,
  expectDone,
  expectError,
  generationOf,
  guardReport,
  makeWithData,
  never,
  recordsOf,
  skipUnlessRoot,
  until,
  untilRejoined,
  Writer,
} from "./harness.js";

describe("a node that was stopped for longer than T", function () {
  this.timeout(60_000);
  let made: DataCluster | undefined;
  let n1: TestNode;
  let n2: TestNode;

  before(async function () {
    skipUnlessRoot(this);
    made = await makeWithData("stopped", "fast");
    const { cluster } = made;
    [n1, n2] = await Promise.all([
      cluster.joined("n1", { mountNamespace: true }),
      cluster.joined("n2", { mountNamespace: true }),
    ]);
  });

  after(async () => {
    await made?.cluster.clean();
  });

  it("writes nothing after SIGCONT, has lost nothing that it was told is written, and rejoins", async () => {
    assert(made !== undefined);
    const { dataDir } = made;
    const generation = await generationOf(n1);
    expectDone(await n1.cli("reserve", "data"));
    const writer = new Writer(n1, `${dataDir}/records`);
    await writer.untilAcknowledged(30);
    const stopped = n1.signal("SIGSTOP");
    const roles = new Set(stopped.map((one) => one.role));
    assert.deepEqual([...roles].sort(), ["daemon", "guard", "other", "pulse"]);

    expectDone(await n2.cli("reserve", "data", "--wait", "30"));
    const [takeOver] = await eventsOf(n2, "take-over");
    assert.match(JSON.stringify(takeOver), /expired-guard/);
    const found = recordsOf(n2, writer.path);
    checkRecords(found, writer.acknowledged);
    const other = new Writer(n2, `${dataDir}/other`);
    await other.untilAcknowledged(20);

    // The taker has killed the service, stopped as it was, before it cut its file system; the others go on.
    await writer.ended;
    const goesOn = n1.signal("SIGCONT").map((one) => one.role);
    assert.deepEqual(goesOn.sort(), ["daemon", "guard", "pulse"]);
    assert(writer.acknowledged <= found.length, "no record was acknowledged after the take-over");
    assert.equal(writer.complaint, "", "it was told nothing, not even EIO");
    const again = await untilRejoined(n1, generation, 20_000);
    assert(again > generation);
    assert(
      (await eventsOf(n1, "lost")).length > 0 || guardReport(n1) !== undefined,
      "the node noticed",
    );
    await never(
      "the old node's file changes",
      1_000,
      () => recordsOf(n2, writer.path).length !== found.length,
    );
    await other.untilAcknowledged(other.acknowledged + 10);
    await other.stop();
    checkRecords(recordsOf(n2, other.path), other.acknowledged);

    const refused = await n1.cli("reserve", "data", "--json");
    expectError(refused, { exitCode: 1, code: "ERR_LEASE_HELD", message: /n2/ });
    expectDone(await n2.cli("release", "data"));
    expectDone(await n1.cli("reserve", "data"));
    checkRecords(recordsOf(n1, writer.path), writer.acknowledged);
    checkRecords(recordsOf(n1, other.path), other.acknowledged);
  });

  it("only its daemon was stopped, and pulse went on: it tears down, and rejoins all the same", async () => {
    const generation = await generationOf(n1);
    n1.signal("SIGSTOP", "daemon");
    // Longer than T, shorter than what pulse waits for a daemon.
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    n1.signal("SIGCONT", "daemon");
    await untilRejoined(n1, generation, 20_000);
    const [lost] = await eventsOf(n1, "lost");
    assert.match(lost?.text ?? "", /no renewal was heard of/);
    expectDone(await n1.cli("reserve", "data", "--wait", "10"));
  });

  it("says who keeps a busy mount busy, and leaves the group up", async () => {
    assert(made !== undefined);
    const writer = new Writer(n1, `${made.dataDir}/busy`);
    await writer.untilAcknowledged(3);
    const [service] = n1.processes().filter((one) => one.role === "other");
    assert(service !== undefined);
    const ran = await n1.cli("release", "data", "--json");
    const error = expectError(ran, {
      exitCode: 1,
      code: "ERR_MOUNT_BUSY",
      message: new RegExp(`${made.dataDir}.*${service.pid}`),
    });
    assert.match(error.message, /node/, "the program's name");
    await writer.untilAcknowledged(writer.acknowledged + 3);
    const group = (await n1.status()).groups.find((one) => one.name === "data");
    assert.equal(group?.state, "up");
    const refused = await n2.cli("reserve", "data", "--json");
    expectError(refused, { exitCode: 1, code: "ERR_LEASE_HELD", message: /n1/ });
    await writer.stop();
    await until("released", 5_000, async () => (await n1.cli("release", "data")).exitCode === 0);
    assert.equal(
      must("findmnt", ["--noheadings", "--list", "--output", "TARGET"]).includes(made.dataDir),
      false,
    );
  });
});
