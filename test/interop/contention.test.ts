/** (c) One real sanlock daemon and two of our nodes want one lease, over and over. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { AREA, areaOffset, geometryOf } from "../../lib/format/geometry.js";
import { PROFILES } from "../../lib/lease/timings.js";
import { type LunDevice } from "../../lib/port/disk.js";
import { openLun } from "../../lib/system/lun-device.js";
import { Workspace } from "../helpers/workspace.js";
import { MAX_HOSTS, SPACE, writeRegion } from "./image.js";
import { OurNode } from "./our-node.js";
import { buildClient, SanlockDaemon, whyNoSanlock } from "./sanlock.js";
import { skipIf } from "../helpers/skip.js";

const geometry = geometryOf(512);
const COUNTER_SIZE = 4096;
/** Grants that all three have together. */
const GRANTS = 2_000;
const LIMIT_MS = 100_000;

/** What an owner found out about the others; see client.c, which does the same for the sanlock daemon. */
interface Tally {
  grants: number;
  overlaps: number;
  regressions: number;
  worstWaitMs: number;
}

const missing = whyNoSanlock();
const skipped = missing === undefined ? "" : ` (skipped: ${missing})`;

describe(`interop (c): a sanlock daemon and two of our nodes contend${skipped}`, function () {
  this.timeout(150_000);
  let workspace: Workspace;

  before(function () {
    skipIf(this, missing);
    workspace = new Workspace("interop-c");
  });

  after(async () => {
    if (missing === undefined) {
      assert.deepEqual(await workspace.clean(), []);
    }
  });

  it(`never two owners at once in ${GRANTS} grants, and both of ours get their share`, async function () {
    const path = workspace.path("region.img");
    const counterPath = workspace.path("counter");
    const size = writeRegion(path, geometry);
    writeFileSync(counterPath, new Uint8Array(COUNTER_SIZE));
    const daemon = await SanlockDaemon.start(workspace, 3);
    const [, ...nodes] = await Promise.all([
      daemon.askSlowly(
        "add_lockspace",
        "-s",
        `${SPACE}:3:${path}:${areaOffset(geometry, AREA.lockspace)}`,
        "-o",
        "1",
      ),
      ...[1, 2].map((hostId) =>
        OurNode.join({
          path,
          geometry,
          size,
          spaceName: SPACE,
          name: `node-${hostId}`,
          hostId,
          maxHosts: MAX_HOSTS,
          timings: PROFILES.default,
        }),
      ),
    ]);
    const client = daemon.client(
      buildClient(workspace),
      "contend",
      `${SPACE}:web:${path}:${areaOffset(geometry, AREA.firstResource)}`,
      counterPath,
      "3",
    );
    const counter = await openLun({
      path: counterPath,
      baseOffset: 0,
      size: COUNTER_SIZE,
      sectorSize: 512,
    });
    const startedMs = performance.now();
    let last = 0n;
    const isOver = (): boolean =>
      last >= BigInt(GRANTS) || performance.now() - startedMs > LIMIT_MS;
    const tallies = await Promise.all(
      nodes.map((node) =>
        contend(node, counter, isOver, (lver) => {
          last = lver;
        }),
      ),
    );
    const theirs = JSON.parse(await client.finish()) as Record<string, number>;
    const ours = tallies.reduce((sum, tally) => sum + tally.grants, 0);
    const total = ours + (theirs["grants"] ?? 0);
    const shares = tallies.map((tally) => tally.grants / ours);
    const seconds = (performance.now() - startedMs) / 1_000;
    const figures = [
      `${total} in ${seconds.toFixed(1)} s: ours ${tallies.map((tally) => tally.grants).join(" + ")}`,
      `sanlock ${String(theirs["grants"])} (${String(theirs["refusals"])} refusals)`,
      `longest wait of ours ${tallies.map((tally) => tally.worstWaitMs.toFixed(0)).join(", ")} ms`,
    ];
    this.test!.title += ` [${figures.join("; ")}]`;

    const { sector, count } = await readCounter(counter);
    assert.equal(count, BigInt(total), "every grant counted exactly once");
    assert.equal(sector.getBigUint64(16, true), 0n, "nobody is inside at the end");
    for (const tally of tallies) {
      assert.equal(tally.overlaps, 0, "two owners at once");
      assert.equal(tally.regressions, 0, "lver went back");
    }
    assert.deepEqual(
      [theirs["overlaps"], theirs["regressions"], theirs["failures"]],
      [0, 0, 0],
      "as the sanlock client saw it",
    );
    assert(total >= GRANTS, `${total} grants in ${seconds.toFixed(0)} s`);
    assert((theirs["grants"] ?? 0) >= 20, "the daemon took part");
    for (const share of shares) {
      assert(share >= 0.4 && share <= 0.6, `shares of our nodes: ${shares.join(", ")}`);
    }
    for (const node of nodes) {
      assert.equal(node.loss, undefined);
      assert(node.pets > 0, "its watchdog was petted");
      await node.leave();
    }
    await counter.close();
    await daemon.end();
  });
});

async function contend(
  node: OurNode,
  counter: LunDevice,
  isOver: () => boolean,
  granted: (lver: bigint) => void,
): Promise<Tally> {
  const tally: Tally = { grants: 0, overlaps: 0, regressions: 0, worstWaitMs: 0 };
  const address = node.addressOf(AREA.firstResource, "web", MAX_HOSTS);
  while (!isOver()) {
    const askedMs = performance.now();
    const outcome = await node.acquire(address, { waitMs: 60_000 });
    assert(outcome.kind === "granted", JSON.stringify(outcome, bigintToText));
    tally.worstWaitMs = Math.max(tally.worstWaitMs, performance.now() - askedMs);
    tally.grants++;
    const { lver } = outcome.held.leader;
    granted(lver);
    const before = await readCounter(counter);
    tally.overlaps += before.sector.getBigUint64(16, true) === 0n ? 0 : 1;
    tally.regressions += before.sector.getBigUint64(8, true) < lver ? 0 : 1;
    await writeCounter(counter, before.count + 1n, lver, BigInt(node.hostId));
    await new Promise((resolve) => setImmediate(resolve));
    const after = await readCounter(counter);
    const isMine =
      after.count === before.count + 1n &&
      after.sector.getBigUint64(16, true) === BigInt(node.hostId);
    tally.overlaps += isMine ? 0 : 1;
    await writeCounter(counter, before.count + 1n, lver, 0n);
    await node.release(address.area);
  }
  return tally;
}

async function readCounter(
  counter: LunDevice,
): Promise<{ readonly sector: DataView; readonly count: bigint }> {
  const result = await counter.submit([{ kind: "read", offset: 0, length: 512 }], 5_000);
  assert(result.kind === "done");
  const bytes = result.reads[0];
  assert(bytes !== undefined);
  const sector = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { sector, count: sector.getBigUint64(0, true) };
}

async function writeCounter(
  counter: LunDevice,
  count: bigint,
  lver: bigint,
  inside: bigint,
): Promise<void> {
  const data = new Uint8Array(512);
  const view = new DataView(data.buffer);
  view.setBigUint64(0, count, true);
  view.setBigUint64(8, lver, true);
  view.setBigUint64(16, inside, true);
  const result = await counter.submit([{ kind: "write", offset: 0, data }], 5_000);
  assert.equal(result.kind, "done");
}

function bigintToText(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}
