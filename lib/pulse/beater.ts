/**
 * The heartbeat at work: asks lib/lease/heartbeat what to do, does it on the LUNs, pets. Followable in one sitting:
 *
 *     every h, per LUN:  read (lockspace, outboxes, leaders after a gap) -> afterRead -> write -> afterWrite -> pet
 *
 * A LUN whose batch is still out is left alone, so a LUN that hangs costs one thread and never a second I/O. Nothing here
 * logs or waits for anything but the LUNs; what others want to know goes through `onBeat`.
 */
import { type Heartbeat } from "../lease/heartbeat.js";
import { type LunSet, majorityOf } from "../lease/procedure.js";
import { petWindowMs, type Timings } from "../lease/timings.js";
import { ShareHaError } from "../errors.js";
import { type Clock } from "../port/clock.js";
import { type BatchResult, type DiskOp, type LunDevice } from "../port/disk.js";
import { type Board } from "./board.js";
import { type Beat } from "./messages.js";
import { petAfter, type Petter } from "./petter.js";
import { FULL_SCAN_EVERY, type View } from "./view.js";
import { Waiters } from "./waiters.js";

export interface BeaterTerms {
  readonly luns: LunSet;
  readonly timings: Timings;
  readonly device: (lun: number) => LunDevice;
  readonly clock: Clock;
  readonly heartbeat: Heartbeat;
  readonly view: View;
  readonly board: Board;
  readonly petter: Petter;
  /** Transitions only, never per beat. */
  readonly log: (message: string) => void;
  /** Something that the daemon wants to know; at most about once per beat, and at once for a loss. */
  readonly onBeat: () => void;
  /** An exception in a beat: a defect. The process ends, and the watchdog has the last word. */
  readonly onDefect: (error: unknown) => void;
}

type LunCondition = Beat["luns"][number];

interface LunWork {
  condition: LunCondition;
  busy: boolean;
  /** Somebody wants another beat as soon as this one is over. */
  again: boolean;
  beats: number;
}

export class Beater {
  readonly #terms: BeaterTerms;
  readonly #work: LunWork[];
  readonly #waiters = new Waiters();
  #timer: NodeJS.Timeout | undefined;
  #nextAtMs = 0;
  #running = false;
  #toldLoss = false;
  #completed = 0;
  /** As the watchdog was last armed with. */
  #watchdogMs: number;
  #toldAtMs = 0;

