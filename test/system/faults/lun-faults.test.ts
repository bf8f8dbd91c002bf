/**
 * The path to the LUN fails under a node that holds a lease, in the kernel, while another node has a good path to the same
 * LUN: the first says so and has lost after T, the second takes over after B + margin, and when the path comes back, late
 * writes and all, the first is a member again with a new generation.
 */
import assert from "node:assert/strict";

import { createFaultyLun, type FaultyLun, whyNoFaultyLun } from "../../helpers/hanging-lun.js";
import { type TestNode } from "../../helpers/nodes.js";
import { Workspace } from "../../helpers/workspace.js";
import {
  Cluster,
  eventsOf,
  expectDone,
  expectError,
  generationOf,
  heldVersion,
  until,
  untilRejoined,
} from "./harness.js";
import { skipIf } from "../../helpers/skip.js";

interface Fault {
  readonly name: string;
  readonly begin: (lun: FaultyLun) => Promise<void>;
  readonly end: (lun: FaultyLun) => Promise<void>;
  readonly state: RegExp;
}

const FAULTS: readonly Fault[] = [
  {
    name: "turns read-only",
    begin: async (lun) => {
      await lun.readOnly();
    },
    end: async (lun) => {
      await lun.heal();
    },
    state: /failed/,
  },
  {
    name: "returns EIO",
    begin: async (lun) => {
      await lun.failWith("EIO");
    },
    end: async (lun) => {
      await lun.heal();
    },
    state: /failed/,
  },
  {
    name: "hangs, and its late writes land",
    begin: async (lun) => {
      await lun.hang();
    },
    end: async (lun) => {
      await lun.release();
    },
    state: /late|stuck/,
  },
];

describe("a LUN whose path fails under the holder of a lease", function () {
  this.timeout(60_000);
  let lun: FaultyLun;
  let cluster: Cluster | undefined;
  let n1: TestNode;
  let n2: TestNode;

  before(async function () {
    skipIf(this, whyNoFaultyLun());
    const workspace = new Workspace("faults-lun");
    lun = await createFaultyLun({ sizeBytes: 32 * 1024 * 1024 });
    workspace.defer("close the faulty LUN", async () => {
      await lun.close();
    });
    cluster = await Cluster.make("lun", { workspace, luns: [lun.backingPath] });
    [n1, n2] = await Promise.all([
      cluster.joined("n1", { luns: [lun.path] }),
      cluster.joined("n2"),
    ]);
    workspace.defer("end the fault", async () => {
      await lun.drop();
      await lun.heal();
    });
    expectDone(await n1.cli("lease", "create", "job"));
  });

  after(async () => {
    await cluster?.clean();
  });

  for (const fault of FAULTS) {
    it(`${fault.name}: the holder has lost, another takes over, the holder comes back`, async () => {
      const generation = await generationOf(n1);
      expectDone(await n1.cli("lease", "acquire", "job"));
      const startedMs = performance.now();
      await fault.begin(lun);
      const waiting = n2.cli("lease", "acquire", "job", "--wait", "20", "--json");
      await until("n1 says what is wrong with the LUN", 5_000, async () =>
        (await n1.status()).luns.some((one) => fault.state.test(one.state)),
      );
      const state = await until("n1 has lost", 6_000, async () => {
        const status = await n1.status();
        return status.node.state !== "joined" && status.node.why !== null ? status : undefined;
      });
      assert.match(state.node.why ?? "", /\w/);
      assert.equal(await heldVersion(n1, "job"), undefined, "it does not say that it holds it");
      expectDone(await waiting);
      const tookMs = performance.now() - startedMs;
      // B + margin = W + d + 2 s = 2.8 s after the last change, which may be up to h + d before the fault.
      assert(tookMs > 2_000, `taken over after only ${tookMs} ms`);
      const [takeOver] = (await eventsOf(n2, "take-over")).slice(-1);
      assert.match(JSON.stringify(takeOver), /expired-guard/);
      const version = await heldVersion(n2, "job");
      await fault.end(lun);
      await untilRejoined(n1, generation, 25_000);
      const refused = await n1.cli("lease", "acquire", "job", "--json");
      expectError(refused, { exitCode: 1, code: "ERR_LEASE_HELD", message: /n2/ });
      assert.equal(await heldVersion(n2, "job"), version);
      assert(
        (await n1.status()).luns.every((one) => one.state === "ok"),
        "nothing is stuck",
      );
      expectDone(await n2.cli("lease", "release", "job"));
      expectDone(await n1.cli("lease", "acquire", "job"));
      expectDone(await n1.cli("lease", "release", "job"));
    });
  }
});
