import assert from "node:assert/strict";

import { configSlotOffset, encodeConfigSlot } from "../../../lib/format/config-slot.js";
import { AREA, geometryOf } from "../../../lib/format/geometry.js";
import { ZERO_STAMP, type Stamp } from "../../../lib/format/stamp.js";
import { acquireLease } from "../../../lib/lease/acquire.js";
import { type HeldLease, releaseLeader } from "../../../lib/lease/ballot.js";
import {
  readConfig,
  writeConfig,
  type WriteConfigTerms,
} from "../../../lib/lease/config-decision.js";
import { freeLeader, leaseWrites } from "../../../lib/lease/fresh-lease.js";
import { type DiskProcedure, type LunSet, type Turn } from "../../../lib/lease/procedure.js";
import { type WriteOp } from "../../../lib/port/disk.js";
import { MemoryLuns } from "../../helpers/memory-luns.js";

const g = geometryOf(512);
const NAME = "sharedha:config";

interface Faults {
  readonly down?: readonly number[];
  /** Called before each batch. */
  readonly before?: (batch: number) => void;
}

function run<T>(luns: MemoryLuns, procedure: DiskProcedure<T>, faults: Faults = {}): T {
  const standing = { renewedAtMs: 0, ttlMs: Infinity, lost: false, armed: true };
  let batch = 0;
  let step = procedure.next();
  while (step.done !== true) {
    const request = step.value;
    faults.before?.(++batch);
    const results =
      request.kind !== "io"
        ? []
        : Array.from({ length: luns.count }, (_, lun): Turn["luns"][number] =>
            faults.down?.includes(lun) === true
              ? { kind: "late" }
              : {
                  kind: "done",
                  reads: request.ops.flatMap((op) => luns.perform(lun, op) ?? []),
                  timings: request.ops.map(() => ({ startedMs: 0, completedMs: 0 })),
                },
          );
    step = procedure.next({ nowMs: 0, standing, luns: results, accepted: true });
  }
  return step.value;
}

function slot(hostId: number, sub: 0 | 1, stamp: Stamp, text: string): WriteOp {
  const data = encodeConfigSlot(g, { hostId, stamp, epoch: 1n, text });
  return { kind: "write", offset: configSlotOffset(g, hostId, sub), data };
}

class World {
  readonly luns: MemoryLuns;
  readonly lunSet: LunSet;

  constructor(count: 1 | 3) {
    this.luns = new MemoryLuns(g, count);
    this.lunSet = { total: count, counts: Array.from({ length: count }, () => true) };
    this.luns.writeAll(
      ...leaseWrites(g, AREA.firstResource, freeLeader(g, "demo", NAME, 4, 0n)),
      slot(1, 0, ZERO_STAMP, "first"),
    );
  }

  get place(): { geometry: typeof g; luns: LunSet; maxHosts: number } {
    return { geometry: g, luns: this.lunSet, maxHosts: 4 };
  }

  hold(hostId: number, evidence = false): HeldLease {
    const outcome = run(
      this.luns,
      acquireLease({
        address: {
          geometry: g,
          area: AREA.firstResource,
          spaceName: "demo",
          resourceName: NAME,
          numHosts: 4,
        },
        luns: this.lunSet,
        self: { hostId, generation: 1n },
        shared: false,
        timestamp: 1n,
        wallSeconds: 1n,
        random: { below: () => 0, u64: () => 0n },
        evidenceFor: (id, generation) =>
          evidence ? { kind: "expired", hostId: id, generation, detail: "test" } : undefined,
      }),
    );
    assert(outcome.kind === "granted", outcome.kind);
    return outcome.held;
  }

  release(held: HeldLease): void {
    const self = { hostId: Number(held.leader.ownerId), generation: 1n };
    assert.equal(run(this.luns, releaseLeader(this.lunSet, self, held, false)).kind, "released");
  }

  terms(held: HeldLease, text: string, changes: Partial<WriteConfigTerms> = {}): WriteConfigTerms {
    const hostId = Number(held.leader.ownerId);
    return {
      ...this.place,
      hostId,
      held,
      epoch: 1n,
      basedOn: undefined,
      seen: ZERO_STAMP,
      text,
      ...changes,
    };
  }

  text(faults: Faults = {}): string {
    const outcome = run(this.luns, readConfig(this.place, ZERO_STAMP), faults);
    return outcome.kind === "ok" ? outcome.current.text : outcome.kind;
  }
}

