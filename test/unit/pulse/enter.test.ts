import assert from "node:assert/strict";

import sinon from "sinon";

import { type DeltaSector, encodeDeltaSector } from "../../../lib/format/delta-sector.js";
import { deltaOffset } from "../../../lib/format/geometry.js";
import { type HostRecord } from "../../../lib/format/host-record.js";
import { type LeaderRecord } from "../../../lib/format/leader-record.js";
import { type Identity, vacantRecord } from "../../../lib/lease/delta-lease.js";
import { PROFILES, renewalSeenMs } from "../../../lib/lease/timings.js";
import { type BatchResult, type DiskOp } from "../../../lib/port/disk.js";
import { type Entered, type EnterTerms, join, resume } from "../../../lib/pulse/enter.js";
import { parsePulseOptions } from "../../../lib/pulse/options.js";
import { type PulseState } from "../../../lib/pulse/saved-state.js";
import { type Region } from "../../../lib/region/open-region.js";
import { type MemoryLuns } from "../../helpers/memory-luns.js";
import { freshLuns, geometry, lunSetOf, MAX_HOSTS, SPACE } from "../lease/samples.js";

const TIMINGS = PROFILES.default;
const HOST = 2;
const GENERATION = 4n;
const ME: Identity = {
  name: "n2",
  watchdog: "guard",
  virtual: false,
  bootIdHash: 11n,
  machineIdHash: 22n,
  stateIdHash: 33,
};
const RENEWED_MS = 100_000;

/** A node's state directory and LUNs in memory, just after its pulse died. */
class Bench {
  nowMs = RENEWED_MS + 1_000;
  readonly luns: MemoryLuns;
  readonly total: 1 | 3;
  readonly answers: (BatchResult | undefined)[] = [];
  readonly submitted: DiskOp[] = [];
  readonly stop = new AbortController();

  constructor(total: 1 | 3 = 1) {
    this.total = total;
    this.luns = freshLuns(total);
  }

  record(leader: Partial<LeaderRecord> = {}, host: Partial<HostRecord> = {}): DeltaSector {
    const vacant = vacantRecord(geometry, SPACE, TIMINGS, 1);
    assert.ok(vacant.host !== undefined);
    return {
      ...vacant,
      leader: {
        ...vacant.leader,
        ownerId: BigInt(HOST),
        ownerGeneration: GENERATION,
        resourceName: "n2",
        timestamp: 100n,
        ...leader,
      },
      host: {
        ...vacant.host,
        watchdog: "guard",
        bootIdHash: ME.bootIdHash,
        machineIdHash: ME.machineIdHash,
        stateIdHash: ME.stateIdHash,
        joinEvidence: "free",
        ...host,
      },
    };
  }

  write(record: DeltaSector, lun?: number, hostId = HOST): void {
    const data = encodeDeltaSector(geometry, record);
    const op = { kind: "write", offset: deltaOffset(geometry, hostId), data } as const;
    if (lun === undefined) {
      this.luns.writeAll(op);
    } else {
      this.luns.perform(lun, op);
    }
  }

  terms(flags: readonly string[] = [], changes: Partial<EnterTerms> = {}): EnterTerms {
    const region = {
      geometry,
      spaceName: SPACE,
      maxHosts: MAX_HOSTS,
      timings: TIMINGS,
      lunSet: lunSetOf(this.total),
      devices: Array.from({ length: this.total }, (_, lun) => ({
        stuck: false,
        submit: async (ops: readonly DiskOp[]) => await this.#submit(lun, ops),
        close: async () => {
          await Promise.resolve();
        },
      })),
    };
    return {
      // The parts of a region that entering uses.
      region: region as unknown as Region,
      identity: ME,
      hostId: undefined,
      options: parsePulseOptions(["--state-dir", "/s", ...flags]),
      tornDown: undefined,
      lastMembership: undefined,
      clock: { bootMs: () => this.nowMs },
      log: () => undefined,
      signal: this.stop.signal,
      ...changes,
    };
  }

  saved(changes: Partial<PulseState> = {}): PulseState {
    return {
      pid: 5,
      startTime: "6",
      hostId: HOST,
      generation: GENERATION,
      bootIdHash: ME.bootIdHash,
      node: "n2",
      joinEvidence: "free",
      record: encodeDeltaSector(geometry, this.record()),
      keeper: undefined,
      ...changes,
    };
  }