  constructor(terms: BeaterTerms) {
    this.#terms = terms;
    this.#watchdogMs = terms.timings.watchdogMs;
    this.#work = terms.luns.counts.map(() => ({
      condition: { state: "ok", why: undefined, latencyMs: undefined },
      busy: false,
      again: false,
      beats: 0,
    }));
  }

  get running(): boolean {
    return this.#running;
  }

  get conditions(): readonly LunCondition[] {
    return this.#work.map(({ condition }) => condition);
  }

  /** An I/O of this process is past its deadline and has not come back. */
  get stuck(): boolean {
    return this.#work.some((_, lun) => this.#terms.device(lun).stuck);
  }

  start(): void {
    if (!this.#running) {
      this.#running = true;
      this.#nextAtMs = this.#terms.clock.bootMs();
      this.#tick();
    }
  }

  /** No further beat starts; resolves when those that are out have ended, which takes at most two deadlines. */
  async stop(): Promise<void> {
    this.#running = false;
    clearTimeout(this.#timer);
    for (const work of this.#work) {
      work.again = false;
    }
    await this.until(
      () => this.#work.every(({ busy }) => !busy),
      3 * this.#terms.timings.deadlineMs,
    );
  }

  /** Out of turn: at once where the LUN is free, else right after the beat that is out. */
  beatNow(): void {
    this.#work.forEach((work, lun) => {
      if (work.busy) {
        work.again = true;
      } else {
        this.#begin(lun);
      }
    });
  }

  /** Resolves with true as soon as the condition holds after some beat, with false after `timeoutMs` or a loss. */
  async until(isDone: () => boolean, timeoutMs: number): Promise<boolean> {
    return await this.#waiters.until(isDone, timeoutMs);
  }

  /** Sets, reads back and pets the watchdog, then publishes armed = 1 on a majority. @throws ERR_LOST, ERR_NOT_ARMED */
  async arm(): Promise<void> {
    const { heartbeat, petter, timings, luns } = this.#terms;
    this.#refuseLost();
    if (heartbeat.isPublished(true)) {
      return;
    }
    await this.until(() => heartbeat.renewedAtMs !== undefined, this.#patienceMs);
    const { renewedAtMs } = heartbeat;
    if (renewedAtMs === undefined) {
      throw notArmed("no renewal has counted yet");
    }
    this.#watchdogMs = await petter.arm(renewedAtMs + petWindowMs(timings, luns.total));
    this.#refuseLost();
    heartbeat.arm(this.#watchdogMs);
    this.beatNow();
    const isPublished = await this.until(() => heartbeat.isPublished(true), this.#patienceMs);
    this.#refuseLost();
    if (!isPublished) {
      throw notArmed("armed = 1 is not on a majority of the LUNs yet");
    }
  }

  /** Publishes armed = 0 on a majority, and only then stops the watchdog. @throws ERR_LOST, ERR_NOT_DISARMED */
  async disarm(): Promise<void> {
    const { heartbeat, petter } = this.#terms;
    this.#refuseLost();
    if (heartbeat.armed) {
      heartbeat.disarm();
      this.beatNow();
      const isPublished = await this.until(() => heartbeat.isPublished(false), this.#patienceMs);
      this.#refuseLost();
      if (!isPublished) {
        // A node that is not petted is reset: it stays armed, and the daemon tries again.
        heartbeat.arm(this.#watchdogMs);
        throw new ShareHaError("ERR_NOT_DISARMED", "armed = 0 is not on a majority of the LUNs", {
          hint: "The node stays armed; it tries again when the LUNs answer.",
        });
      }
    }
    await petter.disarm();
  }

  /** Writes the left record; true when it is on a majority. Only after `stop`, disarmed. */
  async writeLeft(): Promise<boolean> {
    const { heartbeat, luns, timings } = this.#terms;
    const op = heartbeat.leaveOp();
    const results = await Promise.all(
      luns.counts.map(async (_, lun) => await this.#submit(lun, [op], timings.deadlineMs)),
    );
    const landed = results.filter(({ kind }, lun) => kind === "done" && luns.counts[lun] === true);
    return landed.length >= majorityOf(luns);
  }

  /** Reads lockspace and outboxes now, on every LUN that is not stuck. */
  async observe(): Promise<void> {
    const { luns, timings, view } = this.#terms;
    if (this.#terms.heartbeat.loss !== undefined) {
      return;
    }
    const ops = view.readOps(false);
    await Promise.all(
      luns.counts.map(async (_, lun) => {
        const result = await this.#submit(lun, ops, timings.deadlineMs);
        if (result.kind === "done") {
          view.note(lun, result);
        }
      }),
    );
  }

  get #patienceMs(): number {
    const { intervalMs, deadlineMs } = this.#terms.timings;
    return intervalMs + 3 * deadlineMs;
  }

  #refuseLost(): void {
    const { loss } = this.#terms.heartbeat;
    if (loss !== undefined) {
      throw new ShareHaError("ERR_LOST", `this generation has lost its right to write: ${loss}`, {
        hint: "The daemon tears down and joins again with a new generation.",
      });
    }
  }

  #tick(): void {
    const { clock, heartbeat, timings } = this.#terms;
    const nowMs = clock.bootMs();
    // Beats that were missed while the process did not run are not made up for.
    while (this.#nextAtMs <= nowMs) {
      this.#nextAtMs += timings.intervalMs;
    }
    this.#timer = setTimeout(() => {
      this.#tick();
    }, this.#sleepMs(nowMs));
    if (heartbeat.mayRenew(nowMs).kind === "lost") {
      this.#noteLoss();
    } else {
      this.#work.forEach((work, lun) => {
        if (!work.busy) {
          this.#begin(lun);
        }
      });
    }
    if (nowMs - this.#toldAtMs >= timings.intervalMs) {
      this.#tell();
    }
  }

  /** Until the next beat, or until T runs out if that comes first: a loss is noticed when it happens. */
  #sleepMs(nowMs: number): number {
    const { heartbeat, timings } = this.#terms;
    const lostAtMs =
      heartbeat.loss === undefined && heartbeat.renewedAtMs !== undefined
        ? heartbeat.renewedAtMs + timings.ttlMs + 1
        : Infinity;
    const untilMs = lostAtMs > nowMs ? Math.min(this.#nextAtMs, lostAtMs) : this.#nextAtMs;
    return Math.max(1, Math.ceil(untilMs - nowMs));
  }

  #begin(lun: number): void {
    this.#beat(lun).catch(this.#terms.onDefect);
  }

  async #beat(lun: number): Promise<void> {
    const work = this.#work[lun];
    if (work === undefined || work.busy || this.#terms.heartbeat.loss !== undefined) {
      return;
    }
    if (this.#terms.device(lun).stuck) {
      this.#setCondition(lun, "stuck", "an I/O past its deadline has not come back");
      return;
    }
    work.busy = true;
    try {
      do {
        work.again = false;
        await this.#readAndWrite(lun, work);
        this.#afterBeat();
      } while (this.#mayRepeat(lun, work));
    } finally {
      work.busy = false;
      this.#settleWaiters();
    }
  }

  #mayRepeat(lun: number, work: LunWork): boolean {
    return work.again && !this.#terms.device(lun).stuck && this.#terms.heartbeat.loss === undefined;
  }

  async #readAndWrite(lun: number, work: LunWork): Promise<void> {
    const { board, clock, heartbeat, timings, view } = this.#terms;
    const isFull = work.beats++ % FULL_SCAN_EVERY === 0;
    const asked = heartbeat.recheckOps();
    const read = await this.#submit(lun, [...view.readOps(isFull), ...asked], timings.deadlineMs);
    if (read.kind !== "done") {
      this.#setCondition(lun, ...conditionOf(read));
      return;
    }
    view.note(lun, read);
    const nowMs = clock.bootMs();
    // During the read the gap may have become one that asks for the leaders, or the daemon may hold other leases: then
    // the leaders at hand are not the ones to judge by, and they are read again.
    heartbeat.mayRenew(nowMs);
    const needed = heartbeat.recheckOps();
    if (needed.length > 0 && !isSameReads(asked, needed)) {
      work.again = true;
      return;
    }
    const [lockspace = new Uint8Array(0), , ...leaders] = read.reads;
    const next = heartbeat.afterRead(lun, lockspace, leaders, nowMs);
    if (next.kind !== "write") {
      // Nothing is wrong with this LUN: the generation is lost, or the daemon is gone.
      this.#setCondition(lun, "ok", next.why);
      return;
    }
    const written = await this.#submit(lun, [next.op], timings.deadlineMs);
    this.#afterWrite(lun, written);
    if (heartbeat.loss === undefined) {
      await board.refresh(lun);
    }
  }

  #afterWrite(lun: number, written: BatchResult): void {
    const { clock, heartbeat, petter, log } = this.#terms;
    const verdict = heartbeat.afterWrite(lun, written, clock.bootMs());
    if (verdict.kind === "pet" && petAfter(verdict, clock, petter) !== "petted") {
      log("a pet was due too late and did not count");
    }
    const timing = written.kind === "done" ? written.timings[0] : undefined;
    if (timing === undefined) {
      this.#setCondition(lun, ...conditionOf(written));
    } else {
      const latencyMs = timing.completedMs - timing.startedMs;
      const isLate = verdict.kind === "not-counted";
      this.#setCondition(lun, isLate ? "late" : "ok", isLate ? verdict.why : undefined, latencyMs);
    }
  }

  /** Never to a LUN on which an I/O is past its deadline. */
  async #submit(lun: number, ops: readonly DiskOp[], deadlineMs: number): Promise<BatchResult> {
    const device = this.#terms.device(lun);
    return device.stuck ? { kind: "busy" } : await device.submit(ops, deadlineMs);
  }

  #setCondition(
    lun: number,
    state: LunCondition["state"],
    why: string | undefined,
    latencyMs?: number,
  ): void {
    const work = this.#work[lun];
    if (work === undefined) {
      return;
    }
    if (work.condition.state !== state) {
      this.#terms.log(`LUN ${lun + 1}: ${state}${why === undefined ? "" : `, ${why}`}`);
    }
    work.condition = { state, why, latencyMs: latencyMs ?? work.condition.latencyMs };
  }

  #afterBeat(): void {
    this.#completed++;
    if (this.#terms.heartbeat.loss !== undefined) {
      this.#noteLoss();
    } else if (this.#completed >= majorityOf(this.#terms.luns)) {
      this.#tell();
    }
    this.#settleWaiters();
  }

  #noteLoss(): void {
    if (!this.#toldLoss) {
      this.#toldLoss = true;
      this.#terms.log(`lost: ${this.#terms.heartbeat.loss ?? ""}`);
      this.#tell();
      this.#settleWaiters();
    }
  }

  #tell(): void {
    this.#completed = 0;
    this.#toldAtMs = this.#terms.clock.bootMs();
    this.#terms.onBeat();
  }

  #settleWaiters(): void {
    this.#waiters.settle(this.#terms.heartbeat.loss !== undefined && this.#running);
  }
}

function conditionOf(
  result: Exclude<BatchResult, { kind: "done" }> | BatchResult,
): readonly [LunCondition["state"], string | undefined] {
  switch (result.kind) {
    case "done":
      return ["ok", undefined];
    case "failed":
      return ["failed", `${result.code}: ${result.message}`];
    case "late":
      return ["late", "no answer within its deadline"];
    case "busy":
      return ["stuck", "an I/O past its deadline has not come back"];
  }
}

function isSameReads(one: readonly DiskOp[], other: readonly DiskOp[]): boolean {
  return (
    one.length === other.length && one.every((op, index) => op.offset === other[index]?.offset)
  );
}

function notArmed(why: string): ShareHaError {
  return new ShareHaError("ERR_NOT_ARMED", `this node cannot be armed now: ${why}`, {
    hint: "See the LUNs in `sharedha status`; nothing can be held until the heartbeat counts.",
  });
}
