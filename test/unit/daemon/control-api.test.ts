import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import fc from "fast-check";
import sinon from "sinon";

import {
  type ControlApi,
  type ControlNode,
  serveControlApi,
} from "../../../lib/daemon/control-api.js";
import { ShareHaError } from "../../../lib/errors.js";
import { type ErrorBody } from "../../../lib/net/api.js";

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

describe("the control API", () => {
  let directory: string;
  let path: string;
  let api: ControlApi;
  let node: sinon.SinonStubbedInstance<ControlNode>;
  let defects: unknown[];

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), "sharedha-api-"));
    path = join(directory, "control.sock");
    defects = [];
    const stub = (): sinon.SinonStub => sinon.stub();
    node = {
      status: stub(),
      events: stub(),
      leases: stub(),
      lease: stub(),
      createLease: stub(),
      deleteLease: stub(),
      acquire: stub(),
      release: stub(),
      reserve: stub(),
      releaseGroup: stub(),
      confirmOff: stub(),
      protect: stub(),
      config: stub(),
      applyConfig: stub(),
      undoConfig: stub(),
      replaceLun: stub(),
      leave: stub(),
    } as unknown as sinon.SinonStubbedInstance<ControlNode>;
    api = await serveControlApi({
      path,
      node,
      onDefect: (error) => {
        defects.push(error);
      },
    });
  });

  afterEach(async () => {
    await api.close();
    rmSync(directory, { recursive: true, force: true });
  });

  async function ask(method: string, target: string, body?: string): Promise<Answer> {
    return await new Promise((resolve, reject) => {
      const call = request({ socketPath: path, method, path: target }, (response) => {
        let text = "";
        response.on("data", (chunk: Buffer) => (text += chunk.toString()));
        response.on("end", () => {
          resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) });
        });
      });
      call.on("error", reject);
      call.end(body);
    });
  }

  async function raw(bytes: Uint8Array): Promise<string> {
    return await new Promise((resolve) => {
      const socket = connect(path);
      let text = "";
      socket.on("data", (chunk) => (text += chunk.toString()));
      socket.on("error", () => undefined);
      socket.on("close", () => {
        resolve(text);
      });
      socket.end(bytes);
    });
  }

  function codeOf(answer: Answer): string {
    return (answer.body as ErrorBody).error.code;
  }

  it("listens with mode 0600", () => {
    assert.equal(statSync(path).mode & 0o777, 0o600);
  });

  it("hands a checked acquire on and answers with its result", async () => {
    node.acquire.resolves({ name: "a", version: "3", shared: false, evidence: [], waitedMs: 1 });
    const answer = await ask("POST", "/v1/leases/group%3Aa/acquire", '{"waitMs":null}');
    assert.equal(answer.status, 200);
    assert.deepEqual(node.acquire.firstCall.args.slice(0, 2), [
      "group:a",
      { shared: false, waitMs: null, bindToConnection: false },
    ]);
  });

  it("answers 400 with the field for everything that is no acquire", async () => {
    for (const body of [
      "{",
      "[]",
      '{"waitMs":-1}',
      '{"waitMs":1e99}',
      '{"shared":"yes"}',
      '{"x":1}',
      '"text"',
      "7",
    ]) {
      const answer = await ask("POST", "/v1/leases/a/acquire", body);
      assert.deepEqual([answer.status, codeOf(answer)], [400, "ERR_BAD_REQUEST"], body);
    }
    assert.equal(node.acquire.callCount, 0);
  });

  it("takes --force of a LUN only where it was said", async () => {
    node.replaceLun.resolves({ lun: 2, epoch: "7" });
    const bodies = ['{"path":"/dev/sdc"}', '{"path":"/dev/sdc","force":true}'];
    for (const body of bodies) {
      assert.equal((await ask("POST", "/v1/luns/replace", body)).status, 200);
    }
    assert.deepEqual(
      node.replaceLun.args.map(([body]) => body),
      [
        { path: "/dev/sdc", force: false },
        { path: "/dev/sdc", force: true },
      ],
    );
    const answer = await ask("POST", "/v1/luns/replace", '{"path":"/dev/sdc","force":"yes"}');
    assert.deepEqual([answer.status, codeOf(answer)], [400, "ERR_BAD_REQUEST"]);
  });

  it("refuses a body above 64 KiB", async () => {
    const answer = await ask(
      "PUT",
      "/v1/config",
      JSON.stringify({ toml: "x".repeat(70_000), stamp: "1.1" }),
    );
    assert.deepEqual([answer.status, codeOf(answer)], [413, "ERR_TOO_LARGE"]);
  });

  it("answers unknown paths and methods with 404", async () => {
    for (const [method, target] of [
      ["GET", "/"],
      ["DELETE", "/v1/leases/a"],
      ["POST", "/v1/status"],
    ] as const) {
      const answer = await ask(method, target);
      assert.deepEqual([answer.status, codeOf(answer)], [404, "ERR_NO_SUCH_PATH"]);
    }
  });

  it("gives each refusal its status, and a defect 500 with a note for the log", async () => {
    const refuse = (code: string): ShareHaError => new ShareHaError(code, "no", { hint: "wait" });
    const cases: readonly [string, number][] = [
      ["ERR_LEASE_HELD", 409],
      ["ERR_NO_SUCH_LEASE", 404],
      ["ERR_NO_QUORUM", 503],
      ["ERR_SOMETHING_ELSE", 500],
    ];
    for (const [code, status] of cases) {
      node.lease.rejects(refuse(code));
      const answer = await ask("GET", "/v1/leases/a");
      assert.deepEqual([answer.status, codeOf(answer)], [status, code]);
    }
    assert.deepEqual(defects, []);
    node.lease.rejects(new TypeError("planted"));
    assert.equal(codeOf(await ask("GET", "/v1/leases/a")), "ERR_INTERNAL");
    assert.equal(defects.length, 1);
  });

  it("tells a waiting call that its client has gone", async () => {
    const gone = new Promise<void>((resolve) => {
      node.acquire.callsFake(async (_name, _body, client) => {
        client.signal.addEventListener("abort", () => {
          resolve();
        });
        await new Promise((wake) => {
          client.signal.addEventListener("abort", wake);
        });
        throw new ShareHaError("ERR_CANCELLED", "gone", { hint: "" });
      });
    });
    const call = request({ socketPath: path, method: "POST", path: "/v1/leases/a/acquire" });
    call.on("error", () => undefined);
    call.end('{"waitMs":null}');
    while (node.acquire.callCount === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    call.destroy();
    await gone;
  });

  it("survives any bytes, and still answers afterwards", async () => {
    node.leases.resolves({ leases: [] });
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
        const answer = await raw(bytes);
        assert.ok(answer === "" || answer.startsWith("HTTP/1.1 4"), answer);
      }),
      { numRuns: 100 },
    );
    assert.equal((await ask("GET", "/v1/leases")).status, 200);
    assert.deepEqual(defects, []);
  });
});