describe("config-decision", () => {
  it("reads what init wrote, then what was written last, by whichever host", () => {
    const world = new World(1);
    assert.equal(world.text(), "first");
    for (const [hostId, text] of [
      [2, "two"],
      [3, "three"],
      [2, "four"],
      [2, "five"],
    ] as const) {
      const held = world.hold(hostId);
      const outcome = run(world.luns, writeConfig(world.terms(held, text)));
      assert.equal(outcome.kind, "written");
      world.release(held);
      assert.equal(world.text(), text);
    }
    const outcome = run(world.luns, readConfig(world.place, ZERO_STAMP));
    assert(outcome.kind === "ok");
    // Host 2's two newest, host 3's, and the first one: what undo and audit go back to.
    assert.deepEqual(
      outcome.history.map(({ text }) => text),
      ["five", "four", "three", "first"],
    );
  });

  it("hazard H14: a write that lands late is never current again", () => {
    const world = new World(1);
    const one = world.hold(1);
    const two = ((): HeldLease => {
      world.release(one);
      return world.hold(2);
    })();
    run(world.luns, writeConfig(world.terms(two, "new")));
    // Host 1's old write, under its old lver, reaches the medium now.
    world.luns.writeAll(slot(1, 1, { lver: one.leader.lver, generation: 9n }, "late"));
    assert.equal(world.text(), "new");
  });

  it("refuses a change that was made from an older version", () => {
    const world = new World(1);
    const held = world.hold(2);
    const first = run(world.luns, writeConfig(world.terms(held, "a", { basedOn: ZERO_STAMP })));
    assert(first.kind === "written");
    const outcome = run(world.luns, writeConfig(world.terms(held, "b", { basedOn: ZERO_STAMP })));
    assert.deepEqual(outcome, { kind: "conflict", current: first.stamp });
    assert.equal(world.text(), "a");
    assert.equal(
      run(world.luns, writeConfig(world.terms(held, "b", { basedOn: first.stamp }))).kind,
      "written",
    );
  });

  it("does not report success when the lease went to somebody else before the second look", () => {
    const world = new World(1);
    const held = world.hold(2);
    const outcome = run(world.luns, writeConfig(world.terms(held, "mine")), {
      before: (batch) => {
        if (batch === 2) {
          world.hold(3, true);
        }
      },
    });
    assert.equal(outcome.kind, "lost");
  });

  it("does not write under a lease that is older than what is there", () => {
    const world = new World(1);
    const held = world.hold(2);
    world.luns.writeAll(slot(3, 0, { lver: held.leader.lver + 1n, generation: 1n }, "newer"));
    assert.equal(run(world.luns, writeConfig(world.terms(held, "mine"))).kind, "lost");
    assert.equal(world.text(), "newer");
  });

  it("never overwrites its own newest slot", () => {
    const world = new World(1);
    const held = world.hold(2);
    const written: number[] = [];
    for (const text of ["a", "b", "c"]) {
      const before = [0, 1].map((sub) => world.luns.read(0, configSlotOffset(g, 2, sub as 0 | 1)));
      run(world.luns, writeConfig(world.terms(held, text)));
      written.push(
        [0, 1].findIndex(
          (sub) =>
            Buffer.compare(
              before[sub]!,
              world.luns.read(0, configSlotOffset(g, 2, sub as 0 | 1)),
            ) !== 0,
        ),
      );
    }
    assert.deepEqual(written, [0, 1, 0]);
  });

  it("a reader that saw a higher stamp refuses a lower one", () => {
    const world = new World(1);
    const seen = { lver: 7n, generation: 1n };
    const outcome = run(world.luns, readConfig(world.place, seen));
    assert.deepEqual(outcome, { kind: "rolled-back", seen, found: ZERO_STAMP });
    const held = world.hold(2);
    assert.equal(
      run(world.luns, writeConfig(world.terms(held, "x", { seen }))).kind,
      "rolled-back",
    );
  });

  it("three LUNs: a stale one changes nothing, a minority's write is not settled, a minority reads nothing", () => {
    const world = new World(3);
    const stale = world.luns.copy(2);
    const held = world.hold(2);
    assert.equal(
      run(world.luns, writeConfig(world.terms(held, "new")), { down: [2] }).kind,
      "written",
    );
    world.luns.restore(2, stale);
    for (const down of [[0], [1], [2]]) {
      assert.equal(world.text({ down }), "new");
    }
    assert.equal(world.text({ down: [0, 1] }), "no-quorum");
    const partial = slot(3, 0, { lver: 99n, generation: 1n }, "partial");
    world.luns.perform(0, partial);
    const outcome = run(world.luns, readConfig(world.place, ZERO_STAMP));
    assert(outcome.kind === "ok");
    assert.equal(outcome.isSettled, false);
    assert.equal(
      run(world.luns, writeConfig(world.terms(held, "x")), { down: [0, 1] }).kind,
      "no-quorum",
    );
  });

  it("skips slots that are damaged or stand in another host's place", () => {
    const world = new World(1);
    const moved = slot(3, 0, { lver: 99n, generation: 1n }, "moved");
    world.luns.writeAll({ ...moved, offset: configSlotOffset(g, 4, 0) });
    const torn = slot(2, 0, { lver: 98n, generation: 1n }, "torn");
    torn.data[65]! ^= 1;
    world.luns.writeAll(torn);
    assert.equal(world.text(), "first");
  });
});
