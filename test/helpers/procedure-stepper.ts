/**
 * Steps a protocol by hand: the test decides which operation on which LUN is carried out next, so every interleaving of
 * several hosts can be chosen. Behaves as lib/region/run-procedure.ts does on real LUNs: a batch is submitted to every
 * LUN at once, the procedure goes on when a majority has answered, a straggler is reported `late` and still carried out
 * before the next batch of the same LUN.
 */
import assert from "node:assert/strict";
import {
  type DiskProcedure,
  type LunSet,
  majorityOf,
  type OutboxChange,
  type Request,
  type Standing,
  type Turn,
} from "../../lib/lease/procedure.js";
import { type BatchResult, type DiskOp } from "../../lib/port/disk.js";
import { type MemoryLuns } from "./memory-luns.js";

export interface TestClock {
  nowMs: number;
}

/** The part of a node that answers what is no disk operation. Everything may be changed while the procedure runs. */
export interface StepperNode {
  standing: Standing;
  post: (change: OutboxChange) => boolean;
  arm: () => boolean;
  /** How a LUN fails for this node; `undefined`: it does not. */
  fault: (lun: number, op: DiskOp) => Exclude<BatchResult, { kind: "done" }> | undefined;
}

export function healthyNode(changes: Partial<StepperNode> = {}): StepperNode {
  return {
    standing: { renewedAtMs: 0, ttlMs: Infinity, lost: false, armed: true },
    post: () => true,
    arm: () => true,
    fault: () => undefined,
    ...changes,
  };
}

interface Batch {
  readonly ops: readonly DiskOp[];
  next: number;
  readonly reads: Uint8Array[];
  readonly timings: { startedMs: number; completedMs: number }[];
  result: BatchResult | undefined;
}

export class ProcedureStepper<T> {
  readonly #procedure: DiskProcedure<T>;
  readonly #luns: MemoryLuns;
  readonly #lunSet: LunSet;
  readonly #node: StepperNode;
  readonly #clock: TestClock;
  /** Per LUN: what has been submitted and not answered. */
  readonly #queues: Batch[][];
  #step: IteratorResult<Request, T>;
  #current: readonly Batch[] = [];
  #crashed = false;
  /**
   * What the procedure was told since its last pause, and the last thing before that, for comparing two of them. A
   * procedure that pauses looks at everything anew and carries over no more than what it saw last.
   */
  readonly history: string[] = [];
  /** How many operations, and how many sleeps, were carried out so far. */
  steps = 0;
  pauses = 0;

  constructor(
    procedure: DiskProcedure<T>,
    luns: MemoryLuns,
    lunSet: LunSet,
    node: StepperNode,
    clock: TestClock,
  ) {
    this.#procedure = procedure;
    this.#luns = luns;
    this.#lunSet = lunSet;
    this.#node = node;
    this.#clock = clock;
    this.#queues = Array.from({ length: luns.count }, () => []);
    this.#step = procedure.next();
    this.#submit();
  }

  /** What the procedure waits for; `undefined` when it has ended. */
  get request(): Request | undefined {
    return this.#step.done === true ? undefined : this.#step.value;
  }

  get isDone(): boolean {
    return this.#step.done === true;
  }

  get outcome(): T {
    assert(this.#step.done === true, "the procedure has not ended");
    return this.#step.value;
  }

  /** The LUNs on which an operation of this host can be carried out now, stragglers included. */
  ready(): readonly number[] {
    return this.#crashed
      ? []
      : this.#queues.flatMap((queue, lun) => (queue.length > 0 ? [lun] : []));
  }

  /** True when it waits for something else than a LUN: `proceed` answers. */
  get waits(): boolean {
    const { request } = this;
    return !this.#crashed && request !== undefined && request.kind !== "io";
  }

  /** The node dies: nothing of it is carried out any more. */
  crash(): void {
    this.#crashed = true;
  }

  /** Position of every queue, to tell two states apart. */
  position(): string {
    const queued = this.#queues.map((queue) =>
      queue.map((batch) => `${batch.ops.length}.${batch.next}`),
    );
    return `${this.isDone} ${this.#crashed} ${queued.join("/")}`;
  }

