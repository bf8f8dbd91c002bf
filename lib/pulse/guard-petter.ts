/**
 * Pulse's side of the guard: finds or starts it, keeps it armed and told what to protect, and replaces it when it dies or
 * does not run (a guard that is stopped keeps its socket, so every pet is answered). A pet carries the absolute time at
 * which the guard acts, so a pet that arrives late, or is read late, gives no time away; that is why `overran` has nothing
 * to make up for here.
 */
import { type ProcessIdentity } from "../system/process.js";
import { GuardLink, type GuardReply } from "./guard-link.js";
import { endGuard, findGuard, guardError, isRefusal, startGuard } from "./guard-process.js";
import { type GuardRequest, type ProcessId, type Protected } from "./messages.js";
import { type Petter } from "./petter.js";

const ANSWER_TIMEOUT_MS = 2_000;
const START_TIMEOUT_MS = 5_000;
const START_POLL_MS = 20;

export interface GuardPetterOptions {
  readonly stateDir: string;
  /** Path of the guard's program, run by this same Node. */
  readonly program: string;
  readonly watchdogMs: number;
  readonly log: (message: string) => void;
  /** Armed, and for W nothing has proven that a guard runs. */
  readonly onMissing: (why: string) => void;
  /** A guard that leaves pets unanswered for longer is ended and replaced; T, so that the rest of W is left for that. */
  readonly silentMaxMs: number;
  readonly bootMs: () => number;
}

export class GuardPetter implements Petter {
  readonly kind = "guard";
  readonly device = undefined;
  readonly #options: GuardPetterOptions;
  #link: GuardLink | undefined;
  #process: ProcessId | undefined;
  #protect: Protected = { mounts: [], processes: [] };
  /** The newest time to expire at; undefined while disarmed. */
  #expiresAtMs: number | undefined;
  /** The guard found was armed by an earlier pulse: it is not ended for a question that it does not answer. */
  #foundArmed = false;
  /** When a guard was last known to run, armed. */
  #provenAtMs = 0;
  #leaving = false;
  #missing = false;
  #restoring: Promise<void> | undefined;

  constructor(options: GuardPetterOptions) {
    this.#options = options;
  }

  get process(): ProcessId | undefined {
    return this.#process;
  }

  /**
   * Connects to the guard that runs, else starts one; a guard that runs and does not answer is ended first.
   * @returns whether the guard found was armed. @throws ERR_GUARD
   */
  async open(): Promise<{ readonly found: boolean; readonly armed: boolean }> {
    if (await this.#connect()) {
      this.#process = undefined;
      try {
        const { armed, process } = await this.#ask({ op: "hello" }, this.#helloTimeoutMs);
        this.#process = process;
        this.#foundArmed = armed;
        return { found: true, armed };
      } catch (error) {
        if (isRefusal(error)) {
          throw error;
        }
        this.#options.log(`a guard runs and does not answer: ${messageOf(error)}`);
        await this.#endSilent();
      }
    }
    this.#foundArmed = false;
    await this.#start();
    const { armed, process } = await this.#ask({ op: "hello" });
    this.#process = process;
    return { found: false, armed };
  }

  async arm(basisMs: number): Promise<number> {
    const { watchdogMs, bootMs } = this.#options;
    await this.#ready();
    const before = this.#expiresAtMs;
    const askedAtMs = bootMs();
    this.#expiresAtMs = Math.max(basisMs + watchdogMs, before ?? 0);
    try {
      await this.#ask({ op: "arm", expiresAtMs: this.#expiresAtMs });
    } catch (error) {
      this.#expiresAtMs = before;
      if (before === undefined && !this.#foundArmed && !isRefusal(error)) {
        // Should it have been armed after all, it must not expire on a node that never was.
        await this.#endSilent();
      }
      throw error;
    }
    this.#provenAtMs = Math.max(this.#provenAtMs, askedAtMs);
    return watchdogMs;
  }

