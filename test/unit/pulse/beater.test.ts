import assert from "node:assert/strict";

import {
  decodeDeltaSector,
  type DeltaSector,
  encodeDeltaSector,
} from "../../../lib/format/delta-sector.js";
import { deltaOffset, geometryOf, leaderOffset } from "../../../lib/format/geometry.js";
import { encodePaxosLeaderSector } from "../../../lib/format/leader-record.js";
import { vacantRecord } from "../../../lib/lease/delta-lease.js";
import { Heartbeat, type WatchedLease } from "../../../lib/lease/heartbeat.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { type BatchResult, type DiskOp, type LunDevice } from "../../../lib/port/disk.js";
import { Beater } from "../../../lib/pulse/beater.js";
import { Board } from "../../../lib/pulse/board.js";
import { type Petter, petAfter } from "../../../lib/pulse/petter.js";
import { View } from "../../../lib/pulse/view.js";
import { MemoryLuns } from "../../helpers/memory-luns.js";
import { freeLeader, lunSetOf, SPACE } from "../lease/samples.js";

const geometry = geometryOf(512);
const TIMINGS = PROFILES.default;
const HOST = 2;
const GENERATION = 4n;
const LEASES = ["group:a", "group:b"].map((resourceName, index): WatchedLease => ({
  area: 7 + index,
  lver: 5n,
  resourceName,
  shared: false,
}));

/** One member on LUNs in memory; every batch takes a millisecond, and otherwise only the test moves the time. */
class Bench {
  nowMs = 1_000;
  readonly luns: MemoryLuns;
  readonly steps: string[] = [];
  readonly submitted: (readonly DiskOp[])[] = [];
  stuck = false;
  /** Runs before a batch is carried out; may move the clock or change what is watched. */
  before: (ops: readonly DiskOp[]) => void = () => undefined;
  outcome: BatchResult | undefined;
  readonly heartbeat: Heartbeat;
  readonly beater: Beater;
  defect: unknown;
  told = 0;

  constructor(resumedAtMs?: number) {
    this.luns = new MemoryLuns(geometry, 1);
    const vacant = vacantRecord(geometry, SPACE, TIMINGS, 1);
    assert.ok(vacant.host !== undefined);
    const record: DeltaSector = {
      ...vacant,
      leader: {
        ...vacant.leader,
        ownerId: BigInt(HOST),
        ownerGeneration: GENERATION,
        resourceName: "n2",
        timestamp: 100n,
      },
      host: { ...vacant.host, watchdog: "hardware", joinEvidence: "free" },
    };
    for (let hostId = 1; hostId <= 16; hostId++) {
      const data = encodeDeltaSector(geometry, vacant);
      this.luns.writeAll({ kind: "write", offset: deltaOffset(geometry, hostId), data });
    }
    const offset = deltaOffset(geometry, HOST);
    this.luns.writeAll({ kind: "write", offset, data: encodeDeltaSector(geometry, record) });
    for (const { area, lver, resourceName } of LEASES) {
      const leader = {
        ...freeLeader({ lver, resourceName }),
        ownerId: BigInt(HOST),
        ownerGeneration: GENERATION,
        timestamp: 7n,
      };
      const data = encodePaxosLeaderSector(geometry, leader);
      this.luns.writeAll({ kind: "write", offset: leaderOffset(geometry, area), data });
    }
    const lunSet = lunSetOf(1);
    this.heartbeat = new Heartbeat({
      geometry,
      luns: lunSet,
      timings: TIMINGS,
      membership: { hostId: HOST, generation: GENERATION, record },
      resumedAtMs,
    });
    const petter: Petter = {
      kind: "hardware",
      device: undefined,
      arm: async () => {
        this.steps.push(`set W while the record says ${this.armedOnDisk()}`);
        return await Promise.resolve(TIMINGS.watchdogMs);
      },
      pet: () => this.steps.push("pet"),
      overran: () => this.steps.push("reset"),
      disarm: async () => {
        this.steps.push(`stop while the record says ${this.armedOnDisk()}`);
        await Promise.resolve();
      },
      leave: async () => {
        await Promise.resolve();
      },
    };
    const device = (): LunDevice => this.#device();
    this.beater = new Beater({
      luns: lunSet,
      timings: TIMINGS,
      device,
      clock: { bootMs: () => this.nowMs },
      heartbeat: this.heartbeat,
      view: new View(geometry, 16, lunSet, HOST),
      board: new Board({
        geometry,
        luns: lunSet,
        deadlineMs: TIMINGS.deadlineMs,
        device,
        hostId: HOST,
        generation: GENERATION,
        found: undefined,
      }),
      petter,
      log: () => undefined,
      onBeat: () => this.told++,
      onDefect: (error) => {
        this.defect = error;
      },
    });
  }

