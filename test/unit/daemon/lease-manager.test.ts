import assert from "node:assert/strict";

import { AREA, areaOffset, outboxesReadLength } from "../../../lib/format/geometry.js";
import {
  type AcquireRequest,
  LeaseManager,
  type LeaseManagerOptions,
} from "../../../lib/daemon/lease-manager.js";
import { type WatchedLease } from "../../../lib/lease/heartbeat.js";
import { OutboxState } from "../../../lib/lease/outbox-state.js";
import { type DiskProcedure } from "../../../lib/lease/procedure.js";
import { type BatchResult, type DiskOp, type LunDevice } from "../../../lib/port/disk.js";
import { runProcedure } from "../../../lib/region/run-procedure.js";
import { createClock } from "../../../lib/system/clock.js";
import { type MemoryLuns } from "../../helpers/memory-luns.js";
import { address, freshLuns, geometry, lunSetOf, MAX_HOSTS, noRandom } from "../lease/samples.js";

/** The daemon's leases over a LUN in memory; `log` has what it asked of the rest, in order. */
class Bench {
  readonly log: string[] = [];
  watched: readonly WatchedLease[] = [];
  failsWrites = false;
  isLost = false;
  watchError: Error | undefined;
  readonly luns: MemoryLuns;
  readonly #clock = createClock();
  readonly #outbox: OutboxState;
  readonly manager: LeaseManager;

