/** The simulator's speed, and what the command line costs. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { TestNode } from "../test/helpers/nodes.js";
import { findRoot } from "../test/helpers/root.js";
import { Workspace } from "../test/helpers/workspace.js";
import { cleanUp, joinAll } from "./measure-leases.js";
import { sharedha } from "../test/helpers/nodes.js";
import { type Report } from "./report.js";
import { median } from "./stats.js";

export function measureSimulator(report: Report, seeds: number): void {
  const script = join(findRoot(), "dist", "test", "sim", "main.js");
  const ran = spawnSync(process.execPath, [script, "--seeds", String(seeds)], {
    encoding: "utf8",
    // Always the same work, whatever the commit.
    env: { ...process.env, SIM_SEED_BASE: "1" },
  });
  if (ran.status !== 0) {
    throw new Error(`the simulator failed: ${ran.stdout}${ran.stderr}`);
  }
  const speed = /: (\d+) per second/.exec(ran.stdout)?.[1];
  if (speed === undefined) {
    throw new Error(`the simulator says no speed: ${ran.stdout}`);
  }
  report.figure({
    what: `simulator, ${seeds} seeds`,
    unit: "ops/s",
    ours: Number(speed),
    peer: null,
    limit: 200000,
    atLeast: true,
  });
}

export async function measureStatus(report: Report, rounds: number): Promise<void> {
  const workspace = new Workspace("bench-status");
  try {
    const path = workspace.path("region");
    const made = await sharedha(["init", path]);
    if (made.exitCode !== 0) {
      throw new Error(`init: ${made.stderr}`);
    }
    const node = new TestNode(workspace, {
      name: "n1",
      hostId: 1,
      luns: [path],
      watchdog: "guard",
    });
    await joinAll([node]);
    const took: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const ran = await node.cli("status");
      if (ran.exitCode !== 0) {
        throw new Error(`status: ${ran.stderr}`);
      }
      took.push(ran.ms);
    }
    report.figure({
      what: "sharedha status, start to finish",
      unit: "ms",
      ours: median(took),
      peer: null,
      limit: 250,
    });
  } finally {
    await cleanUp(workspace);
  }
}
