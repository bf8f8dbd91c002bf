/**
 * Virtual time: a heap of events, performed one after the other in order of time, then of being scheduled. An event
 * that belongs to a process is put off while the process is stopped, and dropped when it is dead; one that belongs to a
 * machine stands still while the machine's virtual CPU does (a stopped VM).
 */
export interface Owner {
  /** `drop`: dead; `park`: the event comes back when the owner goes on; otherwise it runs now. */
  admit(event: SimEvent): "run" | "drop" | "park";
}

export interface SimEvent {
  at: number;
  seq: number;
  readonly run: () => void;
  readonly owner: Owner | undefined;
  /** The owner's frozen time when this was scheduled. */
  frozen: number;
}

export class Scheduler {
  readonly #heap: SimEvent[] = [];
  #seq = 0;
  /** True time, ms. */
  now = 0;
  events = 0;

  after(delayMs: number, run: () => void, owner?: Owner, frozen = 0): void {
    this.push({ at: this.now + (delayMs > 0 ? delayMs : 0), seq: this.#seq++, run, owner, frozen });
  }

  push(event: SimEvent): void {
    const heap = this.#heap;
    let index = heap.length;
    heap.push(event);
    while (index > 0) {
      const up = (index - 1) >> 1;
      const parent = heap[up]!;
      if (isBefore(parent, event)) {
        break;
      }
      heap[index] = parent;
      index = up;
    }
    heap[index] = event;
  }

  /** A place behind everything that is already scheduled for the same time. */
  nextSeq(): number {
    return this.#seq++;
  }

  /** Performs events until `untilMs`, or until `done` says so. */
  run(untilMs: number, done: () => boolean): void {
    for (;;) {
      const next = this.#heap[0];
      if (next === undefined || next.at > untilMs || done()) {
        this.now = next === undefined || next.at > untilMs ? Math.max(this.now, untilMs) : this.now;
        return;
      }
      this.#pop();
      if (next.at > this.now) {
        this.now = next.at;
      }
      this.events++;
      if (next.owner === undefined || next.owner.admit(next) === "run") {
        next.run();
      }
    }
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    const length = heap.length;
    if (length === 0) {
      return;
    }
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= length) {
        break;
      }
      if (child + 1 < length && isBefore(heap[child + 1]!, heap[child]!)) {
        child++;
      }
      const candidate = heap[child]!;
      if (isBefore(last, candidate)) {
        break;
      }
      heap[index] = candidate;
      index = child;
    }
    heap[index] = last;
  }
}

function isBefore(one: SimEvent, other: SimEvent): boolean {
  return one.at < other.at || (one.at === other.at && one.seq < other.seq);
}
