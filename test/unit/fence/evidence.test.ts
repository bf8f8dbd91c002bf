import assert from "node:assert/strict";

import {
  type Confirmation,
  type EvidencePolicy,
  judgeHost,
  type Verdict,
} from "../../../lib/fence/evidence.js";
import { type DeltaSector } from "../../../lib/format/delta-sector.js";
import { type HostRecord } from "../../../lib/format/host-record.js";
import { type LeaderRecord } from "../../../lib/format/leader-record.js";
import { leftRecord, vacantRecord } from "../../../lib/lease/delta-lease.js";
import { type HostObservation } from "../../../lib/lease/observer.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { geometry, SPACE } from "../lease/samples.js";

const HOST = 3;
const GENERATION = 7n;

function record(host: Partial<HostRecord> = {}, leader: Partial<LeaderRecord> = {}): DeltaSector {
  const vacant = vacantRecord(geometry, SPACE, PROFILES.default, 1);
  return {
    ...vacant,
    leader: {
      ...vacant.leader,
      ownerId: BigInt(HOST),
      ownerGeneration: GENERATION,
      resourceName: "n3",
      timestamp: 42n,
      ...leader,
    },
    host: { ...vacant.host!, watchdog: "hardware", armed: true, joinEvidence: "free", ...host },
  };
}

function foreign(leader: Partial<LeaderRecord> = {}): DeltaSector {
  return { ...record({}, { ioTimeout: 1, ...leader }), host: undefined, hostState: "absent" };
}

function seen(shown: DeltaSector | undefined, unchangedMs: number): HostObservation {
  return {
    hostId: HOST,
    record: shown,
    trouble: shown === undefined ? "the sector is all zero" : undefined,
    unchangedMs,
    lastSeenMs: 1_000_000,
  };
}

const STRICT: EvidencePolicy = {
  lunCount: 1,
  vmPauseNever: false,
  guardAccepted: false,
  foreignWatchdog: false,
};
const LAX: EvidencePolicy = {
  lunCount: 1,
  vmPauseNever: true,
  guardAccepted: true,
  foreignWatchdog: true,
};
const EVER = 3_600_000;
const NOW = 5_000_000;

function judge(
  host: HostObservation,
  policy: EvidencePolicy = STRICT,
  confirmation?: Confirmation,
  generation = GENERATION,
): Verdict {
  return judgeHost(host, generation, policy, confirmation, NOW);
}

function assertEvidence(verdict: Verdict, kind: string): void {
  assert(verdict.kind === "evidence", `it is ${verdict.kind}`);
  assert.equal(verdict.evidence.kind, kind);
  assert.equal(verdict.evidence.hostId, HOST);
  assert.equal(verdict.evidence.generation, GENERATION);
  assert.notEqual(verdict.evidence.detail, "");
}

function assertImpossible(verdict: Verdict, why: RegExp): void {
  assert(verdict.kind === "impossible", `it is ${verdict.kind}`);
  assert.match(verdict.why, why);
  assert.notEqual(verdict.remedy, "");
}

