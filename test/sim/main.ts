/** `node dist/test/sim/main.js --seeds N [--seed S] [--verbose]`: see docs/simulator.md. */
import { execFileSync } from "node:child_process";
import { parseArgs } from "node:util";

import { EXIT_CODES } from "./failure.js";
import { runSeed, type SeedReport } from "./run-seed.js";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "1000" },
    seed: { type: "string" },
    verbose: { type: "boolean", default: false },
  },
});

const out = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

process.exitCode = main();

function main(): number {
  const only = values.seed === undefined ? undefined : Number(values.seed);
  const first = only ?? seedOfCommit();
  const count = only === undefined ? Number(values.seeds) : 1;
  out(`simulator: ${count} seeds from ${first}; one alone: --seed S`);
  const startedMs = Date.now();
  let saidMs = startedMs;
  const sum = { diskOps: 0, grants: 0, takeovers: 0, resets: 0, virtualMs: 0 };
  for (let index = 0; index < count; index++) {
    const report = runSeed(first + index, {}, values.verbose ? out : undefined);
    for (const key of Object.keys(sum) as (keyof typeof sum)[]) {
      sum[key] += report[key];
    }
    if (report.failure !== undefined) {
      explain(report);
      return EXIT_CODES[report.failure.kind];
    }
    if (only !== undefined) {
      out(JSON.stringify(report.options));
      out(`hash ${report.hash}`);
    }
    if (Date.now() - saidMs > 10_000) {
      saidMs = Date.now();
      out(`${index + 1} seeds clean`);
    }
  }
  const seconds = Math.max(0.001, (Date.now() - startedMs) / 1_000);
  out(
    `clean: ${count} seeds, ${Math.round(sum.virtualMs / 1_000)} virtual s, ${sum.grants} grants, ${sum.takeovers} take-overs, ${sum.resets} resets, ` +
      `${sum.diskOps} disk operations in ${seconds.toFixed(1)} s: ${Math.round(sum.diskOps / seconds)} per second`,
  );
  return 0;
}

/** Each commit explores new ground, and stays reproducible. */
function seedOfCommit(): number {
  const given = process.env["SIM_SEED_BASE"];
  if (given !== undefined && given !== "") {
    return Number(given);
  }
  try {
    const commit = execFileSync("git", ["rev-parse", "--short=8", "HEAD"], { encoding: "utf8" });
    return Number.parseInt(commit.trim(), 16);
  } catch {
    // Not a git checkout: any fixed number is as good.
    return 1;
  }
}

function explain(report: SeedReport): void {
  out(JSON.stringify(report.options));
  for (const line of report.lines) {
    out(line);
  }
  out(`seed ${report.seed} failed: ${report.failure?.kind}: ${report.failure?.message}`);
  out(`again: node dist/test/sim/main.js --seed ${report.seed} --verbose`);
}
