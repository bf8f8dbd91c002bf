/**
 * Pulse's side of `pulse.sock`: judges what comes in, answers every call once, sends beats and pings. It decides nothing
 * about the heartbeat; what a call does is in `PulseActions`.
 */
import { type Socket } from "node:net";

import { ShareHaError } from "../errors.js";
import { OUTBOX_KINDS, type OutboxEntry, type OutboxKind } from "../format/outbox.js";
import { protectOf } from "../guard/guard-server.js";
import { type WatchedLease } from "../lease/heartbeat.js";
import { type OutboxChange } from "../lease/procedure.js";
import { JsonLines } from "../net/json-lines.js";
import {
  type Beat,
  type Hello,
  type Protected,
  type PulseCall,
  type PulseEvent,
} from "./messages.js";

export interface PulseActions {
  hello(): Hello;
  arm(): Promise<void>;
  disarm(): Promise<void>;
  post(change: OutboxChange): Promise<void>;
  watch(leases: readonly WatchedLease[]): void;
  protect(protect: Protected): Promise<void>;
  observe(): Promise<Beat>;
  pong(groupUp: boolean): void;
  stuck(stuck: boolean): void;
  /** Resolves when it has left; the process ends after the answer is sent. */
  leave(): Promise<void>;
}

/** The daemon, its successor, and somebody who looks. */
const CONNECTIONS_MAX = 8;
/** Calls of one connection that are not answered yet; the daemon never has that many. */
const CALLS_MAX = 64;
const LIST_MAX = 1_000;

export class PulseService {
  readonly #actions: PulseActions;
  readonly #log: (message: string) => void;
  readonly #connections = new Set<JsonLines>();
  #pings = 0;

  constructor(actions: PulseActions, log: (message: string) => void) {
    this.#actions = actions;
    this.#log = log;
  }

