/**
 * The daemon's end of one connection to pulse: asks, hears beats, answers pings. What pulse last said is this node's
 * standing; a pulse that says nothing any more simply lets it grow old, until nobody here has the right to write.
 */
import { type Socket } from "node:net";

import { ShareHaError } from "../errors.js";
import { type WatchedLease } from "../lease/heartbeat.js";
import { type OutboxChange, type Standing } from "../lease/procedure.js";
import { JsonLines } from "../net/json-lines.js";
import { type Clock } from "../port/clock.js";
import {
  type Beat,
  type Hello,
  type Protected,
  type PulseCall,
  type PulseMessage,
  type PulseRequest,
} from "../pulse/messages.js";

/** Calls that are out at one time: pulse takes 64. More wait their turn here. */
const CALLS_MAX = 48;

export interface PulseClientOptions {
  readonly socket: Socket;
  readonly clock: Clock;
  readonly ttlMs: number;
  /** How long an answer may take; several beats and a write. */
  readonly answerMs: number;
  /** How long the first answer may take: pulse answers when it has joined. */
  readonly helloMs: number;
  /** Something of a group is mounted or running. */
  readonly groupUp: () => boolean;
  readonly onBeat: (beat: Beat) => void;
  /** Once. */
  readonly onClosed: (why: string) => void;
}

