/**
 * `make demo`: three real nodes on one machine, each a process tree of its own with its own mount namespace and its own
 * loop device over one file. A group with an ext4 file system is reserved, refused, queued for, moved, and taken over
 * after a node was killed; every record that was acknowledged must be there at the end. Exit code 0: all true.
 *
 * Without root there are no mounts: the same story with a lease and a plain file.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type EventsBody } from "../../lib/net/api.js";
import { type Ran, sharedha, TestNode } from "../helpers/nodes.js";
import { findRoot } from "../helpers/root.js";
import { must, Workspace } from "../helpers/workspace.js";
import { secondsSinceStart, tell } from "./timeline.js";

const isRoot = process.getuid?.() === 0;
const workspace = new Workspace("demo");
const lun = workspace.path("lun.img");
const dataDir = workspace.path("data");
const recordsPath = join(dataDir, "records");
let acknowledged = 0;

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    void workspace.clean().then(() => process.exit(1));
  });
}

function expectExit(ran: Ran, code: number, what: string): void {
  assert.equal(ran.exitCode, code, `${what}: exit ${ran.exitCode}\n${ran.stdout}${ran.stderr}`);
}

/** What the command said: its answer, or its error. */
function said(ran: Ran): string {
  return (ran.exitCode === 0 ? ran.stdout : `${ran.stdout}${ran.stderr}`).trim();
}

async function take(node: TestNode, ...wait: readonly string[]): Promise<Ran> {
  return isRoot
    ? await node.cli("reserve", "data", ...wait)
    : await node.cli("lease", "acquire", "data", ...wait);
}

async function give(node: TestNode): Promise<Ran> {
  return isRoot ? await node.cli("release", "data") : await node.cli("lease", "release", "data");
}

/** Runs a program where this node sees its mounts. */
function inside(node: TestNode, words: readonly string[]): readonly string[] {
  if (!isRoot) {
    return words;
  }
  const daemon = node.processes().find((one) => one.role === "daemon");
  assert(daemon !== undefined, `${node.name} has no daemon`);
  return ["nsenter", `--mount=/proc/${daemon.pid}/ns/mnt`, "--", ...words];
}

function startWriter(node: TestNode): ChildProcess {
  const script = join(findRoot(), "dist", "test", "demo", "writer.js");
  const [file = "", ...args] = inside(node, [
    process.execPath,
    script,
    recordsPath,
    String(acknowledged + 1),
    "--state-dir",
    node.stateDir,
  ]);
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "ignore"] });
  child.stdout.on("data", (chunk: Buffer) => {
    const last = chunk.toString().trimEnd().split("\n").at(-1);
    acknowledged = Math.max(acknowledged, Number(last));
  });
  return child;
}

