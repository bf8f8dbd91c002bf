/**
 * The client of the daemon's control API (lib/net/api.ts) on the Unix socket of a state directory. Every failure is a
 * ShareHaError: no daemon, no answer in time, an answer that is not understood, or the daemon's own refusal with its
 * code, its remedy and `httpStatus` among its fields.
 */
import { Agent, type IncomingMessage, request as httpRequest } from "node:http";
import { connect, type Socket } from "node:net";
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import {
  ACQUIRED_SHAPE,
  CONFIG_SHAPE,
  CONFIRMED_SHAPE,
  ERROR_SHAPE,
  EVENTS_SHAPE,
  LEASE_ANSWER_SHAPE,
  LEASE_SHAPE,
  LEASES_SHAPE,
  LEFT_SHAPE,
  LUN_REPLACED_SHAPE,
  PROTECTED_SHAPE,
  RELEASED_SHAPE,
  RESERVED_SHAPE,
  STATUS_SHAPE,
} from "./api-shape.js";
import {
  type AcquireBody,
  type AcquiredBody,
  type ConfigBody,
  type ConfirmedBody,
  type ErrorBody,
  type EventsBody,
  type LeaseBody,
  type LunReplacedBody,
  type ReplaceLunBody,
  type ProtectBody,
  type ReserveBody,
  type ReservedBody,
  type StatusBody,
  type UndoBody,
} from "./api.js";
import { misfit, type Shape } from "./shape.js";

export const CONTROL_SOCKET_NAME = "control.sock";

/** A status of 64 members and a thousand leases is well below a megabyte. */
const ANSWER_BYTES_MAX = 8 * 1024 * 1024;
/** The kernel's limit for the path of a Unix socket, without the final zero. */
const SOCKET_PATH_BYTES_MAX = 107;
/** How long an ordinary answer may take: an operation on the LUNs has its own deadlines, which are shorter. */
const ANSWER_MS = 30_000;
/** Mounting after a take-over may include the check of a large file system. */
const GROUP_ANSWER_MS = 3_600_000;

export interface ControlClientOptions {
  readonly stateDir: string;
  /** For every answer that does not itself wait; default 30 s. */
  readonly answerMs?: number;
}

interface Call {
  readonly method: "GET" | "POST" | "PUT";
  readonly path: string;
  readonly body?: unknown;
  readonly shape: Shape;
  /** null: no bound, the answer is a wait for ever. */
  readonly timeoutMs: number | null;
}

/** One request per connection. */
export class ControlClient {
  readonly #socketPath: string;
  readonly #answerMs: number;
  readonly #agent: Agent | false;

  constructor(options: ControlClientOptions, agent: Agent | false = false) {
    this.#socketPath = controlSocketPath(options.stateDir);
    this.#answerMs = options.answerMs ?? ANSWER_MS;
    this.#agent = agent;
  }

  status(): Promise<StatusBody> {
    return this.#call({ method: "GET", path: "/v1/status", shape: STATUS_SHAPE });
  }

  /** @param after sequence number of the last event that is known. @param waitMs 0: answers at once */
  events(after: number, waitMs: number, answerMs = waitMs + this.#answerMs): Promise<EventsBody> {
    const wait = waitMs > 0 ? `&waitMs=${waitMs}` : "";
    const path = `/v1/events?after=${after}${wait}`;
    return this.#call({ method: "GET", path, shape: EVENTS_SHAPE, timeoutMs: answerMs });
  }

