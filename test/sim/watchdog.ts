/**
 * The watchdog as the kernel has it. Two pets come from the kernel itself: on SETTIMEOUT, and when the last process that
 * has the device open closes it without the magic character (hazard H1: measured, reset at 9.1 s instead of 5).
 *
 * In a machine of kind `guard` it stands for the guard process: an absolute expiry on the machine's clock, and what
 * happens then is that the file systems are shut down and the processes killed; the machine itself stays up.
 */
import { type Machine } from "./machine.js";

export class Watchdog {
  readonly #machine: Machine;
  readonly #openIn = new Set<string>();
  #watchdogMs = 0;
  /** True time at which it fires. */
  #expiresAt = Infinity;
  #ticking = false;
  #frozenSince: number | undefined;
  #guardPausedUntil = 0;
  running = false;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** Opened by pulse and by the keeper, timeout set (which pets) and read back. */
  start(watchdogMs: number, holders: readonly string[]): void {
    this.running = true;
    this.#watchdogMs = watchdogMs;
    for (const holder of holders) {
      this.#openIn.add(holder);
    }
    this.pet();
  }

  /** A restarted pulse gets the descriptor from the keeper; that pets nothing. */
  adopt(role: string): void {
    if (this.running) {
      this.#openIn.add(role);
    }
  }

  pet(): void {
    if (this.running) {
      this.#expireAt(this.#now + this.#watchdogMs / this.#machine.rate);
    }
  }

  /** For a guard: it expires at this time of its machine's clock, never later than it said before it was petted. */
  petUntil(bootMs: number): void {
    if (this.running) {
      this.#expireAt(this.#now + (bootMs - this.#machine.bootMs()) / this.#machine.rate);
    }
  }

  /** A process died that may have had it open. */
  closedBy(role: string): void {
    if (this.#openIn.delete(role) && this.#openIn.size === 0 && this.running) {
      this.pet();
    }
  }

  /** Magic close by everybody. */
  off(): void {
    this.running = false;
    this.#openIn.clear();
    this.#expiresAt = Infinity;
    this.#frozenSince = undefined;
  }

  /** The guard is a process: a stopped one acts when it goes on, before anything else of its node does. */
  pauseGuard(ms: number): void {
    this.#guardPausedUntil = ms === 0 ? 0 : Math.max(this.#guardPausedUntil, this.#now + ms);
    this.#machine.world.scheduler.after(ms, () => {
      this.#fire();
    });
  }

  freeze(): void {
    this.#frozenSince ??= this.#now;
  }

  unfreeze(): void {
    if (this.#frozenSince === undefined) {
      return;
    }
    this.#expiresAt += this.#now - this.#frozenSince;
    this.#frozenSince = undefined;
    this.#tick();
  }

  get #now(): number {
    return this.#machine.world.scheduler.now;
  }

  #expireAt(at: number): void {
    this.#expiresAt = at;
    this.#tick();
  }

  #tick(): void {
    if (this.#ticking || this.#expiresAt === Infinity) {
      return;
    }
    this.#ticking = true;
    this.#machine.world.scheduler.after(this.#expiresAt - this.#now, () => {
      this.#ticking = false;
      this.#fire();
    });
  }

  #fire(): void {
    if (!this.running || this.#frozenSince !== undefined || this.#expiresAt === Infinity) {
      return;
    }
    if (this.#guardPausedUntil > this.#now) {
      return;
    }
    if (this.#now + 1e-6 >= this.#expiresAt) {
      this.#machine.world.onWatchdog(this.#machine);
    } else {
      this.#tick();
    }
  }
}
