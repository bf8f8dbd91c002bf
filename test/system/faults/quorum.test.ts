/**
 * Three LUNs, a lease is held, and one LUN after the other fails: it hangs, comes back as it was long ago (stale), another
 * is replaced by a blank one. The holder keeps the lease all the time and nobody else gets it (DESIGN section 6, hazard H13).
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";

import { createFaultyLun, type FaultyLun, whyNoFaultyLun } from "../../helpers/hanging-lun.js";
import { type TestNode } from "../../helpers/nodes.js";
import { Workspace } from "../../helpers/workspace.js";
import {
  Cluster,
  expectDone,
  expectError,
  generationOf,
  heldVersion,
  never,
  until,
} from "./harness.js";
import { skipIf } from "../../helpers/skip.js";

describe("a quorum of three LUNs of which one fails", function () {
  this.timeout(90_000);
  let cluster: Cluster | undefined;
  let third: FaultyLun;
  let n1: TestNode;
  let n2: TestNode;
  let generation: bigint;
  let version: string | undefined;

  before(async function () {
    skipIf(this, whyNoFaultyLun());
    const workspace = new Workspace("faults-quorum");
    third = await createFaultyLun({ sizeBytes: 32 * 1024 * 1024 });
    workspace.defer("close the faulty LUN", async () => {
      await third.close();
    });
    const luns = [workspace.path("lun1"), workspace.path("lun2"), third.path];
    // T = 3 s: nobody loses for want of a busy machine's time.
    cluster = await Cluster.make("quorum", { workspace, luns, profile: "default" });
    [n1, n2] = await Promise.all([cluster.joined("n1"), cluster.joined("n2")]);
    workspace.defer("end the fault", async () => {
      await third.drop();
      await third.heal();
    });
    expectDone(await n1.cli("lease", "create", "job"));
    expectDone(await n1.cli("lease", "acquire", "job"));
    version = await heldVersion(n1, "job");
    generation = await generationOf(n1);
  });

  after(async () => {
    await cluster?.clean();
  });

  /** For longer than anybody needs to take over (7.0 s), and n2 asks all the time. */
  async function staysWithN1(): Promise<void> {
    const ran = n2.cli("lease", "acquire", "job", "--wait", "8", "--json");
    await never("n1 lets go", 7_500, async () => (await heldVersion(n1, "job")) !== version);
    expectError(await ran, { exitCode: 1, code: "ERR_TIMED_OUT", message: /n1/ });
    assert.equal(await generationOf(n1), generation);
    assert.equal((await n1.status()).node.state, "joined");
  }

  async function lunState(node: TestNode, path: string, state: RegExp): Promise<void> {
    await until(`${node.name} sees that ${path} is ${state.source}`, 15_000, async () =>
      (await node.status()).luns.some((one) => one.path === path && state.test(one.state)),
    );
  }

  it("goes on while one hangs, and can release and take leases without it", async () => {
    await third.hang();
    await lunState(n1, third.path, /late|stuck/);
    await staysWithN1();
    expectDone(await n1.cli("lease", "release", "job"));
    expectDone(await n2.cli("lease", "acquire", "job"));
    expectDone(await n2.cli("lease", "release", "job"));
    expectDone(await n1.cli("lease", "acquire", "job"));
    version = await heldVersion(n1, "job");
    await third.release();
    await lunState(n1, third.path, /ok/);
    await lunState(n2, third.path, /ok/);
  });

  it("keeps the lease when LUN 3 comes back stale and LUN 2 is then a blank one", async () => {
    const [, second = ""] = cluster?.luns ?? [];
    const old = readFileSync(third.backingPath);
    await third.failWith("EIO");
    await lunState(n1, third.path, /failed/);
    // While it is away, the lease is given away and taken back: the old contents show another version.
    expectDone(await n1.cli("lease", "release", "job"));
    expectDone(await n2.cli("lease", "acquire", "job"));
    expectDone(await n2.cli("lease", "release", "job"));
    expectDone(await n1.cli("lease", "acquire", "job"));
    version = await heldVersion(n1, "job");
    writeFileSync(third.backingPath, old);
    await third.heal();
    await lunState(n1, third.path, /ok|stale/);
    await staysWithN1();
    writeFileSync(second, Buffer.alloc(32 * 1024 * 1024));
    await staysWithN1();
    await lunState(n2, second, /blank|foreign|failed/);
    const lun = (await n2.status()).luns.find((one) => one.path === second);
    assert.equal(lun?.counts, false);
    assert.match(lun.why ?? "", /\w/);
  });

  it("counts the blank LUN again only after `sharedha lun replace`", async () => {
    const [, second = ""] = cluster?.luns ?? [];
    expectDone(await n1.cli("lun", "replace", second));
    await lunState(n1, second, /ok/);
    await lunState(n2, second, /ok/);
    await staysWithN1();
    expectDone(await n1.cli("lease", "release", "job"));
    expectDone(await n2.cli("lease", "acquire", "job"));
    expectDone(await n2.cli("lease", "release", "job"));
  });
});
