import assert from "node:assert/strict";

import { OutboxKeeper } from "../../../lib/daemon/outbox-keeper.js";
import { MAX_OUTBOX_ENTRIES_OF_A_KIND, type OutboxEntry } from "../../../lib/format/outbox.js";

function entry(kind: OutboxEntry["kind"], area: number, targetHostId = 0): OutboxEntry {
  return { kind, area, targetHostId, shared: false, targetGeneration: 1n, value: 1n, nonce: 0n };
}

describe("OutboxKeeper", () => {
  it("takes out the notices of a lease that a newer one makes void", () => {
    const keeper = new OutboxKeeper([entry("handover", 7, 2)]);
    const change = keeper.complete({ remove: [], add: [entry("handover", 7, 3)] });
    assert.deepEqual(
      change.remove.map(({ area, targetHostId }) => [area, targetHostId]),
      [[7, 2]],
    );
  });

  it("never lets hand-over notices of many leases fill the outbox", () => {
    const keeper = new OutboxKeeper();
    let count = 0;
    for (let area = 6; area < 60; area++) {
      const change = keeper.complete({ remove: [], add: [entry("handover", area, 2)] });
      count += change.add.length - change.remove.length;
      assert.ok(count < MAX_OUTBOX_ENTRIES_OF_A_KIND);
      keeper.accepted(change);
    }
  });

  it("knows whether a ticket is still there, and only after it was accepted", () => {
    const keeper = new OutboxKeeper();
    const add = { remove: [], add: [entry("ticket", 9)] };
    keeper.complete(add);
    assert.equal(keeper.has("ticket", 9), false);
    keeper.accepted(add);
    assert.equal(keeper.has("ticket", 9), true);
    keeper.accepted({ remove: [entry("ticket", 9)], add: [] });
    assert.equal(keeper.has("ticket", 9), false);
  });
});
