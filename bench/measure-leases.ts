/**
 * Leases, ours and sanlock's, one after the other on the same file or loop device: latency of a free lease with four
 * members, and grants under contention.
 */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { sharedha, TestNode } from "../test/helpers/nodes.js";
import { findRoot } from "../test/helpers/root.js";
import { Workspace } from "../test/helpers/workspace.js";
import { LeanClient } from "./lean-client.js";
import { type Report } from "./report.js";
import { formatSanlock, SanlockDaemon, type SanlockPresence } from "./sanlock.js";
import { jain, median, summarize } from "./stats.js";

export interface LeaseRounds {
  readonly rounds: number;
  readonly acquires: number;
  readonly contendedSeconds: number;
  readonly contenders: readonly number[];
}

interface Latency {
  readonly acquire: readonly number[];
  readonly release: readonly number[];
}

interface Contended {
  readonly grantsPerSecond: number;
  readonly worstWaitMs: number;
  readonly fairness: number;
}

interface Side {
  readonly latencies: Latency[];
  readonly contended: Map<number, Contended[]>;
}

const MEMBERS = 4;

export async function measureLeases(
  report: Report,
  medium: { readonly label: string; readonly path: string },
  sanlock: SanlockPresence,
  plan: LeaseRounds,
): Promise<void> {
  const ours: Side = { latencies: [], contended: new Map() };
  const peer: Side = { latencies: [], contended: new Map() };
  for (let round = 0; round < plan.rounds; round++) {
    if (sanlock.kind === "present") {
      await measureSanlock(medium.path, sanlock.client, plan, peer);
    }
    await measureOurs(medium.path, plan, ours);
  }
  tell(report, medium.label, ours, sanlock.kind === "present" ? peer : undefined, plan);
}

async function measureSanlock(
  path: string,
  client: string,
  plan: LeaseRounds,
  side: Side,
): Promise<void> {
  const workspace = new Workspace("bench-sanlock");
  try {
    formatSanlock(path, "BENCH", ["free", "contended"], 1);
    const most = Math.max(MEMBERS, ...plan.contenders);
    const daemons = Array.from(
      { length: most },
      (_, index) => new SanlockDaemon(workspace, index + 1, 1),
    );
    await Promise.all(daemons.map((daemon) => daemon.ready()));
    await Promise.all(daemons.slice(0, MEMBERS).map((daemon) => daemon.join("BENCH", path, 1)));
    const free = `BENCH:free:${path}:1048576`;
    side.latencies.push((await daemons[0]?.measure(client, "lat", free, plan.acquires)) as Latency);
    await Promise.all(daemons.slice(MEMBERS).map((daemon) => daemon.join("BENCH", path, 1)));
    for (const count of plan.contenders) {
      const resource = `BENCH:contended:${path}:2097152`;
      const waits = await Promise.all(
        daemons.slice(0, count).map(async (daemon) => {
          const result = await daemon.measure(client, "loop", resource, plan.contendedSeconds);
          return (result as { readonly waits: readonly number[] }).waits;
        }),
      );
      note(side, count, contendedOf(waits, plan.contendedSeconds));
    }
  } finally {
    await cleanUp(workspace);
  }
}

async function measureOurs(path: string, plan: LeaseRounds, side: Side): Promise<void> {
  const workspace = new Workspace("bench-ours");
  try {
    await format(path, "default");
    const most = Math.max(MEMBERS, ...plan.contenders);
    const nodes = Array.from(
      { length: most },
      (_, index) =>
        new TestNode(workspace, {
          name: `n${index + 1}`,
          hostId: index + 1,
          luns: [path],
          watchdog: "guard",
        }),
    );
    await joinAll(nodes.slice(0, MEMBERS));
    const [first] = nodes;
    if (first === undefined) {
      throw new Error("no node");
    }
    await first.call("POST", "/v1/leases/free/create", {});
    await first.call("POST", "/v1/leases/contended/create", {});
    side.latencies.push(await latencyOf(first, plan.acquires));
    await joinAll(nodes.slice(MEMBERS));
    for (const count of plan.contenders) {
      const waits = await Promise.all(
        nodes.slice(0, count).map((node) => loopOn(node, plan.contendedSeconds)),
      );
      note(side, count, contendedOf(waits, plan.contendedSeconds));
    }
  } finally {
    await cleanUp(workspace);
  }
}

