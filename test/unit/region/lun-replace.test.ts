import assert from "node:assert/strict";
import { copyFileSync, readFileSync, rmSync } from "node:fs";

import { geometryOf } from "../../../lib/format/geometry.js";
import { superblockOffsets } from "../../../lib/format/superblock.js";
import { lookupLease } from "../../../lib/lease/lease-index.js";
import { type HeldLease, releaseLeader } from "../../../lib/lease/ballot.js";
import { replaceLun } from "../../../lib/region/lun-replace.js";
import { type Region } from "../../../lib/region/open-region.js";
import { runProcedure } from "../../../lib/region/run-procedure.js";
import {
  acquire,
  Cluster,
  memberOf,
  mustAcquire,
  mustCreate,
  mustLookup,
  overwrite,
  refused,
  termsOf,
} from "./clusters.js";

const MIB = 1024 * 1024;
const VERSION_OFFSET = 8;

/** `sharedha lun replace`: takes the lease of the configuration, replaces, gives it back. */
async function replace(
  region: Region,
  hostId: number,
  path: string,
  force = false,
): Promise<bigint> {
  const held: HeldLease = await mustAcquire(
    region,
    hostId,
    await mustLookup(region, "sharedha:config"),
  );
  const report = await replaceLun({ region, path, force, held, hasRight: () => true });
  const { luns, self } = termsOf(region, hostId);
  const released = await runProcedure(releaseLeader(luns, self, held, false), memberOf(region));
  assert.equal(released.kind, "released");
  return report.epoch;
}

/** What the file held at an earlier time: a LUN that was away, by the same inode. */
function goBack(path: string, image: Uint8Array): void {
  overwrite(path, 0, image);
}

