/**
 * The control API on a real Unix socket, answered by the test: what the command line sees is the real port, only what is
 * behind it is made up.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type LeaseBody, type MemberBody, type StatusBody } from "../../../lib/net/api.js";

export interface Call {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
  readonly socket: Socket;
}

export type Answer =
  { readonly status?: number; readonly body: unknown } | { readonly raw: string } | "never";
export type Route = (call: Call) => Answer;

export interface FakeDaemon {
  readonly stateDir: string;
  readonly calls: Call[];
  /** By "METHOD /path" without the query. */
  readonly routes: Map<string, Route>;
  close(): Promise<void>;
}

export async function startFakeDaemon(
  routes: Readonly<Record<string, Route>> = {},
): Promise<FakeDaemon> {
  const stateDir = mkdtempSync(join(tmpdir(), "sharedha-cli-"));
  const calls: Call[] = [];
  const map = new Map<string, Route>(Object.entries(routes));
  const server = createServer((request, response) => {
    void answerCall(request, response, calls, map);
  });
  await new Promise<void>((resolve) => {
    server.listen(join(stateDir, "control.sock"), resolve);
  });
  return {
    stateDir,
    calls,
    routes: map,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(stateDir, { recursive: true, force: true });
    },
  };
}

async function answerCall(
  request: IncomingMessage,
  response: ServerResponse,
  calls: Call[],
  routes: ReadonlyMap<string, Route>,
): Promise<void> {
  let text = "";
  for await (const chunk of request) {
    text += String(chunk);
  }
  const path = request.url ?? "";
  const method = request.method ?? "";
  const call = {
    method,
    path,
    body: text === "" ? undefined : (JSON.parse(text) as unknown),
    socket: request.socket,
  };
  calls.push(call);
  const route = routes.get(`${method} ${path.split("?")[0] ?? ""}`);
  const answer: Answer =
    route === undefined
      ? refusal(404, "ERR_NO_SUCH_THING", `no route ${method} ${path}`)
      : route(call);
  if (answer === "never") {
    return;
  }
  if ("raw" in answer) {
    request.socket.end(answer.raw);
    return;
  }
  response.writeHead(answer.status ?? 200, { "content-type": "application/json" });
  response.end(JSON.stringify(answer.body));
}

export function refusal(status: number, code: string, message: string): Answer {
  return {
    status,
    body: { error: { code, message, hint: `remedy of ${code}`, fields: { n: 1 } } },
  };
}

export function memberBody(change: Partial<MemberBody> = {}): MemberBody {
  return {
    hostId: 1,
    name: "n1",
    generation: "3",
    state: "live",
    isSelf: false,
    unchangedMs: 120,
    expiresAfterMs: 6_500,
    whyNoExpiry: null,
    watchdog: "hardware",
    armed: false,
    virtual: false,
    latencyMs: null,
    ...change,
  };
}

export function leaseBody(change: Partial<LeaseBody> = {}): LeaseBody {
  return {
    name: "backup",
    area: 7,
    version: "12",
    holders: [],
    heldHere: false,
    queue: [],
    ...change,
  };
}

/** A cluster of two in good health. */
export function statusBody(change: Partial<StatusBody> = {}): StatusBody {
  return {
    version: "0.1.0",
    cluster: { name: "office", uuid: "0b0c0d0e-0000-4000-8000-000000000001", epoch: "1" },
    node: { name: "n1", hostId: 1, generation: "3", state: "joined", why: null },
    timers: {
      profile: "default",
      intervalMs: 500,
      deadlineMs: 1_000,
      ttlMs: 3_000,
      watchdogMs: 5_000,
    },
    watchdog: { kind: "hardware", device: "/dev/watchdog0", armed: true, note: null },
    members: [
      memberBody({ isSelf: true, latencyMs: 2.5, armed: true }),
      memberBody({ hostId: 2, name: "n2", generation: "1" }),
    ],
    leases: [
      leaseBody({
        name: "group:web",
        holders: [
          {
            hostId: 1,
            name: "n1",
            generation: "3",
            shared: false,
            since: "2026-11-23T20:00:00.000Z",
          },
        ],
        heldHere: true,
        queue: ["n2"],
      }),
    ],
    groups: [
      {
        name: "web",
        lease: "group:web",
        device: "lun",
        mount: { path: "/srv/web", type: "ext4", options: "noatime" },
        state: "up",
        holder: {
          hostId: 1,
          name: "n1",
          generation: "3",
          shared: false,
          since: "2026-11-23T20:00:00.000Z",
        },
        queue: ["n2"],
        why: null,
      },
    ],
    luns: [{ path: "/dev/sdb", uuid: "u", counts: true, state: "ok", why: null, latencyMs: 1.2 }],
    hindrances: [],
    heartbeatMs: 130,
    ...change,
  };
}