  armedOnDisk(): string {
    const decoded = decodeDeltaSector(geometry, this.luns.read(0, deltaOffset(geometry, HOST)));
    return decoded.kind === "ok" && decoded.value.host?.armed === true ? "armed" : "not armed";
  }

  get writes(): number {
    return this.submitted.flat().filter((op) => op.kind === "write").length;
  }

  /** One beat to its end. */
  async beat(): Promise<void> {
    this.beater.beatNow();
    for (let turn = 0; turn < 50; turn++) {
      await Promise.resolve();
    }
    assert.equal(this.defect, undefined, String(this.defect));
  }

  #device(): LunDevice {
    return {
      stuck: this.stuck,
      submit: async (ops) => {
        this.submitted.push(ops);
        this.before(ops);
        await Promise.resolve();
        if (this.outcome !== undefined) {
          return this.outcome;
        }
        const startedMs = this.nowMs;
        this.nowMs += 1;
        const reads = ops.flatMap((op) => this.luns.perform(0, op) ?? []);
        const timings = ops.map(() => ({ startedMs, completedMs: this.nowMs }));
        return { kind: "done", reads, timings };
      },
      close: async () => {
        await Promise.resolve();
      },
    };
  }
}

describe("pulse's beats", () => {
  it("is two reads and one write, of the used part only, and everything every tenth beat", async () => {
    const bench = new Bench();
    for (let beat = 0; beat < 11; beat++) {
      await bench.beat();
      bench.nowMs += TIMINGS.intervalMs;
    }
    const lengths = bench.submitted
      .filter((ops) => ops[0]?.kind === "read")
      .map((ops) => ops.map((op) => (op.kind === "read" ? op.length / 512 : 0)));
    const used = [HOST, HOST];
    const all = [16, 16];
    assert.deepEqual(lengths, [all, ...new Array<number[]>(9).fill(used), all]);
    assert.equal(bench.writes, 11);
  });

  it("nothing at all goes to a LUN with an I/O past its deadline (DESIGN 4)", async () => {
    const bench = new Bench();
    bench.stuck = true;
    await bench.beat();
    await bench.beater.observe();
    assert.equal(bench.submitted.length, 0);
    assert.equal(bench.beater.conditions[0]?.state, "stuck");
    assert.equal(bench.beater.stuck, true);
  });

  it("sets W before armed = 1 is written, and stops the watchdog only after armed = 0 is (H16)", async () => {
    const bench = new Bench();
    await bench.beat();
    await bench.beater.arm();
    assert.equal(bench.armedOnDisk(), "armed");
    assert.equal(bench.heartbeat.isPublished(true), true);
    await bench.beater.disarm();
    const steps = bench.steps.filter((step) => step !== "pet");
    assert.deepEqual(steps, [
      "set W while the record says not armed",
      "stop while the record says not armed",
    ]);
    assert.equal(bench.armedOnDisk(), "not armed");
  });

  it("pets once per counted renewal, and not for one that did not count (H5)", async () => {
    const bench = new Bench();
    await bench.beat();
    await bench.beater.arm();
    const pets = (): number => bench.steps.filter((step) => step === "pet").length;
    const before = pets();
    bench.nowMs += TIMINGS.intervalMs;
    await bench.beat();
    assert.equal(pets(), before + 1);
    bench.outcome = { kind: "late" };
    await bench.beat();
    bench.outcome = { kind: "failed", code: "EIO", message: "" };
    await bench.beat();
    assert.equal(pets(), before + 1);
  });

  it("other leases while the leaders are read: they are read again, and nothing is lost by mistake", async () => {
    const bench = new Bench();
    await bench.beat();
    bench.heartbeat.watch(LEASES.slice(0, 1));
    bench.nowMs += TIMINGS.intervalMs + TIMINGS.deadlineMs + 1;
    const gapEndMs = bench.nowMs;
    bench.heartbeat.mayRenew(gapEndMs);
    let isFirst = true;
    bench.before = (ops) => {
      if (isFirst && ops.length === 3) {
        isFirst = false;
        bench.heartbeat.watch([...LEASES].reverse());
      }
    };
    await bench.beat();
    assert.equal(isFirst, false);
    assert.equal(bench.heartbeat.loss, undefined);
    assert.equal(bench.submitted.at(-2)?.length, 4, "both leaders were read");
    assert.ok((bench.heartbeat.renewedAtMs ?? 0) > gapEndMs);
  });

  it("a gap that becomes too long during the read asks for the leaders, and is not a loss (H5)", async () => {
    const bench = new Bench();
    await bench.beat();
    bench.heartbeat.watch(LEASES);
    bench.nowMs += TIMINGS.intervalMs + TIMINGS.deadlineMs - 10;
    bench.before = () => {
      bench.nowMs += 12;
    };
    await bench.beat();
    assert.equal(bench.heartbeat.loss, undefined);
    assert.equal(bench.submitted.at(-2)?.length, 4, "read again, now with the leaders");
  });

  it("a taken lease seen after a gap is a loss, and then nothing is written, ever (H6)", async () => {
    const bench = new Bench();
    await bench.beat();
    bench.heartbeat.watch(LEASES);
    const leader = {
      ...freeLeader({ lver: 6n, resourceName: "group:a" }),
      ownerId: 9n,
      ownerGeneration: 1n,
      timestamp: 1n,
    };
    const data = encodePaxosLeaderSector(geometry, leader);
    bench.luns.writeAll({ kind: "write", offset: leaderOffset(geometry, 7), data });
    bench.nowMs += TIMINGS.intervalMs + TIMINGS.deadlineMs + 1;
    bench.heartbeat.mayRenew(bench.nowMs);
    const { writes, told } = bench;
    await bench.beat();
    assert.match(bench.heartbeat.loss ?? "", /group:a was taken over/);
    assert.equal(bench.told, told + 1, "the daemon is told at once");
    bench.nowMs += 1;
    await bench.beat();
    await bench.beater.observe();
    await assert.rejects(bench.beater.arm(), { code: "ERR_LOST" });
    await assert.rejects(bench.beater.disarm(), { code: "ERR_LOST" });
    assert.equal(bench.writes, writes);
  });
});

describe("petting", () => {
  const verdict = { kind: "pet", petUntilMs: 1_000, resetAfterMs: 1_250 } as const;

  function pets(first: number, second: number): { result: string; steps: string[] } {
    const steps: string[] = [];
    const times = [first, second];
    const petter = {
      pet: (untilMs: number) => steps.push(`pet ${untilMs}`),
      overran: (lateMs: number) => steps.push(`late by ${lateMs}`),
    };
    const clock = { bootMs: () => times.shift() ?? NaN };
    return { result: petAfter(verdict, clock, petter as unknown as Petter), steps };
  }

  it("looks at the clock, pets, looks again, and resets when it was stopped in between (H5)", () => {
    assert.deepEqual(pets(1_000, 1_250), { result: "petted", steps: ["pet 1000"] });
    assert.deepEqual(pets(1_000.1, 1_000.2), { result: "skipped", steps: [] });
    assert.deepEqual(pets(999, 1_251), { result: "overran", steps: ["pet 1000", "late by 1"] });
  });
});
