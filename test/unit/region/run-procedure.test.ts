import assert from "node:assert/strict";

import { ShareHaError } from "../../../lib/errors.js";
import { type DiskProcedure } from "../../../lib/lease/procedure.js";
import { type BatchResult, type LunDevice } from "../../../lib/port/disk.js";
import { NO_STANDING, runProcedure } from "../../../lib/region/run-procedure.js";

const DONE: BatchResult = {
  kind: "done",
  reads: [],
  timings: [{ startedMs: 0, completedMs: 1 }],
};

function deviceThat(answers: () => Promise<BatchResult>): LunDevice {
  return { submit: answers, stuck: false, close: () => Promise.resolve() };
}

async function look(devices: readonly LunDevice[]): Promise<readonly BatchResult["kind"][]> {
  function* procedure(): DiskProcedure<readonly BatchResult["kind"][]> {
    const turn = yield { kind: "io", ops: [], wait: "all" };
    return turn.luns.map((result) => result.kind);
  }
  return await runProcedure(procedure(), {
    devices,
    luns: { total: 3, counts: [true, true, true] },
    deadlineMs: 500,
    clock: { bootMs: () => 0 },
    standing: () => NO_STANDING,
    post: () => Promise.resolve(false),
    arm: () => Promise.resolve(false),
  });
}

function refusing(code: string): LunDevice {
  const error = new ShareHaError(code, "no", { hint: "test" });
  return deviceThat(() => Promise.reject(error));
}

describe("runProcedure", () => {
  const good = deviceThat(() => Promise.resolve(DONE));

  it("takes a LUN whose queue is full for one to which nothing was issued", async () => {
    assert.deepEqual(await look([good, refusing("ERR_IO_QUEUE"), good]), ["done", "busy", "done"]);
  });

  it("rejects for every other mistake of its caller", async () => {
    await assert.rejects(look([good, refusing("ERR_IO_CLOSED"), good]), { code: "ERR_IO_CLOSED" });
  });
});
