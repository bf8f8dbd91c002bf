/**
 * Keeps a pulse: adopts the one that runs, starts one where there is none, and carries a generation on when its pulse
 * died and the heartbeat is still younger than T. What cannot be carried on is loss, and the node tears down.
 *
 * Nobody kills pulse: not for being slow, not for being stopped (DESIGN section 4, "The kernel pets too").
 */
import { closeSync, openSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { ShareHaError } from "../errors.js";
import { type OutboxChange, type Standing } from "../lease/procedure.js";
import { type Timings } from "../lease/timings.js";
import { connectUnix } from "../net/unix-server.js";
import { type Clock } from "../port/clock.js";
import { type HostGeneration } from "../pulse/options.js";
import { type Beat, type Hello, type ProcessId } from "../pulse/messages.js";
import { isAlive, processStartTime, startDetached } from "../system/process.js";
import { REALTIME_NODE_FLAGS } from "../system/realtime.js";
import { type PulseAccess } from "./disk-access.js";
import { PulseClient, pulseError } from "./pulse-client.js";

const PULSE_PROGRAM = fileURLToPath(new URL("../../bin/sharedha-pulse.js", import.meta.url));
/** A small heap: pulse keeps a few records per host. */
const NODE_FLAGS = [...REALTIME_NODE_FLAGS, "--max-semi-space-size=1", "--max-old-space-size=96"];

const CONNECT_EVERY_MS = 20;
const CONNECT_EVERY_MS_MAX = 250;
/** Joining may have to wait for evidence against an earlier generation, and pulse answers when it has joined. */
const HELLO_MS = 180_000;
const RETRY_MS = 2_000;
const RETRY_MS_MAX = 30_000;

export type HowJoined = "adopted" | "joined" | "resumed";

export interface PulseKeeperOptions {
  readonly stateDir: string;
  readonly clock: Clock;
  readonly timings: Timings;
  /** `--accept-guard` and the like, as the configuration stands. */
  readonly policyFlags: () => readonly string[];
  readonly groupUp: () => boolean;
  readonly onHello: (hello: Hello, how: HowJoined) => void;
  readonly onBeat: (beat: Beat) => void;
  /** This generation is gone. */
  readonly onLost: (why: string) => void;
  readonly onEvent: (event: string, text: string) => void;
}

const NO_PULSE: Standing = { renewedAtMs: -Infinity, ttlMs: 0, lost: false, armed: false };

export class PulseKeeper implements PulseAccess {
  readonly #options: PulseKeeperOptions;
  #client: PulseClient | undefined;
  #hello: Hello | undefined;
  #wasMet = false;
  #closed = false;
  #leaving = false;
  #trouble: ShareHaError | undefined;
  #wake: (() => void) | undefined;

  constructor(options: PulseKeeperOptions) {
    this.#options = options;
  }

  /** What pulse said of itself when it was met; undefined while there is none. */
  get hello(): Hello | undefined {
    return this.#hello;
  }

  /** Why there is no member here yet. */
  get trouble(): ShareHaError | undefined {
    return this.#trouble;
  }

  get beat(): Beat | undefined {
    return this.#client?.beat;
  }

  get standing(): Standing {
    return this.#client?.standing ?? this.#lastStanding;
  }

  #lastStanding: Standing = NO_PULSE;

  /** @throws ERR_PULSE while there is no connection */
  get client(): PulseClient {
    if (this.#client === undefined) {
      throw pulseError("there is no connection to it at the moment");
    }
    return this.#client;
  }

  async arm(): Promise<boolean> {
    return (await this.#client?.arm()) ?? false;
  }

  async disarm(): Promise<boolean> {
    return (await this.#client?.disarm()) ?? false;
  }

  async post(change: OutboxChange): Promise<boolean> {
    return (await this.#client?.post(change)) ?? false;
  }

  async stuck(stuck: boolean): Promise<void> {
    await this.client.stuck(stuck);
  }

  /** The pulse that runs already, if one does. */
  async adopt(): Promise<boolean> {
    return await this.#meet("adopted");
  }

  /**
   * Starts a pulse, again and again until one has joined.
   * @param tornDown nothing of that generation is left
   * @param confirmOff a human has made sure that the node which had this name or host id is off
   * @throws the first refusal (name or host id taken ...) of a node that this process has not seen as a member
   */
  async join(tornDown: HostGeneration | undefined, confirmOff = false): Promise<void> {
    const flags =
      tornDown === undefined ? [] : ["--torn-down", `${tornDown.hostId}/${tornDown.generation}`];
    // A human's word is about what was on the LUNs when it was said, so no later try has it.
    let word = confirmOff ? ["--confirm-off"] : [];
    let retryMs = RETRY_MS;
    while (!this.#closed && !this.#leaving) {
      const all = [...flags, ...word, ...this.#options.policyFlags()];
      word = [];
      const trouble = await this.#launch(all, "joined");
      if (trouble === undefined) {
        this.#trouble = undefined;
        return;
      }
      if (!this.#wasMet && trouble.fields["pulseExit"] === "refused") {
        throw trouble;
      }
      if (trouble.message !== this.#trouble?.message) {
        this.#options.onEvent("not-joined", trouble.message);
      }
      this.#trouble = trouble;
      await this.#pause(retryMs);
      retryMs = Math.min(RETRY_MS_MAX, 2 * retryMs);
    }
  }

  /**
   * After a teardown: lets the lost pulse end and waits until it has, however long that takes. A new one could not get
   * its locks before.
   */
  async endLost(): Promise<void> {
    this.#leaving = true;
    try {
      const process = this.#hello?.process;
      let retryMs = RETRY_MS / 4;
      let told = "";
      while (!this.#closed && process !== undefined && isAlive(identityOf(process))) {
        // A refusal says that something is still in flight: asked again until nothing is.
        const refusal = await this.#askToLeave();
        if (refusal !== undefined && refusal !== told) {
          this.#options.onEvent("not-ended", `the lost pulse does not end yet: ${refusal}`);
          told = refusal;
        }
        await this.#untilGone(process, retryMs);
        retryMs = Math.min(RETRY_MS_MAX, 2 * retryMs);
      }
      this.#client?.close();
      this.#client = undefined;
      this.#hello = undefined;
      this.#lastStanding = NO_PULSE;
    } finally {
      this.#leaving = false;
    }
  }

  /** @returns why the lost pulse goes on */
  async #askToLeave(): Promise<string | undefined> {
    try {
      await this.#client?.leaveLost();
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** Leaves for good. @throws pulse's refusal, ERR_PULSE when it does not end */
  async leave(withinMs: number): Promise<void> {
    const process = this.#hello?.process;
    if (this.#client === undefined || process === undefined) {
      return;
    }
    this.#leaving = true;
    try {
      await this.#client.leave();
      if (!(await this.#untilGone(process, withinMs))) {
        throw pulseError(`it has left but not ended within ${withinMs} ms`);
      }
      this.#hello = undefined;
    } catch (error) {
      this.#leaving = false;
      throw error;
    }
  }

  /** Ends the connection; pulse itself goes on for a daemon to come (DESIGN section 5). */
  close(): void {
    this.#closed = true;
    this.#wake?.();
    this.#client?.close();
  }

  /** @returns why not; undefined when it has been met */
  async #launch(flags: readonly string[], how: HowJoined): Promise<ShareHaError | undefined> {
    const { stateDir } = this.#options;
    const log = openSync(join(stateDir, "pulse.err"), "w", 0o600);
    let process: Awaited<ReturnType<typeof startDetached>>;
    try {
      process = await startDetached(
        globalThis.process.execPath,
        [...NODE_FLAGS, PULSE_PROGRAM, "--state-dir", stateDir, ...flags],
        { stdio: ["ignore", "ignore", log] },
      );
    } catch (error) {
      return asTrouble(error);
    } finally {
      closeSync(log);
    }
    let everyMs = CONNECT_EVERY_MS;
    while (!this.#closed) {
      try {
        if (await this.#meet(how)) {
          return undefined;
        }
      } catch (error) {
        return asTrouble(error);
      }
      if (!isAlive(process)) {
        return await this.#exitReason();
      }
      await this.#pause(everyMs);
      everyMs = Math.min(CONNECT_EVERY_MS_MAX, everyMs * 1.2);
    }
    return pulseError("this daemon is ending");
  }

  /** Connects and says hello. False when nobody listens, or whoever did went away. */
  async #meet(how: HowJoined): Promise<boolean> {
    const { stateDir, clock, timings, groupUp } = this.#options;
    const socket = await connectUnix(join(stateDir, "pulse.sock"));
    if (socket === undefined) {
      return false;
    }
    let isMet = false;
    const client: PulseClient = new PulseClient({
      socket,
      clock,
      ttlMs: timings.ttlMs,
      answerMs: 2 * (timings.intervalMs + timings.deadlineMs) + timings.ttlMs,
      helloMs: HELLO_MS,
      groupUp,
      onBeat: (beat) => {
        if (isMet) {
          this.#options.onBeat(beat);
        }
      },
      onClosed: (why) => {
        if (isMet) {
          void this.#onClosed(client, why);
        }
      },
    });
    let hello: Hello;
    try {
      hello = await client.hello();
    } catch (error) {
      client.close();
      if (error instanceof ShareHaError && error.code === "ERR_PULSE") {
        return false;
      }
      throw error;
    }
    isMet = true;
    this.#wasMet = true;
    const before = this.#hello;
    if (how === "resumed" && before !== undefined && !isSameGeneration(before, hello)) {
      client.close();
      throw pulseError(`it is generation ${hello.generation} now`);
    }
    this.#client = client;
    this.#hello = hello;
    this.#options.onHello(hello, how);
    this.#options.onBeat(hello.beat);
    return true;
  }

  async #onClosed(client: PulseClient, why: string): Promise<void> {
    if (this.#client !== client) {
      return;
    }
    this.#lastStanding = { ...client.standing, armed: false };
    this.#client = undefined;
    if (this.#closed || this.#leaving) {
      return;
    }
    this.#options.onEvent("pulse-gone", why);
    const wasArmed = client.beat?.armed ?? false;
    const trouble = await this.#recover(wasArmed);
    if (trouble !== undefined) {
      this.#options.onLost(`pulse ended: ${trouble}`);
    }
  }

  /** @returns why the generation cannot be carried on; undefined when it is */
  async #recover(wasArmed: boolean): Promise<string | undefined> {
    const process = this.#hello?.process;
    const { renewedAtMs, ttlMs, lost } = this.#lastStanding;
    if (lost || process === undefined) {
      return "its generation was lost";
    }
    const flags = ["--resume-at", renewedAtMs.toFixed(3), ...(wasArmed ? ["--resume-armed"] : [])];
    while (!this.#closed && this.#options.clock.bootMs() - renewedAtMs < ttlMs) {
      try {
        if (await this.#meet("resumed")) {
          return undefined;
        }
      } catch (error) {
        return asTrouble(error).message;
      }
      if (!isAlive(identityOf(process))) {
        const trouble = await this.#launch([...flags, ...this.#options.policyFlags()], "resumed");
        return trouble?.message;
      }
      await this.#pause(CONNECT_EVERY_MS);
    }
    return `nothing was heard of it for ${ttlMs} ms`;
  }

  /** @returns whether it has ended */
  async #untilGone(process: ProcessId, withinMs: number): Promise<boolean> {
    const untilMs = this.#options.clock.bootMs() + withinMs;
    while (isAlive(identityOf(process))) {
      if (this.#closed || this.#options.clock.bootMs() >= untilMs) {
        return false;
      }
      await this.#pause(CONNECT_EVERY_MS);
    }
    return true;
  }

  async #exitReason(): Promise<ShareHaError> {
    const { stateDir } = this.#options;
    try {
      const text = await readFile(join(stateDir, "pulse-exit.json"), "utf8");
      const exit = JSON.parse(text) as Record<string, unknown>;
      const { code, message, hint } = exit;
      if (typeof code === "string" && typeof message === "string" && typeof hint === "string") {
        return new ShareHaError(code, message, {
          hint,
          fields: { pulseExit: String(exit["kind"]) },
        });
      }
    } catch {
      // Falls through: it ended without leaving a reason.
    }
    const written = await readFile(join(stateDir, "pulse.err"), "utf8").catch(() => "");
    const line = written.trim().split("\n").at(-1) ?? "";
    return pulseError(`it ended without leaving a reason${line === "" ? "" : `: ${line}`}`);
  }

  async #pause(ms: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const finish = (): void => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(finish, ms);
      this.#wake = finish;
    });
  }
}

function identityOf(process: ProcessId): { readonly pid: number; readonly startTime: bigint } {
  return { pid: process.pid, startTime: BigInt(process.startTime) };
}

/** Whether the process of a note still runs, as itself. */
export function isSameProcessAlive(process: ProcessId): boolean {
  return processStartTime(process.pid) === BigInt(process.startTime);
}

function isSameGeneration(one: Hello, other: Hello): boolean {
  return one.hostId === other.hostId && one.generation === other.generation;
}

function asTrouble(error: unknown): ShareHaError {
  return error instanceof ShareHaError
    ? error
    : pulseError(error instanceof Error ? error.message : String(error));
}
