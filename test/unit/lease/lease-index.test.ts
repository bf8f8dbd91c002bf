import assert from "node:assert/strict";

import { AREA, areaOffset, geometryOf, leaderOffset } from "../../../lib/format/geometry.js";
import {
  encodeRindexHeader,
  RINDEX_LEASE_NAME,
  RINDEX_VERSION,
} from "../../../lib/format/rindex.js";
import { acquireLease } from "../../../lib/lease/acquire.js";
import { type HeldLease, releaseLeader } from "../../../lib/lease/ballot.js";
import { freeLeader, leaseWrites } from "../../../lib/lease/fresh-lease.js";
import {
  createLease,
  deleteLease,
  type IndexTerms,
  listLeases,
  lookupLease,
  type NamedLease,
} from "../../../lib/lease/lease-index.js";
import { type DiskProcedure, type LunSet, type Turn } from "../../../lib/lease/procedure.js";
import { MemoryLuns } from "../../helpers/memory-luns.js";

const g = geometryOf(512);
const SPACE = "demo";
const AREAS = 12;

/** Performs a procedure at once on all LUNs but those that are `down`. */
function run<T>(
  luns: MemoryLuns,
  procedure: DiskProcedure<T>,
  down: readonly number[] = [],
  lost = false,
): T {
  const standing = { renewedAtMs: 0, ttlMs: Infinity, lost, armed: true };
  let step = procedure.next();
  while (step.done !== true) {
    const request = step.value;
    const results =
      request.kind !== "io"
        ? []
        : Array.from({ length: luns.count }, (_, lun): Turn["luns"][number] => {
            if (down.includes(lun)) {
              return { kind: "failed", code: "EIO", message: "down" };
            }
            const reads = request.ops.flatMap((op) => luns.perform(lun, op) ?? []);
            return {
              kind: "done",
              reads,
              timings: request.ops.map(() => ({ startedMs: 0, completedMs: 0 })),
            };
          });
    step = procedure.next({ nowMs: 0, standing, luns: results, accepted: true });
  }
  return step.value;
}

function fresh(count: 1 | 3): { luns: MemoryLuns; terms: IndexTerms; lunSet: LunSet } {
  const luns = new MemoryLuns(g, count);
  const lunSet: LunSet = { total: count, counts: Array.from({ length: count }, () => true) };
  luns.writeAll(
    {
      kind: "write",
      offset: areaOffset(g, AREA.rindex),
      data: encodeRindexHeader({
        version: RINDEX_VERSION,
        geometry: g,
        maxResources: AREAS - AREA.firstResource,
        offset: BigInt(areaOffset(g, AREA.rindex)),
        spaceName: SPACE,
      }),
    },
    ...leaseWrites(g, AREA.rindexLease, freeLeader(g, SPACE, RINDEX_LEASE_NAME, 4, 0n)),
  );
  const terms: IndexTerms = {
    geometry: g,
    luns: lunSet,
    spaceName: SPACE,
    areaCount: AREAS,
    maxHosts: 4,
    self: { hostId: 1, generation: 1n },
    timestamp: 5n,
    wallSeconds: 5n,
    random: { below: () => 0, u64: () => 0n },
    evidenceFor: () => undefined,
  };
  return { luns, terms, lunSet };
}

function mustCreate(
  luns: MemoryLuns,
  terms: IndexTerms,
  name: string,
  down: readonly number[] = [],
): NamedLease {
  const outcome = run(luns, createLease(terms, name), down);
  assert(outcome.kind === "created", outcome.kind);
  return outcome.lease;
}

function mustHold(luns: MemoryLuns, terms: IndexTerms, lease: NamedLease): HeldLease {
  const { address } = lease;
  const outcome = run(luns, acquireLease({ ...terms, address, shared: false }));
  assert(outcome.kind === "granted", outcome.kind);
  return outcome.held;
}

