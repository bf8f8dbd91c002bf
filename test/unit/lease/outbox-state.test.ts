import assert from "node:assert/strict";

import { ShareHaError } from "../../../lib/errors.js";
import { outboxOffset } from "../../../lib/format/geometry.js";
import { decodeOutbox, type Outbox, type OutboxEntry } from "../../../lib/format/outbox.js";
import { OutboxState } from "../../../lib/lease/outbox-state.js";
import { ticketEntry } from "../../../lib/lease/queue.js";
import { geometry } from "./samples.js";

function written(data: Uint8Array): Outbox {
  const decoded = decodeOutbox(geometry, data);
  assert(decoded.kind === "ok");
  return decoded.value;
}

const TICKET = ticketEntry(6, 1n, 0n, false);

function pill(targetHostId: number): OutboxEntry {
  return {
    kind: "pill",
    shared: false,
    targetHostId,
    area: 0,
    targetGeneration: 4n,
    value: 0n,
    nonce: 99n,
  };
}

describe("own outbox (DESIGN section 3, one writer per sector)", () => {
  it("is written to the own sector, with a higher sequence every time", () => {
    const state = new OutboxState(geometry, 3, 7n, undefined);
    const first = state.apply({ remove: [], add: [TICKET] });
    assert.equal(first.offset, outboxOffset(geometry, 3));
    const second = state.apply({ remove: [], add: [] });
    assert.deepEqual([written(first.data).sequence, written(second.data).sequence], [1n, 2n]);
    assert.deepEqual(written(second.data).entries, [TICKET], "what is there stays");
    assert.equal(written(second.data).generation, 7n);
  });

  it("takes out what matches kind, area and target, and nothing else", () => {
    const state = new OutboxState(geometry, 3, 7n, undefined);
    state.apply({ remove: [], add: [TICKET, ticketEntry(7, 5n, 0n, true), pill(1), pill(2)] });
    const op = state.apply({
      remove: [
        { kind: "ticket", area: 6, targetHostId: 0 },
        { kind: "pill", area: 0, targetHostId: 2 },
      ],
      add: [],
    });
    assert.deepEqual(written(op.data).entries, [ticketEntry(7, 5n, 0n, true), pill(1)]);
  });

  it("removes before it adds, so that an entry is replaced in one write", () => {
    const state = new OutboxState(geometry, 3, 7n, undefined);
    state.apply({ remove: [], add: [TICKET] });
    const next = ticketEntry(6, 9n, 2n, false);
    const op = state.apply({
      remove: [{ kind: "ticket", area: 6, targetHostId: 0 }],
      add: [next],
    });
    assert.deepEqual(written(op.data).entries, [next]);
  });

  it("goes on with what is on disk when it is of the same generation", () => {
    const found: Outbox = {
      hostId: 3,
      generation: 7n,
      sequence: 40n,
      tableGeneration: 2n,
      entries: [TICKET],
    };
    const same = new OutboxState(geometry, 3, 7n, found);
    assert.deepEqual(same.entries, [TICKET]);
    const op = same.apply({ remove: [], add: [pill(1)] });
    assert.equal(written(op.data).sequence, 41n);
    assert.equal(written(op.data).tableGeneration, 2n);
  });

  it("says nothing for an earlier generation, but counts its sequence on", () => {
    const found: Outbox = {
      hostId: 3,
      generation: 6n,
      sequence: 40n,
      tableGeneration: 0n,
      entries: [TICKET],
    };
    const state = new OutboxState(geometry, 3, 7n, found);
    assert.deepEqual(state.entries, []);
    assert.equal(written(state.apply({ remove: [], add: [] }).data).sequence, 41n);
  });

  it("is full after 8 entries of a kind, and then stays as it was", () => {
    const state = new OutboxState(geometry, 3, 7n, undefined);
    const tickets = Array.from({ length: 8 }, (_, index) => ticketEntry(6 + index, 1n, 0n, false));
    state.apply({ remove: [], add: tickets });
    assert.throws(
      () => state.apply({ remove: [], add: [ticketEntry(20, 1n, 0n, false)] }),
      (error) => error instanceof ShareHaError && error.code === "ERR_OUTBOX_FULL",
    );
    assert.deepEqual(state.entries, tickets);
    assert.equal(written(state.apply({ remove: [], add: [] }).data).sequence, 2n);
  });
});
