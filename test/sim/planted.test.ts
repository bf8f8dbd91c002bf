/** Each rule of the protocols is removed once, and the simulator must notice within the stated number of seeds. */
import assert from "node:assert/strict";
import { ABSENT_BUGS, PLANTED_BUGS } from "./planted/bugs.js";
import { catchBug } from "./planted/runner.js";
import { runSeed } from "./run-seed.js";

const NUMBERS = [...Array.from({ length: 44 }, (_, index) => String(index + 1)), "47", "49"];

describe("planted bugs", () => {
  for (const bug of PLANTED_BUGS) {
    it(`${bug.number}: ${bug.title}`, () => {
      const caught = catchBug(bug);
      assert(caught.seeds !== undefined, `not caught in ${bug.seedsMax} seeds`);
      const { failure } = runSeed(caught.seeds, bug.options);
      const isSame = failure?.message.includes(bug.expect ?? "") === true;
      assert.equal(
        isSame ? failure.message : "clean",
        "clean",
        "the run fails without the bug too",
      );
    }).timeout(180_000);
  }

  it("every number is planted, or it is said why this code cannot have it", () => {
    const known = [...PLANTED_BUGS, ...ABSENT_BUGS].map(({ number }) => /^\d+/.exec(number)?.[0]);
    assert.deepEqual(
      NUMBERS.filter((number) => !known.includes(number)),
      [],
    );
  });
});