function names(
  luns: MemoryLuns,
  terms: IndexTerms,
  down: readonly number[] = [],
): readonly string[] {
  const outcome = run(luns, listLeases(terms), down);
  assert(outcome.kind === "list");
  return outcome.leases.map(({ address }) => address.resourceName);
}

/** Notes how many commands each batch has. */
function* counting<T>(procedure: DiskProcedure<T>, sizes: number[]): DiskProcedure<T> {
  let step = procedure.next();
  while (step.done !== true) {
    if (step.value.kind === "io") {
      sizes.push(step.value.ops.length);
    }
    step = procedure.next(yield step.value);
  }
  return step.value;
}

describe("lease-index", () => {
  it("reads no more in one deadline than a heartbeat does, so that a slow LUN can be listed too", () => {
    const { luns, terms } = fresh(1);
    mustCreate(luns, terms, "web");
    const sizes: number[] = [];
    assert.equal(run(luns, counting(listLeases(terms), sizes)).kind, "list");
    assert.equal(run(luns, counting(lookupLease(terms, "none"), sizes)).kind, "missing");
    assert(sizes.length > 4 && Math.max(...sizes) === 3, sizes.join(" "));
  });

  it("makes, finds, lists and deletes", () => {
    const { luns, terms } = fresh(1);
    assert.equal(run(luns, lookupLease(terms, "web")).kind, "missing");
    const web = mustCreate(luns, terms, "web");
    const db = mustCreate(luns, terms, "db");
    assert.deepEqual([web.address.area, db.address.area], [6, 7]);
    assert.deepEqual(names(luns, terms), ["web", "db"]);
    assert.equal(run(luns, createLease(terms, "web")).kind, "exists");
    const found = run(luns, lookupLease(terms, "db"));
    assert(found.kind === "found");
    assert.deepEqual(found.lease.address, db.address);
    assert.equal(found.lease.isIndexed, true);
    assert.equal(run(luns, deleteLease(terms, "web")).kind, "deleted");
    assert.deepEqual(names(luns, terms), ["db"]);
    assert.equal(run(luns, deleteLease(terms, "web")).kind, "missing");
  });

  it("refuses names that cannot be, and the index's own", () => {
    const { luns, terms } = fresh(1);
    for (const name of ["", "x".repeat(49), "a\nb", "a\\b", RINDEX_LEASE_NAME]) {
      assert.equal(run(luns, createLease(terms, name)).kind, "bad-name");
    }
  });

  it("is full when every area has a lease", () => {
    const { luns, terms } = fresh(1);
    for (let n = 0; n < AREAS - AREA.firstResource; n++) {
      mustCreate(luns, terms, `l${n}`);
    }
    assert.deepEqual(run(luns, createLease(terms, "more")), { kind: "full", leases: 6 });
  });

  it("does not delete a lease that is held, and says by whom", () => {
    const { luns, terms } = fresh(1);
    const web = mustCreate(luns, terms, "web");
    const other = { ...terms, self: { hostId: 2, generation: 7n } };
    const held = mustHold(luns, other, web);
    const outcome = run(luns, deleteLease(terms, "web"));
    assert(outcome.kind === "held");
    assert.deepEqual(
      outcome.holders.map(({ hostId, generation }) => [hostId, generation]),
      [[2, 7n]],
    );
    assert.deepEqual(names(luns, terms), ["web"]);
    run(luns, releaseLeader(terms.luns, other.self, held, false));
    assert.equal(run(luns, deleteLease(terms, "web")).kind, "deleted");
  });

  it("a lease made again begins above its old versions, also in another area", () => {
    const { luns, terms } = fresh(1);
    const web = mustCreate(luns, terms, "web");
    const held = mustHold(luns, terms, web);
    run(luns, releaseLeader(terms.luns, terms.self, held, false));
    const deleted = run(luns, deleteLease(terms, "web"));
    assert(deleted.kind === "deleted");
    const again = mustCreate(luns, terms, "web");
    assert(again.leader.lver > deleted.lver);
    const next = run(luns, deleteLease(terms, "web"));
    assert(next.kind === "deleted");
    // Every other area is used up, so "db" gets the old area of "web".
    for (let n = 0; n < 5; n++) {
      mustCreate(luns, terms, `l${n}`);
    }
    mustCreate(luns, terms, "db");
    run(luns, deleteLease(terms, "l0"));
    assert(mustCreate(luns, terms, "web").leader.lver > next.lver);
  });

  it("finds a lease whose entry was lost, and writes the entry again", () => {
    const { luns, terms } = fresh(1);
    const web = mustCreate(luns, terms, "web");
    const entries = {
      kind: "write",
      offset: areaOffset(g, AREA.rindex) + 512,
      data: new Uint8Array(512),
    } as const;
    luns.writeAll(entries);
    const found = run(luns, lookupLease(terms, "web"));
    assert(found.kind === "found" && !found.lease.isIndexed);
    assert.deepEqual(found.lease.address, web.address);
    assert.equal(run(luns, createLease(terms, "web")).kind, "exists");
    const again = run(luns, lookupLease(terms, "web"));
    assert(again.kind === "found" && again.lease.isIndexed);
  });

  it("an entry whose lease is gone names nothing", () => {
    const { luns, terms } = fresh(1);
    const web = mustCreate(luns, terms, "web");
    luns.writeAll({
      kind: "write",
      offset: leaderOffset(g, web.address.area),
      data: new Uint8Array(512),
    });
    assert.equal(run(luns, lookupLease(terms, "web")).kind, "missing");
    assert.equal(mustCreate(luns, terms, "web").address.area, web.address.area);
  });

  it("a stale LUN neither brings a deleted lease back nor moves one that was made again", () => {
    const { luns, terms } = fresh(3);
    const web = mustCreate(luns, terms, "web");
    const db = mustCreate(luns, terms, "db");
    const stale = luns.copy(2);
    assert.equal(run(luns, deleteLease(terms, "web"), [2]).kind, "deleted");
    assert.equal(run(luns, deleteLease(terms, "db"), [2]).kind, "deleted");
    // "db" now lives where "web" was.
    const moved = mustCreate(luns, terms, "web2", [2]);
    luns.restore(2, stale);
    for (const down of [[0], [1], [2], []]) {
      assert.equal(
        run(luns, lookupLease(terms, "web"), down).kind,
        "missing",
        `without ${down.join()}`,
      );
      assert.equal(run(luns, lookupLease(terms, "db"), down).kind, "missing");
      assert.deepEqual(names(luns, terms, down), ["web2"]);
    }
    assert.notEqual(web.address.area, db.address.area);
    assert.equal(moved.leader.resourceName, "web2");
  });

  it("a minority changes nothing", () => {
    const { luns, terms } = fresh(3);
    assert.equal(run(luns, createLease(terms, "web"), [0, 1]).kind, "no-quorum");
    assert.equal(run(luns, deleteLease(terms, "web"), [0, 1]).kind, "no-quorum");
    assert.equal(run(luns, lookupLease(terms, "web"), [0, 2]).kind, "no-quorum");
    assert.deepEqual(names(luns, terms), []);
  });

  it("a host without the right to write changes nothing", () => {
    const { luns, terms } = fresh(1);
    assert.equal(run(luns, createLease(terms, "web"), [], true).kind, "not-armed");
    assert.deepEqual(names(luns, terms), []);
  });

  it("waits for nobody: the index held by a live host is an answer", () => {
    const { luns, terms } = fresh(1);
    const address = {
      geometry: g,
      area: AREA.rindexLease,
      spaceName: SPACE,
      resourceName: RINDEX_LEASE_NAME,
      numHosts: 4,
    };
    const other = { ...terms, self: { hostId: 2, generation: 1n } };
    assert.equal(run(luns, acquireLease({ ...other, address, shared: false })).kind, "granted");
    const outcome = run(luns, createLease(terms, "web"));
    assert(outcome.kind === "index-held");
    assert.equal(outcome.holders[0]?.hostId, 2);
  });
});