  /** Carries out the next operation on one LUN. */
  step(lun: number): void {
    const queue = this.#queues[lun] ?? [];
    const batch = queue[0];
    assert(batch !== undefined && !this.#crashed, "nothing to carry out there");
    const op = batch.ops[batch.next];
    assert(op !== undefined);
    this.steps++;
    const fault = this.#node.fault(lun, op);
    if (fault !== undefined) {
      batch.result = fault;
    } else {
      const startedMs = this.#clock.nowMs;
      const bytes = this.#luns.perform(lun, op);
      if (bytes !== undefined) {
        batch.reads.push(bytes);
      }
      batch.timings.push({ startedMs, completedMs: this.#clock.nowMs });
      batch.next++;
      if (batch.next === batch.ops.length) {
        batch.result = { kind: "done", reads: batch.reads, timings: batch.timings };
      }
    }
    if (batch.result !== undefined) {
      queue.shift();
      this.#resumeWhenAnswered();
    }
  }

  /** Answers a sleep, a post or an arm. */
  proceed(): void {
    const { request } = this;
    assert(request !== undefined && request.kind !== "io");
    switch (request.kind) {
      case "sleep":
        this.#clock.nowMs += request.ms;
        this.pauses++;
        this.history.splice(0, this.history.length - 1);
        this.#resume([], true);
        break;
      case "post":
        this.#resume([], this.#node.post(request.change));
        break;
      case "arm":
        this.#resume([], this.#node.arm());
        break;
    }
  }

  /** Runs to the end, with nobody else about. */
  run(stepsMax = 10_000): T {
    for (let count = 0; !this.isDone; count++) {
      assert(count < stepsMax, "the procedure does not come to an end");
      this.advance();
    }
    return this.outcome;
  }

  /** One step of whatever is next. */
  advance(): void {
    if (this.waits) {
      this.proceed();
      return;
    }
    const [lun] = this.ready();
    assert(lun !== undefined, "the procedure waits for a LUN that never answers");
    this.step(lun);
  }

  #submit(): void {
    const { request } = this;
    if (request?.kind !== "io") {
      this.#current = [];
      return;
    }
    this.#current = this.#queues.map((queue) => {
      const batch = { ops: request.ops, next: 0, reads: [], timings: [], result: undefined };
      queue.push(batch);
      return batch;
    });
  }

  #resumeWhenAnswered(): void {
    const { request } = this;
    if (request?.kind !== "io") {
      return;
    }
    const answered = this.#current.filter((batch) => batch.result !== undefined).length;
    const counted = this.#current.filter(
      (batch, lun) => batch.result?.kind === "done" && this.#lunSet.counts[lun] === true,
    ).length;
    const needed = request.wait === "all" ? Infinity : majorityOf(this.#lunSet);
    if (counted >= needed || answered === this.#current.length) {
      this.#resume(
        this.#current.map((batch) => batch.result ?? { kind: "late" }),
        true,
      );
    }
  }

  #resume(luns: readonly BatchResult[], accepted: boolean): void {
    const turn: Turn = { nowMs: this.#clock.nowMs, standing: this.#node.standing, luns, accepted };
    this.history.push(keyOf(luns, accepted));
    this.#step = this.#procedure.next(turn);
    this.#submit();
  }
}

function keyOf(luns: readonly BatchResult[], accepted: boolean): string {
  const parts = luns.map((result) =>
    result.kind === "done"
      ? result.reads.map((bytes) => Buffer.from(bytes).toString("latin1")).join(",")
      : result.kind,
  );
  return `${accepted}:${parts.join("|")}`;
}
