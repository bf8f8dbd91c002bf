/**
 * When the guard acts: an absolute time of CLOCK_BOOTTIME that only pets move, and only forward. A watchdog that has
 * fired does not take pets any more: whoever asks must look at the clock first (`isExpired`), so that a guard which was
 * stopped together with everything else acts as soon as it runs again, before it handles what has queued up meanwhile.
 */

/** No deadline of the project is anywhere near; a larger one is garbage on the socket. */
export const DEADLINE_AHEAD_MAX_MS = 3_600_000;
/** Timers stand still while the machine is suspended, CLOCK_BOOTTIME does not: look at it at least this often. */
const LOOK_AGAIN_MS = 500;
/**
 * A pet normally comes long before this is left. Whatever takes time is prepared in it; it moves no deadline. Enough to
 * look at 2500 processes (mount-users.ts).
 */
export const LOOK_AHEAD_MS = 250;

export class GuardDeadline {
  #expiresAtMs: number | undefined;
  #expired = false;

  get armed(): boolean {
    return this.#expiresAtMs !== undefined;
  }

  get expiresAtMs(): number | undefined {
    return this.#expiresAtMs;
  }

  /** Once true, true for ever. */
  isExpired(nowMs: number): boolean {
    this.#expired ||= this.#expiresAtMs !== undefined && nowMs >= this.#expiresAtMs;
    return this.#expired;
  }

  /** Little is left, or nothing. */
  isNear(nowMs: number): boolean {
    return this.#expiresAtMs !== undefined && nowMs >= this.#expiresAtMs - LOOK_AHEAD_MS;
  }

  /** True when armed until then at least. False: it has expired, or the time is no plausible one. */
  arm(nowMs: number, expiresAtMs: number): boolean {
    if (this.isExpired(nowMs) || !isPlausible(nowMs, expiresAtMs)) {
      return false;
    }
    this.#expiresAtMs = Math.max(expiresAtMs, this.#expiresAtMs ?? -Infinity);
    return true;
  }

  /** A pet for a guard that is not armed, or an implausible one, is dropped; it never moves the time back. */
  pet(nowMs: number, expiresAtMs: number): boolean {
    return this.armed && this.arm(nowMs, expiresAtMs);
  }

  /** True when it will not fire; false when it has. */
  disarm(nowMs: number): boolean {
    if (this.isExpired(nowMs)) {
      return false;
    }
    this.#expiresAtMs = undefined;
    return true;
  }

  /** How long to sleep before looking again: until it is near, then until it is there; undefined while not armed. */
  sleepMs(nowMs: number): number | undefined {
    if (this.#expiresAtMs === undefined) {
      return undefined;
    }
    const leftMs = this.#expiresAtMs - nowMs;
    const nextMs = this.isNear(nowMs) ? leftMs : leftMs - LOOK_AHEAD_MS;
    return Math.min(LOOK_AGAIN_MS, Math.max(0, Math.ceil(nextMs)));
  }
}

function isPlausible(nowMs: number, expiresAtMs: number): boolean {
  return (
    Number.isFinite(expiresAtMs) &&
    expiresAtMs > nowMs &&
    expiresAtMs - nowMs <= DEADLINE_AHEAD_MAX_MS
  );
}