  async leases(): Promise<readonly LeaseBody[]> {
    const answer = await this.#call<{ readonly leases: readonly LeaseBody[] }>({
      method: "GET",
      path: "/v1/leases",
      shape: LEASES_SHAPE,
    });
    return answer.leases;
  }

  lease(name: string): Promise<LeaseBody> {
    return this.#call({ method: "GET", path: leasePath(name), shape: LEASE_SHAPE });
  }

  async changeLease(name: string, change: "create" | "delete"): Promise<LeaseBody> {
    const answer = await this.#call<{ readonly lease: LeaseBody }>({
      method: "POST",
      path: `${leasePath(name)}/${change}`,
      shape: LEASE_ANSWER_SHAPE,
    });
    return answer.lease;
  }

  acquire(name: string, body: AcquireBody): Promise<AcquiredBody> {
    return this.#call({
      method: "POST",
      path: `${leasePath(name)}/acquire`,
      body,
      shape: ACQUIRED_SHAPE,
      timeoutMs: body.waitMs === null ? null : body.waitMs + this.#answerMs,
    });
  }

  async release(name: string): Promise<void> {
    await this.#call({ method: "POST", path: `${leasePath(name)}/release`, shape: RELEASED_SHAPE });
  }

  async protect(body: ProtectBody): Promise<void> {
    await this.#call({ method: "POST", path: "/v1/protect", body, shape: PROTECTED_SHAPE });
  }

  reserve(group: string, body: ReserveBody): Promise<ReservedBody> {
    return this.#call({
      method: "POST",
      path: `${groupPath(group)}/reserve`,
      body,
      shape: RESERVED_SHAPE,
      timeoutMs: body.waitMs === null ? null : body.waitMs + GROUP_ANSWER_MS,
    });
  }

  async releaseGroup(group: string): Promise<void> {
    await this.#call({
      method: "POST",
      path: `${groupPath(group)}/release`,
      shape: RELEASED_SHAPE,
      timeoutMs: GROUP_ANSWER_MS,
    });
  }

  confirmOff(node: string): Promise<ConfirmedBody> {
    const path = `/v1/hosts/${encodeURIComponent(node)}/confirm-off`;
    return this.#call({ method: "POST", path, shape: CONFIRMED_SHAPE });
  }

  async leave(): Promise<void> {
    await this.#call({ method: "POST", path: "/v1/leave", shape: LEFT_SHAPE });
  }

  config(): Promise<ConfigBody> {
    return this.#call({ method: "GET", path: "/v1/config", shape: CONFIG_SHAPE });
  }

  changeConfig(body: ConfigBody): Promise<ConfigBody> {
    return this.#call({ method: "PUT", path: "/v1/config", body, shape: CONFIG_SHAPE });
  }

  undoConfig(body: UndoBody): Promise<ConfigBody> {
    return this.#call({ method: "POST", path: "/v1/config/undo", body, shape: CONFIG_SHAPE });
  }

  replaceLun(body: ReplaceLunBody): Promise<LunReplacedBody> {
    return this.#call({
      method: "POST",
      path: "/v1/luns/replace",
      body,
      shape: LUN_REPLACED_SHAPE,
      // It copies every record of the region, and first watches records of hosts for up to 140 s (sanlock's).
      timeoutMs: 10 * this.#answerMs,
    });
  }

  #call<T>(call: Omit<Call, "timeoutMs"> & { readonly timeoutMs?: number | null }): Promise<T> {
    const timeoutMs = call.timeoutMs === undefined ? this.#answerMs : call.timeoutMs;
    return exchange<T>({ ...call, timeoutMs }, this.#socketPath, this.#agent);
  }
}

/** A client whose requests all go over one connection, to which the daemon binds leases and protected processes. */
export interface ControlSession {
  readonly client: ControlClient;
  /** Resolves when the connection is gone, whoever closed it. */
  readonly closed: Promise<void>;
  close(): void;
}

/** @throws ERR_NO_DAEMON and the other errors of connecting */
export async function openControlSession(options: ControlClientOptions): Promise<ControlSession> {
  const socketPath = controlSocketPath(options.stateDir);
  const socket = connect(socketPath);
  await new Promise<void>((resolve, reject) => {
    socket.once("connect", resolve);
    socket.once("error", (error) => {
      reject(connectionError(error, socketPath));
    });
  });
  const closed = new Promise<void>((resolve) => {
    socket.once("close", () => {
      resolve();
    });
  });
  // The request in flight reports the cause; between requests the close is all that matters.
  socket.on("error", () => undefined);
  const agent = new OneConnectionAgent(socket);
  return {
    client: new ControlClient(options, agent),
    closed,
    close: () => {
      agent.destroy();
      socket.destroy();
    },
  };
}

/** Hands out its one socket again and again, and never a second one: another connection would hold nothing. */
class OneConnectionAgent extends Agent {
  #socket: Socket | undefined;

  constructor(socket: Socket) {
    super({ keepAlive: true, maxSockets: 1 });
    this.#socket = socket;
  }

  override createConnection(): Socket {
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket === undefined || socket.destroyed) {
      throw new ShareHaError("ERR_CONNECTION_LOST", "the connection to the daemon is gone", {
        hint: "Look at `sharedha status` and at the daemon's log; then run the command again.",
      });
    }
    return socket;
  }

  /** The server's keep-alive hint is not followed: the connection is the lease. */
  override keepSocketAlive(): boolean {
    return true;
  }
}

export function controlSocketPath(stateDir: string): string {
  const path = join(stateDir, CONTROL_SOCKET_NAME);
  if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
    throw new ShareHaError("ERR_STATE_DIR", `the state directory's path is too long: ${stateDir}`, {
      hint: `The path of its socket may have ${SOCKET_PATH_BYTES_MAX} bytes; choose a shorter --state-dir.`,
    });
  }
  return path;
}

