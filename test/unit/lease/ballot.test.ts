import assert from "node:assert/strict";
import fc from "fast-check";

import {
  acquireLease,
  type AcquireOutcome,
  type AcquireTerms,
} from "../../../lib/lease/acquire.js";
import { releaseLease } from "../../../lib/lease/wait.js";
import { type DiskProcedure, type LunSet } from "../../../lib/lease/procedure.js";
import { explore, runSchedule, type World } from "../../helpers/interleavings.js";
import { healthyNode, ProcedureStepper, type TestClock } from "../../helpers/procedure-stepper.js";
import { type MemoryLuns } from "../../helpers/memory-luns.js";
import { acquireTerms, freshLuns, lunSetOf, proofOf } from "./samples.js";

/** Who is inside, and every lver that was granted. */
class Referee {
  readonly inside = new Map<number, boolean>();
  readonly granted = new Map<bigint, number>();
  readonly outcomes: AcquireOutcome["kind"][] = [];

  enter(hostId: number, lver: bigint, shared: boolean): void {
    this.inside.set(hostId, shared);
    if (!shared) {
      assert.equal(this.granted.get(lver), undefined, `lver ${lver} was granted twice`);
      for (const earlier of this.granted.keys()) {
        assert(lver > earlier, `lver ${lver} was granted after ${earlier}`);
      }
      this.granted.set(lver, hostId);
    }
    this.check();
  }

  check(): void {
    const exclusive = [...this.inside.values()].filter((shared) => !shared).length;
    assert(exclusive <= 1, "two hosts own the lease");
    assert(exclusive === 0 || this.inside.size === 1, "an owner beside a shared holder");
  }
}

interface Client {
  readonly hostId: number;
  readonly luns: LunSet;
  readonly shared: boolean;
  readonly evidenceFor?: AcquireTerms["evidenceFor"];
}

/** Takes the lease once, holds it for one step, and releases it; finds out what became of an undecided lver. */
function* client(
  referee: Referee,
  { hostId, luns, shared, evidenceFor }: Client,
): DiskProcedure<void> {
  let undecidedLver: bigint | undefined;
  for (;;) {
    const terms = acquireTerms(hostId, { luns, shared, undecidedLver });
    const outcome = yield* acquireLease(
      evidenceFor === undefined ? terms : { ...terms, evidenceFor },
    );
    referee.outcomes.push(outcome.kind);
    if (outcome.kind === "undecided") {
      undecidedLver = outcome.lver;
      continue;
    }
    if (outcome.kind !== "granted") {
      assert.notEqual(outcome.kind, "damaged");
      return;
    }
    referee.enter(hostId, outcome.held.leader.lver, shared);
    yield { kind: "post", change: { remove: [], add: [] } };
    referee.inside.delete(hostId);
    const released = yield* releaseLease(luns, terms.self, outcome.held);
    assert.equal(released.kind, "released");
    return;
  }
}

interface Plan {
  readonly total: 1 | 3 | 5;
  /** One host each. */
  readonly shared: readonly boolean[];
  /** Host 1 dies when it has taken this many steps. */
  readonly dies?: number;
  /** A host dies in its pause after this many aborted ballots, so that every schedule ends. */
  readonly abortsMax: number;
}

class TestWorld implements World {
  readonly luns: MemoryLuns;
  readonly hosts: readonly ProcedureStepper<unknown>[];
  readonly #plan: Plan;
  readonly #lunSet: LunSet;
  readonly #referee = new Referee();
  readonly #clock: TestClock = { nowMs: 0 };
  readonly #dead = new Set<number>();

