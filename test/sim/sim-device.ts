/**
 * One process's way to one LUN, exactly as lib/port/disk.ts says: batches in order, operations one after the other,
 * `late` at the deadline, `busy` while an operation past its deadline is out. An operation takes effect at some moment
 * between its start and its completion; one that hangs takes effect when its time comes, also after its process or its
 * machine has died.
 */
import { type BatchResult, type DiskOp, type OpTiming } from "../../lib/port/disk.js";
import { SimFailure } from "./failure.js";
import { type Path, type Process } from "./machine.js";
import { type Medium } from "./medium.js";

type Done = (result: BatchResult) => void;

interface Batch {
  readonly ops: readonly DiskOp[];
  readonly deadlineMs: number;
  readonly deadlineAtMs: number;
  readonly done: Done;
  readonly reads: Uint8Array[];
  readonly timings: OpTiming[];
  index: number;
  answered: boolean;
}

/** One operation in the kernel, on the wire, or in the target. */
interface Flight {
  readonly op: DiskOp;
  readonly startedMs: number;
  bytes: Uint8Array | undefined;
  error: boolean;
  landed: boolean;
  /** It will never take effect: its machine died before it was sent. */
  lost: boolean;
  /** The target has it: it takes effect whatever becomes of the machine. */
  inTarget: boolean;
  /** The system call is over; the process may not have noticed. */
  returned: boolean;
  /** The process was stopped between its look at the clock and the system call. */
  beforeCall: boolean;
}

export class SimDevice {
  readonly #process: Process;
  readonly #lun: number;
  readonly #waiting: Batch[] = [];
  #out: Batch | undefined;
  #flight: Flight | undefined;
  stuck = false;

  constructor(process: Process, lun: number) {
    this.#process = process;
    this.#lun = lun;
    process.devices.push(this);
  }

  get busy(): boolean {
    return this.#out !== undefined || this.stuck;
  }

