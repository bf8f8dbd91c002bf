import assert from "node:assert/strict";

import fc from "fast-check";

import { LocalQueue } from "../../../lib/daemon/local-queue.js";

/** Notes how a wait ended, in the order in which waits end. */
function noteEnd(log: string[], name: string, wait: Promise<string>): Promise<void> {
  return wait.then((turn) => {
    log.push(`${name} ${turn}`);
  });
}

/** Everything that is settled by now has been noted. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

describe("LocalQueue (one holder per lease and node)", () => {
  it("lets one in at once, and the others in the order in which they came", async () => {
    const queue = new LocalQueue();
    const log: string[] = [];
    const waits = ["a", "b", "c"].map((name) => noteEnd(log, name, queue.enter(undefined)));
    await settled();
    assert.deepEqual(log, ["a entered"]);
    assert.equal(queue.leave(), "next");
    await settled();
    assert.deepEqual(log, ["a entered", "b entered"]);
    assert.equal(queue.leave(), "next");
    await Promise.all(waits);
    assert.deepEqual(log, ["a entered", "b entered", "c entered"]);
    assert.equal(queue.leave(), "empty");
    assert.equal(await queue.enter(0), "entered");
  });

  it("gives up after the time to wait, and forgets the one who gave up", async () => {
    const queue = new LocalQueue();
    await queue.enter(undefined);
    assert.equal(await queue.enter(5), "timed-out");
    assert.equal(queue.leave(), "empty");
  });

  it("ends the wait of one who goes, before and during", async () => {
    const queue = new LocalQueue();
    await queue.enter(undefined);
    const gone = new AbortController();
    const log: string[] = [];
    const waits = [
      noteEnd(log, "going", queue.enter(undefined, gone.signal)),
      noteEnd(log, "next", queue.enter(undefined)),
    ];
    gone.abort();
    await settled();
    assert.deepEqual(log, ["going cancelled"]);
    assert.equal(await queue.enter(undefined, gone.signal), "cancelled");
    assert.equal(queue.leave(), "next");
    await Promise.all(waits);
    assert.deepEqual(log, ["going cancelled", "next entered"]);
  });

  it("a hold that was found is inside like any other", async () => {
    const queue = new LocalQueue();
    queue.enterNow();
    assert.equal(await queue.enter(1), "timed-out");
    assert.equal(queue.leave(), "empty");
  });

  it("ends every wait when it is closed", async () => {
    const queue = new LocalQueue();
    await queue.enter(undefined);
    const waits = [queue.enter(undefined), queue.enter(60_000)];
    queue.close();
    assert.deepEqual(await Promise.all(waits), ["closed", "closed"]);
  });

  it("refuses one who asks without end, and keeps those who wait", async () => {
    const queue = new LocalQueue();
    await queue.enter(undefined);
    const waits = Array.from({ length: 1_000 }, async () => queue.enter(undefined));
    assert.equal(await queue.enter(undefined), "timed-out");
    queue.close();
    const turns = new Set(await Promise.all(waits));
    assert.deepEqual([...turns], ["closed"]);
  });

  it("never has two inside, and nobody is forgotten, whoever goes when", async () => {
    const actions = fc.array(fc.oneof(fc.constant("enter"), fc.constant("leave"), fc.nat(20)));
    await fc.assert(
      fc.asyncProperty(actions, async (steps) => {
        const queue = new LocalQueue();
        const waiting: { readonly gone: AbortController; turn: string }[] = [];
        let inside = 0;
        for (const step of steps) {
          if (step === "enter") {
            const one = { gone: new AbortController(), turn: "" };
            waiting.push(one);
            void queue.enter(undefined, one.gone.signal).then((turn) => {
              one.turn = turn;
              inside += turn === "entered" ? 1 : 0;
            });
          } else if (step === "leave" && inside === 1) {
            inside = 0;
            queue.leave();
          } else if (typeof step === "number") {
            waiting[step]?.gone.abort();
          }
          await settled();
          assert(inside <= 1, "two are inside");
          const isWaiting = waiting.some(({ turn }) => turn === "");
          assert(!isWaiting || inside === 1, "one waits and nobody is inside");
        }
      }),
      { numRuns: 50 },
    );
  });
});
