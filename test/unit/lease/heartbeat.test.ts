import assert from "node:assert/strict";

import {
  type DeltaSector,
  decodeDeltaSector,
  encodeDeltaSector,
} from "../../../lib/format/delta-sector.js";
import { deltaOffset, leaderOffset } from "../../../lib/format/geometry.js";
import { encodePaxosLeaderSector, type LeaderRecord } from "../../../lib/format/leader-record.js";
import { vacantRecord } from "../../../lib/lease/delta-lease.js";
import {
  type AfterRead,
  type AfterWrite,
  Heartbeat,
  type WatchedLease,
} from "../../../lib/lease/heartbeat.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { type BatchResult, type WriteOp } from "../../../lib/port/disk.js";
import { freeLeader, geometry, lunSetOf, SPACE } from "./samples.js";

const TIMINGS = PROFILES.default;
const HOST = 2;
const GENERATION = 4n;

function firstRecord(timestamp = 100n): DeltaSector {
  const vacant = vacantRecord(geometry, SPACE, TIMINGS, 1);
  return {
    ...vacant,
    leader: {
      ...vacant.leader,
      ownerId: BigInt(HOST),
      ownerGeneration: GENERATION,
      resourceName: "n2",
      timestamp,
    },
    host: { ...vacant.host!, watchdog: "hardware", joinEvidence: "free" },
  };
}

/** A heartbeat with its LUNs' own sectors as they are on disk. */
class Bench {
  readonly heartbeat: Heartbeat;
  readonly sectors: Uint8Array[];

  constructor(total: 1 | 3 | 5 = 1, resumedAtMs?: number) {
    const record = firstRecord();
    this.heartbeat = new Heartbeat({
      geometry,
      luns: lunSetOf(total),
      timings: TIMINGS,
      membership: { hostId: HOST, generation: GENERATION, record },
      resumedAtMs,
    });
    this.sectors = Array.from({ length: total }, () => encodeDeltaSector(geometry, record));
  }

  lockspace(lun = 0): Uint8Array {
    const bytes = new Uint8Array(3 * geometry.sectorSize);
    bytes.set(this.sectors[lun]!, (HOST - 1) * geometry.sectorSize);
    return bytes;
  }

  read(nowMs: number, lun = 0, leaders: readonly Uint8Array[] = []): AfterRead {
    return this.heartbeat.afterRead(lun, this.lockspace(lun), leaders, nowMs);
  }

  /** Begins a renewal; what it writes. */
  begin(nowMs: number, lun = 0, leaders: readonly Uint8Array[] = []): WriteOp {
    const next = this.read(nowMs, lun, leaders);
    assert(next.kind === "write", JSON.stringify(next));
    return next.op;
  }

  end(
    op: WriteOp,
    startedMs: number,
    completedMs: number,
    lun = 0,
    nowMs = completedMs,
  ): AfterWrite {
    this.sectors[lun] = op.data;
    return this.heartbeat.afterWrite(lun, done(startedMs, completedMs), nowMs);
  }

  /** One renewal of `tookMs`. */
  beat(startMs: number, tookMs = 5, lun = 0, leaders: readonly Uint8Array[] = []): AfterWrite {
    return this.end(this.begin(startMs, lun, leaders), startMs, startMs + tookMs, lun);
  }

  /** The record on disk. */
  record(lun = 0): DeltaSector {
    const decoded = decodeDeltaSector(geometry, this.sectors[lun]!);
    assert(decoded.kind === "ok");
    return decoded.value;
  }
}

function done(startedMs: number, completedMs: number): BatchResult {
  return { kind: "done", reads: [], timings: [{ startedMs, completedMs }] };
}

function leaderSector(changes: Partial<LeaderRecord>): Uint8Array {
  return encodePaxosLeaderSector(geometry, freeLeader({ timestamp: 1n, ...changes }));
}

const HELD: WatchedLease = { area: 6, lver: 9n, resourceName: "web", shared: false };
const OWN_LEADER = { ownerId: BigInt(HOST), ownerGeneration: GENERATION, lver: 9n };

