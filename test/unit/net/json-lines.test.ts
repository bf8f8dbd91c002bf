import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

import fc from "fast-check";

import { ShareHaError } from "../../../lib/errors.js";
import {
  decodeLine,
  encodeLine,
  JsonLines,
  LINE_BYTES_MAX,
  LineSplitter,
  UNSENT_BYTES_MAX,
} from "../../../lib/net/json-lines.js";
import { connectUnix, listenUnix } from "../../../lib/net/unix-server.js";

function code(expected: string): (error: unknown) => boolean {
  return (error) => error instanceof ShareHaError && error.code === expected;
}

const values = fc.letrec((tie) => ({
  value: fc.oneof(
    fc.string(),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
    fc.uint8Array({ maxLength: 64 }),
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(
      fc.string().filter((key) => !key.startsWith("$") && key !== "__proto__"),
      tie("value"),
      { maxKeys: 4, noNullPrototype: true },
    ),
  ),
})).value;

describe("JSON lines", () => {
  it("bring back every value, bigints and bytes too, however the stream is cut", () => {
    fc.assert(
      fc.property(
        fc.array(values, { maxLength: 5 }),
        fc.integer({ min: 1, max: 40 }),
        (all, size) => {
          const stream = Buffer.from(all.map(encodeLine).join(""));
          const splitter = new LineSplitter();
          const lines: string[] = [];
          for (let at = 0; at < stream.length; at += size) {
            lines.push(...splitter.push(stream.subarray(at, at + size)));
          }
          assert.deepEqual(lines.map(decodeLine), all);
        },
      ),
    );
  });

  it("a Buffer arrives as bytes although it has a toJSON of its own", () => {
    assert.deepEqual(decodeLine(encodeLine({ data: Buffer.from([0, 255]) })), {
      data: Uint8Array.of(0, 255),
    });
  });

  it("garbage is a typed error, never another exception and never a value", () => {
    for (const line of [
      "",
      "{",
      "GET / HTTP/1.1",
      '{"a":1',
      "\u0000",
      '{"$bigint":5}',
      '{"$bigint":"x"}',
    ]) {
      assert.throws(() => decodeLine(line), code("ERR_BAD_LINE"), line);
    }
    for (const line of ['{"$hex":"0"}', '{"$hex":"zz"}', '{"$bigint":"1","b":2}']) {
      assert.throws(() => decodeLine(line), code("ERR_BAD_LINE"), line);
    }
    assert.throws(() => decodeLine(`{"$bigint":"${"9".repeat(10_000)}"}`), code("ERR_BAD_LINE"));
    fc.assert(
      fc.property(fc.string(), (line) => {
        try {
          decodeLine(line);
        } catch (error) {
          assert.ok(code("ERR_BAD_LINE")(error));
        }
      }),
    );
  });

  it("a line without an end is refused before it is kept", () => {
    const splitter = new LineSplitter();
    const half = Buffer.alloc(LINE_BYTES_MAX / 2, "x");
    splitter.push(half);
    splitter.push(half);
    assert.throws(() => splitter.push(Buffer.from("x")), code("ERR_LINE_TOO_LONG"));
    assert.throws(() => encodeLine("x".repeat(LINE_BYTES_MAX)), code("ERR_LINE_TOO_LONG"));
  });
});

describe("JSON lines over a Unix socket", () => {
  let directory: string;
  let path: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "sh-net-"));
    path = join(directory, "s");
  });
  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  it("a bad line ends that connection with its error", async () => {
    const ended = new Promise<Error | undefined>((resolve) => {
      void listenUnix(path, (socket) => {
        new JsonLines(socket, { onMessage: () => undefined, onClose: resolve });
      }).then((server) => {
        const client = connect(path, () => client.end("no json\n"));
        client.on("close", () => {
          server.close();
        });
        client.resume();
      });
    });
    assert.ok(code("ERR_BAD_LINE")(await ended));
  });

  it("a reader that does not read gets no droppable message queued behind another, and is ended at the limit", async () => {
    let onAccepted: (socket: Socket) => void = () => undefined;
    const accepted = new Promise<Socket>((resolve) => (onAccepted = resolve));
    const server = await listenUnix(path, onAccepted);
    const reader = connect(path);
    reader.pause();
    const closed = new Promise<Error | undefined>((resolve) => {
      void accepted.then((socket) => {
        const lines = new JsonLines(socket, { onMessage: () => undefined, onClose: resolve });
        const large = "x".repeat(LINE_BYTES_MAX - 100);
        while (lines.unsentBytes === 0) {
          lines.send(large);
        }
        const queued = lines.unsentBytes;
        assert.equal(lines.send("a beat", { droppable: true }), "full");
        assert.equal(lines.unsentBytes, queued);
        let result = lines.send(large);
        while (result === "sent") {
          assert.ok(lines.unsentBytes <= UNSENT_BYTES_MAX + 2 * LINE_BYTES_MAX);
          result = lines.send(large);
        }
        assert.equal(result, "full");
        assert.equal(lines.send("more"), "closed");
      });
    });
    assert.ok(code("ERR_LINE_BACKLOG")(await closed));
    reader.destroy();
    server.close();
  });

  it("has mode 0600 from the beginning, replaces a dead socket, leaves a live one and other files alone", async () => {
    const server = await listenUnix(path, (socket) => socket.end());
    assert.equal(statSync(path).mode & 0o777, 0o600);
    await assert.rejects(
      listenUnix(path, () => undefined),
      code("ERR_SOCKET_IN_USE"),
    );
    server.close();
    assert.equal(await connectUnix(path), undefined);
    const stale = createServer();
    await new Promise<void>((resolve) => stale.listen(join(directory, "t"), resolve));
    // A killed process leaves its socket behind; a hard link survives the unlink of a clean close.
    const { linkSync } = await import("node:fs");
    linkSync(join(directory, "t"), path);
    await new Promise((resolve) => stale.close(resolve));
    assert.ok(statSync(path).isSocket());
    (await listenUnix(path, () => undefined)).close();
    writeFileSync(path, "not a socket");
    await assert.rejects(
      listenUnix(path, () => undefined),
      code("ERR_SOCKET_IN_USE"),
    );
    await assert.rejects(
      listenUnix(`/${"x".repeat(110)}`, () => undefined),
      code("ERR_SOCKET_PATH"),
    );
  });
});
