/**
 * The control socket fed with garbage, and requests for what there is not: an answer that says so, and the node goes on. Also
 * garbage in the queue: an outbox with absurd ticket numbers.
 */
import assert from "node:assert/strict";
import { closeSync, fsyncSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { connect } from "node:net";

import { type ErrorBody } from "../../../lib/net/api.js";
import { geometryOf, outboxOffset } from "../../../lib/format/geometry.js";
import { decodeOutbox, encodeOutbox, type OutboxEntry } from "../../../lib/format/outbox.js";
import { type TestNode } from "../../helpers/nodes.js";
import { Cluster, expectDone, expectError, generationOf, until } from "./harness.js";

const MIB = 1024 * 1024;

describe("garbage on the control socket and in the queue", function () {
  this.timeout(30_000);
  let cluster: Cluster;
  let n1: TestNode;
  let n2: TestNode;

  before(async () => {
    cluster = await Cluster.make("garbage", {
      config: 'accept_guard = true\n[group.web]\ndevice = "lun"\n',
    });
    [n1, n2] = await Promise.all([cluster.joined("n1"), cluster.joined("n2")]);
    expectDone(await n1.cli("lease", "create", "job"));
  });

  after(async () => {
    await cluster.clean();
  });

  // Whatever was sent: it is still the same member afterwards, and answers.
  let generation = 0n;
  beforeEach(async () => {
    generation = await generationOf(n1);
  });
  afterEach(async () => {
    assert.equal((await n1.status()).node.state, "joined");
    assert.equal(await generationOf(n1), generation);
  });

  /** Sends bytes and reads until the daemon closes, or for as long as asked. */
  async function send(chunks: readonly (string | Buffer)[], readMs = 3_000): Promise<string> {
    return await new Promise((resolve, reject) => {
      const socket = connect(`${n1.stateDir}/control.sock`);
      let answer = "";
      const timer = setTimeout(() => {
        socket.destroy();
      }, readMs);
      socket.on("data", (chunk: Buffer) => (answer += chunk.toString("latin1")));
      socket.on("error", (error: NodeJS.ErrnoException) => {
        // The daemon may close before it has read everything.
        if (error.code !== "EPIPE" && error.code !== "ECONNRESET") {
          reject(error);
        }
      });
      socket.on("close", () => {
        clearTimeout(timer);
        resolve(answer);
      });
      for (const chunk of chunks) {
        socket.write(chunk);
      }
    });
  }

  /** A request as HTTP/1.1 writes it; the connection closes after the answer. */
  function http(line: string, body: string): string {
    const head = `${line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n`;
    return `${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
  }

  function refused(answer: string, status: number, code: string): void {
    assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), answer.slice(0, 300));
    const start = answer.indexOf("{", answer.indexOf("\r\n\r\n"));
    const { error } = JSON.parse(answer.slice(start, answer.lastIndexOf("}") + 1)) as ErrorBody;
    assert.equal(error.code, code, answer);
    assert(error.message !== "" && error.hint !== "");
  }

  it("answers bytes that are no HTTP with an error, and closes", async () => {
    const noise = Buffer.from(
      Array.from({ length: 4_096 }, (_, index) => (index * 167 + 13) % 256),
    );
    refused(await send([noise]), 400, "ERR_BAD_REQUEST");
    refused(await send(["\r\n\r\nGET\r\n\r\n"]), 400, "ERR_BAD_REQUEST");
  });

  it("does not read a body of 64 MiB, nor one that was not announced and is above the limit", async () => {
    const line = "POST /v1/leases/job/acquire";
    const announced = await send([
      `${line} HTTP/1.1\r\nhost: x\r\ncontent-length: ${64 * MIB}\r\n\r\n`,
    ]);
    refused(announced, 413, "ERR_TOO_LARGE");
    // Above 64 KiB, and no more than a socket holds: a client that still writes when the daemon closes never sees the answer.
    const piece = Buffer.alloc(96 * 1024, 0x41);
    const chunked = await send([
      `${line} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n`,
      `${piece.length.toString(16)}\r\n`,
      piece,
    ]);
    refused(chunked, 413, "ERR_TOO_LARGE");
  });

  it("refuses what is no JSON, and what has other types or fields than the API", async () => {
    const bodies = [
      "{",
      "[]",
      '"x"',
      "{}extra",
      '{"shared":"yes","waitMs":0,"bindToConnection":false}',
      '{"shared":true,"waitMs":-1,"bindToConnection":false}',
      '{"shared":true,"waitMs":1e999,"bindToConnection":false}',
      '{"shared":true,"waitMs":"0","bindToConnection":false}',
      '{"shared":true,"waitMs":0,"bindToConnection":false,"__proto__":{"x":1},"more":1}',
    ];
    for (const body of bodies) {
      refused(await send([http("POST /v1/leases/job/acquire", body)]), 400, "ERR_BAD_REQUEST");
    }
    refused(await send([http("PUT /v1/config", '{"toml":7}')]), 400, "ERR_BAD_REQUEST");
    refused(await send([http("POST /v1/protect", '{"pid":-1}')]), 400, "ERR_BAD_REQUEST");
    refused(await send([http("POST /v1/protect", '{"pid":1}')]), 400, "ERR_BAD_REQUEST");
  });

  it("refuses paths and names that there are not", async () => {
    refused(await send([http("POST /v1/format-everything", "{}")]), 404, "ERR_NO_SUCH_PATH");
    refused(await send([http("DELETE /v1/status", "")]), 404, "ERR_NO_SUCH_PATH");
    const asked = await send([http("GET /v1/leases/nobodys", "")]);
    refused(asked, 404, "ERR_NO_SUCH_LEASE");
    const long = `/v1/leases/${"x".repeat(400)}/acquire`;
    const body = '{"shared":false,"waitMs":0,"bindToConnection":false}';
    assert.match(await send([http(`POST ${long}`, body)]), /^HTTP\/1\.1 4\d\d /);
    const evil = await send([http("POST /v1/leases/..%2F..%2Fetc%00/acquire", body)]);
    assert.match(evil, /^HTTP\/1\.1 4\d\d /);
  });

  it("serves others while half a request hangs, and while hundreds connect and say nothing", async () => {
    const half = connect(`${n1.stateDir}/control.sock`);
    half.write("POST /v1/leases/job/acquire HTTP/1.1\r\nhost: x\r\ncontent-length: 40\r\n\r\n{");
    const silent = Array.from({ length: 600 }, () => connect(`${n1.stateDir}/control.sock`));
    for (const socket of silent) {
      socket.on("error", () => socket.destroy());
    }
    try {
      await new Promise((resolve) => half.once("connect", resolve));
      // The connections that are kept may be as many as the daemon takes; those that are refused are closed.
      await until("connections beyond the limit are closed", 10_000, () =>
        silent.some((socket) => socket.destroyed),
      );
    } finally {
      half.destroy();
      for (const socket of silent) {
        socket.destroy();
      }
    }
    expectDone(await n1.cli("lease", "acquire", "job"));
    expectDone(await n1.cli("lease", "release", "job"));
  });

  it("is for its own user only", () => {
    // 0140600: a socket, readable and writable by its owner.
    for (const name of ["control.sock", "pulse.sock", "guard.sock"]) {
      const { mode } = statSync(`${n1.stateDir}/${name}`);
      assert.equal(mode.toString(8), "140600", name);
    }
  });

  it("says which groups there are when asked for another one", async () => {
    const ran = await n1.cli("reserve", "wiki", "--json");
    const error = expectError(ran, { exitCode: 2, code: "ERR_NO_SUCH_GROUP", message: /wiki/ });
    assert.match(error.hint, /web/);
    const release = await n1.cli("release", "wiki", "--json");
    expectError(release, { exitCode: 2, code: "ERR_NO_SUCH_GROUP", message: /wiki/ });
  });

  it("hands over as ever when an outbox has absurd ticket numbers in it", async () => {
    const { node: second } = await n2.status();
    const n3 = await cluster.joined("n3");
    const { node: third } = await n3.status();
    assert(third.hostId !== null && second.hostId !== null);
    const lease = (await n1.status()).leases.find((one) => one.name === "job");
    assert(lease !== undefined);
    expectDone(await n1.cli("lease", "acquire", "job"));
    for (const value of [(1n << 64n) - 1n, (1n << 62n) - 1n, 5_000_000n]) {
      forgeTicket(third.hostId, BigInt(third.generation ?? "0"), lease.area, value);
    }
    const startedMs = performance.now();
    const waiting = n2.cli("lease", "acquire", "job", "--wait", "15");
    await until("n2 is in the queue", 5_000, async () =>
      (await n1.status()).leases.some((one) => one.queue.includes("n2")),
    );
    expectDone(await n1.cli("lease", "release", "job"));
    expectDone(await waiting);
    const tookMs = performance.now() - startedMs;
    assert(tookMs < 12_000, `n2 waited ${tookMs} ms behind tickets that nobody will use`);
    expectDone(await n2.cli("lease", "release", "job"));
    assert.equal((await n3.status()).node.state, "joined");
  });

  /** Adds a ticket to a host's outbox behind its back. */
  function forgeTicket(hostId: number, generation: bigint, area: number, value: bigint): void {
    const [path = ""] = cluster.luns;
    const geometry = geometryOf(512);
    const offset = outboxOffset(geometry, hostId);
    const file = openSync(path, "r+");
    try {
      const bytes = Buffer.alloc(geometry.sectorSize);
      readSync(file, bytes, 0, bytes.length, offset);
      const found = decodeOutbox(geometry, bytes);
      const base = { hostId, generation, sequence: 0n, tableGeneration: 0n, entries: [] };
      const before = found.kind === "ok" ? found.value : base;
      const ticket: OutboxEntry = {
        kind: "ticket",
        shared: false,
        targetHostId: 0,
        area,
        targetGeneration: 0n,
        value,
        nonce: 1n << 60n,
      };
      const entries = [...before.entries, ticket];
      const forged = { ...before, generation, sequence: before.sequence + 1n, entries };
      writeSync(file, encodeOutbox(geometry, forged), 0, geometry.sectorSize, offset);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  }
});