  pet(petUntilMs: number): void {
    if (this.#expiresAtMs === undefined) {
      return;
    }
    const { bootMs, silentMaxMs, watchdogMs } = this.#options;
    const nowMs = bootMs();
    this.#expiresAtMs = Math.max(petUntilMs + watchdogMs, this.#expiresAtMs);
    const link = this.#link;
    const isSilent = link?.isSilent(nowMs, silentMaxMs) === true;
    const isAway = isSilent || link === undefined || this.#restoring !== undefined;
    if (isAway && nowMs - this.#provenAtMs > watchdogMs) {
      this.#tellMissing();
    }
    if (this.#restoring !== undefined) {
      return;
    }
    if (link === undefined) {
      this.#restore();
    } else if (isSilent) {
      this.#options.log(
        `the guard has not answered for ${silentMaxMs} ms; it is ended and replaced`,
      );
      this.#restore(async () => {
        await this.#endSilent();
      });
    } else {
      link.pet(this.#expiresAtMs, nowMs);
    }
  }

  overran(lateMs: number): void {
    this.#options.log(
      `a pet came ${Math.floor(lateMs)} ms too late; the guard's time did not move beyond its bound`,
    );
  }

  /** Afterwards no guard is armed: it has said so, or there is none. @throws ERR_GUARD: it has expired, and acts */
  async disarm(): Promise<void> {
    this.#expiresAtMs = undefined;
    await this.#restoring;
    if (this.#link === undefined && findGuard(this.#options.stateDir) === undefined) {
      return;
    }
    await this.#ready();
    try {
      await this.#ask({ op: "disarm" });
    } catch (error) {
      if (isRefusal(error)) {
        throw error;
      }
      this.#options.log(`${messageOf(error)}; it is ended, which disarms it`);
      await this.#endSilent();
    }
    this.#foundArmed = false;
  }

  /** Resolves when the guard could cut the mounts at once. */
  async protect(protect: Protected): Promise<void> {
    this.#protect = protect;
    await this.#ready();
    await this.#ask({ op: "protect", protect });
  }

  /** Nothing is armed or mounted any more, so a guard that does not answer can simply be ended. */
  async leave(): Promise<void> {
    this.#leaving = true;
    await this.#restoring;
    if (this.#link === undefined) {
      return;
    }
    try {
      await this.#ask({ op: "protect", protect: { mounts: [], processes: [] } });
      await this.#ask({ op: "exit" });
      this.#link.drop("pulse leaves");
    } catch (error) {
      this.#options.log(`the guard does not end by itself: ${messageOf(error)}`);
      await this.#endSilent();
    }
  }

  /** A guard that was found stopped is not waited for as long as one that is busy. */
  get #helloTimeoutMs(): number {
    return Math.min(ANSWER_TIMEOUT_MS, this.#options.silentMaxMs);
  }

  async #ready(): Promise<void> {
    if (this.#link === undefined) {
      this.#restore();
    }
    await this.#restoring;
    if (this.#link === undefined) {
      throw guardError("the guard does not run and cannot be started", undefined);
    }
  }

  /** True when a guard listens. */
  async #connect(): Promise<boolean> {
    const link = await GuardLink.connect(this.#options.stateDir, {
      onPetTaken: (sentAtMs) => {
        this.#provenAtMs = Math.max(this.#provenAtMs, sentAtMs);
      },
      onPetRefused: (why) => {
        this.#lost(link, `the guard did not take a pet: ${why}`);
      },
      onClosed: (error) => {
        this.#lost(link, `the guard is gone${error === undefined ? "" : `: ${error.message}`}`);
      },
    });
    this.#link?.drop("another connection to the guard was made");
    this.#link = link;
    return link !== undefined;
  }

  async #start(): Promise<void> {
    const { stateDir, program, bootMs } = this.#options;
    await startGuard(stateDir, program);
    const giveUpAtMs = bootMs() + START_TIMEOUT_MS;
    while (!(await this.#connect())) {
      if (bootMs() > giveUpAtMs) {
        throw guardError(`the guard did not come up within ${START_TIMEOUT_MS} ms`, undefined);
      }
      await new Promise((resolve) => setTimeout(resolve, START_POLL_MS));
    }
  }

  /** Gives up the connection and ends the guard behind it. */
  async #endSilent(): Promise<void> {
    const { stateDir, bootMs } = this.#options;
    this.#link?.drop("the guard does not answer");
    this.#link = undefined;
    const guard = identityOf(this.#process) ?? findGuard(stateDir);
    this.#process = undefined;
    if (guard !== undefined) {
      await endGuard(guard, bootMs);
    }
  }

  #lost(link: GuardLink | undefined, why: string): void {
    if (this.#link === link && link !== undefined) {
      link.drop(why);
      this.#link = undefined;
      if (!this.#leaving) {
        this.#options.log(why);
        this.#restore();
      }
    }
  }

  #tellMissing(): void {
    if (!this.#missing) {
      this.#missing = true;
      this.#options.onMissing(
        "for W nothing has proven that a guard runs, and none can be started",
      );
    }
  }

  /** One attempt at a time; the next pet tries again. */
  #restore(first: () => Promise<void> = nothing): void {
    if (this.#restoring !== undefined || this.#leaving) {
      return;
    }
    this.#restoring = first()
      .then(async () => {
        await this.#reopen();
      })
      .catch((error: unknown) => {
        this.#options.log(`the guard cannot be restored: ${messageOf(error)}`);
        this.#link?.drop("it was not restored");
        this.#link = undefined;
      })
      .finally(() => {
        this.#restoring = undefined;
      });
  }

  /** The new guard is armed and knows what to protect before it gets its first pet. */
  async #reopen(): Promise<void> {
    const { found } = await this.open();
    await this.#ask({ op: "protect", protect: this.#protect });
    if (this.#expiresAtMs !== undefined) {
      const askedAtMs = this.#options.bootMs();
      await this.#ask({ op: "arm", expiresAtMs: this.#expiresAtMs });
      this.#provenAtMs = Math.max(this.#provenAtMs, askedAtMs);
    }
    this.#options.log(found ? "connected to the guard again" : "started a new guard");
  }

  async #ask(request: GuardRequest, timeoutMs = ANSWER_TIMEOUT_MS): Promise<GuardReply> {
    if (this.#link === undefined) {
      throw guardError(`there is no guard to take ${request.op}`, undefined);
    }
    return await this.#link.ask(request, timeoutMs);
  }
}

const nothing = async (): Promise<void> => {
  await Promise.resolve();
};

function identityOf(process: ProcessId | undefined): ProcessIdentity | undefined {
  return process === undefined
    ? undefined
    : { pid: process.pid, startTime: BigInt(process.startTime) };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
