import assert from "node:assert/strict";

import { type ChildEnd, watchChild } from "../../../lib/system/watched-child.js";

const SCRIPT = new URL("../../helpers/child-look.js", import.meta.url);

async function watch(
  how: string,
  timeoutMs: number,
): Promise<{ end: ChildEnd; messages: unknown[]; ms: number }> {
  const messages: unknown[] = [];
  const startMs = performance.now();
  const end = await watchChild(SCRIPT, [how], {
    timeoutMs,
    onMessage: (message) => messages.push(message),
  });
  return { end, messages, ms: performance.now() - startMs };
}

const FACT = [{ kind: "fact", big: 2n ** 60n }];

describe("a look in a process of its own", () => {
  it("brings what was said, 64-bit numbers too, and ends", async () => {
    const { end, messages } = await watch("ends", 4_000);
    assert.deepEqual([end, messages], [{ kind: "ended" }, FACT]);
  });

  it("keeps what was said before it failed, and says how", async () => {
    const { end, messages } = await watch("fails", 4_000);
    assert.deepEqual([end, messages], [{ kind: "failed", why: "exit code 7 no such thing" }, FACT]);
  });

  it("does not wait for one that goes on for ever, and keeps what it said", async () => {
    const { end, messages, ms } = await watch("hangs", 1_500);
    assert.deepEqual([end, messages], [{ kind: "late", timeoutMs: 1_500 }, FACT]);
    assert.ok(ms < 2_500, `${ms} ms`);
  });

  it("does not wait for the end of one that has said good-bye", async () => {
    const { end, messages, ms } = await watch("hangs after good-bye", 60_000);
    assert.deepEqual([end, messages], [{ kind: "ended" }, FACT]);
    assert.ok(ms < 4_500, `${ms} ms`);
  });
});