function leasePath(name: string): string {
  return `/v1/leases/${encodeURIComponent(name)}`;
}

function groupPath(name: string): string {
  return `/v1/groups/${encodeURIComponent(name)}`;
}

function exchange<T>(call: Call, socketPath: string, agent: Agent | false): Promise<T> {
  const body = call.body === undefined ? undefined : JSON.stringify(call.body);
  return new Promise<T>((resolve, reject) => {
    let timer: NodeJS.Timeout | undefined;
    const request = httpRequest(
      {
        socketPath,
        agent,
        method: call.method,
        path: call.path,
        headers: {
          host: "localhost",
          ...(body === undefined
            ? {}
            : { "content-type": "application/json", "content-length": Buffer.byteLength(body) }),
        },
      },
      (response) => {
        readAnswer(response)
          .then((text) => {
            resolve(understand(call, response.statusCode ?? 0, text) as T);
          })
          .catch((error: unknown) => {
            reject(error instanceof Error ? error : new Error(String(error)));
          })
          .finally(() => {
            clearTimeout(timer);
          });
      },
    );
    request.on("error", (error) => {
      clearTimeout(timer);
      reject(connectionError(error, socketPath));
    });
    if (call.timeoutMs !== null) {
      timer = setTimeout(() => {
        reject(noAnswerError(call, socketPath));
        request.destroy();
      }, call.timeoutMs);
    }
    request.end(body);
  });
}

async function readAnswer(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > ANSWER_BYTES_MAX) {
        throw answerError(`it is larger than ${ANSWER_BYTES_MAX} bytes`);
      }
      chunks.push(chunk);
    }
  } catch (error) {
    throw error instanceof ShareHaError ? error : answerError("it breaks off", error);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The shape was checked, so the caller may call it what the shape describes. */
function understand(call: Call, status: number, text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw answerError(`it is not JSON (HTTP status ${status})`, error);
  }
  if (status < 200 || status > 299) {
    throw daemonError(status, value);
  }
  const trouble = misfit(value, call.shape);
  if (trouble !== undefined) {
    throw answerError(trouble);
  }
  return value;
}

function daemonError(status: number, value: unknown): ShareHaError {
  const trouble = misfit(value, ERROR_SHAPE);
  if (trouble !== undefined) {
    return answerError(`HTTP status ${status}, and ${trouble}`);
  }
  const { error } = value as ErrorBody;
  return new ShareHaError(error.code, error.message, {
    hint: error.hint,
    fields: { ...error.fields, httpStatus: status },
  });
}

function answerError(why: string, cause?: unknown): ShareHaError {
  return new ShareHaError("ERR_ANSWER", `the daemon's answer is not understood: ${why}`, {
    hint: "Check that `sharedha` and the running `sharedhad` are of the same version; restart the daemon after an upgrade.",
    cause,
  });
}

function noAnswerError(call: Call, socketPath: string): ShareHaError {
  return new ShareHaError(
    "ERR_NO_ANSWER",
    `the daemon did not answer ${call.method} ${call.path} within ${call.timeoutMs ?? 0} ms`,
    {
      hint: "Look whether sharedhad is stopped or its LUNs hang: `sharedha health`, and daemon.log in the state directory.",
      fields: { socketPath },
    },
  );
}

function connectionError(error: Error, socketPath: string): ShareHaError {
  if (error instanceof ShareHaError) {
    return error;
  }
  const code = "code" in error && typeof error.code === "string" ? error.code : "EUNKNOWN";
  const fields = { socketPath, errno: code };
  if (code === "ENOENT" || code === "ECONNREFUSED") {
    return new ShareHaError("ERR_NO_DAEMON", `no sharedhad answers on ${socketPath}`, {
      hint: "Start it with `sharedha join PATH...`, or name its directory with --state-dir.",
      fields,
      cause: error,
    });
  }
  if (code === "EACCES" || code === "EPERM") {
    return new ShareHaError("ERR_PERMISSION", `no access to ${socketPath}`, {
      hint: "Only the user who runs sharedhad may use it, usually root.",
      fields,
      cause: error,
    });
  }
  if (code.startsWith("HPE_")) {
    return answerError(`it is not HTTP (${code})`, error);
  }
  return new ShareHaError("ERR_CONNECTION_LOST", `the daemon closed the connection (${code})`, {
    hint: "Look at `sharedha status` and at the daemon's log; then run the command again.",
    fields,
    cause: error,
  });
}