describe("evidence (DESIGN section 8)", () => {
  describe("expired: hardware, armed, its own W", () => {
    it("comes at B + margin exactly, not a millisecond earlier", () => {
      assert.deepEqual(judge(seen(record(), 6_499)), {
        kind: "wait",
        remainingMs: 1,
        boundMs: 6_500,
      });
      assertEvidence(judge(seen(record(), 6_500)), "expired");
    });

    it("takes one h longer with several LUNs", () => {
      const several = { ...STRICT, lunCount: 3 };
      assert.equal(judge(seen(record(), 6_999), several).kind, "wait");
      assertEvidence(judge(seen(record(), 7_000), several), "expired");
    });

    it("uses the victim's published numbers, not the reader's profile (planted bug 9)", () => {
      const slow = record({ ...PROFILES.multipath });
      assert.equal(judge(seen(slow, 25_999)).kind, "wait");
      assertEvidence(judge(seen(slow, 26_000)), "expired");
      const longDog = record({ watchdogMs: 20_000 });
      assert.equal(judge(seen(longDog, 21_499)).kind, "wait");
      assertEvidence(judge(seen(longDog, 21_500)), "expired");
    });

    it("is max(T, B): a T above B counts", () => {
      const odd = record({ ttlMs: 30_000 });
      assert.equal(judge(seen(odd, 30_249)).kind, "wait");
      assertEvidence(judge(seen(odd, 30_250)), "expired");
    });

    it("never of a host without watchdog, for however long it is silent", () => {
      for (const watchdog of ["none", "vacant"] as const) {
        assertImpossible(judge(seen(record({ watchdog }), EVER), LAX), /without a watchdog/);
      }
    });

    it("never of a host that was not armed (hazard H16)", () => {
      for (const watchdog of ["hardware", "guard"] as const) {
        assertImpossible(judge(seen(record({ watchdog, armed: false }), EVER), LAX), /not armed/);
      }
    });

    it("of a virtual host only with vm_pause = never (hazard H2)", () => {
      const virtual = record({ virtual: true });
      assertImpossible(judge(seen(virtual, EVER)), /virtual machine/);
      assertEvidence(judge(seen(virtual, 6_500), { ...STRICT, vmPauseNever: true }), "expired");
    });
  });

  describe("expired-guard (hazard H3)", () => {
    it("only where it is accepted, and under its own name", () => {
      const guard = record({ watchdog: "guard" });
      assertImpossible(judge(seen(guard, EVER)), /guard process only/);
      const accepted = { ...STRICT, guardAccepted: true };
      assert.equal(judge(seen(guard, 6_499), accepted).kind, "wait");
      assertEvidence(judge(seen(guard, 6_500), accepted), "expired-guard");
    });
  });

  describe("a sanlock daemon (DESIGN section 4; facts section 2.1)", () => {
    it("gives no evidence by silence unless a human says that it has a watchdog", () => {
      assertImpossible(judge(seen(foreign(), EVER)), /sanlock daemon/);
    });

    it("is dead after 8 T + 60 s of its own T", () => {
      const policy = { ...STRICT, foreignWatchdog: true };
      assert.equal(judge(seen(foreign(), 67_999), policy).kind, "wait");
      assertEvidence(judge(seen(foreign(), 68_000), policy), "expired");
      assert.equal(judge(seen(foreign({ ioTimeout: 10 }), 139_999), policy).kind, "wait");
      assertEvidence(judge(seen(foreign({ ioTimeout: 0 }), 68_000), policy), "expired");
    });

    it("is not what a host with a damaged host record is (DESIGN section 3)", () => {
      const damaged: DeltaSector = { ...foreign(), hostState: "corrupt" };
      assertImpossible(judge(seen(damaged, EVER), LAX), /damaged/);
    });
  });

  describe("released", () => {
    it("when it left, whatever its watchdog", () => {
      const left = leftRecord(record({ watchdog: "none", armed: false }));
      assertEvidence(judge(seen(left, 0)), "released");
    });

    it("when the next generation found the id free", () => {
      const later = record({ joinEvidence: "free" }, { ownerGeneration: GENERATION + 1n });
      assertEvidence(judge(seen(later, 0)), "released");
    });

    it("else what the next generation wrote down when it took the id: that may not be `released`", () => {
      for (const joinEvidence of [
        "expired",
        "expired-guard",
        "confirmed",
        "reboot",
        "released",
      ] as const) {
        const later = record({ joinEvidence }, { ownerGeneration: GENERATION + 1n });
        assertEvidence(judge(seen(later, 0)), joinEvidence);
      }
    });

    it("never `released` from a generation further on: it says nothing about this one's end", () => {
      const later = record({ joinEvidence: "free" }, { ownerGeneration: GENERATION + 2n });
      const verdict = judge(seen(later, 0));
      assert(verdict.kind === "evidence" && verdict.evidence.kind === "rejoined");
    });

    it("not when the later generation has none: a twin may have taken the id (hazard H17)", () => {
      const without = record({ joinEvidence: "none" }, { ownerGeneration: GENERATION + 1n });
      assertImpossible(judge(seen(without, EVER), LAX), /without recording evidence/);
      const sanlocks = foreign({ ownerGeneration: GENERATION + 1n });
      assertImpossible(judge(seen(sanlocks, EVER)), /without recording evidence/);
    });

    it("not about the generations that failed joins claimed, but about those before them", () => {
      const after = (generations: bigint): DeltaSector =>
        record(
          { joinEvidence: "reboot", unproven: 2 },
          { ownerGeneration: GENERATION + generations },
        );
      for (const generations of [1n, 2n]) {
        assertImpossible(judge(seen(after(generations), EVER), LAX), /without recording evidence/);
      }
      assertEvidence(judge(seen(after(3n), 0)), "reboot");
      assertEvidence(judge(seen(after(4n), 0)), "rejoined");
    });

    it("from a sanlock host's later generation where a human vouches for their watchdogs", () => {
      const sanlocks = foreign({ ownerGeneration: GENERATION + 1n });
      assertEvidence(judge(seen(sanlocks, 0), LAX), "rejoined");
    });

    it("not from an older generation: the LUN has lost writes (planted bug 20)", () => {
      for (const timestamp of [0n, 42n]) {
        const older = record({}, { ownerGeneration: GENERATION - 1n, timestamp });
        assertImpossible(judge(seen(older, EVER), LAX), /older than the lease's/);
      }
    });

    it("not from a record that is zero or cannot be read (hazard M25)", () => {
      assertImpossible(judge(seen(undefined, EVER), LAX), /cannot be read: the sector is all zero/);
    });
  });

  describe("confirmed: a human's word (DESIGN section 8; hazard M25)", () => {
    const said: Confirmation = {
      hostId: HOST,
      generation: GENERATION,
      confirmedAtMs: NOW - 1_000,
    };
    const none = record({ watchdog: "none", armed: false });

    it("counts when nothing else would", () => {
      assertEvidence(judge(seen(none, 3_000), STRICT, said), "confirmed");
      assertEvidence(judge(seen(record({ virtual: true }), 3_000), STRICT, said), "confirmed");
      assertEvidence(judge(seen(foreign(), 8_000), STRICT, said), "confirmed");
    });

    it("is refused while the host renews, which a host silent for less than T may do", () => {
      assertImpossible(judge(seen(none, 2_999), STRICT, said), /without a watchdog/);
      assertImpossible(judge(seen(foreign(), 7_999), STRICT, said), /sanlock daemon/);
    });

    it("is for one host and one generation", () => {
      const wrong: readonly Confirmation[] = [
        { ...said, generation: GENERATION - 1n },
        { ...said, generation: GENERATION + 1n },
        { ...said, hostId: HOST + 1 },
      ];
      for (const confirmation of wrong) {
        assert.equal(judge(seen(none, EVER), STRICT, confirmation).kind, "impossible");
      }
      const rejoined = record({ watchdog: "none" }, { ownerGeneration: GENERATION + 1n });
      assert.equal(judge(seen(rejoined, EVER), STRICT, said, GENERATION + 1n).kind, "impossible");
    });

    it("is valid for ten minutes", () => {
      const at = (ageMs: number): Confirmation => ({ ...said, confirmedAtMs: NOW - ageMs });
      assertEvidence(judge(seen(none, EVER), STRICT, at(599_999)), "confirmed");
      assert.equal(judge(seen(none, EVER), STRICT, at(600_000)).kind, "impossible");
    });
  });
});
