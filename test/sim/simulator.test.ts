/** The cluster in one thread: many seeds without a violation, and the same seed always the same run. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { runSeed } from "./run-seed.js";

/** From seed 1 on, so that a green commit stays green; `make sim` explores new ground with every commit. */
const SEEDS = Number(process.env["SIM_SEEDS"] ?? "10000");
const PROCESSES = 2;
const MAIN = fileURLToPath(new URL("./main.js", import.meta.url));

async function runSeeds(first: number, count: number): Promise<string> {
  return await new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [MAIN, "--seeds", String(count)], {
      env: { ...process.env, SIM_SEED_BASE: String(first) },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let stdout = "";
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) {
        resolve(stdout);
      } else {
        reject(new Error(`exit ${String(code)}: ${stdout.slice(-8_000)}`));
      }
    });
  });
}

describe("simulator", function () {
  it("the same seed is the same run, step by step", () => {
    for (const seed of [1, 2, 3]) {
      assert.equal(runSeed(seed, {}).hash, runSeed(seed, {}).hash);
    }
  }).timeout(60_000);

  it(`${SEEDS} seeds break no invariant`, async () => {
    const share = Math.ceil(SEEDS / PROCESSES);
    const runs = Array.from({ length: PROCESSES }, (_, index) =>
      runSeeds(1 + index * share, share),
    );
    for (const output of await Promise.all(runs)) {
      assert.match(output, /^clean: /m);
    }
  }).timeout(1_800_000);
});
