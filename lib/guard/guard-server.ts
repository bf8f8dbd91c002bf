/**
 * The guard's side of `guard.sock`, and its clock. Every way in - a message, a timer, a closed connection - looks at the
 * clock before anything else, so an expired guard acts first and takes no pet any more.
 */
import { type Socket } from "node:net";

import { JsonLines } from "../net/json-lines.js";
import { type Clock } from "../port/clock.js";
import {
  type GuardAnswer,
  type GuardCall,
  type ProcessId,
  type Protected,
} from "../pulse/messages.js";
import { type BlockDeviceId, type MountTarget } from "../system/mounted-filesystem.js";
import { GuardDeadline } from "./deadline.js";

export interface GuardTerms {
  readonly clock: Clock;
  readonly self: ProcessId;
  /** Its time comes near: what takes long can begin. Not called when it was stopped for so long that its time has come. */
  readonly onNear: (protect: Protected) => void;
  /** What was begun is void: there is time again, or something else to protect. */
  readonly onPutOff: () => void;
  /** Called once. */
  readonly onExpired: (protect: Protected, expiredAtMs: number) => void;
  /** Makes threads ready; resolves when the mounts could be cut at once. */
  readonly prepare: (protect: Protected) => Promise<void>;
  /** Clean end: told to exit, or nobody has needed it for a while. */
  readonly onDone: (why: string) => void;
}

/** Disarmed and without a pulse for this long, a guard is of no use to anybody. */
export const LONELY_MS = 15_000;
const CONNECTIONS_MAX = 4;
const NOTHING: Protected = { mounts: [], processes: [] };

export class GuardServer {
  readonly #terms: GuardTerms;
  readonly #deadline = new GuardDeadline();
  readonly #connections = new Set<JsonLines>();
  #protect = NOTHING;
  #timer: NodeJS.Timeout | undefined;
  #lonely: NodeJS.Timeout | undefined;
  #isNear = false;
  #ended = false;

  constructor(terms: GuardTerms) {
    this.#terms = terms;
    this.#lonelyFromNow();
  }

  accept(socket: Socket): void {
    if (this.#connections.size >= CONNECTIONS_MAX) {
      socket.destroy();
      return;
    }
    clearTimeout(this.#lonely);
    const lines: JsonLines = new JsonLines(socket, {
      onMessage: (message) => {
        const mayGoOn = this.#mayGoOn();
        const call = callOf(message);
        if (mayGoOn) {
          this.#handle(lines, call);
        } else {
          this.#answer(lines, call.id, false, "it has expired and acts, or ends");
        }
      },
      onClose: () => {
        this.#connections.delete(lines);
        if (this.#mayGoOn() && this.#connections.size === 0) {
          this.#lonelyFromNow();
        }
      },
    });
    this.#connections.add(lines);
  }

  /** Looks at the clock; false when the guard's time is over. */
  #mayGoOn(): boolean {
    const nowMs = this.#terms.clock.bootMs();
    if (!this.#ended && this.#deadline.isExpired(nowMs)) {
      this.#end();
      this.#terms.onExpired(this.#protect, this.#deadline.expiresAtMs ?? nowMs);
    }
    return !this.#ended;
  }

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#lonely);
  }

  #sleep(): void {
    clearTimeout(this.#timer);
    const nowMs = this.#terms.clock.bootMs();
    if (!this.#isNear && this.#deadline.isNear(nowMs)) {
      this.#isNear = true;
      this.#terms.onNear(this.#protect);
    }
    const sleepMs = this.#deadline.sleepMs(nowMs);
    if (sleepMs !== undefined) {
      this.#timer = setTimeout(() => {
        if (this.#mayGoOn()) {
          this.#sleep();
        }
      }, sleepMs);
    }
  }

  /** After every change of what is protected or until when. */
  #startOver(): void {
    if (this.#isNear) {
      this.#isNear = false;
      this.#terms.onPutOff();
    }
    this.#sleep();
  }

  #lonelyFromNow(): void {
    clearTimeout(this.#lonely);
    this.#lonely = setTimeout(() => {
      if (!this.#mayGoOn() || this.#connections.size > 0) {
        return;
      }
      if (this.#deadline.armed) {
        this.#lonelyFromNow();
      } else {
        this.#end();
        this.#terms.onDone("no pulse, and not armed");
      }
    }, LONELY_MS);
  }

  #handle(lines: JsonLines, call: GuardCall): void {
    const nowMs = this.#terms.clock.bootMs();
    const before = { expiresAtMs: this.#deadline.expiresAtMs, protect: this.#protect };
    this.#obey(lines, call, nowMs);
    const { expiresAtMs } = this.#deadline;
    if (!this.#ended && (expiresAtMs !== before.expiresAtMs || this.#protect !== before.protect)) {
      this.#startOver();
    }
  }

  #obey(lines: JsonLines, call: GuardCall, nowMs: number): void {
    switch (call.op) {
      case "hello":
        this.#answer(lines, call.id, true);
        break;
      case "pet":
        this.#answer(
          lines,
          call.id,
          this.#deadline.pet(nowMs, call.expiresAtMs),
          "it is not armed, or the time to expire is past or implausible",
        );
        break;
      case "arm":
        this.#answer(
          lines,
          call.id,
          this.#deadline.arm(nowMs, call.expiresAtMs),
          "the time to expire is past or implausible",
        );
        break;
      case "disarm":
        this.#answer(lines, call.id, this.#deadline.disarm(nowMs), "it has expired");
        break;
      case "protect":
        this.#protect = call.protect;
        void this.#prepare(lines, call.id, call.protect);
        break;
      case "exit":
        this.#exit(lines, call.id);
        break;
    }
  }

  async #prepare(lines: JsonLines, id: number, protect: Protected): Promise<void> {
    let why = "";
    try {
      await this.#terms.prepare(protect);
    } catch (error) {
      why = error instanceof Error ? error.message : String(error);
    }
    if (this.#mayGoOn()) {
      this.#answer(lines, id, why === "", why);
    }
  }

  #exit(lines: JsonLines, id: number): void {
    const isIdle = !this.#deadline.armed && this.#protect.mounts.length === 0;
    this.#answer(lines, id, isIdle, "it is armed, or mounts are protected");
    if (isIdle) {
      this.#end();
      this.#terms.onDone("pulse left");
    }
  }

  #answer(lines: JsonLines, id: number, isDone: boolean, why = ""): void {
    const answer: GuardAnswer = isDone
      ? { id, ok: true, process: this.#terms.self, armed: this.#deadline.armed }
      : { id, ok: false, code: "ERR_GUARD_REFUSED", message: why };
    lines.send(answer);
  }
}

