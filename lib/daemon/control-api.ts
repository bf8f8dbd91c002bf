/**
 * The control API (lib/net/api.ts) on `control.sock`. It only translates: bodies are checked against schemas, everything
 * is asked of the node, and whatever goes wrong leaves as an ErrorBody. Nothing is logged per request, and the way of
 * acquire and release has nothing on it that need not be there.
 */
import { type Socket } from "node:net";

import Fastify, { type FastifyInstance, type FastifyRequest } from "fastify";
import { z } from "zod";

import { ShareHaError } from "../errors.js";
import {
  type AcquiredBody,
  type ConfigBody,
  type ConfirmedBody,
  type EventsBody,
  type LeaseBody,
  type LunReplacedBody,
  type ReplaceLunBody,
  type ReservedBody,
  type StatusBody,
} from "../net/api.js";
import { listenUnix, type UnixServer } from "../net/unix-server.js";
import { badRequest, errorBody, statusOf, toShareHaError } from "./http-error.js";

const BODY_BYTES_MAX = 64 * 1024;
const CONNECTIONS_MAX = 512;
/** setTimeout counts in 32 bits. */
const WAIT_MS_MAX = 2_000_000_000;
/** A poll of a minute fits between two. */
const KEEP_ALIVE_MS = 120_000;

const waitMs = z.number().min(0).max(WAIT_MS_MAX).nullable();
const ACQUIRE = z.strictObject({
  shared: z.boolean().default(false),
  waitMs: waitMs.default(0),
  bindToConnection: z.boolean().default(false),
});
const RESERVE = z.strictObject({ waitMs: waitMs.default(0) });
const PROTECT = z.strictObject({ pid: z.int().min(2).max(4_194_304) });
const CONFIG = z.strictObject({ toml: z.string(), stamp: z.string().max(64) });
const UNDO = z.strictObject({ stamp: z.string().max(64) });
const REPLACE = z.strictObject({
  path: z.string().min(1).max(4_096),
  force: z.boolean().default(false),
});
const NOTHING = z.strictObject({}).nullish();
const NAMED = z.object({ name: z.string().min(1).max(64) });
const EVENTS = z.strictObject({
  after: z.coerce.number().int().min(0).default(0),
  waitMs: z.coerce.number().min(0).max(WAIT_MS_MAX).default(0),
});

export interface ClientContext {
  readonly socket: Socket;
  /** The client has closed the connection. */
  readonly signal: AbortSignal;
}

/** What the node does for the API. Everything throws ShareHaError for what is refused or fails. */
export interface ControlNode {
  status(): Promise<StatusBody>;
  events(after: number, waitMs: number, signal: AbortSignal): Promise<EventsBody>;
  leases(): Promise<{ readonly leases: readonly LeaseBody[] }>;
  lease(name: string): Promise<LeaseBody>;
  createLease(name: string): Promise<LeaseBody>;
  deleteLease(name: string): Promise<LeaseBody>;
  acquire(
    name: string,
    body: z.infer<typeof ACQUIRE>,
    client: ClientContext,
  ): Promise<AcquiredBody>;
  release(name: string, client: ClientContext): Promise<void>;
  reserve(name: string, waitMs: number | null, client: ClientContext): Promise<ReservedBody>;
  releaseGroup(name: string): Promise<void>;
  confirmOff(name: string): ConfirmedBody;
  protect(pid: number, client: ClientContext): Promise<void>;
  config(): Promise<ConfigBody>;
  applyConfig(body: ConfigBody): Promise<ConfigBody>;
  undoConfig(stamp: string): Promise<ConfigBody>;
  replaceLun(body: ReplaceLunBody): Promise<LunReplacedBody>;
  /** Resolves when this node has left; the process ends after the answer. */
  leave(): Promise<void>;
}

export interface ControlApiOptions {
  readonly path: string;
  readonly node: ControlNode;
  /** A defect, with its stack. */
  readonly onDefect: (error: unknown, what: string) => void;
}

export interface ControlApi {
  /** Ends listening and, after `graceMs`, every connection. */
  close(graceMs?: number): Promise<void>;
}

/** @throws ERR_SOCKET_PATH, ERR_SOCKET_IN_USE (another daemon answers there), ERR_SOCKET */
export async function serveControlApi(options: ControlApiOptions): Promise<ControlApi> {
  const app = Fastify({
    logger: false,
    bodyLimit: BODY_BYTES_MAX,
    keepAliveTimeout: KEEP_ALIVE_MS,
    forceCloseConnections: false,
    routerOptions: { maxParamLength: 512 },
    clientErrorHandler: refuseGarbage,
  });
  // Every body is JSON, whatever a client calls it, and none at all is fine where nothing is needed.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", { parseAs: "string" }, (_, body, done) => {
    parseJson(body as string, done);
  });
  app.setErrorHandler(async (thrown, request, reply) => {
    const { error, isDefect } = toShareHaError(thrown);
    if (isDefect) {
      options.onDefect(thrown, `${request.method} ${request.url}`);
    }
    await reply.code(statusOf(error)).send(errorBody(error));
  });
  app.setNotFoundHandler(async (request, reply) => {
    const error = new ShareHaError(
      "ERR_NO_SUCH_PATH",
      `there is no ${request.method} ${request.url.slice(0, 200)}`,
      { hint: "See docs/api.md; daemon and client should be of one version." },
    );
    await reply.code(404).send(errorBody(error));
  });
  addReading(app, options.node);
  addLeases(app, options.node);
  addNode(app, options.node);
  await app.ready();
  return await listen(app, options.path);
}