  async #submit(lun: number, ops: readonly DiskOp[]): Promise<BatchResult> {
    await Promise.resolve();
    const answer = this.answers[lun];
    if (answer !== undefined) {
      return answer;
    }
    this.submitted.push(...ops);
    const startedMs = this.nowMs;
    this.nowMs += 1;
    const reads = ops.flatMap((op) => this.luns.perform(lun, op) ?? []);
    return {
      kind: "done",
      reads,
      timings: ops.map(() => ({ startedMs, completedMs: this.nowMs })),
    };
  }
}

function refused(entered: Entered, code: string, message: RegExp): void {
  assert.equal(entered.kind, "exit");
  assert.equal(entered.exit.code, code);
  assert.match(entered.exit.message, message);
  assert.ok(entered.exit.hint !== "");
  assert.equal(entered.exit.torndown, false, "nothing was torn down by refusing");
}

/** Its machine was another boot when the record on the LUNs was written. */
const REBOOTED = {
  identity: { ...ME, bootIdHash: 12n },
  lastMembership: { hostId: HOST, generation: GENERATION },
};

const TICK_MS = 20;

/** Joins in a time that passes with the bench's clock; `onTick` is what others do meanwhile. */
async function joinOn(
  bench: Bench,
  terms: EnterTerms,
  onTick: () => void = () => undefined,
): Promise<Entered> {
  const timers = sinon.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    let entered: Entered | undefined;
    const joining = join(terms).then((how) => (entered = how));
    for (let ticks = 0; entered === undefined && ticks < 10_000; ticks++) {
      bench.nowMs += TICK_MS;
      onTick();
      await timers.tickAsync(TICK_MS);
    }
    return await joining;
  } finally {
    timers.restore();
  }
}

describe("a pulse that joins after a reboot", () => {
  it("takes its record once that has stood still for long enough to tell that nobody renews it", async () => {
    const bench = new Bench();
    bench.write(bench.record({}, { armed: true }));
    const startedMs = bench.nowMs;
    const entered = await joinOn(bench, bench.terms([], REBOOTED));
    assert.equal(entered.kind, "member");
    assert.deepEqual(
      [entered.membership.generation, entered.membership.record.host?.joinEvidence],
      [GENERATION + 1n, "reboot"],
    );
    const wrote = bench.submitted.findIndex(({ kind }) => kind === "write");
    assert(bench.nowMs - startedMs >= renewalSeenMs(TIMINGS) && wrote > 2);
  });

  it("does not where the record moves: one of the two machines is a copy of the other", async () => {
    const bench = new Bench();
    bench.write(bench.record());
    let timestamp = 100n;
    const entered = await joinOn(bench, bench.terms([], REBOOTED), () => {
      bench.write(bench.record({ timestamp: ++timestamp }));
    });
    refused(entered, "ERR_CLONED_MACHINE", /n2 \(host id 2\) is running elsewhere/);
    assert.ok(bench.submitted.every(({ kind }) => kind === "read"));
  });
});

describe("a pulse that joins for a machine that is off for good", () => {
  const other = { machineIdHash: 99n, armed: true } as const;

  it("is refused its name, unless a human has said so; then it waits until the record is silent", async () => {
    const bench = new Bench();
    bench.write(bench.record({}, other));
    const without = await joinOn(bench, bench.terms());
    refused(without, "ERR_NAME_TAKEN", /another machine/);
    const startedMs = bench.nowMs;
    const entered = await joinOn(bench, bench.terms(["--confirm-off"]));
    assert.equal(entered.kind, "member");
    assert.deepEqual(
      [entered.membership.hostId, entered.membership.record.host?.joinEvidence],
      [HOST, "confirmed"],
    );
    assert(bench.nowMs - startedMs >= TIMINGS.ttlMs);
  });

  it("is refused when that machine goes on, or another one has come in its place", async () => {
    for (const [change, code, message] of [
      [{ timestamp: 101n }, "ERR_HOST_ID_TAKEN", /in use by n2, which renews it/],
      [{ ownerGeneration: GENERATION + 1n }, "ERR_NO_EVIDENCE", /n2 .* may still be writing/],
    ] as const) {
      const bench = new Bench();
      bench.write(bench.record({}, other));
      let ticks = 0;
      const entered = await joinOn(bench, bench.terms(["--confirm-off"]), () => {
        ticks += 1;
        if (ticks === 50) {
          bench.write(bench.record(change, other));
        }
      });
      refused(entered, code, message);
      assert.ok(bench.submitted.every(({ kind }) => kind === "read"));
    }
  });
});

