import assert from "node:assert/strict";

import {
  AREA,
  areaOffset,
  outboxesReadLength,
  outboxOffset,
} from "../../../lib/format/geometry.js";
import { decodeOutbox, encodeOutbox, type Outbox } from "../../../lib/format/outbox.js";
import { type AcquireTerms } from "../../../lib/lease/acquire.js";
import { OutboxState } from "../../../lib/lease/outbox-state.js";
import { type DiskProcedure } from "../../../lib/lease/procedure.js";
import { ticketEntry } from "../../../lib/lease/queue.js";
import {
  acquireOrWait,
  nameSuccessor,
  releaseLease,
  type WaitOutcome,
  type WaitTerms,
} from "../../../lib/lease/wait.js";
import { type HeldLease } from "../../../lib/lease/ballot.js";
import { type MemoryLuns } from "../../helpers/memory-luns.js";
import {
  healthyNode,
  ProcedureStepper,
  type StepperNode,
  type TestClock,
} from "../../helpers/procedure-stepper.js";
import { acquireTerms, address, freshLuns, geometry, lunSetOf, MAX_HOSTS } from "./samples.js";

const HOLD_BACK_MS = 3_000;

/** Four hosts on one LUN, each with an outbox of its own. */
class Bench {
  readonly luns: MemoryLuns = freshLuns(1);
  readonly clock: TestClock = { nowMs: 0 };
  readonly dead = new Set<number>();
  readonly #outboxes = new Map<number, OutboxState>();

  node(hostId: number): StepperNode {
    const outbox = new OutboxState(geometry, hostId, 1n, undefined);
    this.#outboxes.set(hostId, outbox);
    return healthyNode({
      post: (change) => {
        this.luns.writeAll(outbox.apply(change));
        return true;
      },
    });
  }

  queueTerms(): Pick<WaitTerms, "outboxes" | "isLive" | "holdBackMs"> {
    return {
      outboxes: {
        kind: "read",
        offset: areaOffset(geometry, AREA.outboxes),
        length: outboxesReadLength(geometry, MAX_HOSTS),
      },
      isLive: (hostId) => !this.dead.has(hostId),
      holdBackMs: HOLD_BACK_MS,
    };
  }

  waiter(
    hostId: number,
    untilMs: number | undefined,
    changes: Partial<AcquireTerms> = {},
  ): ProcedureStepper<WaitOutcome> {
    const terms = { ...acquireTerms(hostId, changes), ...this.queueTerms(), untilMs };
    return this.#run(hostId, acquireOrWait(terms));
  }

  release(hostId: number, held: HeldLease): void {
    const self = { hostId, generation: 1n };
    const { kind } = this.#run(hostId, releaseLease(lunSetOf(1), self, held)).run();
    assert.equal(kind, "released");
  }

  name(hostId: number, held: HeldLease): void {
    const self = { hostId, generation: 1n };
    const terms = { ...this.queueTerms(), luns: lunSetOf(1), self };
    this.#run(hostId, nameSuccessor(terms, held)).run();
  }

  #run<T>(hostId: number, procedure: DiskProcedure<T>): ProcedureStepper<T> {
    const node = this.#nodes.get(hostId) ?? this.node(hostId);
    this.#nodes.set(hostId, node);
    return new ProcedureStepper(procedure, this.luns, lunSetOf(1), node, this.clock);
  }
  readonly #nodes = new Map<number, StepperNode>();

  grant(hostId: number, changes: Partial<AcquireTerms> = {}): HeldLease {
    return heldBy(this.waiter(hostId, undefined, changes).run());
  }

  outbox(hostId: number): Outbox | undefined {
    const decoded = decodeOutbox(geometry, this.luns.read(0, outboxOffset(geometry, hostId)));
    return decoded.kind === "ok" ? decoded.value : undefined;
  }

  tickets(hostId: number): number {
    const entries = this.outbox(hostId)?.entries ?? [];
    return entries.filter((entry) => entry.kind === "ticket").length;
  }
}

function heldBy(outcome: WaitOutcome): HeldLease {
  assert(outcome.kind === "granted", `it is ${outcome.kind}`);
  return outcome.held;
}

