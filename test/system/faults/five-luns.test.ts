/**
 * Five LUNs: with two that are unusable everything goes on, with a third nobody holds or gets anything, and when the LUNs
 * are back, nothing was granted meanwhile (DESIGN section 6).
 */
import assert from "node:assert/strict";

import { type ErrorBody, type LeaseBody, type StatusBody } from "../../../lib/net/api.js";
import { createFaultyLun, type FaultyLun, whyNoFaultyLun } from "../../helpers/hanging-lun.js";
import { type Ran, type TestNode } from "../../helpers/nodes.js";
import { skipIf } from "../../helpers/skip.js";
import { Workspace } from "../../helpers/workspace.js";
import {
  Cluster,
  expectDone,
  expectError,
  generationOf,
  heldVersion,
  never,
  until,
  untilRejoined,
} from "./harness.js";

describe("a quorum of five LUNs", function () {
  this.timeout(90_000);
  let cluster: Cluster | undefined;
  let faulty: readonly [FaultyLun, FaultyLun, FaultyLun];
  let n1: TestNode;
  let n2: TestNode;
  let generations: readonly bigint[];

  before(async function () {
    skipIf(this, whyNoFaultyLun());
    const workspace = new Workspace("faults-five");
    const make = async (): Promise<FaultyLun> => {
      const lun = await createFaultyLun({ sizeBytes: 32 * 1024 * 1024 });
      workspace.defer("close the faulty LUN", async () => {
        await lun.close();
      });
      return lun;
    };
    faulty = [await make(), await make(), await make()];
    const luns = [workspace.path("lun1"), workspace.path("lun2"), ...faulty.map((one) => one.path)];
    // T = 3 s: nobody loses for want of a busy machine's time.
    cluster = await Cluster.make("five", { workspace, luns, profile: "default" });
    [n1, n2] = await Promise.all([cluster.joined("n1"), cluster.joined("n2")]);
    workspace.defer("end the faults", async () => {
      for (const lun of faulty) {
        await lun.drop();
        await lun.heal();
      }
    });
    for (const name of ["job", "other", "free"]) {
      expectDone(await n1.cli("lease", "create", name));
    }
    expectDone(await n1.cli("lease", "acquire", "job"));
    generations = [await generationOf(n1), await generationOf(n2)];
  });

  after(async () => {
    await cluster?.clean();
  });

  async function lunState(node: TestNode, lun: FaultyLun, state: RegExp): Promise<void> {
    await until(`${node.name} sees that ${lun.path} is ${state.source}`, 15_000, async () =>
      (await node.status()).luns.some((one) => one.path === lun.path && state.test(one.state)),
    );
  }

  async function show(node: TestNode, name: string): Promise<LeaseBody> {
    return (await node.call("GET", `/v1/leases/${name}`)) as LeaseBody;
  }

  it("with two of them unusable a lease is kept, and others are given and taken", async () => {
    const [first, second] = faulty;
    const version = await heldVersion(n1, "job");
    assert(version !== undefined);
    await first.failWith("EIO");
    await second.hang();
    for (const node of [n1, n2]) {
      await lunState(node, first, /failed/);
      await lunState(node, second, /late|stuck/);
    }
    expectDone(await n2.cli("lease", "acquire", "other"));
    const refused = await n2.cli("lease", "acquire", "job", "--json");
    expectError(refused, { exitCode: 1, code: "ERR_LEASE_HELD", message: /held by n1/ });
    expectDone(await n1.cli("lease", "acquire", "free"));
    expectDone(await n1.cli("lease", "release", "free"));
    // Longer than T.
    await never("n1 lets go", 3_500, async () => (await heldVersion(n1, "job")) !== version);
    assert.deepEqual([await generationOf(n1), await generationOf(n2)], generations);
    assert.equal((await n2.status()).leases.find((one) => one.name === "other")?.heldHere, true);
  });

  it("with a third one unusable nobody holds or gets anything, also not afterwards", async () => {
    const [first, second, third] = faulty;
    const { version } = await show(n2, "free");
    await third.failWith("EIO");
    expectNothing(await n2.cli("lease", "acquire", "free", "--json"));
    for (const node of [n1, n2]) {
      await until(`${node.name} has lost`, 15_000, async () => {
        const ran = await node.cli("status", "--json");
        // 3: the guard of a busy machine was quicker, and has ended the daemon.
        return ran.exitCode === 3 || (JSON.parse(ran.stdout) as StatusBody).node.state === "lost";
      });
      expectNothing(await node.cli("lease", "acquire", "free", "--json"));
    }
    await second.drop();
    await Promise.all([first.heal(), second.heal(), third.heal()]);
    await Promise.all(
      [n1, n2].map(async (node, index) => untilRejoined(node, generations[index] ?? 0n, 40_000)),
    );
    const free = await show(n1, "free");
    assert.deepEqual([free.version, free.holders], [version, []]);
    expectDone(await n1.cli("lease", "acquire", "free", "--wait", "20"));
  });

  /** Refused for want of a majority, or, later, because the node has lost and its guard may have ended the daemon. */
  function expectNothing(ran: Ran): void {
    assert.equal(ran.exitCode, 3, `exit ${ran.exitCode}\n${ran.stdout}${ran.stderr}`);
    const { error } = JSON.parse(ran.stdout) as ErrorBody;
    assert.match(
      error.code,
      /^ERR_(NO_QUORUM|UNDECIDED|NODE_LOST|NOT_JOINED|NOT_ARMED|NO_DAEMON|CONNECTION_LOST)$/,
    );
    assert.match(error.hint, /\w{3,}/);
  }
});