/** @throws Error: it ends the connection, and the guard goes on towards its time. */
function callOf(message: unknown): GuardCall {
  if (typeof message !== "object" || message === null || !("op" in message) || !("id" in message)) {
    throw new Error("not a call");
  }
  const { op, id } = message;
  if (typeof id !== "number") {
    throw new Error("a call without a number");
  }
  switch (op) {
    case "hello":
    case "disarm":
    case "exit":
      return { id, op };
    case "arm":
    case "pet":
      if (!("expiresAtMs" in message) || typeof message.expiresAtMs !== "number") {
        throw new Error(`${op} without a time`);
      }
      return { id, op, expiresAtMs: message.expiresAtMs };
    case "protect":
      return { id, op, protect: protectOf("protect" in message ? message.protect : undefined) };
    default:
      throw new Error(`unknown call ${String(op)}`);
  }
}

/** Bounds of what one node can have up; more is garbage. */
const PROTECTED_MAX = 1_000;

/** Judges what came over a socket. @throws Error that says what is wrong */
export function protectOf(value: unknown): Protected {
  if (
    typeof value !== "object" ||
    value === null ||
    !("mounts" in value) ||
    !("processes" in value)
  ) {
    throw new Error("protect without mounts and processes");
  }
  const { mounts, processes } = value;
  if (!Array.isArray(mounts) || !Array.isArray(processes)) {
    throw new Error("mounts and processes are not lists");
  }
  if (mounts.length > PROTECTED_MAX || processes.length > PROTECTED_MAX) {
    throw new Error(`more than ${PROTECTED_MAX} mounts or processes`);
  }
  return { mounts: mounts.map(mountTargetOf), processes: processes.map(processIdOf) };
}

function mountTargetOf(value: unknown): MountTarget {
  const isRecord = typeof value === "object" && value !== null;
  const path = isRecord && "path" in value ? value.path : undefined;
  // "/" can only be a mistake, and the worst one.
  if (typeof path !== "string" || !/^\/[^\0]+$/.test(path)) {
    throw new Error(`not a mount point: ${String(path)}`);
  }
  return { path, device: deviceIdOf(isRecord && "device" in value ? value.device : undefined) };
}

function deviceIdOf(value: unknown): BlockDeviceId {
  const isRecord = typeof value === "object" && value !== null;
  const majorMinor = isRecord && "majorMinor" in value ? value.majorMinor : undefined;
  const sequence = isRecord && "sequence" in value ? (value.sequence ?? undefined) : undefined;
  if (typeof majorMinor !== "string" || !/^\d{1,10}:\d{1,10}$/.test(majorMinor)) {
    throw new Error(`not a device number: ${String(majorMinor)}`);
  }
  if (sequence !== undefined && (typeof sequence !== "string" || !/^\d{1,20}$/.test(sequence))) {
    throw new Error(`not a disk's sequence number: ${JSON.stringify(sequence)}`);
  }
  return { majorMinor, sequence };
}

function processIdOf(value: unknown): ProcessId {
  const isRecord = typeof value === "object" && value !== null;
  const pid = isRecord && "pid" in value ? value.pid : undefined;
  const startTime = isRecord && "startTime" in value ? value.startTime : undefined;
  if (typeof pid !== "number" || !Number.isInteger(pid) || pid <= 1) {
    throw new Error(`not a process: ${String(pid)}`);
  }
  if (typeof startTime !== "string" || !/^\d{1,20}$/.test(startTime)) {
    throw new Error(`process ${pid} without its start time`);
  }
  return { pid, startTime };
}
