/**
 * `sharedha run` when one of its processes is killed: whatever dies, the command and everything it started are dead before
 * somebody else can have the lease (lib/net/api.ts, "Bound to its connection").
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { LeaseFile } from "../../lib/daemon/lease-file.js";
import { readBootId } from "../../lib/system/machine.js";
import { type AcquiredBody, type LeaseBody } from "../../lib/net/api.js";
import { sharedha, TestNode } from "../helpers/nodes.js";
import { findRoot } from "../helpers/root.js";
import { Workspace } from "../helpers/workspace.js";

const CLI = join(findRoot(), "dist", "bin", "sharedha.js");
const LOOK_EVERY_MS = 20;

async function until(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
  withinMs = 20_000,
): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!(await isTrue())) {
    assert(performance.now() < untilMs, `${what}: not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}

/** Processes with this text among their words, so also the children of a command: they inherit its name. */
function livingWith(mark: string): readonly number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, "latin1");
        const isOver = stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
        const words = readFileSync(`/proc/${name}/cmdline`, "utf8").split("\0");
        return !isOver && words.includes(mark) && !words.includes("run");
      } catch (error) {
        const code = error instanceof Error && "code" in error ? error.code : undefined;
        if (code === "ENOENT" || code === "ESRCH") {
          return false;
        }
        throw error;
      }
    })
    .map(Number);
}

/** A command that ignores TERM, as does its child; USR1: another child. */
const STUBBORN = `
  import { spawn } from "node:child_process";
  import { appendFileSync } from "node:fs";
  process.on("SIGTERM", () => appendFileSync(process.argv[2], "TERM\\n"));
  const another = () =>
    spawn(process.execPath, ["--input-type=module", "--eval", process.execArgv.at(-1), process.argv[1], process.argv[2], "child"]);
  process.on("SIGUSR1", another);
  if (process.argv[3] !== "child") {
    another();
  }
  appendFileSync(process.argv[2], "started\\n");
  setInterval(() => undefined, 1000);
`;

interface Running {
  readonly cli: ChildProcess;
  readonly mark: string;
  readonly log: string;
  readonly ended: Promise<number | null>;
  readonly stderr: () => string;
}

