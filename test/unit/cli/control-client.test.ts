import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import fc from "fast-check";

import { ShareHaError } from "../../../lib/errors.js";
import { ControlClient, openControlSession } from "../../../lib/net/control-client.js";
import { STATUS_SHAPE } from "../../../lib/net/api-shape.js";
import { misfit } from "../../../lib/net/shape.js";
import { type FakeDaemon, refusal, startFakeDaemon, statusBody } from "./fake-daemon.js";

async function errorOf(promise: Promise<unknown>): Promise<ShareHaError> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof ShareHaError, `not a ShareHaError: ${String(error)}`);
    assert.notEqual(error.hint, "");
    return error;
  }
  assert.fail("it must be refused");
}

describe("ControlClient", () => {
  let daemon: FakeDaemon;
  let client: ControlClient;

  beforeEach(async () => {
    daemon = await startFakeDaemon();
    client = new ControlClient({ stateDir: daemon.stateDir, answerMs: 200 });
  });
  afterEach(() => daemon.close());

  it("gives the status as the daemon said it", async () => {
    daemon.routes.set("GET /v1/status", () => ({ body: statusBody() }));
    assert.deepEqual(await client.status(), statusBody());
  });

  it("hands the daemon's refusal on with its code, remedy and status", async () => {
    daemon.routes.set("POST /v1/leases/a%2Fb/acquire", () =>
      refusal(409, "ERR_LEASE_HELD", "held by n2"),
    );
    const body = { shared: false, waitMs: 0, bindToConnection: false };
    const error = await errorOf(client.acquire("a/b", body));
    assert.equal(error.code, "ERR_LEASE_HELD");
    assert.equal(error.message, "held by n2");
    assert.equal(error.hint, "remedy of ERR_LEASE_HELD");
    assert.deepEqual(error.fields, { n: 1, httpStatus: 409 });
    assert.deepEqual(daemon.calls[0]?.body, body);
  });

  const garbage: readonly (readonly [string, string, string])[] = [
    ["no HTTP at all", "hello\r\n\r\n", "ERR_ANSWER"],
    ["no JSON", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{no", "ERR_ANSWER"],
    ["an error that is no error", "HTTP/1.1 500 X\r\ncontent-length: 2\r\n\r\n{}", "ERR_ANSWER"],
    [
      "JSON of another shape",
      'HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n{"members":[1]}',
      "ERR_ANSWER",
    ],
    ["a body that breaks off", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{}", "ERR_ANSWER"],
    ["nothing", "", "ERR_CONNECTION_LOST"],
  ];
  for (const [what, raw, code] of garbage) {
    it(`calls ${what} by its name`, async () => {
      daemon.routes.set("GET /v1/status", () => ({ raw }));
      assert.equal((await errorOf(client.status())).code, code);
    });
  }

  it("refuses an answer without end instead of filling the memory", async () => {
    daemon.routes.set("GET /v1/status", () => ({
      raw: `HTTP/1.1 200 OK\r\n\r\n${" ".repeat(9 * 1024 * 1024)}`,
    }));
    const error = await errorOf(new ControlClient({ stateDir: daemon.stateDir }).status());
    assert.equal(error.code, "ERR_ANSWER");
    assert.match(error.message, /larger than 8388608 bytes/);
  });

  it("gives up on a daemon that does not answer", async () => {
    daemon.routes.set("GET /v1/status", () => "never");
    const error = await errorOf(client.status());
    assert.equal(error.code, "ERR_NO_ANSWER");
    assert.match(error.message, /GET \/v1\/status within 200 ms/);
  });

  it("a wait may last as long as it was asked to, and no longer than that and the answer", async () => {
    daemon.routes.set("POST /v1/leases/x/acquire", () => "never");
    const error = await errorOf(
      client.acquire("x", { shared: false, waitMs: 50, bindToConnection: false }),
    );
    assert.match(error.message, /within 250 ms/);
  });

  it("says that there is no daemon, also where a dead one left its socket", async () => {
    const empty = mkdtempSync(join(tmpdir(), "sharedha-cli-"));
    try {
      const nobody = new ControlClient({ stateDir: empty });
      assert.equal((await errorOf(nobody.status())).code, "ERR_NO_DAEMON");
      writeFileSync(join(empty, "control.sock"), "");
      assert.equal((await errorOf(nobody.status())).code, "ERR_NO_DAEMON");
      assert.equal((await errorOf(openControlSession({ stateDir: empty }))).code, "ERR_NO_DAEMON");
    } finally {
      rmSync(empty, { recursive: true });
    }
  });

  it("refuses a path that no socket can have", () => {
    assert.throws(() => new ControlClient({ stateDir: `/${"x".repeat(120)}` }), {
      code: "ERR_STATE_DIR",
    });
  });
});

describe("openControlSession", () => {
  it("sends everything over one connection and tells when it is gone", async () => {
    const daemon = await startFakeDaemon({
      "GET /v1/status": () => ({ body: statusBody() }),
      "POST /v1/leases/x/release": () => ({ body: { released: true } }),
    });
    try {
      const session = await openControlSession({ stateDir: daemon.stateDir });
      await session.client.status();
      await session.client.release("x");
      await session.client.status();
      const sockets = new Set(daemon.calls.map((call) => call.socket));
      assert.equal(sockets.size, 1);
      daemon.calls[0]?.socket.destroy();
      await session.closed;
      // Never silently on a second connection, to which nothing is bound.
      assert.equal((await errorOf(session.client.status())).code, "ERR_CONNECTION_LOST");
      assert.equal(daemon.calls.length, 3);
    } finally {
      await daemon.close();
    }
  });

  it("ignores the server's wish to close an idle connection soon", async () => {
    const stateDir = mkdtempSync(join(tmpdir(), "sharedha-cli-"));
    let connections = 0;
    const text = JSON.stringify({ released: true });
    const server = createServer((socket) => {
      connections += 1;
      socket.on("data", () => {
        socket.write(
          `HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nkeep-alive: timeout=1\r\ncontent-length: ${text.length}\r\n\r\n${text}`,
        );
      });
    });
    await new Promise<void>((resolve) => server.listen(join(stateDir, "control.sock"), resolve));
    const session = await openControlSession({ stateDir });
    try {
      await session.client.release("x");
      const first = await Promise.race([
        session.closed.then(() => "closed"),
        new Promise((resolve) => setTimeout(resolve, 1_200, "open")),
      ]);
      assert.equal(first, "open");
      await session.client.release("x");
      assert.equal(connections, 1);
    } finally {
      session.close();
      await new Promise((resolve) => server.close(resolve));
      rmSync(stateDir, { recursive: true });
    }
  });
});

describe("misfit", () => {
  it("finds every field of a status that has another type or is missing", () => {
    const good = statusBody();
    assert.equal(misfit(good, STATUS_SHAPE), undefined);
    for (const key of Object.keys(good)) {
      for (const value of [undefined, 7.5, "x", {}, true]) {
        const isRight =
          (key === "version" && value === "x") || (key === "heartbeatMs" && value === 7.5);
        const trouble = misfit({ ...good, [key]: value }, STATUS_SHAPE);
        assert.equal(trouble === undefined, isRight, `${key} = ${JSON.stringify(value)}`);
        assert.ok(isRight || trouble?.includes(key) === true, trouble);
      }
    }
  });

  it("lets unknown fields of a newer daemon pass", () => {
    assert.equal(misfit({ ...statusBody(), more: 1 }, STATUS_SHAPE), undefined);
  });

  it("survives any JSON", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        assert.equal(typeof misfit(value, STATUS_SHAPE), "string");
      }),
    );
  });
});
