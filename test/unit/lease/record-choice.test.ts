import assert from "node:assert/strict";

import { type DeltaSector } from "../../../lib/format/delta-sector.js";
import { vacantRecord } from "../../../lib/lease/delta-lease.js";
import { chooseRecord } from "../../../lib/lease/record-choice.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { geometry, SPACE } from "./samples.js";

function record(name: string, ownerGeneration: bigint, timestamp: bigint): DeltaSector {
  const vacant = vacantRecord(geometry, SPACE, PROFILES.default, 3);
  return {
    ...vacant,
    leader: { ...vacant.leader, ownerId: 1n, ownerGeneration, timestamp, resourceName: name },
  };
}

describe("record choice", () => {
  it("the highest generation, and within it the newest; left is the last word", () => {
    const old = record("n1", 4n, 900n);
    const live = record("n1", 5n, 7n);
    const left = record("n1", 5n, 0n);
    assert.equal(chooseRecord([old, live], 3).newest, live);
    assert.equal(chooseRecord([left, live], 3).newest, left);
    assert.equal(chooseRecord([left, live], 3).contested, false);
    assert.deepEqual(chooseRecord([], 3), { newest: undefined, contested: false });
  });

  it("of several owners of one generation the one on a majority, however new the others look", () => {
    const winner = record("n1", 5n, 7n);
    const loser = record("n2", 5n, 900n);
    assert.deepEqual(chooseRecord([loser, winner, winner], 3), {
      newest: winner,
      contested: false,
    });
  });

  it("without a majority of all LUNs, read or not, it is contested", () => {
    const one = record("n1", 5n, 7n);
    const other = record("n2", 5n, 900n);
    assert.equal(chooseRecord([one, other], 3).contested, true);
    assert.equal(chooseRecord([one, one, other], 5).contested, true);
  });
});
