import assert from "node:assert/strict";
import fc from "fast-check";

import { EMPTY_HOST_BLOCK, type HostBlock } from "../../../lib/format/dblock.js";
import { type LeaderRecord } from "../../../lib/format/leader-record.js";
import { type Outbox, type OutboxEntry } from "../../../lib/format/outbox.js";
import { type LeaseView } from "../../../lib/lease/lease-view.js";
import {
  handoverEntry,
  type IsLive,
  nextTicketNumber,
  successorOf,
  type QueueView,
  type Ticket,
  ticketEntry,
  turnsBefore,
  viewQueue,
} from "../../../lib/lease/queue.js";
import { address, freeLeader } from "./samples.js";

const AREA = address.area;

function outbox(hostId: number, ...entries: readonly OutboxEntry[]): Outbox {
  return { hostId, generation: 1n, sequence: 1n, tableGeneration: 0n, entries };
}

function waiting(hostId: number, number: bigint, shared = false, lverSeen = 0n): Outbox {
  return outbox(hostId, ticketEntry(AREA, number, lverSeen, shared));
}

function view(leader: Partial<LeaderRecord> = {}, blocks: readonly HostBlock[] = []): LeaseView {
  return { isFirm: true, leader: freeLeader(leader), blocks, mbalHighest: 0n };
}

const alive: IsLive = () => true;

function order(outboxes: readonly Outbox[], seen = view(), isLive = alive): readonly number[] {
  return viewQueue(AREA, outboxes, seen, isLive).tickets.map((ticket) => ticket.hostId);
}

