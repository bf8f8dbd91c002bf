import assert from "node:assert/strict";

import { type DeltaSector, encodeDeltaSector } from "../../../lib/format/delta-sector.js";
import { leftRecord, vacantRecord } from "../../../lib/lease/delta-lease.js";
import { Observer } from "../../../lib/lease/observer.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { geometry, SPACE } from "./samples.js";

function record(timestamp: bigint, generation = 1n, hostId = 1): DeltaSector {
  const vacant = vacantRecord(geometry, SPACE, PROFILES.default, 1);
  return {
    ...vacant,
    leader: {
      ...vacant.leader,
      ownerId: BigInt(hostId),
      ownerGeneration: generation,
      resourceName: `n${hostId}`,
      timestamp,
    },
  };
}

function lockspace(...records: readonly (DeltaSector | undefined)[]): Uint8Array {
  const bytes = new Uint8Array(records.length * geometry.sectorSize);
  records.forEach((one, index) => {
    if (one !== undefined) {
      bytes.set(encodeDeltaSector(geometry, one), index * geometry.sectorSize);
    }
  });
  return bytes;
}

const ONE = [true];
const THREE = [true, true, true];

/** Reads that take 10 ms each, from `startedMs`. */
function note(observer: Observer, lun: number, startedMs: number, bytes: Uint8Array): void {
  observer.note(lun, bytes, { startedMs, completedMs: startedMs + 10 });
}

describe("observer (DESIGN section 4: how long a reader has seen a record unchanged)", () => {
  it("counts from the completion of the first read to the start of the newest one", () => {
    const observer = new Observer(geometry, 2, 1);
    note(observer, 0, 1_000, lockspace(record(5n)));
    assert.equal(observer.host(1, ONE).unchangedMs, 0, "one read proves nothing");
    note(observer, 0, 3_000, lockspace(record(5n)));
    assert.equal(observer.host(1, ONE).unchangedMs, 3_000 - 1_010);
    assert.equal(observer.host(1, ONE).lastSeenMs, 3_000);
  });

  it("never uses now: time in which nobody read adds nothing (sanlock's bug 1d8cda20)", () => {
    const observer = new Observer(geometry, 2, 1);
    note(observer, 0, 1_000, lockspace(record(5n)));
    note(observer, 0, 1_500, lockspace(record(5n)));
    const before = observer.host(1, ONE);
    // An hour later it was not read again; there is nothing to tell the observer what time it is.
    assert.deepEqual(observer.host(1, ONE), before);
    assert.equal(before.unchangedMs, 490);
  });

  it("starts again with every change, also of the generation or of our host record", () => {
    const changes: readonly DeltaSector[] = [
      record(6n),
      record(5n, 2n),
      { ...record(5n), host: { ...record(5n).host!, armed: true } },
    ];
    for (const changed of changes) {
      const observer = new Observer(geometry, 2, 1);
      note(observer, 0, 1_000, lockspace(record(5n)));
      note(observer, 0, 9_000, lockspace(changed));
      assert.equal(observer.host(1, ONE).unchangedMs, 0);
      note(observer, 0, 9_100, lockspace(changed));
      assert.equal(observer.host(1, ONE).unchangedMs, 90);
    }
  });

  it("ignores the bitmap, which says nothing about being alive", () => {
    const observer = new Observer(geometry, 2, 1);
    note(observer, 0, 1_000, lockspace(record(5n)));
    note(observer, 0, 2_000, lockspace({ ...record(5n), bitmap: new Uint8Array(256).fill(1) }));
    assert.equal(observer.host(1, ONE).unchangedMs, 990);
  });

  it("is not set back by a read that began earlier and is noted later", () => {
    const observer = new Observer(geometry, 2, 1);
    note(observer, 0, 1_000, lockspace(record(5n)));
    note(observer, 0, 3_000, lockspace(record(5n)));
    note(observer, 0, 2_000, lockspace(record(5n)));
    assert.equal(observer.host(1, ONE).unchangedMs, 1_990);
  });

  it("wants a majority unchanged at once: one LUN of three is only a path that is gone", () => {
    const observer = new Observer(geometry, 2, 3);
    for (const atMs of [1_000, 9_000]) {
      note(observer, 0, atMs, lockspace(record(5n)));
    }
    assert.equal(observer.host(1, THREE).unchangedMs, 0);
    note(observer, 1, 7_000, lockspace(record(5n)));
    note(observer, 1, 12_000, lockspace(record(5n)));
    // Together they were unchanged from 7.01 s (first seen on LUN 2) to 9 s (last seen on LUN 1).
    assert.equal(observer.host(1, THREE).unchangedMs, 9_000 - 7_010);
  });

  it("does not add up silences of different times", () => {
    const observer = new Observer(geometry, 2, 3);
    for (const [lun, from, to] of [
      [0, 1_000, 4_000],
      [1, 5_000, 8_000],
      [2, 9_000, 12_000],
    ] as const) {
      note(observer, lun, from, lockspace(record(5n)));
      note(observer, lun, to, lockspace(record(5n)));
    }
    assert.equal(observer.host(1, THREE).unchangedMs, 0);
  });

  it("takes the best majority, not the worst", () => {
    const observer = new Observer(geometry, 2, 3);
    for (const lun of [0, 1]) {
      note(observer, lun, 1_000, lockspace(record(5n)));
      note(observer, lun, 8_000, lockspace(record(5n)));
    }
    note(observer, 2, 7_900, lockspace(record(4n)));
    assert.equal(observer.host(1, THREE).unchangedMs, 6_990);
  });

  it("counts a LUN that does not count for nothing, and majorities of all LUNs there are", () => {
    const observer = new Observer(geometry, 2, 3);
    for (const lun of [0, 1]) {
      note(observer, lun, 1_000, lockspace(record(5n)));
      note(observer, lun, 8_000, lockspace(record(5n)));
    }
    assert.equal(observer.host(1, [true, false, true]).unchangedMs, 0);
    assert.equal(observer.host(1, [true, true, false]).unchangedMs, 6_990);
  });

  it("shows the newest record: generation first, then `left`, then the counter", () => {
    const left = leftRecord(record(9n));
    const cases: readonly (readonly [DeltaSector, DeltaSector, DeltaSector])[] = [
      [record(5n), record(6n), record(6n)],
      [record(900n), record(1n, 2n), record(1n, 2n)],
      [left, record(9n), left],
      [left, record(1n, 2n), record(1n, 2n)],
    ];
    for (const [one, other, expected] of cases) {
      for (const pair of [
        [one, other],
        [other, one],
      ]) {
        const observer = new Observer(geometry, 2, 3);
        pair.forEach((shown, lun) => {
          note(observer, lun, 1_000, lockspace(shown));
        });
        assert.deepEqual(observer.host(1, THREE).record?.leader, expected.leader);
      }
    }
  });

  it("says what is wrong with a record it cannot read; zero is not `free` (hazard M25)", () => {
    const observer = new Observer(geometry, 3, 1);
    assert.equal(observer.host(1, ONE).trouble, "never read");
    const bytes = lockspace(undefined, record(5n, 1n, 2));
    bytes[geometry.sectorSize + 60]! ^= 1;
    note(observer, 0, 1_000, bytes);
    assert.match(observer.host(1, ONE).trouble ?? "", /all zero/);
    assert.match(observer.host(2, ONE).trouble ?? "", /checksum/);
    assert.equal(observer.host(1, ONE).record, undefined);
    assert.equal(observer.host(3, ONE).trouble, "never read", "the read was too short for it");
    assert.equal(observer.hosts(ONE).length, 3);
  });
});