  constructor(plan: Plan) {
    this.#plan = plan;
    this.luns = freshLuns(plan.total);
    this.#lunSet = lunSetOf(plan.total);
    this.hosts = plan.shared.map((shared, index) => this.#host(index + 1, shared));
  }

  #host(hostId: number, shared: boolean): ProcedureStepper<unknown> {
    const procedure = client(this.#referee, { hostId, luns: this.#lunSet, shared });
    return new ProcedureStepper(procedure, this.luns, this.#lunSet, healthyNode(), this.#clock);
  }

  check(): void {
    this.hosts.forEach((host, index) => {
      // Arming touches nothing that others see: no point in choosing when.
      if (host.request?.kind === "arm") {
        host.proceed();
      }
      const pauses = host.request?.kind === "sleep" ? host.pauses + 1 : host.pauses;
      const isDue = index === 0 && this.#plan.dies !== undefined && host.steps >= this.#plan.dies;
      if (!host.isDone && (pauses > this.#plan.abortsMax || isDue)) {
        host.crash();
        this.#dead.add(index + 1);
        this.#referee.inside.delete(index + 1);
      }
    });
    this.#referee.check();
  }

  finish(): void {
    // Whatever happened, the lease is not stuck: a host that comes later, with evidence against the dead, gets it.
    const proofs = [...this.#dead].map((hostId) => [hostId, 1n] as const);
    const late = client(this.#referee, {
      hostId: 4,
      luns: this.#lunSet,
      shared: false,
      evidenceFor: proofOf(...proofs),
    });
    new ProcedureStepper(late, this.luns, this.#lunSet, healthyNode(), this.#clock).run();
    assert.equal(this.#referee.outcomes.at(-1), "granted", "nobody holds it, nobody can have it");
  }

  extraKey(): string {
    return `${[...this.#referee.granted].join(" ")} ${[...this.#referee.inside].join(" ")}`;
  }
}

describe("ballots (Disk Paxos, Gafni and Lamport 2003; DESIGN section 6)", () => {
  it("never grant an lver twice, in every interleaving of two proposers on one LUN", function () {
    this.timeout(60_000);
    const makeWorld = (): World =>
      new TestWorld({ total: 1, shared: [false, false], abortsMax: 1 });
    const explored = explore({ makeWorld, statesMax: 40_000 });
    assert.equal(explored.truncated, false, "every interleaving was tried");
    assert(explored.ends > 100, `${explored.ends} different ends`);
  });

  it("keep shared and exclusive apart, in every interleaving of one of each on one LUN", function () {
    this.timeout(60_000);
    const makeWorld = (): World => new TestWorld({ total: 1, shared: [false, true], abortsMax: 1 });
    const explored = explore({ makeWorld, statesMax: 80_000 });
    assert.equal(explored.truncated, false, "every interleaving was tried");
    assert(explored.ends > 100, `${explored.ends} different ends`);
  });

  it("survive the death of a proposer after any of its steps", function () {
    this.timeout(60_000);
    for (let dies = 1; dies <= 12; dies++) {
      const makeWorld = (): World =>
        new TestWorld({ total: 1, shared: [false, false], abortsMax: 2, dies });
      const explored = explore({ makeWorld, preemptionsMax: 3, statesMax: 2_000 });
      assert(explored.ends > 0);
    }
  });

  it("hold for three proposers on one LUN, interrupted up to twice", function () {
    this.timeout(60_000);
    const makeWorld = (): World =>
      new TestWorld({ total: 1, shared: [false, false, false], abortsMax: 4 });
    const explored = explore({ makeWorld, preemptionsMax: 2, statesMax: 8_000 });
    assert(explored.ends > 100, `${explored.ends} different ends`);
  });

  it("hold for two proposers on three LUNs, interrupted once", function () {
    this.timeout(60_000);
    const makeWorld = (): World =>
      new TestWorld({ total: 3, shared: [false, false], abortsMax: 4 });
    const explored = explore({ makeWorld, preemptionsMax: 1, statesMax: 4_000 });
    assert(explored.ends > 100, `${explored.ends} different ends`);
  });

  it("hold for any schedule of three hosts on three LUNs", function () {
    this.timeout(60_000);
    fc.assert(
      fc.property(
        fc.infiniteStream(fc.nat(1_000_000)),
        fc.tuple(fc.boolean(), fc.boolean(), fc.boolean()),
        (numbers, shared) => {
          const world = new TestWorld({ total: 3, shared, abortsMax: 20 });
          runSchedule(world, (count) => (numbers.next().value ?? 0) % count);
        },
      ),
      { numRuns: 300 },
    );
  });
});