  submit(ops: readonly DiskOp[], deadlineMs: number, done: Done): void {
    if (this.stuck) {
      this.#process.after(0.001, () => {
        done({ kind: "busy" });
      });
      return;
    }
    const deadlineAtMs = this.#process.machine.bootMs() + deadlineMs;
    this.#waiting.push({
      ops,
      deadlineMs,
      deadlineAtMs,
      done,
      reads: [],
      timings: [],
      index: 0,
      answered: false,
    });
    this.#next();
  }

  #next(): void {
    if (this.#out === undefined && !this.stuck) {
      this.#out = this.#waiting.shift();
      if (this.#out !== undefined) {
        this.#issue(this.#out);
      }
    }
  }

  #issue(batch: Batch): void {
    const { machine } = this.#process;
    const { world } = machine;
    const op = batch.ops[batch.index];
    if (op === undefined) {
      this.#answer(batch, { kind: "done", reads: batch.reads, timings: batch.timings });
      return;
    }
    world.diskOps++;
    if (this.#flight !== undefined) {
      throw new SimFailure("safety", "a second I/O goes to a LUN that hangs");
    }
    const flight: Flight = {
      op,
      startedMs: machine.bootMs(),
      bytes: undefined,
      error: false,
      landed: false,
      lost: false,
      inTarget: false,
      returned: false,
      beforeCall: false,
    };
    this.#flight = flight;
    const path = machine.paths[this.#lun]!;
    const medium = world.media[world.nodeOf(machine).lunPaths[this.#lun]!]!;
    const restMs = batch.deadlineAtMs - flight.startedMs;
    if (path.cut || medium.awayUntilMs > world.scheduler.now) {
      flight.inTarget = world.random.chance(0.1);
      world.hangUntilHealed(machine, this.#lun, () => {
        this.#fly(batch, flight, medium, world.latencyMs(), world.random.chance(0.3));
      });
      this.#lateAfter(batch, restMs);
      return;
    }
    if (path.gaspMs !== undefined && op.kind === "write") {
      this.#gasp(batch, flight, path, medium, restMs);
      return;
    }
    const { ops } = world.options;
    let latencyMs = world.latencyMs();
    if (ops.hang > 0 && world.random.chance(ops.hang)) {
      flight.inTarget = true;
      latencyMs = world.random.between(0, world.hangMs);
    } else if (ops.slow > 0 && world.random.chance(ops.slow)) {
      // Half of them come back just within the deadline.
      const { deadlineMs } = world.options.timings;
      latencyMs = world.random.between(0, world.random.chance(0.5) ? deadlineMs : 2.5 * deadlineMs);
    }
    const fails = path.failing || (ops.error > 0 && world.random.chance(ops.error));
    if (latencyMs * machine.rate >= restMs) {
      this.#lateAfter(batch, restMs);
    }
    this.#fly(batch, flight, medium, latencyMs, fails);
  }

  /** It takes effect at once, and its answer is the last thing that comes through. */
  #gasp(batch: Batch, flight: Flight, path: Path, medium: Medium, restMs: number): void {
    const { machine } = this.#process;
    const { world } = machine;
    const answerMs = path.gaspMs ?? 0;
    path.gaspMs = undefined;
    path.cut = true;
    if (answerMs * machine.rate >= restMs) {
      this.#lateAfter(batch, restMs);
    }
    flight.inTarget = true;
    world.scheduler.after(0.1, () => {
      this.#land(flight, medium, true, () => {
        world.scheduler.after(answerMs, () => {
          this.#returned(batch, flight);
        });
      });
    });
  }

  #fly(batch: Batch, flight: Flight, medium: Medium, latencyMs: number, fails: boolean): void {
    const { world } = this.#process.machine;
    const { random, scheduler } = world;
    flight.error = fails;
    const { readOnly } = this.#process.machine.paths[this.#lun]!;
    const refused = readOnly && flight.op.kind === "write";
    flight.error ||= refused;
    const takesEffect = !refused && (!fails || (flight.op.kind === "write" && random.chance(0.5)));
    // Usually the answer follows at once; otherwise there is time for others in between.
    const atEnd = random.chance(latencyMs > 50 ? 0.3 : 0.85);
    const landsAt = atEnd ? latencyMs : latencyMs * random.fraction();
    const torn = world.options.ops.torn;
    if (torn > 0 && flight.op.kind === "read" && flight.op.length > 512 && random.chance(torn)) {
      scheduler.after(landsAt * random.fraction(), () => {
        flight.bytes = medium.read(flight.op.offset, (flight.op as { length: number }).length);
      });
    }
    scheduler.after(landsAt, () => {
      this.#land(flight, medium, takesEffect, () => {
        if (landsAt === latencyMs) {
          this.#returned(batch, flight);
        } else {
          scheduler.after(latencyMs - landsAt, () => {
            this.#returned(batch, flight);
          });
        }
      });
    });
  }

  #land(flight: Flight, medium: Medium, takesEffect: boolean, then: () => void): void {
    const { machine } = this.#process;
    const { world } = machine;
    if (flight.lost) {
      return;
    }
    if (flight.beforeCall) {
      // The system call is made only when the process goes on.
      this.#process.deliver(() => {
        flight.beforeCall = false;
        world.scheduler.after(world.latencyMs(), () => {
          this.#land(flight, medium, takesEffect, then);
        });
      });
      return;
    }
    flight.landed = true;
    const { op } = flight;
    world.trace.mix(op.offset + world.scheduler.now * 1000);
    if (takesEffect) {
      if (op.kind === "write") {
        medium.write(op.offset, op.data);
      } else {
        flight.bytes = this.#sample(flight, medium, op.offset, op.length);
      }
    }
    then();
  }

  /** Of a read that was torn the first half is what was there earlier. */
  #sample(flight: Flight, medium: Medium, offset: number, length: number): Uint8Array {
    const bytes = medium.read(offset, length);
    if (flight.bytes === undefined || flight.bytes === bytes) {
      return bytes;
    }
    const torn = bytes.slice();
    torn.set(flight.bytes.subarray(0, 512 * Math.ceil(length / 1024)));
    return torn;
  }

  /** The system call returns, whether or not the process is there to notice. */
  #returned(batch: Batch, flight: Flight): void {
    if (this.#flight !== flight) {
      return;
    }
    const { machine } = this.#process;
    flight.returned = true;
    if (!this.#process.alive) {
      this.#flight = undefined;
      const { role } = this.#process;
      machine.outstanding.set(role, (machine.outstanding.get(role) ?? 1) - 1);
      return;
    }
    const { world } = machine;
    const { stall } = world.options.ops;
    if (stall > 0 && world.random.chance(stall)) {
      const { deadlineMs } = world.options.timings;
      const highMs = world.random.chance(0.2) ? 5 * deadlineMs : 1.5 * deadlineMs;
      this.#process.after(world.random.between(0, highMs), () => {
        this.#noticed(batch, flight);
      });
    } else {
      this.#process.deliver(() => {
        this.#noticed(batch, flight);
      });
    }
  }

  #noticed(batch: Batch, flight: Flight): void {
    this.#flight = undefined;
    if (batch.answered) {
      this.stuck = false;
      this.#out = undefined;
      this.#next();
      return;
    }
    const completedMs = this.#process.machine.bootMs();
    if (completedMs > batch.deadlineAtMs) {
      this.#answer(batch, { kind: "late" });
      return;
    }
    if (flight.error) {
      this.#answer(batch, { kind: "failed", code: "EIO", message: "simulated" });
      return;
    }
    if (flight.bytes !== undefined && flight.op.kind === "read") {
      batch.reads.push(flight.bytes);
    }
    batch.timings.push({ startedMs: flight.startedMs, completedMs });
    batch.index++;
    this.#issue(batch);
  }

  #answer(batch: Batch, result: BatchResult): void {
    this.#out = undefined;
    batch.answered = true;
    const { random, options } = this.#process.machine.world;
    const { stall } = options.ops;
    if (stall > 0 && random.chance(stall / 2)) {
      // The worker has answered; the process's main thread gets round to it later.
      this.#process.after(random.between(0, 3 * options.timings.deadlineMs), () => {
        batch.done(result);
      });
    } else {
      batch.done(result);
    }
    this.#next();
  }

  #lateAfter(batch: Batch, restMs: number): void {
    this.#process.after(restMs, () => {
      if (this.#out === batch && !batch.answered) {
        batch.answered = true;
        this.stuck = true;
        batch.done({ kind: "late" });
        for (const waiting of this.#waiting.splice(0)) {
          waiting.done({ kind: "busy" });
        }
      }
    });
  }

  /** SIGSTOP may hit between the look at the clock and the system call. */
  pauseHits(): void {
    const flight = this.#flight;
    if (flight !== undefined && !flight.landed && !flight.inTarget) {
      flight.beforeCall ||= this.#process.machine.world.random.chance(0.3);
    }
  }

  ownerDied(): void {
    const flight = this.#flight;
    if (flight !== undefined) {
      const { outstanding } = this.#process.machine;
      const { role } = this.#process;
      if (flight.beforeCall || flight.returned) {
        flight.lost = true;
        this.#flight = undefined;
        return;
      }
      outstanding.set(role, (outstanding.get(role) ?? 0) + 1);
    }
  }

  machineDied(): void {
    const flight = this.#flight;
    if (flight !== undefined && !flight.landed && !flight.inTarget) {
      flight.lost = flight.beforeCall || this.#process.machine.world.random.chance(0.5);
      const path = this.#process.machine.paths[this.#lun]!;
      flight.lost ||= path.cut;
    }
    this.#flight = undefined;
  }
}
