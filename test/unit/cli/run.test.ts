/** `sharedha run` as a real process with real commands; only the daemon is made up. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { killAfter } from "../../../lib/cli/run.js";
import { type ErrorBody } from "../../../lib/net/api.js";
import { type FakeDaemon, refusal, startFakeDaemon, statusBody } from "./fake-daemon.js";

const BIN = fileURLToPath(new URL("../../../bin/sharedha.js", import.meta.url));

interface Started {
  readonly child: ChildProcess;
  readonly done: Promise<{
    readonly exitCode: number | null;
    readonly out: string;
    readonly err: string;
  }>;
}

/** The test's own commands are Node programs: they say what they see and obey or ignore signals as told. */
function start(
  daemon: FakeDaemon,
  command: readonly string[],
  options: readonly string[] = [],
): Started {
  const argv = [
    BIN,
    "run",
    "--lease",
    "job",
    "--state-dir",
    daemon.stateDir,
    ...options,
    "--",
    ...command,
  ];
  const child = spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.on("data", (data) => (out += String(data)));
  child.stderr.on("data", (data) => (err += String(data)));
  const done = new Promise<{ exitCode: number | null; out: string; err: string }>((resolve) => {
    child.once("close", (exitCode) => {
      resolve({ exitCode, out, err });
    });
  });
  return { child, done };
}

function node(script: string): readonly string[] {
  return [process.execPath, "-e", script];
}

