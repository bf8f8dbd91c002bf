/** Waits for what the kernel or iscsid do in their own time: always bounded, always cancellable. */
import { setTimeout as sleep } from "node:timers/promises";

import { type Place } from "./exit-code.js";
import { cancelledError } from "./iscsiadm.js";

const LOOK_EVERY_MS = 100;

/**
 * Looks until something is there, at once and then ten times a second.
 * @returns undefined when the time is over. @throws ERR_ISCSI_CANCELLED
 */
export async function waitFor<T>(
  place: Place,
  look: () => T | undefined,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<T | undefined> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    if (signal?.aborted === true) {
      throw cancelledError(place);
    }
    const found = look();
    if (found !== undefined || performance.now() >= end) {
      return found;
    }
    await pause(signal);
  }
}

async function pause(signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleep(LOOK_EVERY_MS, undefined, signal === undefined ? {} : { signal });
  } catch (error) {
    // The caller looks at the signal and says what was cancelled.
    if (signal?.aborted !== true) {
      throw error;
    }
  }
}
