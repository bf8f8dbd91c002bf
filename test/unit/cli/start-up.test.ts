/** What makes the command line slow to start is what it loads, so that is what is checked, and not a time. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { startFakeDaemon, statusBody } from "./fake-daemon.js";

const BIN = fileURLToPath(new URL("../../../bin/sharedha.js", import.meta.url));

describe("sharedha status as a process", function () {
  this.timeout(20_000);

  it("loads its own file and the client, no other command and no heavy library", async () => {
    const daemon = await startFakeDaemon({ "GET /v1/status": () => ({ body: statusBody() }) });
    try {
      // V8 lists every script that was loaded in its coverage report.
      const coverage = join(daemon.stateDir, "coverage");
      const child = spawn(process.execPath, [BIN, "status", "--json"], {
        env: { ...process.env, NODE_V8_COVERAGE: coverage, SHAREDHA_STATE_DIR: daemon.stateDir },
        stdio: ["ignore", "pipe", "inherit"],
      });
      let out = "";
      child.stdout.on("data", (data) => (out += String(data)));
      const exitCode = await new Promise((resolve) => child.once("close", resolve));
      assert.equal(exitCode, 0);
      assert.deepEqual(JSON.parse(out), statusBody());
      const loaded = readdirSync(coverage).flatMap((file) => {
        const { result } = JSON.parse(readFileSync(join(coverage, file), "utf8")) as {
          result: readonly { readonly url: string }[];
        };
        return result.map(({ url }) => url);
      });
      const ours = loaded.filter((url) => url.startsWith("file:") && url.includes("/lib/"));
      assert.ok(
        ours.some((url) => url.endsWith("/lib/cli/status.js")),
        "the report lists what was loaded",
      );
      const heavy =
        /\/node_modules\/(?!commander\/)|\/lib\/(region|system|daemon|pulse|lease|format)\/|\/lib\/cli\/(run|join|init|dump|health)\.js$/;
      assert.deepEqual(
        loaded.filter((url) => heavy.test(url)),
        [],
      );
    } finally {
      await daemon.close();
    }
  });
});