describe("a pulse that carries a generation on", () => {
  it("takes the newest record that a majority shows, and writes nothing", async () => {
    const bench = new Bench(3);
    bench.write(bench.record());
    bench.write(bench.record({ timestamp: 107n }, { armed: true }), 1);
    const entered = await resume(bench.terms(["--resume-armed"]), bench.saved(), RENEWED_MS);
    assert.equal(entered.kind, "member");
    assert.equal(entered.membership.generation, GENERATION);
    assert.equal(entered.membership.record.leader.timestamp, 107n);
    assert.equal(entered.membership.record.host?.armed, true);
    assert.ok(bench.submitted.every(({ kind }) => kind === "read"));
  });

  it("not when its last renewal is T old or older, or lies in the future (H6)", async () => {
    for (const [gapMs, message] of [
      [TIMINGS.ttlMs, /is 30\d\d ms old, T is 3000 ms/],
      [60_000, /ms old, T is 3000 ms/],
      [-1_000, /ms old/],
    ] as const) {
      const bench = new Bench();
      bench.write(bench.record());
      bench.nowMs = RENEWED_MS + gapMs;
      refused(await resume(bench.terms(), bench.saved(), RENEWED_MS), "ERR_NOT_RESUMED", message);
    }
  });

  it("up to T, measured after the LUNs were read", async () => {
    const bench = new Bench();
    bench.write(bench.record());
    bench.nowMs = RENEWED_MS + TIMINGS.ttlMs - 3;
    assert.equal((await resume(bench.terms(), bench.saved(), RENEWED_MS)).kind, "member");
    bench.nowMs = RENEWED_MS + TIMINGS.ttlMs - 1;
    assert.equal((await resume(bench.terms(), bench.saved(), RENEWED_MS)).kind, "exit");
  });

  it("not when the LUNs show another generation, owner, boot, machine, or that it has left", async () => {
    const cases: [Partial<LeaderRecord>, Partial<HostRecord>, RegExp][] = [
      [{ ownerGeneration: GENERATION + 1n }, {}, /generation 5 of host 2/],
      [{ ownerId: 3n }, {}, /generation 4 of host 3/],
      [{}, { bootIdHash: 12n }, /not this node's/],
      [{}, { machineIdHash: 23n }, /not this node's/],
      [{}, { stateIdHash: 34 }, /not this node's/],
      [{ resourceName: "n3" }, {}, /not this node's/],
      [{ timestamp: 0n }, {}, /it has left/],
    ];
    for (const [leader, host, message] of cases) {
      const bench = new Bench();
      bench.write(bench.record(leader, host));
      refused(await resume(bench.terms(), bench.saved(), RENEWED_MS), "ERR_NOT_RESUMED", message);
      assert.ok(bench.submitted.every(({ kind }) => kind === "read"));
    }
  });

  it("not when the daemon believes it armed and the LUNs do not say so (H16)", async () => {
    const bench = new Bench();
    bench.write(bench.record());
    const entered = await resume(bench.terms(["--resume-armed"]), bench.saved(), RENEWED_MS);
    refused(entered, "ERR_NOT_RESUMED", /believes it armed/);
  });

  it("not without a majority, nor by a record that is damaged or without its host part", async () => {
    const cut = new Bench(3);
    cut.write(cut.record());
    cut.answers[0] = { kind: "late" };
    cut.answers[2] = { kind: "failed", code: "EIO", message: "" };
    refused(await resume(cut.terms(), cut.saved(), RENEWED_MS), "ERR_NOT_RESUMED", /no majority/);
    const damaged = new Bench();
    damaged.write(damaged.record());
    const offset = deltaOffset(geometry, HOST);
    const data = damaged.luns.read(0, offset).slice();
    data[40] = (data[40] ?? 0) ^ 1;
    damaged.luns.writeAll({ kind: "write", offset, data });
    const entered = await resume(damaged.terms(), damaged.saved(), RENEWED_MS);
    refused(entered, "ERR_NOT_RESUMED", /record on the LUN/);
    const foreign = new Bench();
    foreign.write({ ...foreign.record(), host: undefined, hostState: "absent" });
    refused(await resume(foreign.terms(), foreign.saved(), RENEWED_MS), "ERR_NOT_RESUMED", /whole/);
  });
});
