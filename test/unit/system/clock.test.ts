import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { createClock } from "../../../lib/system/clock.js";
import { errnoName } from "../../../lib/system/libc.js";
import { createRandom } from "../../../lib/system/random.js";

describe("system clock", () => {
  it("is the boot time clock: between two readings of /proc/uptime", () => {
    const uptimeMs = (): number =>
      Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 1000;
    const clock = createClock();
    const before = uptimeMs();
    const now = clock.bootMs();
    const after = uptimeMs();
    assert.ok(now >= before - 0.001, `${now} is before ${before}`);
    assert.ok(now < after + 10 + 0.001, `${now} is after ${after} and its resolution`);
  });

  it("never goes back and has a fraction finer than a millisecond", () => {
    const clock = createClock();
    const readings = Array.from({ length: 1000 }, () => clock.bootMs());
    readings.reduce((previous, next) => {
      assert.ok(next >= previous);
      return next;
    });
    assert.ok(new Set(readings.map((reading) => reading % 1)).size > 10);
  });

  it("names an errno of either sign", () => {
    assert.deepEqual([errnoName(5), errnoName(-30), errnoName(117)], ["EIO", "EROFS", "EUCLEAN"]);
    assert.equal(errnoName(-4095), "E4095");
  });
});

describe("system random", () => {
  it("gives whole numbers below the limit, all of them in the end", () => {
    const random = createRandom();
    const seen = new Set(Array.from({ length: 500 }, () => random.below(4)));
    assert.deepEqual([...seen].sort(), [0, 1, 2, 3]);
  });

  it("gives 64 random bits: every bit is seen set and clear", () => {
    const random = createRandom();
    let ones = 0n;
    let zeros = 0n;
    for (let i = 0; i < 200; i++) {
      const word = random.u64();
      ones |= word;
      zeros |= ~word & 0xffffffffffffffffn;
    }
    assert.equal(ones, 0xffffffffffffffffn);
    assert.equal(zeros, 0xffffffffffffffffn);
  });
});