export async function format(
  path: string,
  profile: string,
  ...more: readonly string[]
): Promise<void> {
  const made = await sharedha(["init", path, "--force", "--whole", "--profile", profile, ...more]);
  if (made.exitCode !== 0) {
    throw new Error(`init ${path}: ${made.stderr}`);
  }
}

export async function joinAll(nodes: readonly TestNode[]): Promise<void> {
  const joined = await Promise.all(nodes.map((node) => node.join()));
  joined.forEach((ran, index) => {
    if (ran.exitCode !== 0) {
      throw new Error(`${nodes[index]?.name ?? "?"} did not join: ${ran.stderr}${ran.stdout}`);
    }
  });
}

export async function cleanUp(workspace: Workspace): Promise<void> {
  for (const problem of await workspace.clean()) {
    process.stderr.write(`clean-up: ${problem}\n`);
  }
}

async function latencyOf(node: TestNode, count: number): Promise<Latency> {
  const acquire: number[] = [];
  const release: number[] = [];
  const client = new LeanClient(join(node.stateDir, "control.sock"));
  const body = JSON.stringify({ shared: false, waitMs: 0, bindToConnection: false });
  // One round that does not count: it arms the watchdog and opens the connection.
  for (let index = -1; index < count; index++) {
    const askedMs = performance.now();
    await client.post("/v1/leases/free/acquire", body);
    const ownedMs = performance.now();
    await client.post("/v1/leases/free/release", "{}");
    if (index >= 0) {
      acquire.push(ownedMs - askedMs);
      release.push(performance.now() - ownedMs);
    }
  }
  client.close();
  return { acquire, release };
}

async function loopOn(node: TestNode, seconds: number): Promise<readonly number[]> {
  const script = join(findRoot(), "dist", "bench", "loop-client.js");
  const socket = join(node.stateDir, "control.sock");
  return await new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, socket, "contended", String(seconds)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let stdout = "";
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) {
        resolve((JSON.parse(stdout) as { waits: number[] }).waits);
      } else {
        reject(new Error(`the contended loop on ${node.name} ended with ${String(code)}`));
      }
    });
  });
}

function contendedOf(waits: readonly (readonly number[])[], seconds: number): Contended {
  return {
    grantsPerSecond: waits.reduce((sum, one) => sum + one.length, 0) / seconds,
    worstWaitMs: Math.max(...waits.map((one) => Math.max(0, ...one))),
    fairness: jain(waits.map((one) => one.length)),
  };
}

function note(side: Side, count: number, contended: Contended): void {
  const known = side.contended.get(count) ?? [];
  side.contended.set(count, [...known, contended]);
}

function tell(
  report: Report,
  label: string,
  ours: Side,
  peer: Side | undefined,
  plan: LeaseRounds,
): void {
  const figure = (
    side: Side | undefined,
    what: keyof Latency,
    which: "p50" | "p99",
  ): number | null =>
    side === undefined ? null : median(side.latencies.map((one) => summarize(one[what])[which]));
  for (const [what, which, limit] of [
    ["acquire", "p50", 0.5],
    ["acquire", "p99", 1],
    ["release", "p50", 1],
  ] as const) {
    report.ratio({
      what: `${label}: ${what}, free lease, ${MEMBERS} members, ${which}`,
      unit: "ms",
      ours: figure(ours, what, which) ?? NaN,
      peer: figure(peer, what, which),
      limit,
    });
  }
  for (const count of plan.contenders) {
    const mine = ours.contended.get(count) ?? [];
    const theirs = peer?.contended.get(count);
    const of = (
      list: readonly Contended[] | undefined,
      pick: (one: Contended) => number,
    ): number | null => (list === undefined ? null : median(list.map(pick)));
    report.atLeast({
      what: `${label}: contended, N = ${count}`,
      unit: "grants/s",
      ours: of(mine, (one) => one.grantsPerSecond) ?? NaN,
      peer: of(theirs, (one) => one.grantsPerSecond),
      limit: 3,
    });
    report.figure({
      what: `${label}: contended, N = ${count}, worst wait`,
      unit: "ms",
      ours: Math.max(...mine.map((one) => one.worstWaitMs)),
      peer: of(theirs, (one) => one.worstWaitMs),
      limit: 500,
    });
    report.figure({
      what: `${label}: contended, N = ${count}, Jain fairness`,
      unit: "",
      ours: of(mine, (one) => one.fairness) ?? NaN,
      peer: of(theirs, (one) => one.fairness),
      limit: 0.95,
      atLeast: true,
    });
  }
}
