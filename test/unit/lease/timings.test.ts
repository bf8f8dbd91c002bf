import assert from "node:assert/strict";
import fc from "fast-check";

import {
  expiredAfterMs,
  gapBeforeRecheckMs,
  holdBackMs,
  petWindowMs,
  PROFILES,
  type ProfileName,
  problemsOfTimings,
  resetBoundMs,
  sanlockHostDeadMs,
  sanlockIoTimeout,
  slackMs,
  type Timings,
} from "../../../lib/lease/timings.js";

/** DESIGN section 4, the table: h, d, T, W, and when others act on `expired` alone, with one LUN and with several. */
const TABLE: readonly (readonly [ProfileName, number, number, number, number, number, number])[] = [
  ["fast", 200, 500, 1_000, 2_000, 2_800, 3_000],
  ["default", 500, 1_000, 3_000, 5_000, 6_500, 7_000],
  ["multipath", 1_000, 5_000, 15_000, 20_000, 26_000, 27_000],
];

const { default: usual } = PROFILES;

describe("timings (DESIGN section 4)", () => {
  for (const [name, h, d, t, w, one, several] of TABLE) {
    const timings = PROFILES[name];
    it(`are the design's numbers for ${name}`, () => {
      assert.deepEqual(timings, { intervalMs: h, deadlineMs: d, ttlMs: t, watchdogMs: w });
      assert.equal(expiredAfterMs(timings, 1), one);
      assert.equal(expiredAfterMs(timings, 3), several);
      assert.equal(expiredAfterMs(timings, 5), several);
      assert.deepEqual(problemsOfTimings(timings), []);
    });

    it(`of ${name}: B = W + d + s, + h with several LUNs; others wait the margin on top`, () => {
      const s = slackMs(timings);
      assert.equal(resetBoundMs(timings, 1), w + d + s);
      assert.equal(resetBoundMs(timings, 3), w + d + s + h);
      assert.equal(expiredAfterMs(timings, 1) - resetBoundMs(timings, 1), s);
    });

    it(`of ${name}: the last allowed pet is inside B`, () => {
      for (const luns of [1, 3, 5]) {
        const lastPetMs = petWindowMs(timings, luns) + slackMs(timings);
        assert.equal(lastPetMs + w, resetBoundMs(timings, luns));
      }
    });

    it(`of ${name}: 8 times the io_timeout told to sanlock covers the bound (DESIGN section 4)`, () => {
      for (const luns of [1, 3]) {
        const seconds = sanlockIoTimeout(timings, luns);
        assert(seconds >= 1 && Number.isInteger(seconds));
        assert(8_000 * seconds >= expiredAfterMs(timings, luns));
        assert(8_000 * (seconds - 1) < expiredAfterMs(timings, luns), "and not a second more");
      }
    });
  }

  it("have s of 0.15, 0.25 and 0.5 s", () => {
    assert.deepEqual(Object.values(PROFILES).map(slackMs), [150, 250, 500]);
  });

  it("use T where it is longer than B: `expired` is max(T, B) + margin", () => {
    const odd = { ...usual, ttlMs: 20_000 };
    assert.equal(expiredAfterMs(odd, 1), 20_000 + slackMs(odd));
  });

  it("derive the waits from h and d", () => {
    assert.equal(gapBeforeRecheckMs(usual), 1_500);
    assert.equal(holdBackMs(usual), 3_000);
  });

  it("count a sanlock daemon as dead after 8 T + 60 s (facts section 2.1)", () => {
    assert.deepEqual([10, 5, 2, 1].map(sanlockHostDeadMs), [140_000, 100_000, 76_000, 68_000]);
  });

  it("are refused, with the reason, when they do not fit each other", () => {
    const cases: readonly (readonly [Partial<Timings>, RegExp])[] = [
      [{ intervalMs: 1_001 }, /interval 1001 ms is above deadline/],
      [{ ttlMs: 1_499 }, /ttl 1499 ms is below interval \+ deadline/],
      [{ watchdogMs: 2_000 }, /watchdog 2000 ms is below ttl/],
      [{ watchdogMs: 5_500 }, /not a whole number of seconds/],
      [{ deadlineMs: 999.5 }, /deadlineMs is 999.5; it must be a whole number/],
      [{ intervalMs: 49 }, /intervalMs is 49/],
      [{ watchdogMs: 601_000 }, /watchdogMs is 601000/],
      [{ ttlMs: NaN }, /ttlMs is NaN/],
    ];
    for (const [changes, expected] of cases) {
      const problems = problemsOfTimings({ ...usual, ...changes });
      assert(
        problems.some((problem) => expected.test(problem)),
        `${JSON.stringify(changes)}: ${problems.join("; ")}`,
      );
    }
  });

  it("that fit are accepted, expire after the reset, and are refused when one no longer fits", () => {
    const ms = fc.integer({ min: 50, max: 5_000 });
    const fitting = fc
      .tuple(ms, fc.nat(5_000), fc.nat(10_000), fc.nat(20))
      .map(([intervalMs, more, later, seconds]) => {
        const deadlineMs = intervalMs + more;
        const ttlMs = intervalMs + deadlineMs + later;
        const watchdogMs = (Math.ceil(ttlMs / 1_000) + seconds) * 1_000;
        return { intervalMs, deadlineMs, ttlMs, watchdogMs };
      });
    fc.assert(
      fc.property(fitting, (timings) => {
        assert.deepEqual(problemsOfTimings(timings), []);
        for (const luns of [1, 3]) {
          assert(expiredAfterMs(timings, luns) >= resetBoundMs(timings, luns) + slackMs(timings));
          assert(expiredAfterMs(timings, luns) > timings.ttlMs);
        }
        for (const broken of [
          { ...timings, deadlineMs: timings.intervalMs - 1 },
          { ...timings, ttlMs: timings.intervalMs + timings.deadlineMs - 1 },
          { ...timings, watchdogMs: timings.ttlMs - 1 },
        ]) {
          assert.notDeepEqual(problemsOfTimings(broken), []);
        }
      }),
    );
  });
});