async function until(what: () => boolean): Promise<void> {
  while (!what()) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

describe("sharedha run", function () {
  this.timeout(20_000);
  let daemon: FakeDaemon;
  beforeEach(async () => {
    daemon = await startFakeDaemon({
      "GET /v1/status": () => ({ body: statusBody() }),
      "POST /v1/leases/job/acquire": () => ({
        body: { name: "job", version: "41", shared: false, evidence: [], waitedMs: 0 },
      }),
      "POST /v1/protect": () => ({ body: { protected: true } }),
      "GET /v1/events": () => ({ body: { events: [], next: 0 } }),
      "POST /v1/leases/job/release": () => ({ body: { released: true } }),
    });
  });
  afterEach(() => daemon.close());
  const paths = (): readonly string[] => daemon.calls.map(({ path }) => path.split("?")[0] ?? "");

  it("gives the command lease and version, returns its exit code, and releases before it ends", async () => {
    const script =
      "console.log(process.env.SHAREDHA_LEASE, process.env.SHAREDHA_LEASE_VERSION); process.exit(7)";
    const ran = await start(daemon, node(script)).done;
    assert.deepEqual(ran, { exitCode: 7, out: "job 41\n", err: "" });
    assert.equal(paths().at(-1), "/v1/leases/job/release");
    const acquire = daemon.calls.find(({ path }) => path.endsWith("/acquire"));
    assert.deepEqual(acquire?.body, { shared: false, waitMs: 0, bindToConnection: true });
    const bound = daemon.calls.filter(({ path }) => !path.startsWith("/v1/status"));
    assert.equal(
      new Set(bound.map(({ socket }) => socket)).size,
      1,
      "all on the connection that is bound",
    );
  });

  it("has the command protected by its process id, which leads its session", async () => {
    const out = join(daemon.stateDir, "pid");
    const script = `require('fs').writeFileSync(${JSON.stringify(out)}, require('fs').readFileSync('/proc/self/stat','latin1'))`;
    // It must still run when it is protected.
    await start(daemon, node(`${script}; setTimeout(() => {}, 500)`)).done;
    const protect = daemon.calls.find(({ path }) => path === "/v1/protect");
    const [pid, , , , group, session] = readFileSync(out, "latin1").split(" ");
    assert.deepEqual(protect?.body, { pid: Number(pid) });
    assert.deepEqual([group, session], [pid, pid]);
  });

  it("passes the command's own options and a signal's end on", async () => {
    const ran = await start(daemon, node("process.kill(process.pid, 'SIGKILL')")).done;
    assert.equal(ran.exitCode, 137);
    const echo = await start(daemon, ["echo", "--json", "-h", "--lease"]).done;
    assert.equal(echo.out, "--json -h --lease\n");
  });

  it("a command that cannot be started: 127, and the lease is released", async () => {
    const ran = await start(daemon, ["/no/such/program"]).done;
    assert.equal(ran.exitCode, 127);
    assert.match(
      ran.err,
      /^sharedha: \/no\/such\/program cannot be started: there is no such program\n {2}remedy: /,
    );
    assert.equal(paths().at(-1), "/v1/leases/job/release");
    const noProgram = join(daemon.stateDir, "text");
    writeFileSync(noProgram, "", { mode: 0o600 });
    assert.equal((await start(daemon, [noProgram]).done).exitCode, 126);
  });

  it("with --json the error of a command that cannot be started is on standard output too", async () => {
    const noProgram = join(daemon.stateDir, "text");
    writeFileSync(noProgram, "", { mode: 0o600 });
    for (const [file, exitCode, errno] of [
      ["/no/such/program", 127, "ENOENT"],
      [noProgram, 126, "EACCES"],
    ] as const) {
      const ran = await start(daemon, [file], ["--json"]).done;
      assert.equal(ran.exitCode, exitCode);
      const { error } = JSON.parse(ran.out) as ErrorBody;
      assert.equal(error.code, "ERR_SPAWN");
      assert.deepEqual(error.fields, { file, errno });
      assert.equal(ran.err, `sharedha: ${error.message}\n  remedy: ${error.hint}\n`);
      assert.equal(paths().at(-1), "/v1/leases/job/release");
    }
  });

  it("a lease that is refused: exit code 1, and the command never starts", async () => {
    daemon.routes.set("POST /v1/leases/job/acquire", () =>
      refusal(409, "ERR_LEASE_HELD", "held by n2"),
    );
    const mark = join(daemon.stateDir, "ran");
    const ran = await start(daemon, ["touch", mark]).done;
    assert.equal(ran.exitCode, 1);
    assert.equal(existsSync(mark), false);
  });

  it("no daemon: exit code 3, and the command never starts", async () => {
    const mark = join(daemon.stateDir, "ran");
    const child = spawn(process.execPath, [
      BIN,
      "run",
      "--state-dir",
      "/nowhere",
      "--",
      "touch",
      mark,
    ]);
    const exitCode = await new Promise((resolve) => child.once("close", resolve));
    assert.equal(exitCode, 3);
    assert.equal(existsSync(mark), false);
  });

  it("forwards signals to the command", async () => {
    const script =
      "process.on('SIGUSR1', () => console.log('usr1'));" +
      "process.on('SIGTERM', () => { console.log('term'); process.exit(3); });" +
      "console.log('ready'); setInterval(() => {}, 1000)";
    const { child, done } = start(daemon, node(script));
    let out = "";
    child.stdout?.on("data", (data) => (out += String(data)));
    await until(() => out.includes("ready"));
    child.kill("SIGUSR1");
    await until(() => out.includes("usr1"));
    child.kill("SIGTERM");
    assert.equal((await done).exitCode, 3);
    assert.equal(paths().at(-1), "/v1/leases/job/release");
  });

  it("stops and goes on together with the command", async () => {
    const { child, done } = start(
      daemon,
      node("console.log(process.pid); setInterval(() => {}, 1000)"),
    );
    let out = "";
    child.stdout?.on("data", (data) => (out += String(data)));
    await until(() => out.includes("\n"));
    const state = (pid: number): string =>
      /^State:\s+(\w)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? "";
    const pid = Number(out);
    child.kill("SIGTSTP");
    await until(() => state(pid) === "T" && state(child.pid ?? 0) === "T");
    child.kill("SIGCONT");
    await until(() => state(pid) !== "T");
    child.kill("SIGTERM");
    assert.equal((await done).exitCode, 143);
  });

  const stubborn =
    "process.on('SIGTERM', () => console.log('term'));" +
    "require('child_process').spawn('sleep', ['1000'], { stdio: 'ignore' }).on('spawn', function () {" +
    "console.log(process.pid, this.pid); }); setInterval(() => {}, 1000)";

  async function loseDaemon(lose: () => void): Promise<void> {
    const { child, done } = start(daemon, node(stubborn));
    let out = "";
    child.stdout?.on("data", (data) => (out += String(data)));
    await until(() => out.includes("\n") && paths().includes("/v1/events"));
    const pids = out.trim().split(" ").map(Number);
    const lostAt = performance.now();
    lose();
    const ran = await done;
    assert.equal(ran.exitCode, 1, ran.err);
    assert.match(ran.out, /\nterm\n/, "TERM came before KILL");
    assert.match(ran.err, /the lease job \(version 41\) was lost: .*; the command was ended/);
    assert.match(ran.err, /\n {2}remedy: /);
    for (const pid of pids) {
      assert.equal(isRunning(pid), false, `process ${pid} of the command is left`);
    }
    // (W - T) / 2 = 1 s to KILL; the rest is for a busy machine and, below, for the ping's own limit.
    assert.ok(performance.now() - lostAt < 8_000);
  }

  it("the daemon closes the connection: TERM, then KILL of everything the command started", async () => {
    await loseDaemon(() => daemon.calls.at(-1)?.socket.destroy());
  });

  it("the daemon answers no more: the same", async () => {
    await loseDaemon(() => daemon.routes.set("GET /v1/events", () => "never"));
  });

  it("the daemon refuses to protect: the command does not go on unprotected", async () => {
    daemon.routes.set("POST /v1/protect", () => refusal(503, "ERR_NO_QUORUM", "no quorum"));
    const ran = await start(daemon, node("setInterval(() => {}, 1000)")).done;
    assert.equal(ran.exitCode, 1);
    assert.match(ran.err, /was lost: no quorum; the command was ended/);
  });

  it("a command that ended before it could be protected: its exit code; one that goes on is ended", async () => {
    const gone = (): ReturnType<typeof refusal> =>
      refusal(404, "ERR_NO_SUCH_PROCESS", "there is no process");
    daemon.routes.set("POST /v1/protect", gone);
    const ended = await start(daemon, node("setTimeout(() => process.exit(5), 100)")).done;
    assert.deepEqual(ended, { exitCode: 5, out: "", err: "" });
    assert.equal(paths().at(-1), "/v1/leases/job/release");
    const unseen = await start(daemon, node("setInterval(() => {}, 1000)")).done;
    assert.equal(unseen.exitCode, 1);
    assert.match(unseen.err, /was lost: there is no process; the command was ended/);
  });

  it("what the command left running is ended before the lease is released", async () => {
    const script =
      "const child = require('child_process').spawn('sleep', ['1000'], { stdio: 'ignore' });" +
      "child.on('spawn', () => { console.log(child.pid); process.exit(0); })";
    let left: boolean | undefined;
    const { child, done } = start(daemon, node(script));
    let out = "";
    child.stdout?.on("data", (data) => (out += String(data)));
    daemon.routes.set("POST /v1/leases/job/release", () => {
      left = isRunning(Number(out));
      return { body: { released: true } };
    });
    assert.equal((await done).exitCode, 0);
    assert.equal(left, false);
  });
});

describe("killAfter", () => {
  const timers = {
    profile: "x",
    intervalMs: 200,
    deadlineMs: 500,
    ttlMs: 1_000,
    watchdogMs: 2_000,
  };

  it("is 2 s, but never beyond half of the time from loss to watchdog", () => {
    assert.equal(killAfter(undefined, timers), 500);
    assert.equal(killAfter(100, timers), 100);
    assert.equal(killAfter(60_000, timers), 500);
    assert.equal(killAfter(undefined, { ...timers, ttlMs: 15_000, watchdogMs: 20_000 }), 2_000);
    assert.equal(killAfter(undefined, { ...timers, ttlMs: 9_000 }), 0);
  });
});
