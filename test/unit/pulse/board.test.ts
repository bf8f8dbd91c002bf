import assert from "node:assert/strict";

import { decodeOutbox, type Outbox } from "../../../lib/format/outbox.js";
import { outboxOffset } from "../../../lib/format/geometry.js";
import { type BatchResult, type LunDevice } from "../../../lib/port/disk.js";
import { Board } from "../../../lib/pulse/board.js";
import { MemoryLuns } from "../../helpers/memory-luns.js";
import { geometry, lunSetOf } from "../lease/samples.js";

const HOST = 2;
const GENERATION = 5n;

function ticket(area: number): Outbox["entries"][number] {
  return {
    kind: "ticket",
    shared: false,
    targetHostId: 0,
    area,
    targetGeneration: 0n,
    value: 1n,
    nonce: 0xffff_ffff_ffff_ffffn,
  };
}

/** Three LUNs in memory; each can be told what to answer instead of writing. */
class Bench {
  readonly luns = new MemoryLuns(geometry, 3);
  readonly answers: (BatchResult | undefined)[] = [undefined, undefined, undefined];
  readonly stuck = [false, false, false];
  readonly writes = [0, 0, 0];
  readonly board: Board;

  constructor(notCounting: readonly number[] = [], found?: Outbox) {
    this.board = new Board({
      geometry,
      luns: lunSetOf(3, notCounting),
      deadlineMs: 1_000,
      device: (lun) => this.#device(lun),
      hostId: HOST,
      generation: GENERATION,
      found,
    });
  }

  onDisk(lun: number): Outbox | undefined {
    const decoded = decodeOutbox(geometry, this.luns.read(lun, outboxOffset(geometry, HOST)));
    return decoded.kind === "ok" ? decoded.value : undefined;
  }

  #device(lun: number): LunDevice {
    return {
      stuck: this.stuck[lun]!,
      submit: async ([op]) => {
        this.writes[lun]!++;
        const answer = this.answers[lun];
        await Promise.resolve();
        if (answer !== undefined) {
          return answer;
        }
        this.luns.perform(lun, op!);
        return { kind: "done", reads: [], timings: [{ startedMs: 0, completedMs: 1 }] };
      },
      close: async () => {
        await Promise.resolve();
      },
    };
  }
}

const FAILED: BatchResult = { kind: "failed", code: "EIO", message: "" };

describe("pulse's board", () => {
  it("a change counts when it is on a majority; a LUN that missed it gets it with its next beat", async () => {
    const bench = new Bench();
    bench.answers[2] = FAILED;
    assert.equal(await bench.board.post({ remove: [], add: [ticket(7)] }), true);
    assert.equal(bench.onDisk(1)?.entries[0]?.area, 7);
    assert.equal(bench.onDisk(2), undefined);
    bench.answers[2] = undefined;
    await bench.board.refresh(2);
    assert.deepEqual(bench.onDisk(2), bench.onDisk(1));
    const writes = [...bench.writes];
    await bench.board.refresh(0);
    await bench.board.refresh(2);
    assert.deepEqual(bench.writes, writes, "what is there is not written again");
  });

  it("without a majority it is not known, and it is written again until it is there", async () => {
    const bench = new Bench();
    bench.answers[1] = { kind: "late" };
    bench.answers[2] = FAILED;
    assert.equal(await bench.board.post({ remove: [], add: [ticket(7)] }), false);
    bench.answers[1] = bench.answers[2] = undefined;
    await Promise.all([bench.board.refresh(1), bench.board.refresh(2)]);
    assert.equal(bench.onDisk(1)?.entries.length, 1);
    assert.equal(bench.onDisk(2)?.entries.length, 1);
  });

  it("a LUN that does not count is written, and does not count (H13)", async () => {
    const bench = new Bench([0]);
    bench.answers[1] = FAILED;
    assert.equal(await bench.board.post({ remove: [], add: [ticket(7)] }), false);
    assert.equal(bench.onDisk(0)?.entries.length, 1);
  });

  it("nothing goes to a LUN that is stuck", async () => {
    const bench = new Bench();
    bench.stuck[0] = true;
    assert.equal(await bench.board.post({ remove: [], add: [] }), true);
    await bench.board.refresh(0);
    assert.deepEqual(bench.writes, [0, 1, 1]);
  });

  it("goes on from the sequence found; entries of an earlier generation are gone, own ones stay", async () => {
    const found: Outbox = {
      hostId: HOST,
      generation: GENERATION - 1n,
      sequence: 41n,
      tableGeneration: 3n,
      entries: [ticket(9)],
    };
    const next = new Bench([], found);
    await next.board.post({ remove: [], add: [] });
    assert.deepEqual(next.onDisk(0), {
      ...found,
      generation: GENERATION,
      sequence: 42n,
      entries: [],
    });
    const same = new Bench([], { ...found, generation: GENERATION });
    await same.board.post({ remove: [], add: [ticket(8)] });
    assert.deepEqual(
      same.onDisk(0)?.entries.map(({ area }) => area),
      [9, 8],
    );
    assert.equal(await same.board.clear(), true);
    assert.deepEqual(same.onDisk(2)?.entries, []);
  });

  it("more entries than fit change nothing", async () => {
    const bench = new Bench();
    await bench.board.post({ remove: [], add: [ticket(7)] });
    const add = Array.from({ length: 8 }, (_, index) => ticket(10 + index));
    await assert.rejects(bench.board.post({ remove: [], add }), { code: "ERR_OUTBOX_FULL" });
    await bench.board.post({ remove: [], add: [] });
    assert.equal(bench.onDisk(0)?.entries.length, 1);
  });
});
