/**
 * Which timers a session needs so that the cluster's own hold (docs/iscsi.md has the sums).
 *
 * One path. A connection that was reset is noticed at once, so I/O fails after `replacementTimeout` R; one that went silent
 * after I + N + R. Two bounds:
 *
 * - R up to T: a path that comes back before T costs the node nothing, so its I/O must not have failed before. More than T
 *   helps nobody: the node has lost by then.
 * - I + N + R up to W: from then on no write of this node is queued in the initiator any more that a path that comes back
 *   could still carry to the LUN. Others write after B + margin at the earliest, and B = W + d + s is later. With stock
 *   timers (5 + 5 + 120 s) such a write lands minutes later, unless the watchdog has reset the machine.
 *
 * The second bound is safety and goes first. Pings are as quick as whole seconds allow: I = N = 1 s.
 *
 * Several paths (profile multipath, all portals of the target). dm-multipath repeats I/O on another path as soon as a path fails it, so failing early
 * costs nothing: I + N + R up to d, and one dead path costs at most one renewal.
 */
import { type Timings } from "../lease/timings.js";
import { type SessionTimers } from "../node-iscsi-initiator/index.js";

export type WantedTimers = Pick<
  SessionTimers,
  "replacementTimeout" | "noopOutInterval" | "noopOutTimeout"
>;

/** The lowest that open-iscsi can do; 0 would be no pings at all. */
const PING_SECONDS_MIN = 1;

/** @param portals how many portals of the target are logged in to; with profile multipath all that it has */
export function sessionTimersFor(timings: Timings, portals: number): WantedTimers {
  return portals > 1 ? severalPaths(timings) : onePath(timings);
}

function onePath({ ttlMs, watchdogMs }: Timings): WantedTimers {
  const noopOutInterval = PING_SECONDS_MIN;
  const noopOutTimeout = PING_SECONDS_MIN;
  const left = Math.floor(watchdogMs / 1_000) - noopOutInterval - noopOutTimeout;
  const replacementTimeout = Math.max(0, Math.min(left, Math.ceil(ttlMs / 1_000)));
  return { replacementTimeout, noopOutInterval, noopOutTimeout };
}

function severalPaths({ deadlineMs }: Timings): WantedTimers {
  const replacementTimeout = 1;
  const each = Math.floor((deadlineMs / 1_000 - replacementTimeout) / 2);
  const ping = Math.max(PING_SECONDS_MIN, each);
  return { replacementTimeout, noopOutInterval: ping, noopOutTimeout: ping };
}

/** I + N + R: when I/O on a path that went silent fails. */
export function silentPathSeconds(timers: WantedTimers): number {
  return timers.noopOutInterval + timers.noopOutTimeout + timers.replacementTimeout;
}
