/**
 * How a protocol is written: a generator that yields what it wants and is resumed with what came of it. It does no I/O,
 * has no clock and no randomness of its own, so the same code runs in the daemon and in the simulator, and a crash is
 * simply a generator that is never resumed.
 */
import { type BatchResult, type DiskOp, type OpTiming } from "../port/disk.js";
import { type OutboxEntry } from "../format/outbox.js";

/** What to change in the own outbox; pulse alone writes it (DESIGN section 3, "one writer per sector"). */
export interface OutboxChange {
  /** Entries that match one of these (same kind, area and target) are taken out first. */
  readonly remove: readonly Pick<OutboxEntry, "kind" | "area" | "targetHostId">[];
  readonly add: readonly OutboxEntry[];
}

/**
 * - `io`: carry out `ops` in order on every LUN at once; resumed when a majority has answered `done`, or when all have
 *   answered (`wait: "all"`: only then).
 * - `sleep`: resumed after that many milliseconds, or earlier when something changed that the driver knows of.
 * - `post`: change the own outbox; `accepted` when it is on a majority.
 * - `arm`: watchdog set, read back, petted, and `armed = 1` renewed on a majority (DESIGN section 6, "Arming").
 */
export type Request =
  | { readonly kind: "io"; readonly ops: readonly DiskOp[]; readonly wait: "majority" | "all" }
  | { readonly kind: "sleep"; readonly ms: number }
  | { readonly kind: "post"; readonly change: OutboxChange }
  | { readonly kind: "arm" };

/** This node's own right to write at the time of a turn. */
export interface Standing {
  /** Start of the newest counted renewal. */
  readonly renewedAtMs: number;
  readonly ttlMs: number;
  /** The generation has lost its right for ever (DESIGN section 4). */
  readonly lost: boolean;
  /** `armed = 1` is on a majority. */
  readonly armed: boolean;
}

export interface Turn {
  readonly nowMs: number;
  readonly standing: Standing;
  /** For `io`: one result per LUN, in LUN order. Otherwise empty. */
  readonly luns: readonly BatchResult[];
  /** For `post` and `arm`: it took effect on a majority. For `io` and `sleep`: true. */
  readonly accepted: boolean;
}

export type DiskProcedure<T> = Generator<Request, T, Turn>;

/** Which LUNs exist and which of them count (identity, epoch and incarnation match; DESIGN section 6). */
export interface LunSet {
  readonly total: 1 | 3 | 5;
  /** One entry per LUN. */
  readonly counts: readonly boolean[];
}

export interface DoneBatch {
  readonly lun: number;
  readonly reads: readonly Uint8Array[];
  readonly timings: readonly OpTiming[];
}

/** A majority of the LUNs that were configured, never of those that can be reached. */
export function majorityOf(luns: LunSet): number {
  return Math.floor(luns.total / 2) + 1;
}

/** The batches that completed on LUNs that count. */
export function doneOn(luns: LunSet, results: readonly BatchResult[]): readonly DoneBatch[] {
  const done: DoneBatch[] = [];
  results.forEach((result, lun) => {
    if (result.kind === "done" && luns.counts[lun] === true) {
      done.push({ lun, reads: result.reads, timings: result.timings });
    }
  });
  return done;
}

export function isMajority(luns: LunSet, results: readonly BatchResult[]): boolean {
  return doneOn(luns, results).length >= majorityOf(luns);
}

/** True while this node may still act as a holder: its newest counted renewal started less than T ago. */
export function hasRight(turn: Turn): boolean {
  return !turn.standing.lost && turn.nowMs - turn.standing.renewedAtMs < turn.standing.ttlMs;
}

/** What kept a majority from answering, for the error message: one phrase per LUN. */
export function describeFailures(luns: LunSet, results: readonly BatchResult[]): string {
  return results
    .map((result, lun) => {
      const number = `LUN ${lun + 1}`;
      if (luns.counts[lun] !== true) {
        return `${number} does not count`;
      }
      switch (result.kind) {
        case "done":
          return `${number} answered`;
        case "failed":
          return `${number} failed with ${result.code}`;
        case "late":
          return `${number} did not answer in time`;
        case "busy":
          return `${number} still has an I/O out that is past its deadline`;
      }
    })
    .join(", ");
}

export function* io(
  ops: readonly DiskOp[],
  wait: "majority" | "all" = "majority",
): DiskProcedure<Turn> {
  return yield { kind: "io", ops, wait };
}

export function* sleep(ms: number): DiskProcedure<Turn> {
  return yield { kind: "sleep", ms };
}

export function* post(change: OutboxChange): DiskProcedure<Turn> {
  return yield { kind: "post", change };
}

export function* arm(): DiskProcedure<Turn> {
  return yield { kind: "arm" };
}
