import assert from "node:assert/strict";

import { decodeHostBlock, type HostBlock } from "../../../lib/format/dblock.js";
import { dblockOffset, leaderOffset } from "../../../lib/format/geometry.js";
import { decodeLeaderRecord, type LeaderRecord } from "../../../lib/format/leader-record.js";
import {
  acquireLease,
  type AcquireOutcome,
  type AcquireTerms,
} from "../../../lib/lease/acquire.js";
import { type HeldLease, writeBlockOp } from "../../../lib/lease/ballot.js";
import { releaseLease } from "../../../lib/lease/wait.js";
import { type MemoryLuns } from "../../helpers/memory-luns.js";
import {
  healthyNode,
  ProcedureStepper,
  type StepperNode,
  type TestClock,
} from "../../helpers/procedure-stepper.js";
import {
  acquireTerms,
  address,
  freeLeader,
  freshLuns,
  geometry,
  lunSetOf,
  proofOf,
  writeLeader,
} from "./samples.js";

const EIO = { kind: "failed", code: "EIO", message: "" } as const;

class Bench {
  readonly luns: MemoryLuns;
  readonly clock: TestClock = { nowMs: 0 };
  readonly total: 1 | 3 | 5;

  constructor(total: 1 | 3 | 5 = 1) {
    this.total = total;
    this.luns = freshLuns(total);
  }

  stepper(
    hostId: number,
    changes: Partial<AcquireTerms> = {},
    node: StepperNode = healthyNode(),
  ): ProcedureStepper<AcquireOutcome> {
    const luns = changes.luns ?? lunSetOf(this.total);
    const terms = acquireTerms(hostId, { luns, ...changes });
    return new ProcedureStepper(acquireLease(terms), this.luns, luns, node, this.clock);
  }

  acquire(
    hostId: number,
    changes: Partial<AcquireTerms> = {},
    node: StepperNode = healthyNode(),
  ): AcquireOutcome {
    return this.stepper(hostId, changes, node).run();
  }

  take(hostId: number, changes: Partial<AcquireTerms> = {}): HeldLease {
    const outcome = this.acquire(hostId, changes);
    assert(outcome.kind === "granted", JSON.stringify(outcome.kind));
    return outcome.held;
  }

  release(hostId: number, held: HeldLease, node: StepperNode = healthyNode()): string {
    const luns = lunSetOf(this.total);
    const self = { hostId, generation: 1n };
    return new ProcedureStepper(
      releaseLease(luns, self, held),
      this.luns,
      luns,
      node,
      this.clock,
    ).run().kind;
  }

  leader(lun = 0): LeaderRecord {
    const decoded = decodeLeaderRecord(
      this.luns.read(lun, leaderOffset(geometry, address.area)),
      "paxos",
    );
    assert(decoded.kind === "ok");
    return decoded.value;
  }

  block(hostId: number, lun = 0): HostBlock {
    const decoded = decodeHostBlock(
      geometry,
      this.luns.read(lun, dblockOffset(geometry, address.area, hostId)),
    );
    assert(decoded.kind === "ok");
    return decoded.value;
  }
}