describe("sharedha run with real processes", function () {
  this.timeout(60_000);
  let workspace: Workspace;
  let n1: TestNode;
  let n2: TestNode;
  let runs = 0;

  before(async () => {
    workspace = new Workspace("run");
    const lun = workspace.path("lun");
    const made = await sharedha(["init", lun, "--cluster", "run", "--size", "33554432"]);
    assert.equal(made.exitCode, 0, made.stderr);
    [n1, n2] = ["n1", "n2"].map(
      (name) => new TestNode(workspace, { name, luns: [lun], watchdog: "guard" }),
    ) as [TestNode, TestNode];
    for (const node of [n1, n2]) {
      const joined = await node.join();
      assert.equal(joined.exitCode, 0, joined.stderr);
    }
    await n1.call("POST", "/v1/leases/job/create");
  });

  after(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  async function show(node: TestNode): Promise<LeaseBody> {
    return (await node.call("GET", "/v1/leases/job")) as LeaseBody;
  }

  async function acquireOn(node: TestNode, waitMs: number): Promise<AcquiredBody> {
    const body = { shared: false, waitMs, bindToConnection: false };
    return (await node.call("POST", "/v1/leases/job/acquire", body)) as AcquiredBody;
  }

  /** The command and its child are at work under the lease of n1, and the daemon knows of them. */
  async function startRun(): Promise<Running> {
    const mark = `${workspace.dir}/mark-${++runs}`;
    const log = `${mark}.log`;
    const words = [process.execPath, "--input-type=module", "--eval", STUBBORN, mark, log];
    const args = ["run", "--lease", "job", "--state-dir", n1.stateDir, "--", ...words];
    const cli = spawn(process.execPath, [CLI, ...args], { stdio: ["ignore", "ignore", "pipe"] });
    workspace.defer(`end ${mark}`, () => {
      for (const pid of livingWith(mark)) {
        process.kill(pid, "SIGKILL");
      }
    });
    let stderr = "";
    cli.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    const ended = new Promise<number | null>((resolve) => cli.once("exit", resolve));
    await until("both processes of the command run", () => startedIn(log) === 2);
    await until(
      "they are protected",
      () => new LeaseFile(n1.stateDir, readBootId()).read()?.processes.length === 1,
    );
    return { cli, mark, log, ended, stderr: () => stderr };
  }

  function startedIn(log: string): number {
    return existsSync(log) ? readFileSync(log, "utf8").split("started\n").length - 1 : 0;
  }

  /** n2 waits for the lease all the time; when it has it, nothing of the command may live. */
  async function handsOverDead(run: Running, act: () => void | Promise<void>): Promise<void> {
    assert.equal(livingWith(run.mark).length, 2);
    let atGrant: readonly number[] | undefined;
    const waiting = acquireOn(n2, 30_000).then((granted) => {
      atGrant = livingWith(run.mark);
      return granted;
    });
    await until("n2 waits", async () => (await show(n2)).queue.includes("n2"));
    await act();
    await waiting;
    assert.deepEqual(atGrant, [], "n2 has the lease, and the command still runs");
    await n2.call("POST", "/v1/leases/job/release");
  }

  it("the command-line process is killed: command and child die first", async () => {
    const run = await startRun();
    await handsOverDead(run, () => {
      run.cli.kill("SIGKILL");
    });
  });

  it("nobody else can release the lease under the command", async () => {
    const run = await startRun();
    const released = await n1.cli("lease", "release", "job");
    assert.equal(released.exitCode, 1, released.stderr);
    assert.match(released.stderr, /held by a client that is still at work[^]*remedy: End that/);
    assert.equal(livingWith(run.mark).length, 2);
    assert.deepEqual(
      (await show(n2)).holders.map((holder) => holder.name),
      ["n1"],
    );
    run.cli.kill("SIGKILL");
    await until("released", async () => (await show(n2)).holders.length === 0);
  });

  it("the daemon is killed: the command gets TERM, then KILL; its successor adopts nothing and releases", async () => {
    const run = await startRun();
    const { version } = await show(n1);
    await handsOverDead(run, async () => {
      n1.signal("SIGKILL", "daemon");
      const joined = await n1.join();
      assert.equal(joined.exitCode, 0, joined.stderr);
    });
    assert.equal(await run.ended, 1);
    assert.match(run.stderr(), /the lease job \(version \d+\) was lost/);
    assert.match(readFileSync(run.log, "utf8"), /TERM/);
    assert(BigInt((await show(n1)).version) > BigInt(version));
  });

  it("daemon and command-line process are killed, and the next daemon too: still dead first, still released", async () => {
    const run = await startRun();
    await handsOverDead(run, async () => {
      run.cli.kill("SIGKILL");
      n1.signal("SIGKILL", "daemon");
      for (const isLast of [false, true]) {
        const joined = await n1.join();
        assert.equal(joined.exitCode, 0, joined.stderr);
        if (!isLast) {
          n1.signal("SIGKILL", "daemon");
        }
      }
    });
  });

  it("the lease is lost: TERM first, KILL after half of W - T, and the node joins again only then", async () => {
    const run = await startRun();
    const before = (await n1.status()).node.generation;
    n1.signal("SIGSTOP", "pulse");
    let termToDeadMs: number;
    try {
      await until("TERM has come", () => readFileSync(run.log, "utf8").includes("TERM"), 10_000);
      const termAtMs = performance.now();
      assert(livingWith(run.mark).length > 0, "killed without time to end");
      await until("all of it is dead", () => livingWith(run.mark).length === 0, 5_000);
      termToDeadMs = performance.now() - termAtMs;
    } finally {
      n1.signal("SIGCONT", "pulse");
    }
    // (W - T) / 2 is 1 s in this profile.
    assert(termToDeadMs > 300 && termToDeadMs < 3_000, `${termToDeadMs} ms from TERM to dead`);
    assert.equal(await run.ended, 1);
    assert.match(run.stderr(), /lease job .*was lost/);
    await until(
      "n1 is a member again",
      async () => {
        if (!n1.processes().some((one) => one.role === "daemon")) {
          // The guard of a busy machine was quicker.
          await n1.join();
        }
        return (await n1.status()).node.state === "joined";
      },
      40_000,
    );
    assert(BigInt((await n1.status()).node.generation ?? 0) > BigInt(before ?? 0));
    await acquireOn(n2, 20_000);
    await n2.call("POST", "/v1/leases/job/release");
  });

  it("daemon, pulse and command-line process stand still: the guard kills also what was started since", async () => {
    const run = await startRun();
    const [leader] = new LeaseFile(n1.stateDir, readBootId()).read()?.processes ?? [];
    assert(leader !== undefined);
    process.kill(leader.pid, "SIGUSR1");
    await until("a third process runs", () => startedIn(run.log) === 3);
    n1.signal("SIGSTOP", "daemon", "pulse");
    run.cli.kill("SIGSTOP");
    try {
      await until("the guard has acted", () => existsSync(`${n1.stateDir}/guard-expired.json`));
      await until("all of the command is dead", () => livingWith(run.mark).length === 0, 2_000);
    } finally {
      run.cli.kill("SIGCONT");
    }
    // Which of the two it sees first, the end of the command or of the connection, is up to the kernel.
    assert([1, 128 + 9].includes((await run.ended) ?? 0));
  });
});
