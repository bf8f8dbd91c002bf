/** How a ballot or a release whose end nobody has seen is brought to an end. */
import assert from "node:assert/strict";

import { settleBallot } from "../../../lib/daemon/lease-adoption.js";
import { acquireLease } from "../../../lib/lease/acquire.js";
import { type HeldLease, releaseLeader } from "../../../lib/lease/ballot.js";
import { leaderOffset } from "../../../lib/format/geometry.js";
import { isLeaseFree, readLeaseOp, viewLease } from "../../../lib/lease/lease-view.js";
import { type DiskProcedure } from "../../../lib/lease/procedure.js";
import { type MemoryLuns } from "../../helpers/memory-luns.js";
import { healthyNode, ProcedureStepper } from "../../helpers/procedure-stepper.js";
import { acquireTerms, address, freshLuns, geometry, lunSetOf } from "../lease/samples.js";

const THREE = lunSetOf(3);
const TERMS = acquireTerms(1, { luns: THREE });

function run<T>(luns: MemoryLuns, procedure: DiskProcedure<T>, failing: readonly number[] = []): T {
  const node = healthyNode({
    fault: (lun) =>
      failing.includes(lun) ? { kind: "failed", code: "EIO", message: "" } : undefined,
  });
  return new ProcedureStepper(procedure, luns, THREE, node, { nowMs: 10_000 }).run();
}

function isFreeOn(luns: MemoryLuns, which: readonly number[]): boolean {
  const read = readLeaseOp(address);
  const done = which.map((lun) => ({
    lun,
    reads: [luns.read(lun, read.offset, read.length)],
    timings: [],
  }));
  const outcome = viewLease(address, THREE, done, 0);
  assert(outcome.kind === "view");
  return isLeaseFree(outcome.view);
}

function held(luns: MemoryLuns, shared: boolean): HeldLease {
  const outcome = run(luns, acquireLease({ ...TERMS, shared }));
  assert(outcome.kind === "granted");
  return outcome.held;
}

describe("settling", () => {
  it("finishes a release that reached a minority, before it counts: that minority may fail", () => {
    const luns = freshLuns(3);
    const lease = held(luns, false);
    const released = run(luns, releaseLeader(THREE, TERMS.self, lease, false), [1, 2]);
    assert.equal(released.kind, "unfinished");
    assert.ok(isFreeOn(luns, [0, 1]), "LUN 1 shows it as free");
    assert.equal(isFreeOn(luns, [1, 2]), false, "the others show it as held");
    assert.equal(run(luns, settleBallot(TERMS, lease.leader.lver)).kind, "settled");
    assert.ok(isFreeOn(luns, [1, 2]));
  });

  it("ends a shared hold that was left half-way", () => {
    const luns = freshLuns(3);
    const lease = held(luns, false);
    assert.equal(
      run(luns, releaseLeader(THREE, TERMS.self, lease, true), [1, 2]).kind,
      "unfinished",
    );
    assert.equal(run(luns, settleBallot(TERMS, lease.leader.lver)).kind, "settled");
    assert.ok(isFreeOn(luns, [1, 2]));
    const other = run(luns, acquireLease(acquireTerms(2, { luns: THREE })));
    assert.equal(other.kind, "granted", "nobody shares it any more");
  });

  it("is not done while the next lver, which an earlier try proposed, is open", () => {
    const luns = freshLuns(3);
    const lease = held(luns, false);
    run(luns, releaseLeader(THREE, TERMS.self, lease, false));
    // The commit of the next lver reaches nobody: proposed on all LUNs, decided, and unknown to everybody.
    const node = healthyNode({
      fault: (_, op) =>
        op.kind === "write" && op.offset === leaderOffset(geometry, address.area)
          ? { kind: "failed", code: "EIO", message: "" }
          : undefined,
    });
    const next = acquireLease(TERMS);
    const outcome = new ProcedureStepper(next, luns, THREE, node, { nowMs: 20_000 }).run();
    assert(outcome.kind === "undecided" && outcome.lver === lease.leader.lver + 1n);
    assert.equal(run(luns, settleBallot(TERMS, lease.leader.lver)).kind, "settled");
    assert.ok(isFreeOn(luns, [0, 1, 2]));
    const other = run(luns, acquireLease(acquireTerms(2, { luns: THREE })));
    assert.equal(other.kind, "granted", "nothing is left that would be decided for host 1");
    assert(other.held.leader.lver > outcome.lver);
  });

  it("does not write where a majority shows it free", () => {
    const luns = freshLuns(3);
    const lease = held(luns, false);
    assert.equal(run(luns, releaseLeader(THREE, TERMS.self, lease, false)).kind, "released");
    const before = luns.contentKey();
    assert.equal(run(luns, settleBallot(TERMS, lease.leader.lver)).kind, "settled");
    assert.equal(luns.contentKey(), before);
  });
});
