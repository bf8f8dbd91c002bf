/** How long it takes to join, to take over from a killed node, and to move a mounted group. */
import { readFileSync, writeFileSync } from "node:fs";
import { sharedha, TestNode } from "../test/helpers/nodes.js";
import { must, Workspace } from "../test/helpers/workspace.js";
import { cleanUp, joinAll } from "./measure-leases.js";
import { type Report } from "./report.js";
import { SanlockDaemon, formatSanlock, type SanlockPresence } from "./sanlock.js";
import { median } from "./stats.js";

const MIB = 1048576;

export async function measureJoin(
  report: Report,
  sanlock: SanlockPresence,
  rounds: number,
): Promise<void> {
  const peer = sanlock.kind === "present" ? await sanlockJoin() : null;
  for (const [profile, limit] of [
    ["default", 2000],
    ["multipath", 6000],
  ] as const) {
    const took: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const workspace = new Workspace("bench-join");
      try {
        const path = workspace.path("region");
        await formatFile(path, profile);
        const node = new TestNode(workspace, {
          name: "n1",
          hostId: 1,
          luns: [path],
          watchdog: "guard",
        });
        const ran = await node.join();
        if (ran.exitCode !== 0) {
          throw new Error(`join: ${ran.stderr}`);
        }
        took.push(ran.ms);
      } finally {
        await cleanUp(workspace);
      }
    }
    report.figure({
      what: `join, free host id, ${profile} profile, whole command`,
      unit: "ms",
      ours: median(took),
      peer,
      limit,
    });
  }
}

async function formatFile(
  path: string,
  profile: string,
  ...more: readonly string[]
): Promise<void> {
  const made = await sharedha(["init", path, "--profile", profile, ...more]);
  if (made.exitCode !== 0) {
    throw new Error(`init: ${made.stderr}`);
  }
}

async function sanlockJoin(): Promise<number> {
  const workspace = new Workspace("bench-join-sanlock");
  try {
    const path = workspace.path("region");
    must("fallocate", ["-l", String(4 * MIB), path]);
    formatSanlock(path, "BENCH", [], 1);
    const daemon = new SanlockDaemon(workspace, 1, 1);
    await daemon.ready();
    return await daemon.join("BENCH", path, 1);
  } finally {
    await cleanUp(workspace);
  }
}

/** A cluster of two on a file with a data part, each node with its own mount namespace and loop device. */
async function twoNodes(
  workspace: Workspace,
  profile: string,
): Promise<readonly [TestNode, TestNode]> {
  const file = workspace.path("lun");
  must("fallocate", ["-l", String(192 * MIB), file]);
  const made = await sharedha([
    "init",
    file,
    "--profile",
    profile,
    "--mkfs",
    "ext4",
    "--cluster",
    "bench",
  ]);
  if (made.exitCode !== 0) {
    throw new Error(`init: ${made.stderr}`);
  }
  const nodes = ["n1", "n2"].map(
    (name, index) =>
      new TestNode(workspace, {
        name,
        hostId: index + 1,
        luns: [workspace.loop(file)],
        watchdog: "guard",
        mountNamespace: true,
      }),
  ) as [TestNode, TestNode];
  await joinAll(nodes);
  const toml = workspace.path("cluster.toml");
  const mountPoint = workspace.path("data");
  must("mkdir", [mountPoint]);
  writeFileSync(
    toml,
    `[group.data]\ndevice = "lun"\nmount = { path = ${JSON.stringify(mountPoint)}, type = "ext4", options = "noatime" }\n`,
  );
  const applied = await nodes[0].cli("config", "apply", toml);
  if (applied.exitCode !== 0) {
    throw new Error(`config apply: ${applied.stderr}`);
  }
  return nodes;
}

export async function measureTakeOver(
  report: Report,
  peerMs: number | null,
  rounds: number,
): Promise<void> {
  for (const [profile, limit] of [
    ["fast", 3500],
    ["default", 7500],
  ] as const) {
    const took: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const workspace = new Workspace("bench-takeover");
      try {
        const [victim, taker] = await twoNodes(workspace, profile);
        await victim.call("POST", "/v1/groups/data/reserve", { waitMs: 0 });
        const waiting = taker.call("POST", "/v1/groups/data/reserve", { waitMs: null });
        // The waiter has its ticket out when somebody queues.
        await untilQueued(taker);
        const killedMs = performance.now();
        victim.signal("SIGKILL", "daemon", "pulse", "other");
        await waiting;
        took.push(performance.now() - killedMs);
        await taker.call("POST", "/v1/groups/data/release", {});
      } finally {
        await cleanUp(workspace);
      }
    }
    report.figure({
      what: `take-over after SIGKILL, expired-guard, ${profile}, incl. fsck and mount`,
      unit: "ms",
      ours: median(took),
      peer: peerMs,
      peerNote: "only with --rounds full",
      limit,
    });
  }
}

async function untilQueued(node: TestNode): Promise<void> {
  for (let round = 0; round < 500; round++) {
    const status = await node.status();
    if (status.groups.some((group) => group.queue.includes(node.name))) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`${node.name} never queued`);
}

export async function measureMove(report: Report, rounds: number): Promise<void> {
  const workspace = new Workspace("bench-move");
  const took: number[] = [];
  try {
    const nodes = await twoNodes(workspace, "default");
    await nodes[0].call("POST", "/v1/groups/data/reserve", { waitMs: 0 });
    for (let round = 0; round < rounds; round++) {
      const [from, to] = round % 2 === 0 ? nodes : [nodes[1], nodes[0]];
      const waiting = to.call("POST", "/v1/groups/data/reserve", { waitMs: null });
      await untilQueued(to);
      const startedMs = performance.now();
      await from.call("POST", "/v1/groups/data/release", {});
      await waiting;
      took.push(performance.now() - startedMs);
    }
  } finally {
    await cleanUp(workspace);
  }
  report.figure({
    what: "planned move incl. unmount and mount of ext4",
    unit: "ms",
    ours: median(took),
    peer: null,
    peerNote: "no such thing",
    limit: 1000,
  });
}

/** sanlock's own take-over: its daemon killed, another asks until it gets the lease. About 71 s with Debian's build. */
export async function sanlockTakeOver(sanlock: SanlockPresence): Promise<number | null> {
  if (sanlock.kind === "absent") {
    return null;
  }
  const workspace = new Workspace("bench-takeover-sanlock");
  try {
    const path = workspace.path("region");
    must("fallocate", ["-l", String(4 * MIB), path]);
    formatSanlock(path, "BENCH", ["free"], 1);
    const daemons = [1, 2].map((hostId) => new SanlockDaemon(workspace, hostId, 1)) as [
      SanlockDaemon,
      SanlockDaemon,
    ];
    await Promise.all(daemons.map((daemon) => daemon.ready()));
    await Promise.all(daemons.map((daemon) => daemon.join("BENCH", path, 1)));
    const resource = `BENCH:free:${path}:${MIB}`;
    const holding = daemons[0].measure(sanlock.client, "hold", resource, 600);
    await untilOwned(path);
    const killedMs = performance.now();
    daemons[0].kill();
    await daemons[1].measure(sanlock.client, "take", resource, 600);
    const took = performance.now() - killedMs;
    await holding;
    return took;
  } finally {
    await cleanUp(workspace);
  }
}

/** The leader's timestamp (sector 0 of the lease, byte 152) is not 0 while the lease is held. */
async function untilOwned(path: string): Promise<void> {
  for (let round = 0; round < 400; round++) {
    if (readFileSync(path).readBigUInt64LE(MIB + 152) !== 0n) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error("sanlock's client never got the lease");
}
