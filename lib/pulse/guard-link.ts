/**
 * One connection to the guard: questions with their answers, and pets with theirs. A guard that is stopped still has its
 * socket open, so only answers prove that it runs.
 */
import { join } from "node:path";

import { JsonLines } from "../net/json-lines.js";
import { connectUnix } from "../net/unix-server.js";
import { guardError, guardRefusal } from "./guard-process.js";
import { type GuardRequest, type ProcessId } from "./messages.js";

export interface GuardReply {
  readonly process: ProcessId;
  readonly armed: boolean;
}

export interface GuardLinkEvents {
  /** The guard took a pet that was sent then (CLOCK_BOOTTIME). */
  readonly onPetTaken: (sentAtMs: number) => void;
  /** The guard is not armed as pulse believes. */
  readonly onPetRefused: (why: string) => void;
  /** The guard closed the connection or broke it; not called after `drop`. */
  readonly onClosed: (error: Error | undefined) => void;
}

interface Pending {
  readonly resolve: (reply: GuardReply) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export class GuardLink {
  readonly #events: GuardLinkEvents;
  readonly #pending = new Map<number, Pending>();
  /** Pets without an answer, in the order in which they were sent: id, time sent. */
  readonly #pets = new Map<number, number>();
  #lines: JsonLines | undefined;
  #nextId = 1;
  #dropped = false;

  private constructor(events: GuardLinkEvents) {
    this.#events = events;
  }

  /** Undefined when no guard listens. */
  static async connect(stateDir: string, events: GuardLinkEvents): Promise<GuardLink | undefined> {
    const socket = await connectUnix(join(stateDir, "guard.sock"));
    if (socket === undefined) {
      return undefined;
    }
    const link = new GuardLink(events);
    link.#lines = new JsonLines(socket, {
      onMessage: (message) => {
        link.#answered(message);
      },
      onClose: (error) => {
        link.#closed(error);
      },
    });
    return link;
  }

  /**
   * Not answered for longer than `maxMs`, and not only because this process itself did not run: what has been answered
   * meanwhile is read between two pets, so with two of them open the guard had its chance.
   */
  isSilent(nowMs: number, maxMs: number): boolean {
    const [oldestMs = Infinity] = this.#pets.values();
    return this.#pets.size >= 2 && nowMs - oldestMs > maxMs;
  }

  pet(expiresAtMs: number, nowMs: number): void {
    const id = this.#nextId++;
    this.#pets.set(id, nowMs);
    this.#lines?.send({ id, op: "pet", expiresAtMs });
  }

  /** @throws ERR_GUARD_REFUSED; ERR_GUARD: no answer within `timeoutMs`, or the connection ended */
  async ask(request: GuardRequest, timeoutMs: number): Promise<GuardReply> {
    const id = this.#nextId++;
    return await new Promise<GuardReply>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#pending.delete(id);
        reject(
          guardError(`the guard did not answer ${request.op} within ${timeoutMs} ms`, undefined),
        );
      }, timeoutMs);
      this.#pending.set(id, { resolve, reject, timer });
      if (this.#lines?.send({ ...request, id }) !== "sent") {
        this.#settle(id)?.reject(guardError(`there is no guard to take ${request.op}`, undefined));
      }
    });
  }

  /** Gives the connection up; whoever waits for an answer is told. */
  drop(why: string): void {
    if (!this.#dropped) {
      this.#dropped = true;
      this.#rejectAll(why, undefined);
      this.#lines?.end();
    }
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    clearTimeout(pending?.timer);
    return pending;
  }

  #rejectAll(why: string, cause: Error | undefined): void {
    for (const id of [...this.#pending.keys()]) {
      this.#settle(id)?.reject(guardError(why, cause));
    }
  }

  #closed(error: Error | undefined): void {
    if (!this.#dropped) {
      this.#dropped = true;
      this.#rejectAll("the guard closed the connection", error);
      this.#events.onClosed(error);
    }
  }

  #answered(message: unknown): void {
    if (
      typeof message !== "object" ||
      message === null ||
      !("id" in message) ||
      !("ok" in message) ||
      typeof message.id !== "number"
    ) {
      throw guardError("the guard's answer is none", undefined);
    }
    const why = "message" in message ? String(message.message) : "no reason given";
    const sentAtMs = this.#pets.get(message.id);
    if (sentAtMs !== undefined) {
      this.#petAnswered(message.id, sentAtMs, message.ok === true ? undefined : why);
      return;
    }
    // Undefined: it came after its time, and was given up.
    const pending = this.#settle(message.id);
    if (message.ok === true && "process" in message && "armed" in message) {
      pending?.resolve({ process: message.process as ProcessId, armed: message.armed === true });
    } else {
      pending?.reject(guardRefusal(why));
    }
  }

  /** The guard answers in order, so earlier pets have been read too. */
  #petAnswered(id: number, sentAtMs: number, refusal: string | undefined): void {
    for (const earlier of [...this.#pets.keys()]) {
      if (earlier <= id) {
        this.#pets.delete(earlier);
      }
    }
    if (this.#dropped) {
      return;
    }
    if (refusal === undefined) {
      this.#events.onPetTaken(sentAtMs);
    } else {
      this.#events.onPetRefused(refusal);
    }
  }
}
