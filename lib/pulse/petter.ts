/**
 * Petting, exactly as the heartbeat says (DESIGN section 4, "One renewal, one pet"): look at the clock, pet, look at the
 * clock again. A petter that was stopped between its look and its pet has given the watchdog time that no renewal stands
 * for, and makes up for it at once.
 */
import { type AfterWrite } from "../lease/heartbeat.js";
import { type Clock } from "../port/clock.js";

export interface Petter {
  readonly kind: "hardware" | "guard" | "none";
  readonly device: string | undefined;
  /**
   * Sets W, reads it back and pets. @param basisMs start of the newest counted renewal plus the pet window: what the
   * first period may rest on.
   * @returns W in ms as it is in force. @throws ShareHaError
   */
  arm(basisMs: number): Promise<number>;
  /** @param petUntilMs the latest moment at which this pet was permitted. Never throws: a failed pet is a missing one. */
  pet(petUntilMs: number): void;
  /** The pet came too late, so the watchdog may now fire later than everybody else counts on. */
  overran(lateMs: number): void;
  /** Published armed = 0, nothing in flight. @throws ShareHaError */
  disarm(): Promise<void>;
  /** Clean leave; disarmed. */
  leave(): Promise<void>;
}

/** @returns what was done, for tests and the log; `skipped`: it is too late for this renewal's pet. */
export function petAfter(
  verdict: Extract<AfterWrite, { kind: "pet" }>,
  clock: Clock,
  petter: Petter,
): "petted" | "skipped" | "overran" {
  if (clock.bootMs() > verdict.petUntilMs) {
    return "skipped";
  }
  petter.pet(verdict.petUntilMs);
  const nowMs = clock.bootMs();
  if (nowMs <= verdict.resetAfterMs) {
    return "petted";
  }
  petter.overran(nowMs - verdict.resetAfterMs);
  return "overran";
}

/** Kind `none`: the record says so, and nothing is ever taken from this host without `confirmed`. */
export function createNoPetter(watchdogMs: number): Petter {
  const nothing = (): void => undefined;
  const nothingLater = async (): Promise<void> => {
    await Promise.resolve();
  };
  return {
    kind: "none",
    device: undefined,
    arm: async () => await Promise.resolve(watchdogMs),
    pet: nothing,
    overran: nothing,
    disarm: nothingLater,
    leave: nothingLater,
  };
}