describe("wait queue (DESIGN section 6; Lamport's bakery)", () => {
  it("goes by number, ties by host id, never by place", () => {
    assert.deepEqual(order([waiting(3, 2n), waiting(2, 1n), waiting(1, 2n)]), [2, 1, 3]);
  });

  it("gives a new ticket one more than the highest, so that nobody who came is overtaken", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 20 }), { minLength: 1 }), (arrivals) => {
        const outboxes: Outbox[] = [];
        for (const hostId of arrivals) {
          const queue = viewQueue(AREA, outboxes, view(), alive);
          outboxes.push(waiting(hostId, nextTicketNumber(queue)));
        }
        assert.deepEqual(order(outboxes), arrivals);
      }),
    );
  });

  it("knows only tickets of this lease and of hosts that live, in this generation", () => {
    const other = outbox(1, ticketEntry(AREA + 1, 1n, 0n, false));
    const isLive = (hostId: number, generation: bigint): boolean =>
      hostId !== 2 && generation === 1n;
    const old = { ...waiting(4, 1n), generation: 0n };
    assert.deepEqual(order([other, waiting(2, 1n), old, waiting(3, 5n)], view(), isLive), [3]);
  });

  describe("spent tickets", () => {
    it("the holder's own, when the grant came after the ticket", () => {
      const granted = view({ ownerId: 2n, ownerGeneration: 1n, lver: 5n, timestamp: 9n });
      assert.deepEqual(order([waiting(2, 1n, false, 4n), waiting(3, 2n, false, 4n)], granted), [3]);
      assert.deepEqual(order([waiting(2, 1n, false, 5n)], granted), [2], "taken after the grant");
    });

    it("not those of a later generation of the same host", () => {
      const granted = view({ ownerId: 2n, ownerGeneration: 9n, lver: 5n, timestamp: 9n });
      assert.deepEqual(order([waiting(2, 1n, false, 4n)], granted), [2]);
    });

    it("a shared holder's, whose block is released at a later lver", () => {
      const block: HostBlock = {
        ...EMPTY_HOST_BLOCK,
        dblock: { ...EMPTY_HOST_BLOCK.dblock, lver: 5n, mbal: 2n, inp: 2n, released: true },
      };
      const seen = view({ ownerId: 3n, lver: 6n }, [EMPTY_HOST_BLOCK, block]);
      assert.deepEqual(order([waiting(2, 1n, true, 4n), waiting(4, 2n)], seen), [4]);
      assert.deepEqual(order([waiting(2, 1n, true, 5n), waiting(4, 2n)], seen), [2, 4]);
    });
  });

  describe("absurd numbers", () => {
    it("far above the next lower one are ignored, and so does nobody count on from them", () => {
      const outboxes = [waiting(1, 3n), waiting(2, 2n ** 60n), waiting(3, 4n)];
      assert.deepEqual(order(outboxes), [1, 3]);
      assert.equal(nextTicketNumber(viewQueue(AREA, outboxes, view(), alive)), 5n);
    });

    it("too large to be counted up are ignored even alone", () => {
      assert.deepEqual(order([waiting(1, 2n ** 64n - 1n)]), []);
      assert.deepEqual(order([waiting(1, 2n ** 62n)]), []);
    });

    it("exactly one million above the next lower one still count", () => {
      assert.deepEqual(order([waiting(1, 1n), waiting(2, 1_000_001n)]), [1, 2]);
      assert.deepEqual(order([waiting(1, 1n), waiting(2, 1_000_002n)]), [1]);
    });
  });

  describe("turns", () => {
    const queue = (named: number | undefined, ...outboxes: readonly Outbox[]): QueueView => {
      const { tickets } = viewQueue(AREA, outboxes, view(), alive);
      return { tickets, named: tickets.find(({ hostId }) => hostId === named) };
    };

    it("leave one to each that is before me; without a ticket, to all", () => {
      const three = queue(undefined, waiting(1, 1n), waiting(2, 2n), waiting(3, 3n));
      assert.deepEqual(
        [1, 2, 3, 4].map((hostId) => turnsBefore(three, hostId)),
        [0, 1, 2, 3],
      );
    });

    it("shared waiters go together, but do not overtake an exclusive ticket (planted bug 40)", () => {
      const mixed = queue(
        undefined,
        waiting(1, 1n, true),
        waiting(2, 2n, true),
        waiting(3, 3n, false),
        waiting(4, 4n, true),
      );
      assert.deepEqual(
        [1, 2, 3, 4].map((hostId) => turnsBefore(mixed, hostId)),
        [0, 0, 2, 3],
      );
    });

    it("the named host goes first, and the others wait one turn for it", () => {
      const named = queue(2, waiting(1, 1n), waiting(2, 2n), waiting(3, 3n));
      assert.deepEqual(
        [1, 2, 3].map((hostId) => turnsBefore(named, hostId)),
        [1, 0, 2],
      );
    });

    it("a named host that waits no longer holds nobody up", () => {
      const gone = queue(4, waiting(1, 1n), waiting(2, 2n));
      assert.deepEqual(
        [1, 2].map((hostId) => turnsBefore(gone, hostId)),
        [0, 1],
      );
    });
  });

  describe("the notice of a hand-over", () => {
    const to: Ticket = { hostId: 2, generation: 1n, number: 3n, shared: false, lverSeen: 4n };
    const released = view({ ownerId: 1n, ownerGeneration: 1n, lver: 5n });
    const named = waiting(2, 3n, false, 4n);

    it("counts from the last owner, for the lver it released", () => {
      const notice = outbox(1, handoverEntry(AREA, 5n, to));
      assert.deepEqual(viewQueue(AREA, [notice, named], released, alive).named, to);
    });

    it("is for that ticket, not for a later one of the same host, which goes to the end", () => {
      const notice = outbox(1, handoverEntry(AREA, 5n, to));
      const again = [notice, waiting(3, 4n), waiting(2, 5n)];
      assert.equal(viewQueue(AREA, again, released, alive).named, undefined);
      assert.equal(viewQueue(AREA, [notice, waiting(3, 4n)], released, alive).named, undefined);
    });

    it("counts from nobody else, for no other lver, in no other generation", () => {
      const wrong: readonly Outbox[] = [
        outbox(3, handoverEntry(AREA, 5n, to)),
        outbox(1, handoverEntry(AREA, 4n, to)),
        outbox(1, handoverEntry(AREA + 1, 5n, to)),
        { ...outbox(1, handoverEntry(AREA, 5n, to)), generation: 2n },
      ];
      for (const notice of wrong) {
        assert.equal(viewQueue(AREA, [notice, named], released, alive).named, undefined);
      }
    });

    it("goes to the lowest live ticket that is not the releaser's own", () => {
      const queue = viewQueue(
        AREA,
        [waiting(1, 1n), waiting(3, 2n), waiting(2, 3n)],
        view(),
        alive,
      );
      assert.equal(successorOf(queue, 1)?.hostId, 3);
      assert.equal(successorOf(queue, 3)?.hostId, 1);
      assert.equal(successorOf(viewQueue(AREA, [waiting(1, 1n)], view(), alive), 1), undefined);
    });
  });
});
