import assert from "node:assert/strict";

import { type DeltaSector, decodeDeltaSector } from "../../../lib/format/delta-sector.js";
import { deltaOffset, outboxOffset } from "../../../lib/format/geometry.js";
import { type HostRecord } from "../../../lib/format/host-record.js";
import { type LeaderRecord } from "../../../lib/format/leader-record.js";
import { encodeOutbox, type Outbox } from "../../../lib/format/outbox.js";
import {
  type Identity,
  joinHost,
  type JoinOutcome,
  type JoinTerms,
  leftRecord,
  vacantRecord,
} from "../../../lib/lease/delta-lease.js";
import { PROFILES, renewalSeenMs } from "../../../lib/lease/timings.js";
import { type MemoryLuns } from "../../helpers/memory-luns.js";
import { healthyNode, ProcedureStepper, type TestClock } from "../../helpers/procedure-stepper.js";
import { freshLuns, geometry, lunSetOf, MAX_HOSTS, proofOf, SPACE, writeDelta } from "./samples.js";

const ME: Identity = {
  name: "n1",
  watchdog: "hardware",
  virtual: false,
  bootIdHash: 11n,
  machineIdHash: 22n,
  stateIdHash: 33,
};

function terms(changes: Partial<JoinTerms> = {}): JoinTerms {
  return {
    geometry,
    luns: lunSetOf(1),
    maxHosts: MAX_HOSTS,
    spaceName: SPACE,
    identity: ME,
    timings: PROFILES.default,
    hostId: undefined,
    timestamp: 1_000n,
    predecessorGone: false,
    replacesNamesake: false,
    lastMembership: undefined,
    evidenceFor: () => undefined,
    unchangedMs: () => 0,
    ...changes,
  };
}

interface Bench {
  readonly luns: MemoryLuns;
  readonly clock: TestClock;
}

function bench(count: 1 | 3 | 5 = 1): Bench {
  return { luns: freshLuns(count), clock: { nowMs: 10_000 } };
}

function joiner(on: Bench, joins: JoinTerms): ProcedureStepper<JoinOutcome> {
  return new ProcedureStepper(joinHost(joins), on.luns, joins.luns, healthyNode(), on.clock);
}

function writeOutbox(on: Bench, hostId: number, generation: bigint): void {
  const outbox: Outbox = { hostId, generation, sequence: 1n, tableGeneration: 0n, entries: [] };
  on.luns.perform(0, {
    kind: "write",
    offset: outboxOffset(geometry, hostId),
    data: encodeOutbox(geometry, outbox),
  });
}

/** The look before the write: lockspace and outboxes. */
function read(stepper: ProcedureStepper<JoinOutcome>, lun = 0): void {
  stepper.step(lun);
  stepper.step(lun);
}

function join(on: Bench, changes: Partial<JoinTerms> = {}): JoinOutcome {
  return joiner(on, terms(changes)).run();
}

function recordAt(on: Bench, hostId: number, lun = 0): DeltaSector {
  const decoded = decodeDeltaSector(geometry, on.luns.read(lun, deltaOffset(geometry, hostId)));
  assert(decoded.kind === "ok");
  return decoded.value;
}

/** A record of somebody who is in, and not free. */
function member(
  hostId: number,
  name: string,
  host: Partial<HostRecord> = {},
  leader: Partial<LeaderRecord> = {},
): DeltaSector {
  const vacant = vacantRecord(geometry, SPACE, PROFILES.default, 1);
  return {
    ...vacant,
    leader: {
      ...vacant.leader,
      ownerId: BigInt(hostId),
      ownerGeneration: 5n,
      resourceName: name,
      timestamp: 77n,
      ...leader,
    },
    host: {
      ...vacant.host!,
      watchdog: "hardware",
      bootIdHash: ME.bootIdHash,
      machineIdHash: ME.machineIdHash,
      stateIdHash: ME.stateIdHash,
      joinEvidence: "free",
      ...host,
    },
  };
}

const ELSEWHERE: Partial<HostRecord> = { machineIdHash: 99n };

