import assert from "node:assert/strict";

import fc from "fast-check";

import {
  expiredAfterMs,
  problemsOfTimings,
  PROFILES,
  resetBoundMs,
} from "../../../lib/lease/timings.js";
import { sessionTimersFor, silentPathSeconds } from "../../../lib/san/iscsi-timers.js";

describe("timers of a session", () => {
  it("of the profiles", () => {
    const of = (name: "fast" | "default" | "multipath", portals = 1): readonly number[] => {
      const timers = sessionTimersFor(PROFILES[name], portals);
      const { noopOutInterval, noopOutTimeout, replacementTimeout } = timers;
      return [noopOutInterval, noopOutTimeout, replacementTimeout, silentPathSeconds(timers)];
    };
    assert.deepEqual(of("fast"), [1, 1, 0, 2]);
    assert.deepEqual(of("default"), [1, 1, 3, 5]);
    assert.deepEqual(of("multipath"), [1, 1, 15, 17]);
    assert.deepEqual(of("multipath", 2), [2, 2, 1, 5]);
  });

  it("with one path: nothing is queued any more when the watchdog fires, let alone when others write", () => {
    for (const name of ["fast", "default", "multipath"] as const) {
      const timings = PROFILES[name];
      const sumMs = silentPathSeconds(sessionTimersFor(timings, 1)) * 1_000;
      assert.ok(sumMs <= timings.watchdogMs);
      assert.ok(sumMs < resetBoundMs(timings, 1));
      assert.ok(sumMs < expiredAfterMs(timings, 1));
    }
  });

  it("with several paths: a dead one costs at most one renewal", () => {
    const { deadlineMs, ttlMs, intervalMs } = PROFILES.multipath;
    const sumMs = silentPathSeconds(sessionTimersFor(PROFILES.multipath, 2)) * 1_000;
    assert.ok(sumMs <= deadlineMs);
    assert.ok(sumMs + deadlineMs + intervalMs < ttlMs);
  });

  it("keep their bounds for all timings that a cluster may have", () => {
    const ms = fc.integer({ min: 50, max: 60_000 });
    const timings = fc
      .record({
        intervalMs: ms,
        deadlineMs: ms,
        ttlMs: ms,
        watchdogMs: fc.integer({ min: 2, max: 120 }).map((seconds) => seconds * 1_000),
      })
      .filter((one) => problemsOfTimings(one).length === 0);
    fc.assert(
      fc.property(timings, (one) => {
        const timers = sessionTimersFor(one, 1);
        assert.ok(silentPathSeconds(timers) * 1_000 <= one.watchdogMs);
        assert.ok(timers.replacementTimeout <= Math.ceil(one.ttlMs / 1_000));
        for (const portals of [1, 2]) {
          for (const value of Object.values(sessionTimersFor(one, portals))) {
            assert.ok(Number.isInteger(value) && value >= 0);
          }
        }
      }),
    );
  });
});
