/**
 * A real watchdog (DESIGN section 4, "The kernel pets too"). The device is opened once, its timeout set once; the keeper
 * holds a copy of the descriptor from arming to disarming, and a restarted pulse gets it from there, sets nothing, and
 * pets for the first time after a renewal of its own.
 */
import { ShareHaError } from "../errors.js";
import { adoptFromKeeper, startKeeper, stopKeeper } from "../system/keeper.js";
import { errnoName } from "../system/libc.js";
import { type ProcessIdentity } from "../system/process.js";
import { type ArmedWatchdog, adoptWatchdog, armWatchdog, isStopped } from "../system/watchdog.js";
import { type ResetTrigger, type WatchdogSys } from "../system/watchdog-sys.js";
import { type Petter } from "./petter.js";
import { type KeeperState } from "./saved-state.js";

export interface HardwarePetterOptions {
  readonly device: string;
  readonly watchdogMs: number;
  readonly sys: WatchdogSys;
  readonly reset: ResetTrigger;
  readonly log: (message: string) => void;
  /** Written down before arming is reported, so that a restarted pulse finds the keeper. */
  readonly save: (keeper: KeeperState | undefined) => void;
  /** The machine should have been reset and was not: this generation has lost. */
  readonly onRefused: (why: string) => void;
}

/** How long the driver may take to show that it stands still. */
const STOP_POLLS = 50;
const STOP_POLL_MS = 20;

export class HardwarePetter implements Petter {
  readonly kind = "hardware";
  readonly device: string;
  readonly #options: HardwarePetterOptions;
  #armed: ArmedWatchdog | undefined;
  #keeper: ProcessIdentity | undefined;
  #petFailed = false;
  /** The kernel refused to reset the machine at once: now only the watchdog can, and nothing may keep it from it. */
  #expiring = false;

  constructor(options: HardwarePetterOptions) {
    this.#options = options;
    this.device = options.device;
  }

  /**
   * A restarted pulse: neither opens the device nor sets the timeout, nor pets. After an error the keeper still holds the
   * descriptor, so nothing was pinged or stopped.
   * @throws ERR_KEEPER_GONE, ERR_KEEPER, ERR_WATCHDOG_DRIVER, ERR_WATCHDOG_RANGE (W is not the one that was published)
   */
  adopt(keeper: KeeperState): void {
    const { sys } = this.#options;
    const identity = {
      pid: keeper.process.pid,
      startTime: BigInt(keeper.process.startTime),
    };
    const fd = adoptFromKeeper(identity);
    try {
      const armed = adoptWatchdog(keeper.device, fd, sys);
      const watchdogMs = armed.timeoutSeconds * 1_000;
      if (watchdogMs !== keeper.watchdogMs) {
        throw new ShareHaError(
          "ERR_WATCHDOG_RANGE",
          `the watchdog ${keeper.device} runs with ${watchdogMs} ms, and ${keeper.watchdogMs} ms was published`,
          {
            hint: "Something else has set its timeout (systemd: RuntimeWatchdogSec, RebootWatchdogSec); make it leave this device alone.",
            fields: { device: keeper.device, watchdogMs },
          },
        );
      }
      this.#armed = armed;
      this.#keeper = identity;
    } catch (error) {
      sys.close(fd);
      throw error;
    }
  }

  async arm(): Promise<number> {
    const { device, watchdogMs, sys, save } = this.#options;
    if (this.#armed !== undefined) {
      return this.#armed.timeoutSeconds * 1_000;
    }
    const armed = armWatchdog(device, Math.round(watchdogMs / 1_000), sys);
    try {
      const keeper = await startKeeper(armed.fd);
      this.#keeper = keeper;
      const process = { pid: keeper.pid, startTime: String(keeper.startTime) };
      save({ process, device, watchdogMs: armed.timeoutSeconds * 1_000 });
      armed.pet();
    } catch (error) {
      this.#release(armed);
      save(undefined);
      throw error;
    }
    this.#armed = armed;
    return armed.timeoutSeconds * 1_000;
  }

  pet(): void {
    if (this.#expiring) {
      return;
    }
    try {
      this.#armed?.pet();
      this.#petFailed = false;
    } catch (error) {
      if (!this.#petFailed) {
        this.#petFailed = true;
        this.#options.log(error instanceof Error ? error.message : String(error));
      }
    }
  }

  overran(): void {
    if (this.#armed === undefined) {
      return;
    }
    // Nothing before this: the machine has at most `margin` left in which the others already count on it being down.
    const result = this.#options.reset.reset();
    // Only when the kernel did not do it does anything follow. No further pet, so that the watchdog does what the kernel did not.
    this.#expiring = true;
    const why = `a pet came too late and the machine was not reset (${result < 0 ? errnoName(result) : "the kernel took the request"})`;
    this.#options.log(`${why}; the watchdog is not petted any more and will do it`);
    this.#options.onRefused(why);
  }

  async disarm(): Promise<void> {
    const armed = this.#armed;
    if (armed === undefined) {
      return;
    }
    if (this.#expiring) {
      throw new ShareHaError(
        "ERR_WATCHDOG_EXPIRING",
        `the watchdog ${this.device} is left to reset this machine`,
        {
          hint: "The others may already count on this machine being down. Wait for its reset.",
          fields: { device: this.device },
        },
      );
    }
    this.#armed = undefined;
    this.#release(armed);
    this.#options.save(undefined);
    for (let poll = 0; poll < STOP_POLLS; poll++) {
      if (isStopped(this.device, this.#options.sys)) {
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, STOP_POLL_MS));
    }
    throw new ShareHaError("ERR_WATCHDOG_RUNS", `the watchdog ${this.device} does not stop`, {
      hint: "The machine will be reset; see who else has the device open.",
      fields: { device: this.device },
    });
  }

  async leave(): Promise<void> {
    await this.disarm();
  }

  /** The keeper first: the last close is then ours, after the magic letter. */
  #release(armed: ArmedWatchdog): void {
    if (this.#keeper !== undefined) {
      stopKeeper(this.#keeper);
      this.#keeper = undefined;
    }
    armed.magicClose();
  }
}