/** Lets a waiter poll until it has slept `times` times, or is done. */
function poll(waiter: ProcedureStepper<WaitOutcome>, times = 1): void {
  const until = waiter.pauses + times;
  while (!waiter.isDone && waiter.pauses < until) {
    waiter.advance();
  }
}

/** Lets several waiters poll in turn until one of them is done. */
function race(...waiters: readonly ProcedureStepper<WaitOutcome>[]): ProcedureStepper<WaitOutcome> {
  for (let round = 0; round < 100_000; round++) {
    for (const waiter of waiters) {
      waiter.advance();
      if (waiter.isDone) {
        return waiter;
      }
    }
  }
  throw new Error("nobody got it");
}

describe("waiting for a lease (DESIGN section 6, queue)", () => {
  it("takes a free lease at once, without a ticket", () => {
    const bench = new Bench();
    heldBy(bench.waiter(1, Infinity).run());
    assert.equal(bench.tickets(1), 0);
    assert.equal(bench.clock.nowMs, 0, "it did not sleep");
  });

  it("without wait: one look, no ticket, and who holds it", () => {
    const bench = new Bench();
    bench.grant(1);
    const outcome = bench.waiter(2, undefined).run();
    assert(outcome.kind === "held" && outcome.holders[0]?.hostId === 1);
    assert.equal(bench.outbox(2), undefined, "nothing was posted");
  });

  it("without wait: does not overtake those that wait, although the lease is free", () => {
    const bench = new Bench();
    const held = bench.grant(1);
    const waiter = bench.waiter(2, Infinity);
    poll(waiter, 2);
    bench.release(1, held);
    assert.deepEqual(bench.waiter(3, undefined).run(), { kind: "queued", ahead: 1 });
    assert.equal(heldBy(waiter.run()).leader.lver, 2n);
  });

  it("gives up in time, takes its ticket out, and says what it saw last", () => {
    const bench = new Bench();
    bench.grant(1);
    const waiter = bench.waiter(2, 5_000);
    poll(waiter, 3);
    assert.equal(bench.tickets(2), 1);
    const outcome = waiter.run();
    assert(outcome.kind === "timed-out" && outcome.last.kind === "held");
    assert(bench.clock.nowMs >= 5_000 && bench.clock.nowMs < 5_100);
    assert.equal(bench.tickets(2), 0);
  });

  it("polls every few ms at first and never less often than every 20 ms", () => {
    const bench = new Bench();
    bench.grant(1);
    const waiter = bench.waiter(2, Infinity);
    const pauses: number[] = [];
    while (pauses.length < 2_000) {
      if (waiter.request?.kind === "sleep") {
        pauses.push(waiter.request.ms);
      }
      waiter.advance();
    }
    assert(pauses.slice(0, 20).every((ms) => ms <= 3));
    assert.equal(Math.max(...pauses), 20);
  });

  it("goes in the order of arrival, whoever polls first", () => {
    const bench = new Bench();
    let held = bench.grant(1);
    const waiters = [2, 3, 4].map((hostId) => bench.waiter(hostId, Infinity));
    for (const waiter of waiters) {
      poll(waiter, 2);
    }
    let holder = 1;
    for (const [index, waiter] of waiters.entries()) {
      bench.release(holder, held);
      bench.name(holder, held);
      // The last in line polls first.
      const winner = race(...waiters.slice(index).toReversed());
      assert.equal(winner, waiter, `turn ${index + 1}`);
      held = heldBy(winner.outcome);
      holder = index + 2;
    }
  });

  it("a lost notice costs a poll and never the turn (planted bug 39)", () => {
    const bench = new Bench();
    const held = bench.grant(1);
    const waiter = bench.waiter(2, Infinity);
    poll(waiter, 5);
    bench.release(1, held);
    const releasedMs = bench.clock.nowMs;
    heldBy(waiter.run());
    assert(bench.clock.nowMs - releasedMs <= 20);
  });

  it("leaves each one before it 2 (h + d), then goes: the first may be dead", () => {
    const bench = new Bench();
    const held = bench.grant(1);
    const first = bench.waiter(2, Infinity);
    poll(first, 2);
    const second = bench.waiter(3, Infinity);
    poll(second, 2);
    first.crash();
    bench.release(1, held);
    const releasedMs = bench.clock.nowMs;
    heldBy(second.run());
    const tookMs = bench.clock.nowMs - releasedMs;
    assert(tookMs >= HOLD_BACK_MS && tookMs <= HOLD_BACK_MS + 50, `${tookMs} ms`);
  });

  it("does not wait for one that is known to be dead", () => {
    const bench = new Bench();
    const held = bench.grant(1);
    const first = bench.waiter(2, Infinity);
    poll(first, 2);
    const second = bench.waiter(3, Infinity);
    poll(second, 2);
    first.crash();
    bench.dead.add(2);
    bench.release(1, held);
    const releasedMs = bench.clock.nowMs;
    heldBy(second.run());
    assert(bench.clock.nowMs - releasedMs <= 20);
  });

  it("a shared request does not overtake an exclusive ticket, nor wait for shared ones", () => {
    const bench = new Bench();
    const held = bench.grant(1, { shared: true });
    const exclusive = bench.waiter(2, Infinity);
    poll(exclusive, 2);
    const late = bench.waiter(3, Infinity, { shared: true });
    poll(late, 5);
    assert.equal(late.isDone, false, "the lease could be shared, but host 2 was there first");
    bench.clock.nowMs += 3 * HOLD_BACK_MS;
    poll(late, 5);
    assert.equal(late.isDone, false, "host 2 waits for host 1, so it has not had its turn yet");
    bench.release(1, held);
    bench.name(1, held);
    assert.equal(race(late, exclusive), exclusive);
    const second = heldBy(exclusive.outcome);
    bench.release(2, second);
    bench.name(2, second);
    heldBy(late.run());
    heldBy(bench.waiter(4, Infinity, { shared: true }).run());
  });

  it("gives a new ticket when a released grant has used up the old one", () => {
    const bench = new Bench();
    const first = bench.grant(1);
    const waiter = bench.waiter(2, Infinity);
    poll(waiter, 2);
    bench.release(1, first);
    const second = heldBy(waiter.run());
    assert.equal(bench.tickets(2), 1, "the ticket is still there, spent");
    bench.release(2, second);
    const third = bench.grant(1);
    const again = bench.waiter(2, Infinity);
    poll(again, 2);
    bench.release(1, third);
    heldBy(again.run());
  });

  it("names the lowest live ticket, and its own used ticket goes in the same write", () => {
    const bench = new Bench();
    const held = bench.grant(1);
    const second = bench.waiter(2, Infinity);
    poll(second, 2);
    const third = bench.waiter(3, Infinity);
    poll(third, 2);
    bench.release(1, held);
    const granted = heldBy(second.run());
    bench.release(2, granted);
    const before = bench.outbox(2)?.sequence ?? 0n;
    bench.name(2, granted);
    assert.equal(bench.outbox(2)?.sequence, before + 1n);
    assert.deepEqual(
      bench.outbox(2)?.entries.map((entry) => [entry.kind, entry.targetHostId, entry.value]),
      [["handover", 3, granted.leader.lver]],
    );
  });

  it("keeps one notice per lease: the outbox does not fill up with old ones", () => {
    const bench = new Bench();
    for (let round = 0; round < 6; round++) {
      const held = bench.grant(1);
      const next = 2 + (round % 3);
      const waiter = bench.waiter(next, Infinity);
      poll(waiter, 2);
      bench.release(1, held);
      bench.name(1, held);
      assert.equal(bench.outbox(1)?.entries.length, 1);
      const granted = heldBy(waiter.run());
      bench.release(next, granted);
      bench.name(next, granted);
    }
  });

  it("names nobody after the lease has gone on", () => {
    const bench = new Bench();
    const held = bench.grant(1);
    const waiter = bench.waiter(2, Infinity);
    poll(waiter, 2);
    bench.release(1, held);
    heldBy(waiter.run());
    bench.name(1, held);
    assert.equal(bench.outbox(1), undefined);
  });

  it("a ticket in a sector that is not its host's is nobody's", () => {
    const bench = new Bench();
    const forged = encodeOutbox(geometry, {
      hostId: 4,
      generation: 1n,
      sequence: 1n,
      tableGeneration: 0n,
      entries: [ticketEntry(address.area, 1n, 0n, false)],
    });
    bench.luns.writeAll({ kind: "write", offset: outboxOffset(geometry, 3), data: forged });
    assert.equal(bench.waiter(1, undefined).run().kind, "granted");
  });
});