interface Waiting {
  readonly op: PulseRequest["op"];
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class PulseClient {
  readonly #options: PulseClientOptions;
  readonly #lines: JsonLines;
  readonly #waiting = new Map<number, Waiting>();
  /** Callers whose turn to ask has not come. */
  readonly #turns: (() => void)[] = [];
  #nextId = 1;
  #beat: Beat | undefined;
  /** Pulse said that armed = 1 is on a majority, and was not asked to disarm since. */
  #armed = false;
  #arming: Promise<boolean> | undefined;
  #disarming: Promise<boolean> | undefined;

  constructor(options: PulseClientOptions) {
    this.#options = options;
    this.#lines = new JsonLines(options.socket, {
      onMessage: (message) => {
        this.#hear(message as PulseMessage);
      },
      onClose: (error) => {
        this.#closed(error);
      },
    });
  }

  get beat(): Beat | undefined {
    return this.#beat;
  }

  get standing(): Standing {
    const beat = this.#beat;
    return {
      renewedAtMs: beat?.renewedAtMs ?? -Infinity,
      ttlMs: this.#options.ttlMs,
      lost: beat?.lost !== undefined,
      armed: this.#armed,
    };
  }

  /** @throws ERR_PULSE */
  async hello(): Promise<Hello> {
    const hello = (await this.#call({ op: "hello" }, this.#options.helloMs)) as Hello;
    this.#armed = hello.beat.armed;
    this.#take(hello.beat);
    return hello;
  }

  /** Answered here and now while armed = 1 stands on a majority and the heartbeat is fresh. */
  async arm(): Promise<boolean> {
    if (this.#armed && this.#isFresh()) {
      return true;
    }
    this.#arming ??= this.#arm().finally(() => {
      this.#arming = undefined;
    });
    return await this.#arming;
  }

  /** False when pulse refuses, because something is still held or in flight. */
  async disarm(): Promise<boolean> {
    this.#armed = false;
    this.#pong();
    this.#disarming ??= this.#accepted({ op: "disarm" }).finally(() => {
      this.#disarming = undefined;
    });
    return await this.#disarming;
  }

  async post(change: OutboxChange): Promise<boolean> {
    return await this.#accepted({ op: "post", change });
  }

  /** @throws ERR_PULSE */
  async watch(leases: readonly WatchedLease[]): Promise<void> {
    await this.#call({ op: "watch", leases });
  }

  /** @throws ERR_PULSE */
  async protect(protect: Protected): Promise<void> {
    await this.#call({ op: "protect", protect });
  }

  /** @throws ERR_PULSE */
  async observe(): Promise<void> {
    this.#take((await this.#call({ op: "observe" })) as Beat);
  }

  /** @throws ERR_PULSE */
  async stuck(stuck: boolean): Promise<void> {
    await this.#call({ op: "stuck", stuck });
  }

  /** @throws ERR_PULSE, with pulse's own words when it refuses */
  async leave(): Promise<void> {
    this.#pong();
    await this.#call({ op: "leave" });
  }

  /** As `leave`, after a loss: also one that pulse has not noticed, and under which nothing is held any more. */
  async leaveLost(): Promise<void> {
    await this.watch([]);
    await this.leave();
  }

  close(): void {
    this.#lines.end();
  }

  #isFresh(): boolean {
    const { standing } = this;
    const ageMs = this.#options.clock.bootMs() - standing.renewedAtMs;
    return !standing.lost && ageMs < standing.ttlMs;
  }

  async #arm(): Promise<boolean> {
    await this.#disarming;
    const accepted = await this.#accepted({ op: "arm" });
    this.#armed = accepted;
    return accepted;
  }

  /** A refusal, a silence or a broken connection is a no; the procedures then look again or give up by themselves. */
  async #accepted(request: PulseRequest): Promise<boolean> {
    try {
      await this.#call(request);
      return true;
    } catch (error) {
      if (error instanceof ShareHaError) {
        return false;
      }
      throw error;
    }
  }

  async #call(request: PulseRequest, withinMs = this.#options.answerMs): Promise<unknown> {
    while (this.#waiting.size >= CALLS_MAX && !this.#lines.closed) {
      await new Promise<void>((resolve) => this.#turns.push(resolve));
    }
    const id = this.#nextId++;
    const call: PulseCall = { id, ...request };
    return await new Promise<unknown>((resolve, reject) => {
      if (this.#lines.send(call) !== "sent") {
        reject(pulseError(`it cannot be asked to ${request.op}`));
        return;
      }
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        this.#turns.shift()?.();
        reject(pulseError(`no answer to ${request.op} within ${withinMs} ms`));
      }, withinMs);
      this.#waiting.set(id, { op: request.op, resolve, reject, timer });
    });
  }

  /** Also said unasked before pulse is asked to let go, or it would judge by its last ping. */
  #pong(): void {
    this.#lines.send({ id: this.#nextId++, op: "pong", groupUp: this.#options.groupUp() });
  }

  #hear(message: PulseMessage): void {
    if ("event" in message) {
      if (message.event === "beat") {
        this.#take(message.beat);
      } else {
        this.#pong();
      }
      return;
    }
    const waiting = this.#waiting.get(message.id);
    // Answers to pongs, and to calls that were given up, have nobody waiting.
    if (waiting === undefined) {
      return;
    }
    this.#waiting.delete(message.id);
    clearTimeout(waiting.timer);
    this.#turns.shift()?.();
    if (message.ok) {
      waiting.resolve(message.result);
    } else {
      waiting.reject(
        new ShareHaError(message.code, message.message, {
          hint: "See pulse.log in the state directory.",
          fields: { op: waiting.op },
        }),
      );
    }
  }

  #take(beat: Beat): void {
    this.#beat = beat;
    if (!beat.armed && this.#arming === undefined) {
      this.#armed = false;
    }
    this.#options.onBeat(beat);
  }

  #closed(error: Error | undefined): void {
    const why = error === undefined ? "the connection to pulse was closed" : error.message;
    this.#armed = false;
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(pulseError(why));
    }
    this.#waiting.clear();
    for (const turn of this.#turns.splice(0)) {
      turn();
    }
    this.#options.onClosed(why);
  }
}

export function pulseError(why: string): ShareHaError {
  return new ShareHaError("ERR_PULSE", `pulse: ${why}`, {
    hint: "The daemon starts it again while the heartbeat is young enough; see pulse.log and sharedha events.",
  });
}