describe("join (DESIGN section 6, Host ids; sanlock facts 2.2)", () => {
  it("takes the lowest id nobody ever had: generation 1, not armed, its evidence written down", () => {
    const on = bench();
    writeDelta(on.luns, 1, leftRecord(member(1, "old", ELSEWHERE)));
    const outcome = join(on);
    assert(outcome.kind === "joined");
    assert.deepEqual(
      [outcome.membership.hostId, outcome.membership.generation, outcome.evidence],
      [2, 1n, "free"],
    );
    const record = recordAt(on, 2);
    assert.equal(record.leader.timestamp, 1_000n);
    assert.equal(record.leader.resourceName, "n1");
    assert.deepEqual(record.host, {
      watchdog: "hardware",
      armed: false,
      virtual: false,
      ...PROFILES.default,
      bootIdHash: 11n,
      machineIdHash: 22n,
      stateIdHash: 33,
      joinEvidence: "free",
      unproven: 0,
    });
  });

  it("counts the generation on where somebody has left", () => {
    const on = bench();
    writeDelta(on.luns, 3, leftRecord(member(3, "old", ELSEWHERE)));
    const outcome = join(on, { hostId: 3 });
    assert(outcome.kind === "joined" && outcome.membership.generation === 6n);
    assert.equal(outcome.evidence, "free");
  });

  it("comes back to the id it had", () => {
    const on = bench();
    writeDelta(on.luns, 3, leftRecord(member(3, "n1")));
    const outcome = join(on);
    assert(outcome.kind === "joined" && outcome.membership.hostId === 3);
  });

  it("says `full` when every id is in use, and for an id that is none", () => {
    const on = bench();
    for (let hostId = 1; hostId <= MAX_HOSTS; hostId++) {
      writeDelta(on.luns, hostId, member(hostId, `m${hostId}`, ELSEWHERE));
    }
    assert.deepEqual(join(on), { kind: "full", maxHosts: MAX_HOSTS });
    assert.equal(join(bench(), { hostId: MAX_HOSTS + 1 }).kind, "full");
  });

  describe("a record that is zero or broken is an error, never free (hazard M25)", () => {
    it("zero", () => {
      const on = bench();
      on.luns.writeAll({
        kind: "write",
        offset: deltaOffset(geometry, 2),
        data: new Uint8Array(512),
      });
      const outcome = join(on, { hostId: 2 });
      assert(outcome.kind === "damaged");
      assert.match(outcome.reason, /all zero/);
      const other = join(on);
      assert(other.kind === "joined" && other.membership.hostId === 1, "others are still free");
    });

    it("checksum", () => {
      const on = bench();
      const bytes = on.luns.read(0, deltaOffset(geometry, 2));
      bytes[60]! ^= 1;
      on.luns.writeAll({ kind: "write", offset: deltaOffset(geometry, 2), data: bytes });
      assert.equal(join(on, { hostId: 2 }).kind, "damaged");
    });

    it("of another lockspace", () => {
      const on = bench();
      writeDelta(on.luns, 2, vacantRecord(geometry, "other", PROFILES.default, 1));
      const outcome = join(on, { hostId: 2 });
      assert(outcome.kind === "damaged");
      assert.match(outcome.reason, /lockspace other/);
    });
  });

  describe("a name that is in use elsewhere (hazard H17)", () => {
    it("is refused: another machine, or another state directory", () => {
      for (const host of [ELSEWHERE, { stateIdHash: 34 }]) {
        const on = bench();
        writeDelta(on.luns, 2, member(2, "n1", host));
        const outcome = join(on);
        assert(outcome.kind === "name-taken" && outcome.hostId === 2);
      }
    });

    it("is refused although an old record of that name is free", () => {
      const on = bench();
      writeDelta(on.luns, 1, leftRecord(member(1, "n1", ELSEWHERE)));
      writeDelta(on.luns, 2, member(2, "n1", ELSEWHERE));
      const outcome = join(on);
      assert(outcome.kind === "name-taken", JSON.stringify(outcome.kind));
      assert.equal(outcome.hostId, 2);
    });

    it("is refused for a sanlock daemon of that name", () => {
      const on = bench();
      writeDelta(on.luns, 2, { ...member(2, "n1"), host: undefined, hostState: "absent" });
      assert.equal(join(on).kind, "name-taken");
    });

    it("may be taken where it has left", () => {
      const on = bench();
      writeDelta(on.luns, 2, leftRecord(member(2, "n1", ELSEWHERE)));
      assert.equal(join(on).kind, "joined");
    });

    it("may be taken over with evidence by the machine that replaces it, under the same host id", () => {
      const on = bench();
      writeDelta(on.luns, 2, member(2, "n1", ELSEWHERE));
      const outcome = join(on, { replacesNamesake: true });
      assert.deepEqual(outcome, { kind: "not-free", hostId: 2, generation: 5n, name: "n1" });
      const evidenceFor = proofOf([2, 5n]);
      assert.equal(join(on, { replacesNamesake: true, hostId: 3, evidenceFor }).kind, "name-taken");
      assert.equal(join(on, { evidenceFor }).kind, "name-taken", "nobody said that it is replaced");
      const taken = join(on, { replacesNamesake: true, evidenceFor });
      assert(taken.kind === "joined");
      assert.deepEqual([taken.membership.hostId, taken.evidence], [2, "expired"]);
      assert.equal(taken.membership.generation, 6n);
    });
  });

  describe("a record of its own that is not free", () => {
    it("is taken after a reboot: same machine and state directory, other boot", () => {
      const on = bench();
      writeDelta(on.luns, 2, member(2, "n1", { bootIdHash: 10n, armed: true }));
      const outcome = join(on, {
        lastMembership: { hostId: 2, generation: 5n },
        unchangedMs: () => renewalSeenMs(PROFILES.default),
      });
      assert(outcome.kind === "joined");
      assert.deepEqual([outcome.membership.hostId, outcome.evidence], [2, "reboot"]);
      assert.equal(outcome.membership.generation, 6n);
      assert.equal(recordAt(on, 2).host?.joinEvidence, "reboot");
    });

    it("is not taken after a reboot before it has stood still: it may be a copy's, or the original's (planted bug 108)", () => {
      const on = bench();
      // The times count that the other one published.
      const timings = PROFILES.multipath;
      writeDelta(on.luns, 2, member(2, "n1", { bootIdHash: 10n, armed: true, ...timings }));
      const mine = { lastMembership: { hostId: 2, generation: 5n } };
      const rebootAfterMs = renewalSeenMs(timings);
      assert.deepEqual(join(on, { ...mine, unchangedMs: () => rebootAfterMs - 1 }), {
        kind: "not-free",
        hostId: 2,
        generation: 5n,
        name: "n1",
        rebootAfterMs,
      });
      const seen: unknown[] = [];
      const unchangedMs: JoinTerms["unchangedMs"] = (hostId, record) => {
        seen.push([hostId, record.leader.timestamp]);
        return rebootAfterMs;
      };
      assert.equal(join(on, { ...mine, unchangedMs }).kind, "joined");
      assert.deepEqual(seen, [[2, 77n]]);
    });

    it("is not taken in the same boot: its name proves nothing (planted bug 22)", () => {
      const on = bench();
      writeDelta(on.luns, 2, member(2, "n1"));
      assert.deepEqual(join(on), { kind: "not-free", hostId: 2, generation: 5n, name: "n1" });
    });

    it("is taken in the same boot when its pulse is gone for sure and was not armed", () => {
      const on = bench();
      const mine = { predecessorGone: true, lastMembership: { hostId: 2, generation: 5n } };
      writeDelta(on.luns, 2, member(2, "n1", { armed: true }));
      assert.equal(join(on, mine).kind, "not-free");
      writeDelta(on.luns, 2, member(2, "n1", { armed: false }));
      const outcome = join(on, mine);
      assert(outcome.kind === "joined" && outcome.evidence === "released");
    });

    it("left behind by a join that failed, it is written over, and nothing is claimed about its generation", () => {
      for (const bootIdHash of [ME.bootIdHash, 10n]) {
        for (const lastMembership of [undefined, { hostId: 2, generation: 4n }]) {
          const on = bench();
          writeDelta(on.luns, 2, member(2, "n1", { bootIdHash, joinEvidence: "reboot" }));
          const outcome = join(on, { predecessorGone: true, lastMembership });
          assert(outcome.kind === "joined" && outcome.membership.generation === 6n);
          const { host } = recordAt(on, 2);
          assert.deepEqual([host?.joinEvidence, host?.unproven], ["reboot", 1]);
        }
      }
    });

    it("is not written over when somebody has been a member with its generation", () => {
      const on = bench();
      writeDelta(on.luns, 2, member(2, "n1"));
      writeOutbox(on, 2, 5n);
      assert.equal(join(on, { predecessorGone: true }).kind, "not-free");
    });

    it("counts the failed joins, and after 255 of them claims nothing at all", () => {
      const on = bench();
      writeDelta(on.luns, 2, member(2, "n1", { joinEvidence: "reboot", unproven: 254 }));
      for (const expected of [
        ["reboot", 255],
        ["none", 0],
        ["none", 1],
      ]) {
        assert.equal(join(on, { predecessorGone: true }).kind, "joined");
        const { host } = recordAt(on, 2);
        assert.deepEqual([host?.joinEvidence, host?.unproven], expected);
      }
    });
  });

  describe("somebody else's id", () => {
    it("needs evidence about this very generation", () => {
      const on = bench();
      writeDelta(on.luns, 2, member(2, "n2", ELSEWHERE));
      assert.equal(join(on, { hostId: 2 }).kind, "not-free");
      for (const wrong of [proofOf([2, 4n]), proofOf([3, 5n])]) {
        assert.equal(join(on, { hostId: 2, evidenceFor: wrong }).kind, "not-free");
      }
      const lying = join(on, {
        hostId: 2,
        evidenceFor: () => ({ kind: "expired", hostId: 2, generation: 4n, detail: "" }),
      });
      assert.equal(lying.kind, "not-free");
      const outcome = join(on, { hostId: 2, evidenceFor: proofOf([2, 5n]) });
      assert(outcome.kind === "joined" && outcome.evidence === "expired");
      assert.equal(recordAt(on, 2).host?.joinEvidence, "expired");
      assert.equal(outcome.membership.generation, 6n, "never the same generation (planted bug 16)");
    });
  });

  describe("time between read, write and verification", () => {
    it("does not write when its read began 0.5 s ago (planted bug 18)", () => {
      for (const [tookMs, kind] of [
        [500, "too-slow"],
        [499, "joined"],
      ] as const) {
        const on = bench(3);
        const before = on.luns.contentKey();
        // The first LUN answers at once, the second only after a while: the procedure goes on with both.
        const stepper = joiner(on, terms({ luns: lunSetOf(3) }));
        read(stepper, 0);
        on.clock.nowMs += tookMs;
        read(stepper, 1);
        if (kind === "too-slow") {
          assert.deepEqual(stepper.outcome, { kind });
          assert.equal(on.luns.contentKey(), before, "nothing was written");
        } else {
          assert.equal(stepper.request?.kind, "io");
        }
      }
    });

    it("waits 0.5 s + d, long enough for any writer that read the same, then verifies", () => {
      const on = bench();
      const stepper = joiner(on, terms());
      read(stepper);
      stepper.step(0);
      assert.deepEqual(stepper.request, { kind: "sleep", ms: 1_500 });
    });

    it("waits for the longer d of the two, and for 2 io_timeouts of a sanlock daemon", () => {
      const cases: readonly (readonly [DeltaSector, number])[] = [
        [leftRecord(member(2, "x", { ...PROFILES.multipath })), 5_500],
        [
          leftRecord({
            ...member(2, "x", {}, { ioTimeout: 10 }),
            host: undefined,
            hostState: "absent",
          }),
          20_000,
        ],
      ];
      for (const [found, ms] of cases) {
        const on = bench();
        writeDelta(on.luns, 2, found);
        const stepper = joiner(on, terms({ hostId: 2 }));
        read(stepper);
        stepper.step(0);
        assert.deepEqual(stepper.request, { kind: "sleep", ms });
      }
    });

    it("two that read the same record: the later write wins, the other sees it", () => {
      for (const order of [
        [0, 1],
        [1, 0],
      ] as const) {
        const on = bench();
        const both = [
          joiner(on, terms({ hostId: 1 })),
          joiner(on, terms({ hostId: 1, identity: { ...ME, name: "n9", machineIdHash: 9n } })),
        ] as const;
        read(both[0]);
        read(both[1]);
        both[order[0]].step(0);
        both[order[1]].step(0);
        const first = both[order[0]].run();
        const second = both[order[1]].run();
        assert.equal(second.kind, "joined");
        assert.deepEqual(first, { kind: "taken-meanwhile", hostId: 1 });
      }
    });

    it("a writer stopped between its look at the clock and its write has not joined", () => {
      const on = bench();
      const slow = new ProcedureStepper(
        joinHost(terms()),
        on.luns,
        lunSetOf(1),
        healthyNode({
          fault: (_lun, op) => {
            on.clock.nowMs += op.kind === "write" ? 600 : 0;
            return undefined;
          },
        }),
        on.clock,
      );
      assert.deepEqual(slow.run(), { kind: "too-slow" });
    });
  });

  it("takes the id under which it was a member, not one that a failed join of its own left behind", () => {
    const on = bench();
    writeDelta(on.luns, 1, member(1, "n1"));
    writeDelta(on.luns, 3, member(3, "n1", { bootIdHash: 1n }));
    const lastMembership = { hostId: 3, generation: 5n };
    const outcome = join(on, {
      predecessorGone: true,
      lastMembership,
      unchangedMs: () => renewalSeenMs(PROFILES.default),
    });
    assert(outcome.kind === "joined");
    assert.deepEqual([outcome.membership.hostId, outcome.membership.generation], [3, 6n]);
  });

  describe("an old join write that landed over a later generation", () => {
    function overwritten(): Bench {
      const on = bench();
      writeDelta(on.luns, 1, leftRecord(member(1, "old", ELSEWHERE)));
      writeOutbox(on, 1, 6n);
      return on;
    }

    it("does not make the id free: the outbox shows a generation that has been a member since", () => {
      const outcome = join(overwritten(), { hostId: 1 });
      assert.deepEqual(outcome, { kind: "not-free", hostId: 1, generation: 6n, name: "old" });
    });

    it("leaves every other id to whoever did not ask for this one", () => {
      const outcome = join(overwritten());
      assert(outcome.kind === "joined");
      assert.equal(outcome.membership.hostId, 2);
    });
  });

  describe("on three LUNs", () => {
    const three = { luns: lunSetOf(3) };

    it("needs a majority of all of them to read, to write and to verify", () => {
      for (const broken of [
        [0, 1],
        [1, 2],
      ]) {
        const on = bench(3);
        const node = healthyNode({
          fault: (lun) =>
            broken.includes(lun) ? { kind: "failed", code: "EIO", message: "" } : undefined,
        });
        const outcome = new ProcedureStepper(
          joinHost(terms(three)),
          on.luns,
          three.luns,
          node,
          on.clock,
        ).run();
        assert(outcome.kind === "no-quorum");
        assert.match(outcome.why, /failed with EIO/);
      }
    });

    it("believes the newest record: a stale LUN cannot show a taken id as free", () => {
      const on = bench(3);
      const before = on.luns.copy(0);
      writeDelta(on.luns, 1, member(1, "n7", ELSEWHERE));
      on.luns.restore(0, before);
      const outcome = join(on, { ...three, hostId: 1 });
      assert.equal(outcome.kind, "not-free");
    });

    it("a join of its own that only reached a minority says nothing about who won the generation", () => {
      const on = bench(3);
      writeDelta(on.luns, 1, member(1, "n7", ELSEWHERE, { timestamp: 7n }));
      const before = on.luns.copy(2);
      writeDelta(on.luns, 1, member(1, "n1"));
      const loser = on.luns.copy(2);
      on.luns.restore(0, before);
      on.luns.restore(1, before);
      const won = join(on, { ...three, predecessorGone: true });
      assert(won.kind === "joined" && won.membership.hostId === 2, "host 1 is n7");
      assert.equal(join(on, { ...three, hostId: 1, predecessorGone: true }).kind, "not-free");
      // With only one of n7's two LUNs it cannot be told whose it is.
      on.luns.restore(2, loser);
      const few = { luns: lunSetOf(3, [1]), hostId: 1, predecessorGone: true };
      writeOutbox(on, 1, 5n);
      assert.equal(join(on, few).kind, "not-free");
    });

    it("does not let a LUN that does not count vote", () => {
      const on = bench(3);
      const outcome = new ProcedureStepper(
        joinHost(terms({ luns: lunSetOf(3, [0, 1]) })),
        on.luns,
        lunSetOf(3, [0, 1]),
        healthyNode(),
        on.clock,
      ).run();
      assert.equal(outcome.kind, "no-quorum");
    });
  });
});