  accept(socket: Socket): void {
    if (this.#connections.size >= CONNECTIONS_MAX) {
      socket.destroy();
      return;
    }
    let open = 0;
    const lines: JsonLines = new JsonLines(socket, {
      onMessage: (message) => {
        if (open >= CALLS_MAX) {
          throw badCall(`${CALLS_MAX} calls at once`);
        }
        open++;
        void this.#answer(lines, callOf(message)).finally(() => {
          open--;
        });
      },
      onClose: (error) => {
        this.#connections.delete(lines);
        if (error !== undefined) {
          this.#log(`a connection ended: ${error.message}`);
        }
      },
    });
    this.#connections.add(lines);
  }

  /** To everybody who keeps up with reading; the others get the next one. */
  sendBeat(beat: Beat): void {
    this.#broadcast({ event: "beat", beat });
  }

  sendPing(): void {
    this.#pings++;
    this.#broadcast({ event: "ping", n: this.#pings });
  }

  get hasConnections(): boolean {
    return this.#connections.size > 0;
  }

  close(): void {
    for (const lines of this.#connections) {
      lines.end();
    }
  }

  #broadcast(event: PulseEvent): void {
    for (const lines of this.#connections) {
      lines.send(event, { droppable: true });
    }
  }

  async #answer(lines: JsonLines, call: PulseCall): Promise<void> {
    try {
      const result = await this.#perform(call);
      lines.send({ id: call.id, ok: true, result });
    } catch (error) {
      const isKnown = error instanceof ShareHaError;
      if (!isKnown) {
        this.#log(
          `${call.op}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
        );
      }
      const code = isKnown ? error.code : "ERR_DEFECT";
      const message = error instanceof Error ? error.message : String(error);
      lines.send({ id: call.id, ok: false, code, message });
    }
  }

  async #perform(call: PulseCall): Promise<unknown> {
    const actions = this.#actions;
    switch (call.op) {
      case "hello":
        return actions.hello();
      case "arm":
        await actions.arm();
        return null;
      case "disarm":
        await actions.disarm();
        return null;
      case "post":
        await actions.post(call.change);
        return null;
      case "watch":
        actions.watch(call.leases);
        return null;
      case "protect":
        await actions.protect(call.protect);
        return null;
      case "observe":
        return await actions.observe();
      case "pong":
        actions.pong(call.groupUp);
        return null;
      case "stuck":
        actions.stuck(call.stuck);
        return null;
      case "leave":
        await actions.leave();
        return null;
    }
  }
}

type Fields = Record<string, unknown>;

/** @throws ERR_BAD_CALL: it ends the connection */
export function callOf(message: unknown): PulseCall {
  const fields = recordOf(message, "the call");
  const { id, op } = fields;
  if (typeof id !== "number" || !Number.isSafeInteger(id)) {
    throw badCall("a call without a number");
  }
  switch (op) {
    case "hello":
    case "arm":
    case "disarm":
    case "observe":
    case "leave":
      return { id, op };
    case "pong":
      return { id, op, groupUp: flagOf(fields, "groupUp") };
    case "stuck":
      return { id, op, stuck: flagOf(fields, "stuck") };
    case "post":
      return { id, op, change: changeOf(fields["change"]) };
    case "watch":
      return { id, op, leases: listOf(fields["leases"], "leases").map(watchedOf) };
    case "protect":
      return { id, op, protect: protectedOf(fields["protect"]) };
    default:
      throw badCall(`unknown op ${String(op).slice(0, 40)}`);
  }
}

function changeOf(value: unknown): OutboxChange {
  const fields = recordOf(value, "the change");
  return {
    remove: listOf(fields["remove"], "remove").map((entry) => {
      const gone = recordOf(entry, "an entry to remove");
      return {
        kind: kindOf(gone),
        area: wholeOf(gone, "area"),
        targetHostId: wholeOf(gone, "targetHostId"),
      };
    }),
    add: listOf(fields["add"], "add").map(entryOf),
  };
}

function entryOf(value: unknown): OutboxEntry {
  const entry = recordOf(value, "an entry");
  return {
    kind: kindOf(entry),
    shared: flagOf(entry, "shared"),
    targetHostId: wholeOf(entry, "targetHostId"),
    area: wholeOf(entry, "area"),
    targetGeneration: bigOf(entry, "targetGeneration"),
    value: bigOf(entry, "value"),
    nonce: bigOf(entry, "nonce"),
  };
}

function watchedOf(value: unknown): WatchedLease {
  const lease = recordOf(value, "a lease");
  const { resourceName } = lease;
  if (typeof resourceName !== "string") {
    throw badCall("a lease without a name");
  }
  return {
    area: wholeOf(lease, "area"),
    lver: bigOf(lease, "lver"),
    resourceName,
    shared: flagOf(lease, "shared"),
  };
}

function protectedOf(value: unknown): Protected {
  try {
    return protectOf(value);
  } catch (error) {
    throw badCall(error instanceof Error ? error.message : String(error));
  }
}

function kindOf(fields: Fields): OutboxKind {
  const kind = OUTBOX_KINDS.find((known) => known === fields["kind"]);
  if (kind === undefined) {
    throw badCall(`unknown kind ${String(fields["kind"]).slice(0, 40)}`);
  }
  return kind;
}

function recordOf(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw badCall(`${what} is not an object`);
  }
  return value as Fields;
}

function listOf(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length > LIST_MAX) {
    throw badCall(`${what} is not a list of at most ${LIST_MAX}`);
  }
  return value;
}

function flagOf(fields: Fields, name: string): boolean {
  const value = fields[name];
  if (typeof value !== "boolean") {
    throw badCall(`${name} is neither true nor false`);
  }
  return value;
}

function wholeOf(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > 0xffffffff) {
    throw badCall(`${name} is not a whole number of 32 bits`);
  }
  return value;
}

function bigOf(fields: Fields, name: string): bigint {
  const value = fields[name];
  if (typeof value !== "bigint" || value < 0n || value > 0xffff_ffff_ffff_ffffn) {
    throw badCall(`${name} is not a whole number of 64 bits`);
  }
  return value;
}

function badCall(why: string): ShareHaError {
  return new ShareHaError("ERR_BAD_CALL", `a call to pulse cannot be read: ${why}`, {
    hint: "The daemon and pulse are of different versions, or something else talks to this socket.",
  });
}