describe("lun-replace", function () {
  this.timeout(60_000);
  let cluster: Cluster;

  beforeEach(() => {
    cluster = new Cluster();
  });

  afterEach(async () => {
    await cluster.dispose();
  });

  it("LUN 3 stale, then LUN 2 blank, while a lease is held: nobody else gets it", async () => {
    const paths = await cluster.init(["a", "b", "c"]);
    const [a = "", b = "", c = ""] = paths;
    const one = await cluster.open(paths);
    const address = await mustCreate(one, "web");
    const before = readFileSync(c);
    const held = await mustAcquire(one, 1, address);
    assert.equal(held.leader.lver, 2n, "a new lease begins above every other");

    // LUN 3 was away while the lease was taken.
    goBack(c, before);
    const two = await cluster.open(paths);
    assert.deepEqual(
      two.lunSet.counts,
      [true, true, true],
      "stale with its identity counts at once",
    );
    assert.equal((await acquire(two, 2, address)).kind, "held");

    // LUN 2 is replaced by a blank disk. LUN 1 away too: only the stale LUN 3 could answer, and that is no majority.
    overwrite(b, 0, new Uint8Array(12 * MIB));
    const three = await cluster.open([a, b, c]);
    assert.deepEqual(three.lunSet.counts, [true, false, true]);
    assert.equal((await acquire(three, 2, address)).kind, "held");
    const onlyStale = {
      ...memberOf(three),
      devices: [three.devices[1]!, three.devices[1]!, three.devices[2]!],
    };
    const terms = { ...termsOf(three, 2), address, shared: false };
    const look = await runProcedure(lookupLease(terms, "web"), onlyStale);
    assert.equal(look.kind, "no-quorum", "blank and stale together are no majority");

    // `lun replace` copies a majority's highest records; then LUN 2 and LUN 3 alone know who holds it.
    await replace(three, 3, b);
    await three.reprobe();
    assert.deepEqual(three.lunSet.counts, [true, true, true]);
    rmSync(a);
    const four = await cluster.open([a, b, c]);
    assert.deepEqual(four.lunSet.counts, [false, true, true]);
    const outcome = await acquire(four, 2, address);
    assert(outcome.kind === "held");
    assert.deepEqual(
      outcome.holders.map(({ hostId, lver }) => [hostId, lver]),
      [[1, 2n]],
    );
  });

  it("stops counting the lost LUN for a process that still reaches it", async () => {
    const paths = await cluster.init(["a", "b", "c"]);
    const [a = "", b = "", c = ""] = paths;
    const far = await cluster.open(paths);
    const address = await mustCreate(far, "web");
    // This process cannot see LUN 3 (another path to it is cut); `far` can.
    const spare = cluster.workshop.file("d", 12 * MIB);
    const near = await cluster.open([a, b, spare]);
    const epoch = await replace(near, 1, spare);
    assert(epoch > 1n);
    assert.deepEqual(near.lunSet.counts, [true, true, true]);
    // The first batch of `far` meets the new set; from then on LUN 3 does not count.
    await acquire(far, 2, address);
    await far.reprobe();
    assert.deepEqual(far.lunSet.counts, [true, true, false]);
    assert.equal(far.superblock.epoch, epoch);
    // LUN 3 cannot come back under the old set.
    await refused(
      "ERR_LUN_REPLACED",
      cluster.open([a, c, cluster.workshop.file("blank", 12 * MIB)]),
    );
    await refused("ERR_LUN_REPLACED", cluster.open([c, cluster.path("none"), a]));
  });

  it("refuses a LUN that is in the set, one with data, one that is too small, and when none is lost", async () => {
    const paths = await cluster.init(["a", "b", "c"]);
    const [a = "", b = "", c = ""] = paths;
    const whole = await cluster.open(paths);
    const spare = cluster.workshop.file("spare", 12 * MIB);
    const config = await mustAcquire(whole, 1, await mustLookup(whole, "sharedha:config"));
    const none = { region: whole, held: config, hasRight: () => true, force: true, path: spare };
    await refused("ERR_REPLACE_NOT_POSSIBLE", replaceLun(none));
    copyFileSync(c, cluster.path("copy"));
    rmSync(c);
    const region = await cluster.open([a, b, c]);
    const options = { region, held: config, hasRight: () => true, force: false };
    await refused("ERR_SAME_LUN_TWICE", replaceLun({ ...options, path: a }));
    await refused("ERR_DEVICE_HAS_DATA", replaceLun({ ...options, path: cluster.path("copy") }));
    const small = cluster.workshop.file("small", 8 * MIB);
    await refused("ERR_LUN_TOO_SMALL", replaceLun({ ...options, path: small }));
    await refused("ERR_LEASE_LOST", replaceLun({ ...options, path: spare, hasRight: () => false }));
    assert.equal(region.superblock.epoch, 1n);
    assert(readFileSync(spare).every((byte) => byte === 0));
  });

  it("with force takes a device with data, but none of the set, of a newer version or in use", async () => {
    const paths = await cluster.init(["a", "b", "c"]);
    const [a = "", b = "", c = ""] = paths;
    const [copy, newer] = [cluster.path("copy"), cluster.path("newer")];
    copyFileSync(c, copy);
    copyFileSync(c, newer);
    for (const offset of superblockOffsets(geometryOf(512))) {
      overwrite(newer, offset + VERSION_OFFSET, Uint8Array.of(9));
    }
    rmSync(c);
    const region = await cluster.open([a, b, copy]);
    assert.deepEqual(region.lunSet.counts, [true, true, false], "a copy counts for nothing");
    const held = await mustAcquire(region, 1, await mustLookup(region, "sharedha:config"));
    const forced = { region, held, hasRight: () => true, force: true };
    await refused("ERR_SAME_LUN_TWICE", replaceLun({ ...forced, path: a }));
    await refused("ERR_NEWER_VERSION", replaceLun({ ...forced, path: newer }));
    const small = cluster.workshop.file("small", 8 * MIB);
    await refused("ERR_LUN_TOO_SMALL", replaceLun({ ...forced, path: small }));
    await refused("ERR_NO_SUCH_DEVICE", replaceLun({ ...forced, path: cluster.path("none") }));
    await refused("ERR_NOT_A_DEVICE", replaceLun({ ...forced, path: "/dev/null" }));
    await refused("ERR_DEVICE_HAS_DATA", replaceLun({ ...forced, force: false, path: copy }));
    assert.equal(region.superblock.epoch, 1n);
    await replaceLun({ ...forced, path: copy });
    assert.deepEqual(region.lunSet.counts, [true, true, true]);
  });
});
