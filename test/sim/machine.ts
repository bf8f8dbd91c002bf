/**
 * A simulated machine: its own clock rate, its processes, its watchdog, its paths to the LUNs, and what its kernel has
 * mounted. The kernel goes on writing when processes are stopped or dead; only a reset, a file system that was shut down
 * or an unmount ends that.
 */
import { type SimDevice } from "./sim-device.js";
import { type Owner, type Scheduler, type SimEvent } from "./scheduler.js";
import { Watchdog } from "./watchdog.js";
import { type World } from "./world.js";

export interface Path {
  /** I/O hangs until it is whole again. */
  cut: boolean;
  /** I/O fails; a write may have landed. */
  failing: boolean;
  /** The LUN has turned read-only: writes fail and have no effect. */
  readOnly: boolean;
  /** The last write gets through at once, its answer takes this long, and then the path is cut. */
  gaspMs: number | undefined;
}

/** A file system that this machine's kernel has mounted, and so writes to. */
export interface Mount {
  readonly machine: Machine;
  readonly lease: number;
  readonly lver: bigint;
  readonly generation: bigint;
  readonly shared: boolean;
  /** False after unmount, shut-down, or reset. */
  live: boolean;
  /** Data writes that have not come back. */
  inFlight: number;
}

export class Machine implements Owner {
  readonly id: number;
  readonly world: World;
  readonly rate: number;
  readonly paths: Path[];
  readonly watchdog: Watchdog;
  readonly processes = new Set<Process>();
  readonly mounts = new Set<Mount>();
  on = true;
  boots = 1;
  /** The VM's CPU stands still. */
  frozen = false;
  suspended = false;
  frozenMs = 0;
  #frozenSince = 0;
  readonly #parked: SimEvent[] = [];
  /** Kernel I/O of dead processes, by role: their lock files stay locked (a task in D state). */
  readonly outstanding = new Map<string, number>();
  readonly #clockBase: number;

  constructor(world: World, id: number, rate: number, luns: number) {
    this.world = world;
    this.id = id;
    this.rate = rate;
    this.paths = Array.from({ length: luns }, () => ({
      cut: false,
      failing: false,
      readOnly: false,
      gaspMs: undefined,
    }));
    this.watchdog = new Watchdog(this);
    this.#clockBase = 1_000 * world.random.below(1_000_000);
  }

  /** CLOCK_BOOTTIME, ms. A stopped VM's stands still; a suspended machine's goes on. */
  bootMs(): number {
    return this.#clockBase + (this.world.scheduler.now - this.frozenMs) * this.rate;
  }

  /** Something of the machine itself (its kernel), `delayMs` of its own clock from now. */
  after(delayMs: number, run: () => void): void {
    this.#scheduler.after(delayMs / this.rate, run, this, this.frozenMs);
  }

  admit(event: SimEvent): "run" | "drop" | "park" {
    if (!this.on) {
      return "drop";
    }
    if (this.frozen || this.suspended) {
      this.#parked.push(event);
      return "park";
    }
    return this.shifted(event) ? "park" : "run";
  }

  /** Time that the machine did not live through does not count for its timers. */
  shifted(event: SimEvent): boolean {
    if (event.frozen === this.frozenMs) {
      return false;
    }
    event.at += this.frozenMs - event.frozen;
    event.frozen = this.frozenMs;
    event.seq = this.#scheduler.nextSeq();
    this.#scheduler.push(event);
    return true;
  }

  park(event: SimEvent): void {
    this.#parked.push(event);
  }

  freeze(): void {
    if (!this.frozen) {
      this.frozen = true;
      this.#frozenSince = this.#scheduler.now;
      this.watchdog.freeze();
    }
  }

  unfreeze(): void {
    if (this.frozen) {
      this.frozen = false;
      this.frozenMs += this.#scheduler.now - this.#frozenSince;
      this.watchdog.unfreeze();
      this.#unpark();
    }
  }

  suspend(): void {
    this.suspended = true;
    if (this.world.options.kind === "virtual") {
      this.watchdog.freeze();
    }
  }

  resume(): void {
    if (this.suspended) {
      this.suspended = false;
      this.watchdog.unfreeze();
      this.#unpark();
    }
  }

  #unpark(): void {
    for (const event of this.#parked.splice(0)) {
      event.at = Math.max(event.at, this.#scheduler.now);
      this.#scheduler.push(event);
    }
  }

  /** Power off, or the watchdog's reset: nothing of it runs, and what it had not sent yet is lost. */
  powerOff(): void {
    this.on = false;
    this.frozen = false;
    this.suspended = false;
    this.#parked.length = 0;
    for (const process of this.processes) {
      process.dieWithMachine();
    }
    this.processes.clear();
    this.outstanding.clear();
    this.watchdog.off();
    for (const mount of this.mounts) {
      mount.live = false;
    }
    this.mounts.clear();
    this.world.onPowerOff(this);
  }

  powerOn(): void {
    this.on = true;
    this.boots++;
  }

  get #scheduler(): Scheduler {
    return this.world.scheduler;
  }
}

export class Process implements Owner {
  readonly machine: Machine;
  readonly role: string;
  readonly devices: SimDevice[] = [];
  alive = true;
  #pausedUntilMs = 0;
  #paused = false;
  readonly #deferred: (() => void)[] = [];

  constructor(machine: Machine, role: string) {
    this.machine = machine;
    this.role = role;
    machine.processes.add(this);
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** A timer of this process, in ms of its machine's clock. */
  after(delayMs: number, run: () => void): void {
    const { machine } = this;
    machine.world.scheduler.after(delayMs / machine.rate, run, this, machine.frozenMs);
  }

  admit(event: SimEvent): "run" | "drop" | "park" {
    if (!this.alive) {
      return "drop";
    }
    if (this.machine.frozen || this.machine.suspended) {
      this.machine.park(event);
      return "park";
    }
    if (this.machine.shifted(event)) {
      return "park";
    }
    if (this.#paused) {
      this.#deferred.push(event.run);
      return "park";
    }
    return "run";
  }

  /** Something happened that this process hears of as soon as it runs. */
  deliver(run: () => void): void {
    const { machine } = this;
    if (!this.alive) {
      return;
    }
    if (machine.frozen || machine.suspended) {
      machine.world.scheduler.after(0, run, this, machine.frozenMs);
    } else if (this.#paused) {
      this.#deferred.push(run);
    } else {
      run();
    }
  }

  /** SIGSTOP until `ms` from now; the longest of several counts. */
  pause(ms: number): void {
    const { scheduler } = this.machine.world;
    this.#pausedUntilMs = Math.max(this.#pausedUntilMs, scheduler.now + ms);
    this.#paused = true;
    for (const device of this.devices) {
      device.pauseHits();
    }
    scheduler.after(ms, () => {
      if (scheduler.now >= this.#pausedUntilMs) {
        this.continue();
      }
    });
  }

  continue(): void {
    if (!this.#paused) {
      return;
    }
    this.#paused = false;
    this.#pausedUntilMs = 0;
    const deferred = this.#deferred.splice(0);
    for (const run of deferred) {
      this.machine.world.scheduler.after(0, run, this, this.machine.frozenMs);
    }
  }

  /** SIGKILL. What the kernel has in hand goes on. */
  kill(): void {
    if (!this.alive) {
      return;
    }
    this.alive = false;
    this.machine.processes.delete(this);
    for (const device of this.devices) {
      device.ownerDied();
    }
    this.machine.watchdog.closedBy(this.role);
  }

  dieWithMachine(): void {
    this.alive = false;
    for (const device of this.devices) {
      device.machineDied();
    }
  }
}
