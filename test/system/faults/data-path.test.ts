/**
 * The path to the LUN that carries lock region and data fails under a mounted group: the node tears down what is mounted,
 * another mounts it over a good path, and every record that was acknowledged is there. What hangs is dropped at the end and
 * never lands; of writes that land late no process on the node can say anything, and only the guard's weaker evidence
 * stands for it here (docs/design.md section 8).
 */
import assert from "node:assert/strict";

import { createFaultyLun, type FaultyLun, whyNoFaultyLun } from "../../helpers/hanging-lun.js";
import { type TestNode } from "../../helpers/nodes.js";
import { Workspace } from "../../helpers/workspace.js";
import {
  checkRecords,
  type Cluster,
  eventsOf,
  expectDone,
  generationOf,
  makeWithData,
  recordsOf,
  untilRejoined,
  Writer,
} from "./harness.js";
import { skipIf } from "../../helpers/skip.js";

describe("a data path that fails under a mounted group", function () {
  this.timeout(90_000);
  let lun: FaultyLun;
  let cluster: Cluster | undefined;
  let dataDir: string;
  let n1: TestNode;
  let n2: TestNode;

  before(async function () {
    skipIf(this, whyNoFaultyLun());
    const workspace = new Workspace("faults-data");
    lun = await createFaultyLun({ sizeBytes: 128 * 1024 * 1024 });
    workspace.defer("close the faulty LUN", async () => {
      await lun.close();
    });
    ({ cluster, dataDir } = await makeWithData("data", "fast", {
      workspace,
      luns: [lun.backingPath],
    }));
    [n1, n2] = await Promise.all([
      cluster.joined("n1", { luns: [lun.path], mountNamespace: true }),
      cluster.joined("n2", { mountNamespace: true }),
    ]);
    workspace.defer("end the fault", async () => {
      await lun.drop();
      await lun.heal();
    });
  });

  after(async () => {
    await cluster?.clean();
  });

  async function failsOver(
    file: string,
    begin: () => Promise<void>,
    end: () => Promise<void>,
  ): Promise<void> {
    const generation = await generationOf(n1);
    expectDone(await n1.cli("reserve", "data"));
    const writer = new Writer(n1, `${dataDir}/${file}`);
    await writer.untilAcknowledged(10);
    await begin();
    expectDone(await n2.cli("reserve", "data", "--wait", "30"));
    const [takeOver] = (await eventsOf(n2, "take-over")).slice(-1);
    assert.match(JSON.stringify(takeOver), /expired-guard/);
    const found = recordsOf(n2, writer.path);
    assert(found.length >= writer.acknowledged);
    const other = new Writer(n2, `${dataDir}/${file}-n2`);
    await other.untilAcknowledged(10);
    await end();
    await writer.ended;
    checkRecords(found, writer.acknowledged);
    await untilRejoined(n1, generation, 30_000);
    await other.untilAcknowledged(other.acknowledged + 10);
    await other.stop();
    checkRecords(recordsOf(n2, other.path), other.acknowledged);
    assert.deepEqual(recordsOf(n2, writer.path), found);
    expectDone(await n2.cli("release", "data"));
    expectDone(await n1.cli("reserve", "data"));
    checkRecords(recordsOf(n1, other.path), other.acknowledged);
    expectDone(await n1.cli("release", "data"));
  }

  it("returns EIO", async () => {
    await failsOver(
      "eio",
      async () => {
        await lun.failWith("EIO");
      },
      async () => {
        await lun.heal();
      },
    );
  });

  it("hangs", async () => {
    await failsOver(
      "hang",
      async () => {
        await lun.hang();
      },
      async () => {
        await lun.drop();
      },
    );
  });
});