describe("heartbeat (DESIGN section 4)", () => {
  describe("a renewal", () => {
    it("goes to the own sector, never the same twice, with everything else as it was", () => {
      const bench = new Bench();
      const stamps: bigint[] = [];
      for (let beat = 0; beat < 5; beat++) {
        const op = bench.begin(beat * 500);
        assert.equal(op.offset, deltaOffset(geometry, HOST));
        bench.end(op, beat * 500, beat * 500 + 5);
        stamps.push(bench.record().leader.timestamp);
      }
      assert.deepEqual(stamps, [101n, 102n, 103n, 104n, 105n]);
      assert.deepEqual(bench.record().host, firstRecord().host);
      assert.equal(bench.record().leader.ownerGeneration, GENERATION);
    });

    it("counts when it completed within d of its start; late completions never count", () => {
      const onTime = new Bench();
      assert.equal(onTime.beat(0, 1_000).kind, "counted");
      assert.equal(onTime.heartbeat.renewedAtMs, 0, "its start counts, not its end");
      const late = new Bench();
      late.beat(0);
      assert.equal(late.beat(500, 1_001).kind, "not-counted");
      assert.equal(late.heartbeat.renewedAtMs, 0);
    });

    it("does not count when it failed, was late or was not issued", () => {
      for (const result of [
        { kind: "late" },
        { kind: "busy" },
        { kind: "failed", code: "EIO", message: "" },
      ] as const) {
        const bench = new Bench();
        bench.begin(0);
        assert.equal(bench.heartbeat.afterWrite(0, result, 10).kind, "not-counted");
        assert.equal(bench.heartbeat.renewedAtMs, undefined);
      }
    });
  });

  describe("loss is for ever (hazard H6)", () => {
    it("before a renewal is issued: T later is in time, more is not", () => {
      const bench = new Bench();
      bench.beat(0);
      assert.equal(bench.heartbeat.mayRenew(3_000).kind, "yes");
      assert.equal(bench.read(3_001).kind, "lost");
      assert.match(bench.heartbeat.loss ?? "", /T is 3000 ms/);
      assert.equal(bench.heartbeat.mayRenew(0).kind, "lost", "also when the clock says otherwise");
      assert.equal(bench.read(10).kind, "lost");
    });

    it("after it completed: a stop of the whole node between issue and completion", () => {
      const bench = new Bench();
      bench.heartbeat.arm(5_000);
      bench.beat(0);
      const op = bench.begin(500);
      // The write itself was quick; the process then stood still.
      assert.equal(bench.end(op, 500, 505, 0, 3_600).kind, "lost");
      assert.equal(bench.read(3_700).kind, "lost");
      assert.equal(bench.heartbeat.renewedAtMs, 0, "it never counted");
    });

    it("nothing that completes later pets or counts", () => {
      const bench = new Bench();
      bench.heartbeat.arm(5_000);
      bench.beat(0);
      const op = bench.begin(500);
      bench.heartbeat.lose("a pill");
      assert.equal(bench.end(op, 500, 505).kind, "lost");
      assert.equal(bench.heartbeat.renewedAtMs, 0);
      assert.throws(() => {
        bench.heartbeat.arm(5_000);
      }, /never armed/);
    });

    it("keeps its first reason", () => {
      const bench = new Bench();
      bench.heartbeat.lose("first");
      bench.heartbeat.lose("second");
      assert.equal(bench.heartbeat.loss, "first");
    });

    it("counts from the last pulse's renewal when a pulse is restarted", () => {
      const bench = new Bench(1, 1_000);
      assert.equal(bench.heartbeat.mayRenew(4_000).kind, "yes");
      assert.equal(new Bench(1, 1_000).heartbeat.mayRenew(4_001).kind, "lost");
    });
  });

  describe("one renewal, one pet", () => {
    it("pets only when armed", () => {
      const bench = new Bench();
      assert.equal(bench.beat(0).kind, "counted");
      bench.heartbeat.arm(5_000);
      assert.equal(bench.beat(500).kind, "pet");
    });

    it("may pet until start + d, and resets at start + d + s (the second look at the clock)", () => {
      const bench = new Bench();
      bench.heartbeat.arm(5_000);
      assert.deepEqual(bench.beat(700), { kind: "pet", petUntilMs: 1_700, resetAfterMs: 1_950 });
    });

    it("never pets for a late completion, and no stamp twice", () => {
      const bench = new Bench();
      bench.heartbeat.arm(5_000);
      assert.equal(bench.beat(0).kind, "pet");
      assert.equal(bench.beat(500, 1_001).kind, "not-counted");
      assert.throws(() => bench.heartbeat.afterWrite(0, done(0, 5), 600), /without a renewal/);
    });

    it("with several LUNs needs a majority all started within d + h", () => {
      const bench = new Bench(3);
      bench.heartbeat.arm(5_000);
      assert.equal(bench.beat(0, 5, 0).kind, "counted", "one of three is no majority");
      assert.deepEqual(bench.beat(400, 5, 1), {
        kind: "pet",
        // The window, d + h, runs from the older of the two.
        petUntilMs: 0 + 1_500,
        resetAfterMs: 0 + 1_750,
      });
      // LUN 1 has not renewed since; a renewal of LUN 2 alone may not rest on it for ever.
      assert.equal(bench.beat(1_490, 5, 1).kind, "pet");
      const late = new Bench(3);
      late.heartbeat.arm(5_000);
      late.beat(0, 5, 0);
      assert.equal(late.beat(1_496, 5, 1).kind, "counted");
    });

    it("with several LUNs takes the newest majority", () => {
      const bench = new Bench(3);
      bench.heartbeat.arm(5_000);
      bench.beat(0, 5, 0);
      bench.beat(100, 5, 1);
      const pet = bench.beat(600, 5, 2);
      assert(pet.kind === "pet");
      assert.equal(pet.petUntilMs, 100 + 1_500);
      assert.equal(bench.heartbeat.renewedAtMs, 100, "a majority was renewed at or after this");
    });
  });

  describe("arming and disarming (DESIGN section 6)", () => {
    it("is published with the next renewal, with W as read back", () => {
      const bench = new Bench();
      bench.beat(0);
      assert.equal(bench.record().host?.armed, false);
      bench.heartbeat.arm(6_000);
      assert.equal(bench.heartbeat.isPublished(true), false, "not on disk yet");
      bench.beat(500);
      assert.equal(bench.heartbeat.isPublished(true), true);
      assert.deepEqual(
        [bench.record().host?.armed, bench.record().host?.watchdogMs],
        [true, 6_000],
      );
      bench.heartbeat.disarm();
      assert.equal(bench.heartbeat.isPublished(false), false);
      bench.beat(1_000);
      assert.equal(bench.heartbeat.isPublished(false), true);
      assert.equal(bench.heartbeat.isPublished(true), false);
    });

    it("is not published by a renewal that was issued before, or did not count", () => {
      const bench = new Bench();
      const op = bench.begin(0);
      bench.heartbeat.arm(5_000);
      bench.end(op, 0, 5);
      assert.equal(bench.heartbeat.isPublished(true), false);
      bench.beat(500, 1_001);
      assert.equal(bench.heartbeat.isPublished(true), false);
    });

    it("needs a majority of the LUNs there are", () => {
      const bench = new Bench(3);
      bench.heartbeat.arm(5_000);
      bench.beat(0, 5, 0);
      assert.equal(bench.heartbeat.isPublished(true), false);
      bench.beat(1, 5, 2);
      assert.equal(bench.heartbeat.isPublished(true), true);
    });

    it("cannot be undone, and nobody leaves, while something is held", () => {
      const bench = new Bench();
      bench.heartbeat.arm(5_000);
      bench.heartbeat.watch([HELD]);
      assert.throws(() => {
        bench.heartbeat.disarm();
      }, /nothing is held/);
      bench.heartbeat.watch([]);
      assert.throws(() => bench.heartbeat.leaveOp(), /disarm first/);
      bench.heartbeat.disarm();
      const left = decodeDeltaSector(geometry, bench.heartbeat.leaveOp().data);
      assert(left.kind === "ok" && left.value.leader.timestamp === 0n);
      assert.equal(left.value.leader.ownerGeneration, GENERATION, "the rest stays");
    });
  });

  describe("the own record on disk", () => {
    it("older than the one written is loss on one LUN (hazard M23)", () => {
      const bench = new Bench();
      bench.beat(0);
      const old = bench.sectors[0]!;
      bench.beat(500);
      bench.sectors[0] = old;
      const outcome = bench.read(1_000);
      assert(outcome.kind === "lost");
      assert.match(outcome.why, /lost writes/);
    });

    it("older on one of three is only a stale LUN: the next renewal mends it", () => {
      const bench = new Bench(3);
      for (const lun of [0, 1, 2]) {
        bench.beat(0, 5, lun);
      }
      const old = bench.sectors[2]!;
      bench.beat(500, 5, 2);
      bench.sectors[2] = old;
      assert.equal(bench.read(1_000, 2).kind, "write");
      assert.equal(bench.heartbeat.loss, undefined);
    });

    it("may be a later one of ours whose outcome was unknown", () => {
      const bench = new Bench();
      bench.beat(0);
      const op = bench.begin(500);
      assert.equal(bench.heartbeat.afterWrite(0, { kind: "late" }, 1_500).kind, "not-counted");
      bench.sectors[0] = op.data; // It landed after all.
      assert.equal(bench.read(1_600).kind, "write");
    });

    /** What a joiner that read the same record as this host wrote, or one that came after it. */
    function joinerOf(ownerGeneration: bigint): Uint8Array {
      const { leader, ...joiner } = firstRecord(1n);
      return encodeDeltaSector(geometry, {
        ...joiner,
        leader: { ...leader, ownerGeneration, resourceName: "twin" },
      });
    }

    it("overwritten by somebody else is put back while younger than T, else lost", () => {
      const overwritten = joinerOf(GENERATION);
      const bench = new Bench();
      bench.beat(0);
      bench.sectors[0] = overwritten;
      const op = bench.begin(2_900);
      const back = decodeDeltaSector(geometry, op.data);
      assert(back.kind === "ok" && back.value.leader.resourceName === "n2");
      const late = new Bench();
      late.beat(0);
      late.sectors[0] = overwritten;
      assert.equal(late.read(3_001).kind, "lost");
    });

    it("of a later generation on a majority: the id has been taken, and its new host may be a member", () => {
      const bench = new Bench();
      bench.beat(0);
      bench.sectors[0] = joinerOf(GENERATION + 1n);
      assert.equal(bench.read(500).kind, "lost");

      const three = new Bench(3);
      [0, 1, 2].forEach((lun) => three.beat(0, 5, lun));
      three.sectors[0] = joinerOf(GENERATION + 1n);
      three.beat(500, 5, 0);
      three.beat(1_000, 5, 0);
      three.sectors[1] = joinerOf(GENERATION + 1n);
      assert.equal(three.read(1_000, 1).kind, "write", "one after the other is no majority");
      three.sectors[2] = joinerOf(GENERATION + 1n);
      assert.equal(three.read(1_000, 2).kind, "lost");
    });
  });

  describe("after a gap of more than h + d", () => {
    const watching = (total: 1 | 3 = 1): Bench => {
      const bench = new Bench(total);
      bench.heartbeat.arm(5_000);
      for (let lun = 0; lun < total; lun++) {
        bench.beat(0, 5, lun);
      }
      bench.heartbeat.watch([HELD, { ...HELD, area: 7, resourceName: "db", shared: true }]);
      return bench;
    };

    it("asks for the leaders of what is held exclusively, and not before", () => {
      const bench = watching();
      assert.equal(bench.heartbeat.mayRenew(1_500).kind, "yes");
      assert.deepEqual(bench.heartbeat.recheckOps(), []);
      assert.equal(bench.heartbeat.mayRenew(1_501).kind, "yes");
      assert.deepEqual(bench.heartbeat.recheckOps(), [
        { kind: "read", offset: leaderOffset(geometry, 6), length: geometry.sectorSize },
      ]);
    });

    it("pets again once they are still its own", () => {
      const bench = watching();
      bench.heartbeat.mayRenew(2_000);
      assert.equal(bench.beat(2_000, 5, 0, [leaderSector(OWN_LEADER)]).kind, "pet");
      assert.deepEqual(bench.heartbeat.recheckOps(), []);
    });

    it("has lost when one was taken over, is owned by another, unreadable or older", () => {
      const cases: readonly (readonly [Uint8Array, RegExp])[] = [
        [leaderSector({ ...OWN_LEADER, ownerId: 3n, lver: 10n }), /taken over: lver 10/],
        [leaderSector({ ...OWN_LEADER, ownerId: 3n }), /owned by host 3/],
        [leaderSector({ ...OWN_LEADER, ownerGeneration: GENERATION + 1n }), /owned by host 2/],
        [leaderSector({ ...OWN_LEADER, lver: 8n }), /older than the one written/],
        [new Uint8Array(512), /cannot be read/],
      ];
      for (const [leader, why] of cases) {
        const bench = watching();
        bench.heartbeat.mayRenew(2_000);
        const outcome = bench.read(2_000, 0, [leader]);
        assert(outcome.kind === "lost");
        assert.match(outcome.why, why);
      }
    });

    it("on three LUNs wants a majority of them looked at before the next pet", () => {
      const bench = watching(3);
      bench.heartbeat.recheck();
      const fine = [leaderSector(OWN_LEADER)];
      assert.equal(bench.beat(600, 5, 0, fine).kind, "counted");
      assert.equal(bench.beat(601, 5, 1, fine).kind, "pet");
    });

    it("on three LUNs an unreadable or older leader of one is no loss", () => {
      const bench = watching(3);
      bench.heartbeat.recheck();
      for (const leader of [new Uint8Array(512), leaderSector({ ...OWN_LEADER, lver: 8n })]) {
        assert.equal(bench.read(600, 0, [leader]).kind, "write");
        bench.heartbeat.afterWrite(0, done(600, 605), 605);
        bench.heartbeat.recheck();
      }
      const taken = bench.read(700, 0, [leaderSector({ ...OWN_LEADER, lver: 10n })]);
      assert.equal(taken.kind, "lost", "but one that is newer is, wherever it is seen");
    });

    it("a restarted pulse looks before its first pet", () => {
      const bench = new Bench(1, 0);
      bench.heartbeat.arm(5_000);
      bench.heartbeat.watch([HELD]);
      assert.equal(bench.heartbeat.recheckOps().length, 1);
    });
  });

  describe("a daemon that does not answer (DESIGN section 5; hazard H15)", () => {
    it("for 10 s while a group is up: no renewal, no pet, and nothing is let go", () => {
      const bench = new Bench();
      bench.heartbeat.arm(5_000);
      bench.heartbeat.hearDaemon(0, true);
      for (let nowMs = 0; nowMs <= 10_000; nowMs += 500) {
        assert.equal(bench.beat(nowMs).kind, "pet");
      }
      assert.equal(bench.heartbeat.mayRenew(10_001).kind, "no");
      assert.equal(bench.read(10_001).kind, "wait");
      assert.equal(bench.heartbeat.loss, undefined, "a daemon that comes back in time is served");
      bench.heartbeat.hearDaemon(10_500, true);
      assert.equal(bench.heartbeat.mayRenew(10_500).kind, "yes");
    });

    it("does not matter while no group is up", () => {
      const bench = new Bench();
      bench.heartbeat.hearDaemon(0, false);
      for (let nowMs = 0; nowMs <= 20_000; nowMs += 500) {
        assert.equal(bench.beat(nowMs).kind, "counted");
      }
    });
  });
});
