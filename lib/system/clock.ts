import { type Clock } from "../port/clock.js";
import { bootTimeMs } from "./libc.js";

/**
 * The machine's CLOCK_BOOTTIME. Node's own clocks do not serve: `performance.now` and `hrtime` are CLOCK_MONOTONIC, which
 * stands still while the machine is suspended, and a suspended holder has lost (DESIGN section 4).
 */
export function createClock(): Clock {
  return { bootMs: bootTimeMs };
}