describe("acquire and release (DESIGN section 6; sanlock facts 2.5 to 2.7)", () => {
  it("exclusive: the leader names the owner, lver + 1 each time, and is free afterwards", () => {
    const bench = new Bench();
    for (const [hostId, lver] of [
      [1, 1n],
      [2, 2n],
      [1, 3n],
    ] as const) {
      const held = bench.take(hostId);
      const leader = bench.leader();
      assert.deepEqual(
        [leader.ownerId, leader.ownerGeneration, leader.lver, leader.writeId, leader.timestamp],
        [BigInt(hostId), 1n, lver, BigInt(hostId), 100n + BigInt(hostId)],
      );
      assert.deepEqual(held.leader, leader);
      assert.equal(bench.release(hostId, held), "released");
      assert.equal(bench.leader().timestamp, 0n);
      assert.equal(bench.leader().lver, lver, "lver never goes back");
      assert.equal(bench.block(hostId).dblock.released, true);
    }
  });

  it("uncontended costs one look, two phases of one write and one read, and one commit", () => {
    const bench = new Bench();
    const stepper = bench.stepper(1);
    const requests: string[] = [];
    while (!stepper.isDone) {
      const { request } = stepper;
      requests.push(
        request?.kind === "io" ? request.ops.map((op) => op.kind).join("+") : (request?.kind ?? ""),
      );
      do {
        stepper.advance();
      } while (stepper.request === request);
    }
    assert.deepEqual(requests, ["read", "arm", "write+read", "write+read", "write"]);
  });

  it("is refused with who, since when and which version while somebody holds it", () => {
    const bench = new Bench();
    bench.take(1, { wallSeconds: 1_700_000_000n });
    const outcome = bench.acquire(2);
    assert.deepEqual(outcome, {
      kind: "held",
      holders: [
        { hostId: 1, generation: 1n, lver: 1n, shared: false, sinceWallSeconds: 1_700_000_000n },
      ],
    });
  });

  describe("arming (DESIGN section 6: set, read back, pet, armed = 1 on a majority, then the ballot)", () => {
    it("comes after the look and before anything is written", () => {
      const bench = new Bench();
      const before = bench.luns.contentKey();
      const outcome = bench.acquire(1, {}, healthyNode({ arm: () => false }));
      assert.equal(outcome.kind, "not-armed");
      assert.equal(bench.luns.contentKey(), before, "nothing was written");
    });

    it("must be in the standing too, and the heartbeat younger than T", () => {
      const standing = { renewedAtMs: 0, ttlMs: 3_000, lost: false, armed: true };
      for (const [wrong, why] of [
        [{ ...standing, armed: false }, /could not be armed/],
        [{ ...standing, lost: true }, /must rejoin/],
        [{ ...standing, renewedAtMs: -3_000 }, /older than T/],
      ] as const) {
        const outcome = new Bench().acquire(1, {}, healthyNode({ standing: wrong }));
        assert(outcome.kind === "not-armed");
        assert.match(outcome.why, why);
      }
    });

    it("is not asked for a lease that somebody holds: who holds nothing is never reset", () => {
      const bench = new Bench();
      bench.take(1);
      let asked = 0;
      bench.acquire(2, {}, healthyNode({ arm: () => ++asked > 0 }));
      assert.equal(asked, 0);
    });
  });

  describe("giving up", () => {
    it("after phase 2, because T ran out, is `undecided` and commits nothing (planted bug 31)", () => {
      const bench = new Bench();
      const node = healthyNode();
      const stepper = bench.stepper(1, {}, node);
      while (bench.block(1).dblock.bal === 0n) {
        stepper.advance();
      }
      node.standing = { ...node.standing, lost: true };
      const outcome = stepper.run();
      assert(outcome.kind === "undecided" && outcome.lver === 1n);
      assert.equal(bench.leader().lver, 0n);
    });

    it("never forgets in a later ballot what it accepted in an earlier one", () => {
      const bench = new Bench();
      const node = healthyNode();
      const stepper = bench.stepper(1, {}, node);
      advance(stepper, 6); // look, arm, phase 1, phase 2: decided, and nobody knows
      node.fault = () => EIO;
      assert.equal(stepper.run().kind, "undecided");
      const again = bench.stepper(1, { undecidedLver: 1n, timestamp: 999n });
      advance(again, 3); // look, arm, phase 1 written
      const { dblock } = bench.block(1);
      assert.deepEqual([dblock.bal, dblock.inp, dblock.inp3], [1n, 1n, 101n]);
      assert(dblock.mbal > 1n, "with a higher ballot");
      again.crash();
      const other = bench.acquire(2);
      assert.equal(other.kind, "held", "whoever comes next decides it for host 1");
      assert.equal(bench.leader().ownerId, 1n);
    });

    it("after phase 2, because the LUN fails, is `undecided` too", () => {
      const bench = new Bench();
      const node = healthyNode();
      const stepper = bench.stepper(1, {}, node);
      while (bench.block(1).dblock.bal === 0n) {
        stepper.advance();
      }
      node.fault = () => EIO;
      assert.equal(stepper.run().kind, "undecided");
    });

    it("before anything was proposed is `no-quorum`", () => {
      const bench = new Bench();
      const node = healthyNode({ fault: (_lun, op) => (op.kind === "write" ? EIO : undefined) });
      assert.equal(bench.acquire(1, {}, node).kind, "no-quorum");
      assert.equal(bench.acquire(1, {}, healthyNode({ fault: () => EIO })).kind, "no-quorum");
    });

    it("after an aborted ballot whose value is still open is `undecided`", () => {
      const bench = new Bench();
      const one = bench.stepper(1);
      const two = bench.stepper(2);
      advance(one, 4); // look, arm, phase 1
      advance(two, 4);
      advance(one, 2); // phase 2, overtaken by host 2's larger mbal
      assert.equal(one.request?.kind, "sleep");
      one.proceed();
      const node = healthyNode({ fault: () => EIO });
      const again = bench.stepper(1, { undecidedLver: 1n }, node);
      const outcome = again.run();
      assert(outcome.kind === "undecided" && outcome.lver === 1n);
    });
  });

  describe("a value that somebody else decided for this host", () => {
    /** Host 1 is overtaken after its phase 2 by host 2, which adopts the value and commits it for host 1. */
    function decidedForOne(bench: Bench): ProcedureStepper<AcquireOutcome> {
      const one = bench.stepper(1);
      advance(one, 4);
      const two = bench.stepper(2);
      advance(two, 3); // look, arm, phase 1 written
      advance(one, 2); // phase 2: aborted by host 2's mbal
      assert.equal(one.request?.kind, "sleep");
      advance(two, 5); // phase 1 read, phase 2, look and commit for host 1
      assert.equal(bench.leader().ownerId, 1n);
      assert.equal(bench.leader().writeId, 2n);
      return one;
    }

    it("is its grant", () => {
      const bench = new Bench();
      const outcome = decidedForOne(bench).run();
      assert(outcome.kind === "granted");
      assert.equal(outcome.held.leader.lver, 1n);
      assert.equal(bench.leader().writeId, 1n);
      assert.equal(bench.release(1, outcome.held), "released");
      assert.equal(bench.acquire(3).kind, "granted");
    });

    it("is its grant in a later try, which knows that it was undecided", () => {
      const bench = new Bench();
      decidedForOne(bench).crash();
      const refused = bench.acquire(1);
      assert(refused.kind === "held", "without knowing, it might be held by somebody on this node");
      assert.equal(bench.acquire(1, { undecidedLver: 1n }).kind, "granted");
    });

    it("is given back at once by whoever wanted it shared", () => {
      const bench = new Bench();
      decidedForOne(bench).crash();
      const outcome = bench.acquire(1, { undecidedLver: 1n, shared: true });
      assert(outcome.kind === "granted" && outcome.held.shared);
      assert.equal(bench.acquire(2, { shared: true }).kind, "granted");
    });

    it("is not a grant once it has been released, or in another generation", () => {
      const bench = new Bench();
      const first = decidedForOne(bench).run();
      assert(first.kind === "granted");
      const generationTwo = bench.acquire(1, {
        undecidedLver: 1n,
        self: { hostId: 1, generation: 2n },
      });
      assert(generationTwo.kind === "granted" && generationTwo.held.leader.lver === 2n);
    });

    it("stays free when the commit in the owner's name lands after it moved on", () => {
      const bench = new Bench();
      const held = bench.take(1);
      const stale = bench.leader();
      assert.equal(bench.release(1, held), "released");
      // Host 2's commit for host 1, of the same lver, arrives only now.
      writeLeader(bench.luns, { ...stale, writeId: 2n });
      const three = bench.stepper(1);
      advance(three, 3); // host 1 has entered lver 2
      assert.equal(bench.block(1).dblock.lver, 2n);
      three.crash();
      assert.equal(bench.acquire(3).kind, "granted");
    });
  });

  describe("shared (facts section 2.7)", () => {
    it("on three LUNs is on a majority before the lease looks free on any (planted bug 107)", () => {
      const luns = freshLuns(3);
      const saysShared = (lun: number): boolean => {
        const block = decodeHostBlock(
          geometry,
          luns.read(lun, dblockOffset(geometry, address.area, 1)),
        );
        return block.kind === "ok" && block.value.mode.shared;
      };
      let freed = 0;
      const node = healthyNode({
        fault: (_, op) => {
          const isLeader =
            op.kind === "write" && op.offset === leaderOffset(geometry, address.area);
          const leader = isLeader ? decodeLeaderRecord(op.data, "paxos") : undefined;
          if (leader?.kind === "ok" && leader.value.timestamp === 0n) {
            freed++;
            assert([0, 1, 2].filter(saysShared).length >= 2);
          }
          return undefined;
        },
      });
      const terms = acquireTerms(1, { luns: lunSetOf(3), shared: true });
      const clock = { nowMs: 10_000 };
      const outcome = new ProcedureStepper(
        acquireLease(terms),
        luns,
        lunSetOf(3),
        node,
        clock,
      ).run();
      assert(outcome.kind === "granted" && outcome.held.shared);
      assert(freed >= 2);
    });

    it("is held by several at once, each in its own block, the leader free", () => {
      const bench = new Bench();
      const one = bench.take(1, { shared: true });
      const two = bench.take(2, { shared: true });
      assert.equal(bench.leader().timestamp, 0n);
      assert.deepEqual(
        [1, 2, 3].map((hostId) => bench.block(hostId).mode),
        [
          { shared: true, generation: 1n },
          { shared: true, generation: 1n },
          { shared: false, generation: 0n },
        ],
      );
      assert.equal(bench.release(1, one), "released");
      const still = bench.acquire(3);
      assert(still.kind === "held");
      assert.deepEqual(
        still.holders.map((holder) => [holder.hostId, holder.shared]),
        [[2, true]],
      );
      assert.equal(bench.release(2, two), "released");
      assert.equal(bench.acquire(3).kind, "granted");
    });

    it("is kept out by an exclusive holder", () => {
      const bench = new Bench();
      bench.take(1);
      assert.equal(bench.acquire(2, { shared: true }).kind, "held");
    });

    it("an exclusive request with evidence clears the dead and is granted, ballots untouched", () => {
      const bench = new Bench();
      bench.take(1, { shared: true });
      const before = bench.block(1).dblock;
      const outcome = bench.acquire(2, { evidenceFor: proofOf([1, 1n]) });
      assert(outcome.kind === "granted");
      assert.deepEqual(
        outcome.evidence.map((proof) => [proof.kind, proof.hostId]),
        [["expired", 1]],
      );
      assert.equal(bench.block(1).mode.shared, false);
      assert.deepEqual(bench.block(1).dblock, before);
    });

    it("one dead and one alive: refused by the one that lives", () => {
      const bench = new Bench();
      bench.take(1, { shared: true });
      bench.take(3, { shared: true });
      const outcome = bench.acquire(2, { evidenceFor: proofOf([1, 1n]) });
      assert(outcome.kind === "held");
      assert.deepEqual(
        outcome.holders.map((holder) => holder.hostId),
        [3],
      );
    });
  });

  describe("evidence (DESIGN section 8)", () => {
    it("about this host and this generation, else the lease stays where it is", () => {
      const bench = new Bench();
      bench.take(1);
      for (const wrong of [proofOf([1, 2n]), proofOf([2, 1n]), proofOf()]) {
        assert.equal(bench.acquire(2, { evidenceFor: wrong }).kind, "held");
      }
      const lie: AcquireTerms["evidenceFor"] = () => ({
        kind: "expired",
        hostId: 1,
        generation: 7n,
        detail: "",
      });
      assert.equal(bench.acquire(2, { evidenceFor: lie }).kind, "held");
      const outcome = bench.acquire(2, { evidenceFor: proofOf([1, 1n]) });
      assert(outcome.kind === "granted" && outcome.held.leader.lver === 2n);
      assert.equal(outcome.evidence.length, 1, "recorded with the take-over");
    });

    it("is not needed against an earlier generation of the own host id", () => {
      const bench = new Bench();
      bench.take(1);
      const outcome = bench.acquire(1, { self: { hostId: 1, generation: 2n } });
      assert(outcome.kind === "granted" && outcome.held.leader.ownerGeneration === 2n);
    });

    it("against a later generation of the own host id is: this one is the past", () => {
      const bench = new Bench();
      bench.take(1, { self: { hostId: 1, generation: 5n } });
      assert.equal(bench.acquire(1).kind, "held");
    });
  });

  describe("damaged and missing", () => {
    it("never reads a leader of zeros, of another lease or with a bad checksum as free", () => {
      const damage: readonly ((bench: Bench) => void)[] = [
        (bench) => {
          bench.luns.blank(0);
        },
        (bench) => {
          writeLeader(bench.luns, freeLeader({ resourceName: "db" }));
        },
        (bench) => {
          writeLeader(bench.luns, freeLeader({ spaceName: "other" }));
        },
        (bench) => {
          const bytes = bench.luns.read(0, leaderOffset(geometry, address.area));
          bytes[40]! ^= 1;
          bench.luns.writeAll({
            kind: "write",
            offset: leaderOffset(geometry, address.area),
            data: bytes,
          });
        },
      ];
      for (const harm of damage) {
        const bench = new Bench();
        harm(bench);
        const outcome = bench.acquire(1);
        assert(outcome.kind === "damaged");
        assert.match(outcome.reason, /^LUN 1: /);
      }
    });

    it("says `missing` for a deleted lease (facts: cleared)", () => {
      const bench = new Bench();
      writeLeader(bench.luns, freeLeader({ kind: "cleared" }));
      assert.deepEqual(bench.acquire(1), { kind: "missing" });
    });

    it("refuses a lease with more hosts than it was told to read", () => {
      const bench = new Bench();
      writeLeader(bench.luns, freeLeader({ numHosts: 2_000n }));
      assert.equal(bench.acquire(1).kind, "damaged");
    });

    it("skips a block with a bad checksum, as sanlock does in a ballot (facts section 1.4)", () => {
      const bench = new Bench();
      const op = writeBlockOp(address, 3, {
        dblock: { mbal: 9n, bal: 0n, inp: 0n, inp2: 0n, inp3: 0n, lver: 1n, released: false },
        mode: { shared: false, generation: 0n },
        sequence: 1n,
      });
      op.data[0]! ^= 1;
      bench.luns.writeAll(op);
      assert.equal(bench.acquire(1).kind, "granted");
    });
  });

  describe("quorum of LUNs (DESIGN section 6; hazard H13)", () => {
    it("the highest lver of a majority counts: a stale LUN does not bring a holder back", () => {
      const bench = new Bench(3);
      const held = bench.take(1);
      const stale = bench.luns.copy(2);
      bench.release(1, held);
      bench.luns.restore(2, stale);
      const outcome = bench.acquire(2);
      assert(outcome.kind === "granted" && outcome.held.leader.lver === 2n);
    });

    it("a lease held on a majority stays held when one LUN is stale", () => {
      for (const lun of [0, 1, 2]) {
        const bench = new Bench(3);
        const stale = bench.luns.copy(lun);
        bench.take(1);
        bench.luns.restore(lun, stale);
        assert.equal(bench.acquire(2).kind, "held", `LUN ${lun + 1} stale`);
      }
    });

    it("LUN 3 stale, then LUN 2 blank: nobody else gets what is held (blank does not count)", () => {
      const bench = new Bench(3);
      const stale = bench.luns.copy(2);
      bench.take(1);
      bench.luns.restore(2, stale);
      bench.luns.blank(1);
      // Even told that the blank one counts, it makes no majority: a leader of zeros is no answer.
      for (const luns of [lunSetOf(3, [1]), lunSetOf(3)]) {
        for (const away of [undefined, 0, 2]) {
          const node = healthyNode({ fault: (lun) => (lun === away ? EIO : undefined) });
          const outcome = bench.acquire(2, { luns }, node);
          assert.notEqual(outcome.kind, "granted", `away: ${String(away)}`);
        }
      }
    });

    it("a minority never grants, nor does a majority of those that can be reached", () => {
      for (const total of [3, 5] as const) {
        const bench = new Bench(total);
        const reachable = (total - 1) / 2;
        const node = healthyNode({ fault: (lun) => (lun >= reachable ? EIO : undefined) });
        assert.equal(bench.acquire(1, {}, node).kind, "no-quorum");
        const outcome = bench.acquire(1, {
          luns: lunSetOf(total, total === 3 ? [1, 2] : [2, 3, 4]),
        });
        assert.equal(outcome.kind, "no-quorum");
      }
    });

    it("works on with two of five LUNs gone, and the next lver is that + 1 on every LUN", () => {
      const bench = new Bench(5);
      const node = healthyNode({ fault: (lun) => (lun >= 3 ? EIO : undefined) });
      const first = bench.acquire(1, {}, node);
      assert(first.kind === "granted");
      assert.equal(bench.release(1, first.held, node), "released");
      const other = healthyNode({ fault: (lun) => (lun < 2 ? EIO : undefined) });
      const second = bench.acquire(2, {}, other);
      assert(second.kind === "granted" && second.held.leader.lver === 2n);
      for (const lun of [2, 3, 4]) {
        assert.equal(bench.leader(lun).lver, 2n);
      }
    });

    it("a release that reaches only a minority is not finished", () => {
      const bench = new Bench(3);
      const held = bench.take(1);
      const node = healthyNode({ fault: (lun) => (lun > 0 ? EIO : undefined) });
      assert.equal(bench.release(1, held, node), "unfinished");
      assert.equal(bench.release(1, held), "released", "and can be tried again");
    });
  });

  it("only the holder releases", () => {
    const bench = new Bench();
    const held = bench.take(1);
    assert.throws(() => bench.release(2, held), /only the holder/);
  });
});

function advance(stepper: ProcedureStepper<unknown>, steps: number): void {
  for (let count = 0; count < steps; count++) {
    stepper.advance();
  }
}
