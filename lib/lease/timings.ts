/**
 * Every number of time the protocols use, in one place (DESIGN section 4).
 *
 * A renewal that starts at 0 and completes within d is counted; the pet that follows it may happen at d + s at the
 * latest, so the machine is down at W + d + s after the last change that anyone can see. With the default profile and
 * one LUN:
 *
 *       0.00  last renewal starts (and may land on the medium at once: the observers' clock starts here)
 *       1.00  d: it completes, just in time to count
 *       1.25  d + s: the petter, stalled between its look at the clock and its pet, is allowed no later than this
 *       3.00  T: the holder has lost the right to write; teardown starts
 *       6.25  B = W + d + s: the watchdog has reset the machine
 *       6.50  B + margin: others may act on `expired` alone
 *
 * With several LUNs a pet may rest on renewals that are d + h old, so h is added to B.
 */

/** One node's timers, in milliseconds, as published in its host record. */
export interface Timings {
  /** h: heartbeat period. */
  readonly intervalMs: number;
  /** d: an I/O that has not completed this long after its start does not count, ever. */
  readonly deadlineMs: number;
  /** T: a holder whose last counted renewal started longer ago has lost its right to write. */
  readonly ttlMs: number;
  /** W: the watchdog's timeout, as read back from the driver. */
  readonly watchdogMs: number;
}

export type ProfileName = "fast" | "default" | "multipath";

export const PROFILES: Readonly<Record<ProfileName, Timings>> = {
  fast: { intervalMs: 200, deadlineMs: 500, ttlMs: 1_000, watchdogMs: 2_000 },
  default: { intervalMs: 500, deadlineMs: 1_000, ttlMs: 3_000, watchdogMs: 5_000 },
  multipath: { intervalMs: 1_000, deadlineMs: 5_000, ttlMs: 15_000, watchdogMs: 20_000 },
};

/** A joiner writes only when its read of the record started less than this ago. */
export const JOIN_READ_TO_WRITE_MS = 500;

/** How long pulse renews for a daemon that does not answer, before it lets go (DESIGN section 5). */
export const RESTART_GRACE_MS = 10_000;

/** How long a human's word that a node is off stays valid (DESIGN section 8). */
export const CONFIRMATION_VALID_MS = 600_000;

/** sanlock 3.8.5: the watchdog fires this long after the last renewal's 8 T (facts: fixed at 60 s in Debian's build). */
export const SANLOCK_WATCHDOG_FIRE_MS = 60_000;

/** s, and the margin of the same size: the longest stall of the petter that its second look at the clock lets pass. */
export function slackMs(timings: Timings): number {
  if (timings.deadlineMs <= 500) {
    return 150;
  }
  return timings.deadlineMs <= 1_000 ? 250 : 500;
}

/** B: the machine is down at most this long after the last change of its record that anyone can see. */
export function resetBoundMs(timings: Timings, lunCount: number): number {
  const oneLun = timings.watchdogMs + timings.deadlineMs + slackMs(timings);
  return lunCount > 1 ? oneLun + timings.intervalMs : oneLun;
}

/** Others may act on `expired` alone when the record has not changed for this long: max(T, B) + margin. */
export function expiredAfterMs(timings: Timings, lunCount: number): number {
  return Math.max(timings.ttlMs, resetBoundMs(timings, lunCount)) + slackMs(timings);
}

/** A pet may rest on a renewal that started at most this long ago. */
export function petWindowMs(timings: Timings, lunCount: number): number {
  return lunCount > 1 ? timings.deadlineMs + timings.intervalMs : timings.deadlineMs;
}

/** A gap between counted renewals above this makes the holder re-read its leaders before the next pet. */
export function gapBeforeRecheckMs(timings: Timings): number {
  return timings.intervalMs + timings.deadlineMs;
}

/** A host that renews shows a change within this. */
export function renewalSeenMs(timings: Timings): number {
  return 2 * timings.intervalMs + timings.deadlineMs;
}

/** Waiters that are not next leave the one that is this long before they go themselves. */
export function holdBackMs(timings: Timings): number {
  return 2 * (timings.intervalMs + timings.deadlineMs);
}

/** The io_timeout we publish to sanlock daemons, in whole seconds, so that 8 T alone already covers B + margin. */
export function sanlockIoTimeout(timings: Timings, lunCount: number): number {
  return Math.max(1, Math.ceil(expiredAfterMs(timings, lunCount) / 8_000));
}

/** When a sanlock daemon counts as dead by its own arithmetic: 8 T + F (facts section 2.1). */
export function sanlockHostDeadMs(ioTimeoutSeconds: number): number {
  return 8_000 * ioTimeoutSeconds + SANLOCK_WATCHDOG_FIRE_MS;
}

/** What is wrong with a combination of timers: one sentence each, empty when it is fine. */
export function problemsOfTimings(timings: Timings): readonly string[] {
  const { intervalMs: h, deadlineMs: d, ttlMs: t, watchdogMs: w } = timings;
  const problems: string[] = [];
  for (const [name, value] of Object.entries(timings) as [string, number][]) {
    if (!Number.isInteger(value) || value < 50 || value > 600_000) {
      problems.push(`${name} is ${value}; it must be a whole number from 50 to 600000`);
    }
  }
  if (h > d) {
    problems.push(
      `interval ${h} ms is above deadline ${d} ms: a renewal could be late before the next one starts`,
    );
  }
  if (t < h + d) {
    problems.push(
      `ttl ${t} ms is below interval + deadline ${h + d} ms: one slow renewal would already be a loss`,
    );
  }
  if (w < t) {
    problems.push(
      `watchdog ${w} ms is below ttl ${t} ms: the machine would be reset before it has lost`,
    );
  }
  if (w % 1_000 !== 0) {
    problems.push(
      `watchdog ${w} ms is not a whole number of seconds, which is all the drivers take`,
    );
  }
  return problems;
}