  constructor(luns: MemoryLuns = freshLuns(1), hostId = 1) {
    this.luns = luns;
    this.#outbox = new OutboxState(geometry, hostId, 1n, undefined);
    this.manager = new LeaseManager(this.#options(hostId));
  }

  async acquire(changes: Partial<AcquireRequest> = {}) {
    return await this.manager.acquire({ name: "web", shared: false, waitMs: 0, ...changes });
  }

  #options(hostId: number): LeaseManagerOptions {
    const luns = lunSetOf(1);
    return {
      disk: {
        run: async <T>(procedure: DiskProcedure<T>, signal?: AbortSignal) =>
          await runProcedure(procedure, {
            devices: [this.#device()],
            luns,
            deadlineMs: 1_000,
            clock: this.#clock,
            standing: () => ({
              renewedAtMs: this.#clock.bootMs(),
              ttlMs: 3_000,
              lost: this.isLost,
              armed: !this.isLost,
            }),
            post: (change) => {
              this.luns.writeAll(this.#outbox.apply(change));
              return Promise.resolve(true);
            },
            arm: () => {
              this.log.push("arm");
              return Promise.resolve(!this.isLost);
            },
            ...(signal === undefined ? {} : { signal }),
          }),
        hasRight: () => !this.isLost,
        luns,
        inFlight: 0,
      },
      clock: this.#clock,
      random: noRandom,
      wallSeconds: () => 1_700_000_000n,
      intervalMs: 20,
      deadlineMs: 1_000,
      holdBackMs: 100,
      self: () => ({ hostId, generation: 1n }),
      hindrance: () => undefined,
      lookup: (name) => Promise.resolve(name === "web" ? address : undefined),
      forget: () => undefined,
      evidenceFor: () => undefined,
      isLive: () => true,
      outboxes: () => ({
        kind: "read",
        offset: areaOffset(geometry, AREA.outboxes),
        length: outboxesReadLength(geometry, MAX_HOSTS),
      }),
      waiters: () => 0,
      hasTicket: () => false,
      dropTicket: () => Promise.resolve(),
      watch: (leases) => {
        this.watched = leases;
        this.log.push(`watch ${leases.length}`);
        return this.watchError === undefined ? Promise.resolve() : Promise.reject(this.watchError);
      },
      disarm: () => {
        this.log.push("disarm");
        return Promise.resolve(true);
      },
      persist: () => {
        this.log.push(`persist ${this.manager.notes().length}`);
      },
      onEvent: (event) => {
        this.log.push(event);
      },
    };
  }

  #device(): LunDevice {
    return {
      submit: (ops: readonly DiskOp[]): Promise<BatchResult> => {
        if (this.failsWrites && ops.some((op) => op.kind === "write")) {
          return Promise.resolve({ kind: "failed", code: "EIO", message: "planted" });
        }
        const startedMs = this.#clock.bootMs();
        const results = ops.map((op) => this.luns.perform(0, op));
        const timings = ops.map(() => ({ startedMs, completedMs: this.#clock.bootMs() }));
        const reads = results.filter((bytes) => bytes !== undefined);
        return Promise.resolve({ kind: "done", reads, timings });
      },
      stuck: false,
      close: () => Promise.resolve(),
    };
  }
}

async function until(isTrue: () => boolean): Promise<void> {
  for (let turn = 0; !isTrue(); turn++) {
    assert.ok(turn < 2_000, "it did not come about");
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

describe("LeaseManager", () => {
  it("reports a grant only after pulse watches it and it is noted for the next daemon", async () => {
    const bench = new Bench();
    const outcome = await bench.acquire();
    assert.equal(outcome.kind, "granted");
    const told = bench.log.indexOf("lease-granted");
    assert.ok(bench.log.indexOf("watch 1") < told && bench.log.indexOf("persist 1") < told);
    assert.deepEqual(bench.watched, [
      { area: address.area, lver: 1n, resourceName: "web", shared: false },
    ]);
  });

  it("says so when pulse cannot be told of a grant; the next connection tells it", async () => {
    const bench = new Bench();
    bench.watchError = new Error("pulse is gone");
    assert.equal((await bench.acquire()).kind, "granted");
    await until(() => bench.log.includes("pulse-silent"));
    assert.equal(bench.manager.watched().length, 1);
  });

  it("lets one local request hold a lease, and serves waiting ones in their order", async () => {
    const bench = new Bench();
    assert.equal((await bench.acquire()).kind, "granted");
    assert.equal((await bench.acquire()).kind, "held-here");
    const order: number[] = [];
    const waiting = [1, 2, 3].map(async (number) => {
      const outcome = await bench.acquire({ waitMs: 5_000 });
      order.push(number);
      assert.equal(outcome.kind, "granted");
      await bench.manager.release("web");
    });
    await bench.manager.release("web");
    await Promise.all(waiting);
    assert.deepEqual(order, [1, 2, 3]);
  });

  it("ends a wait when its client goes, and the next one is served", async () => {
    const bench = new Bench();
    await bench.acquire();
    const gone = new AbortController();
    const first = bench.acquire({ waitMs: null, signal: gone.signal });
    const second = bench.acquire({ waitMs: 5_000 });
    gone.abort();
    assert.equal((await first).kind, "cancelled");
    await bench.manager.release("web");
    assert.equal((await second).kind, "granted");
  });

  it("ends a wait for another node's lease when its client goes", async () => {
    const bench = new Bench();
    await bench.acquire();
    const other = new Bench(bench.luns, 2);
    const gone = new AbortController();
    const waiting = other.acquire({ waitMs: null, signal: gone.signal });
    gone.abort();
    assert.equal((await waiting).kind, "cancelled");
    assert.deepEqual(other.manager.busy, []);
  });

  it("does not watch a lease any more before it is released on disk", async () => {
    const bench = new Bench();
    await bench.acquire();
    bench.log.length = 0;
    const releasing = bench.manager.release("web");
    assert.deepEqual(bench.log, ["watch 0"]);
    assert.deepEqual(await releasing, { kind: "released" });
  });

  it("stays armed while a ballot is undecided, and gives back what it turns out to have won", async () => {
    const bench = new Bench();
    const held = await bench.acquire();
    assert.equal(held.kind, "granted");
    bench.failsWrites = true;
    const released = await bench.manager.release("web");
    assert.equal(released.kind, "unfinished");
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(bench.manager.busy, [{ name: "web", doing: "settling" }]);
    assert.ok(!bench.log.includes("disarm"));
    bench.failsWrites = false;
    await until(() => bench.log.includes("disarm"));
    assert.equal((await new Bench(bench.luns, 2).acquire()).kind, "granted");
  });

  it("disarms when nothing was held for one beat, and not in between", async () => {
    const bench = new Bench();
    for (let round = 0; round < 5; round++) {
      await bench.acquire();
      await bench.manager.release("web");
    }
    assert.ok(!bench.log.includes("disarm"));
    await until(() => bench.log.includes("disarm"));
  });

  it("holds nothing after a loss and writes nothing for it; waiters are told", async () => {
    const bench = new Bench();
    await bench.acquire();
    const waiting = bench.acquire({ waitMs: null });
    bench.isLost = true;
    bench.failsWrites = true;
    const lost = bench.manager.lose();
    assert.deepEqual(
      lost.map((hold) => hold.name),
      ["web"],
    );
    await assert.rejects(waiting, { code: "ERR_NOT_JOINED" });
    await assert.rejects(bench.acquire(), { code: "ERR_NOT_JOINED" });
    assert.equal((await new Bench(bench.luns, 2).acquire()).kind, "held");
  });

  it("releases what was bound to a connection and nothing else", async () => {
    const bench = new Bench();
    await bench.acquire({ binding: { id: 7 } });
    await bench.manager.releaseBound({ id: 8 });
    assert.ok(bench.manager.hold("web") !== undefined);
    await bench.manager.releaseBound({ id: 7 });
    assert.equal(bench.manager.hold("web"), undefined);
  });

  it("names a lease that does not exist", async () => {
    await assert.rejects(new Bench().acquire({ name: "nowhere" }), { code: "ERR_NO_SUCH_LEASE" });
  });
});