async function writeUntil(records: number): Promise<void> {
  for (let round = 0; acknowledged < records; round++) {
    assert(round < 1000, "the writer is stuck");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function stopWriter(writer: ChildProcess): Promise<void> {
  if (writer.exitCode !== null || writer.signalCode !== null) {
    return;
  }
  const ended = new Promise((resolve) => writer.once("close", resolve));
  writer.kill("SIGTERM");
  await ended;
}

function readRecords(node: TestNode): readonly number[] {
  const [file = "", ...args] = inside(node, ["cat", recordsPath]);
  return must(file, args).trimEnd().split("\n").map(Number);
}

/** Every acknowledged record, in order, once. One more may follow: written, but its acknowledgement did not arrive. */
function checkRecords(node: TestNode): void {
  const found = readRecords(node);
  found.forEach((record, index) => {
    assert.equal(record, index + 1, `record ${index + 1} reads ${record}`);
  });
  assert(
    found.length >= acknowledged,
    `${found.length} records, ${acknowledged} were acknowledged`,
  );
  tell(
    node.name,
    `records on disk: ${found.length}; acknowledged: ${acknowledged}; none is missing`,
  );
  acknowledged = found.length;
}

async function setUp(): Promise<readonly [TestNode, TestNode, TestNode]> {
  must("fallocate", ["-l", String(192 * 1048576), lun]);
  mkdirSync(dataDir);
  const init = await sharedha([
    "init",
    lun,
    "--cluster",
    "demo",
    ...(isRoot ? ["--mkfs", "ext4"] : []),
  ]);
  expectExit(init, 0, "init");
  tell("", `$ sharedha init ${lun}${isRoot ? " --mkfs ext4" : ""}\n${said(init)}`);
  const nodes = ["n1", "n2", "n3"].map(
    (name, index) =>
      new TestNode(workspace, {
        name,
        hostId: index + 1,
        luns: [isRoot ? workspace.loop(lun) : lun],
        watchdog: "guard",
        mountNamespace: isRoot,
      }),
  ) as [TestNode, TestNode, TestNode];
  const joined = await Promise.all(nodes.map((node) => node.join()));
  joined.forEach((ran, index) => {
    expectExit(ran, 0, "join");
    tell(`n${index + 1}`, `$ sharedha join\n${said(ran)}`);
  });
  if (isRoot) {
    const toml = workspace.path("cluster.toml");
    const mount = `{ path = ${JSON.stringify(dataDir)}, type = "ext4", options = "noatime" }`;
    writeFileSync(toml, `[group.data]\ndevice = "lun"\nmount = ${mount}\n`);
    expectExit(await nodes[0].cli("config", "apply", toml), 0, "config apply");
  } else {
    expectExit(await nodes[0].cli("lease", "create", "data"), 0, "lease create");
  }
  return nodes;
}

async function story(): Promise<void> {
  const [n1, n2, n3] = await setUp();

  const first = await take(n1);
  expectExit(first, 0, "n1 reserves");
  tell("n1", `$ sharedha reserve data\n${said(first)}`);
  const writer1 = startWriter(n1);
  await writeUntil(50);
  tell("n1", `writes numbered records; ${acknowledged} acknowledged so far`);

  const refused = await take(n2);
  expectExit(refused, 1, "n2 is refused");
  assert.match(said(refused), /n1/, "the refusal names the holder");
  tell("n2", `$ sharedha reserve data        # refused, exit code 1\n${said(refused)}`);

  tell("n2", "$ sharedha reserve data --wait 30        # queues");
  const waiting = take(n2, "--wait", "30");
  await untilQueued(n1, "n2");
  tell("n1", "sees n2 in the queue; stops its service and releases");
  await stopWriter(writer1);
  const movedAt = performance.now();
  expectExit(await give(n1), 0, "n1 releases");
  const moved = await waiting;
  expectExit(moved, 0, "n2 takes over as planned");
  tell(
    "n2",
    `${said(moved)}\nplanned move n1 -> n2: ${(performance.now() - movedAt).toFixed(0)} ms`,
  );
  checkRecords(n2);

  const writer2 = startWriter(n2);
  await writeUntil(acknowledged + 50);
  const killedAt = performance.now();
  const killed = n2.signal("SIGKILL", "daemon", "pulse", "other");
  tell(
    "n2",
    `KILLED with SIGKILL: ${killed.map((one) => (one.role === "other" ? "service" : one.role)).join(", ")}; ${acknowledged} records acknowledged`,
  );
  await stopWriter(writer2);
  const taken = await take(n3, "--wait", "40");
  expectExit(taken, 0, "n3 takes over");
  const failoverMs = performance.now() - killedAt;
  tell("n3", `$ sharedha reserve data --wait 40\n${said(taken)}`);
  tellGuard(n2);
  await tellTakeOver(n3);
  checkRecords(n3);
  const writer3 = startWriter(n3);
  await writeUntil(acknowledged + 20);
  await stopWriter(writer3);
  tell("n3", `goes on writing; ${acknowledged} records in all`);
  tell("n3", `$ sharedha health\n${said(await n3.cli("health"))}`);
  expectExit(await give(n3), 0, "n3 releases");
  tell("", `from SIGKILL to mounted and checked on n3: ${failoverMs.toFixed(0)} ms`);
}

async function untilQueued(observer: TestNode, name: string): Promise<void> {
  for (let round = 0; round < 1000; round++) {
    const status = await observer.status();
    if (status.leases.some((lease) => lease.queue.includes(name))) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`${name} never queued`);
}

interface GuardReport {
  readonly expiredAtMs: number;
  readonly silencedAtMs: number;
  readonly mounts: readonly { readonly path: string; readonly outcome: string }[];
}

function tellGuard(node: TestNode): void {
  const path = join(node.stateDir, "guard-expired.json");
  assert(existsSync(path), "the guard of the killed node did not act");
  const report = JSON.parse(readFileSync(path, "utf8")) as GuardReport;
  const ms = (report.silencedAtMs - report.expiredAtMs).toFixed(0);
  const mounts = report.mounts.map((mount) => `${mount.path}: ${mount.outcome}`).join(", ");
  if (isRoot) {
    assert(
      report.mounts.some((mount) => mount.outcome === "cut"),
      "the guard cut no mount",
    );
  }
  tell(
    node.name,
    `meanwhile its guard expired and within ${ms} ms had cut the data path without flushing (${mounts === "" ? "no mounts" : mounts})`,
  );
}

async function tellTakeOver(node: TestNode): Promise<void> {
  const { events } = (await node.call("GET", "/v1/events?after=0")) as EventsBody;
  const takeOver = events.find((event) => event.event === "take-over");
  assert(takeOver !== undefined, "no take-over in the event log");
  assert.match(JSON.stringify(takeOver), /expired-guard/, "the evidence is expired-guard");
  tell(
    node.name,
    `${takeOver.text}\n(expired-guard: n2's heartbeat had not changed for longer than its guard process lets it live;\n` +
      "weaker than a hardware watchdog, and accepted here because all data is on this very machine)",
  );
}

let verdict = 1;
try {
  await story();
  verdict = 0;
} catch (error) {
  tell("", `FAILED: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
} finally {
  const problems = await workspace.clean();
  if (problems.length > 0) {
    verdict = 1;
    tell("", `left behind: ${problems.join("; ")}`);
  }
}
tell(
  "",
  verdict === 0
    ? `VERDICT: one writer at a time, every acknowledged record there, nothing left behind (${secondsSinceStart().toFixed(1)} s)`
    : "VERDICT: the promise was not shown; see above",
);
process.exit(verdict);
