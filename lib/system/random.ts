import { randomFillSync, randomInt } from "node:crypto";

import { type Random } from "../port/clock.js";

/** Randomness of the operating system. `below` takes a limit of 1 to 2^48 - 1 (node:crypto's range). */
export function createRandom(): Random {
  const word = new BigUint64Array(1);
  return {
    below: (limit) => randomInt(limit),
    u64(): bigint {
      randomFillSync(word);
      return word[0] ?? 0n;
    },
  };
}