async function listen(app: FastifyInstance, path: string): Promise<ControlApi> {
  const sockets = new Set<Socket>();
  const server: UnixServer = await listenUnix(path, (socket) => {
    if (sockets.size >= CONNECTIONS_MAX) {
      socket.destroy();
      return;
    }
    sockets.add(socket);
    // A reset by the client is an end like any other; the HTTP server sees it too.
    socket.on("error", () => socket.destroy());
    socket.once("close", () => sockets.delete(socket));
    app.server.emit("connection", socket);
  });
  return {
    close: async (graceMs = 0): Promise<void> => {
      server.close();
      if (graceMs > 0) {
        await new Promise((resolve) => setTimeout(resolve, graceMs));
      }
      for (const socket of sockets) {
        socket.destroy();
      }
      await app.close();
    },
  };
}

/** Bytes that are no HTTP: an answer that says so, and the end of the connection. */
function refuseGarbage(error: Error, socket: Socket): void {
  if (socket.writable) {
    const body = JSON.stringify(
      errorBody(
        badRequest("this is not HTTP", "See docs/api.md; use the sharedha command.", error),
      ),
    );
    socket.end(
      `HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`,
    );
  } else {
    socket.destroy();
  }
}

function parseJson(text: string, done: (error: Error | null, body?: unknown) => void): void {
  if (text === "") {
    done(null, {});
    return;
  }
  try {
    done(null, JSON.parse(text));
  } catch (error) {
    done(badRequest("the body is not JSON", "See docs/api.md for the bodies.", error));
  }
}

function addReading(app: FastifyInstance, node: ControlNode): void {
  app.get("/v1/status", async () => await node.status());
  app.get("/v1/events", async (request) => {
    const { after, waitMs: wait } = parse(EVENTS, request.query);
    return await withClient(
      request,
      async (client) => await node.events(after, wait, client.signal),
    );
  });
  app.get("/v1/leases", async () => await node.leases());
  app.get("/v1/leases/:name", async (request) => await node.lease(nameOf(request)));
  app.get("/v1/config", async () => await node.config());
}

function addLeases(app: FastifyInstance, node: ControlNode): void {
  app.post("/v1/leases/:name/create", async (request) => {
    parse(NOTHING, request.body);
    return { lease: await node.createLease(nameOf(request)) };
  });
  app.post("/v1/leases/:name/delete", async (request) => {
    parse(NOTHING, request.body);
    return { lease: await node.deleteLease(nameOf(request)) };
  });
  app.post("/v1/leases/:name/acquire", async (request) => {
    const body = parse(ACQUIRE, request.body ?? {});
    const name = nameOf(request);
    return await withClient(request, async (client) => await node.acquire(name, body, client));
  });
  app.post("/v1/leases/:name/release", async (request) => {
    parse(NOTHING, request.body);
    const name = nameOf(request);
    await withClient(request, async (client) => {
      await node.release(name, client);
    });
    return { released: true };
  });
  app.post("/v1/protect", async (request) => {
    const { pid } = parse(PROTECT, request.body);
    await withClient(request, async (client) => {
      await node.protect(pid, client);
    });
    return { protected: true };
  });
}

function addNode(app: FastifyInstance, node: ControlNode): void {
  app.post("/v1/groups/:name/reserve", async (request) => {
    const body = parse(RESERVE, request.body ?? {});
    const name = nameOf(request);
    return await withClient(
      request,
      async (client) => await node.reserve(name, body.waitMs, client),
    );
  });
  app.post("/v1/groups/:name/release", async (request) => {
    parse(NOTHING, request.body);
    await node.releaseGroup(nameOf(request));
    return { released: true };
  });
  app.post("/v1/hosts/:name/confirm-off", (request, reply) => {
    parse(NOTHING, request.body);
    return reply.send(node.confirmOff(nameOf(request)));
  });
  app.post("/v1/leave", async (request) => {
    parse(NOTHING, request.body);
    await node.leave();
    return { left: true };
  });
  app.put("/v1/config", async (request) => await node.applyConfig(parse(CONFIG, request.body)));
  app.post(
    "/v1/config/undo",
    async (request) => await node.undoConfig(parse(UNDO, request.body).stamp),
  );
  app.post(
    "/v1/luns/replace",
    async (request) => await node.replaceLun(parse(REPLACE, request.body)),
  );
}

/** @throws ERR_BAD_REQUEST naming the first field that does not fit */
function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) {
    return result.data;
  }
  const issue = result.error.issues[0];
  const at = issue === undefined || issue.path.length === 0 ? "the request" : issue.path.join(".");
  throw badRequest(`${at}: ${issue?.message ?? "not as expected"}`, "See docs/api.md.");
}

function nameOf(request: FastifyRequest): string {
  return parse(NAMED, request.params).name;
}

async function withClient<T>(
  request: FastifyRequest,
  work: (client: ClientContext) => Promise<T>,
): Promise<T> {
  const { socket } = request.raw;
  const controller = new AbortController();
  const onClose = (): void => {
    controller.abort();
  };
  if (socket.destroyed) {
    controller.abort();
  }
  socket.once("close", onClose);
  try {
    return await work({ socket, signal: controller.signal });
  } finally {
    socket.off("close", onClose);
  }
}
