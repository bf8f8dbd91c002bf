import assert from "node:assert/strict";
import { type AddressInfo, createServer, type Server } from "node:net";

import { NETWORK, reachPortal } from "../../../lib/node-iscsi-initiator/reach.js";
import { failure } from "./fixture.js";

/** The real resolver and real TCP, on this machine. */
describe("a portal", () => {
  let server: Server;
  let port: number;
  beforeEach(async () => {
    server = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    ({ port } = server.address() as AddressInfo);
  });
  afterEach(async () => {
    if (server.listening) {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it("that listens is reached, by address and by name", async () => {
    const reached = [{ address: "127.0.0.1", port }];
    for (const address of ["127.0.0.1", "localhost"]) {
      assert.deepEqual(
        await reachPortal(NETWORK, { address, port }, { timeoutMs: 2_000 }),
        reached,
      );
    }
  });

  it("where nobody listens is refused at once, with its address", async () => {
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(
      reachPortal(NETWORK, { address: "127.0.0.1", port }, { timeoutMs: 2_000 }),
      failure("ERR_ISCSI_UNREACHABLE", new RegExp(`127\\.0\\.0\\.1:${port} \\(ECONNREFUSED\\)`)),
    );
  });

  it("that does not answer is given up in time", async () => {
    const network = {
      resolve: () => Promise.resolve(["192.0.2.1", "192.0.2.2"]),
      probe: (_address: string, _port: number, timeoutMs: number) =>
        new Promise<void>((_, reject) => {
          setTimeout(() => {
            reject(Object.assign(new Error("no answer"), { code: "ETIMEDOUT" }));
          }, timeoutMs);
        }),
    };
    await assert.rejects(
      reachPortal(network, { address: "san.lab", port }, { timeoutMs: 100 }),
      failure("ERR_ISCSI_UNREACHABLE", /192\.0\.2\.1: ETIMEDOUT, 192\.0\.2\.2: ETIMEDOUT/),
    );
  });

  it("is not waited for when that is cancelled", async () => {
    const signal = AbortSignal.abort();
    await assert.rejects(
      reachPortal(NETWORK, { address: "127.0.0.1", port }, { timeoutMs: 2_000, signal }),
      failure("ERR_ISCSI_CANCELLED", /127\.0\.0\.1/),
    );
  });
});
