import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ShareHaError } from "../../../lib/errors.js";
import {
  describeRun,
  isAlive,
  isEnded,
  killExact,
  ownIdentity,
  type ProcessIdentity,
  processStartTime,
  run,
  startDetached,
} from "../../../lib/system/process.js";

const quick = { timeoutMs: 5_000 };

async function until(what: string, condition: () => boolean): Promise<void> {
  const giveUpAtMs = performance.now() + 5_000;
  while (!condition()) {
    assert.ok(performance.now() < giveUpAtMs, `not within 5 s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe("run", function () {
  this.timeout(15_000);

  it("gives the output of a program that succeeds, in the C locale, with input", async () => {
    const result = await run("test", "cat", ["-"], { ...quick, input: "für\n" });
    assert.deepEqual(result, { kind: "ok", stdout: "für\n", stderr: "" });
    const locale = await run("test", "printenv", ["LC_ALL", "EXTRA"], {
      ...quick,
      env: { EXTRA: "x" },
    });
    assert.deepEqual(locale, { kind: "ok", stdout: "C\nx\n", stderr: "" });
  });

  it("passes arguments as they are, without a shell", async () => {
    const result = await run("test", "printf", ["%s", "$(id) `id`; *"], quick);
    assert.equal(result.kind === "ok" && result.stdout, "$(id) `id`; *");
  });

  it("gives an empty input without one, so that nothing waits for a terminal", async () => {
    assert.deepEqual(await run("test", "cat", [], quick), { kind: "ok", stdout: "", stderr: "" });
  });

  it("tells exit code, signal, missing program and a program that may not be started", async () => {
    const exit = await run("test", "sh", ["-c", "echo out; echo err >&2; exit 3"], quick);
    assert.deepEqual(exit, { kind: "exit", exitCode: 3, stdout: "out\n", stderr: "err\n" });
    assert.equal(describeRun(exit), "exit code 3: err");
    const signal = await run("test", "sh", ["-c", "kill -KILL $$"], quick);
    assert.equal(signal.kind === "signal" && signal.signal, "SIGKILL");
    const missing = await run("test", "no-such-program-here", [], quick);
    assert.deepEqual(missing, { kind: "missing", file: "no-such-program-here", code: "ENOENT" });
    assert.match(describeRun(missing), /not installed/);
    const forbidden = await run("test", "/proc/self/status", [], quick);
    assert.equal(forbidden.kind === "missing" && forbidden.code, "EACCES");
  });

  it("ends a program at the timeout, also one that ignores TERM", async () => {
    const startMs = performance.now();
    const result = await run("test", "sh", ["-c", "trap '' TERM; while :; do sleep 1; done"], {
      timeoutMs: 100,
    });
    assert.equal(result.kind, "timeout");
    assert.ok(performance.now() - startMs < 5_000);
    assert.match(describeRun(result), /no answer within 100 ms/);
  });

  it("does not wait for a grandchild that keeps the output open", async () => {
    const directory = mkdtempSync(join(tmpdir(), "sharedha-run-"));
    const startMs = performance.now();
    const script = `sleep 30 & echo $! > ${directory}/pid; exec sleep 31`;
    const result = await run("test", "sh", ["-c", script], { timeoutMs: 200 });
    process.kill(Number(readFileSync(join(directory, "pid"), "utf8")), "SIGKILL");
    rmSync(directory, { recursive: true });
    assert.equal(result.kind, "timeout");
    assert.ok(performance.now() - startMs < 5_000);
  });

  it("ends a program that writes without end", async () => {
    const result = await run("test", "cat", ["/dev/zero"], quick);
    assert.equal(result.kind, "overflow");
  });

  it("can be cancelled", async () => {
    const controller = new AbortController();
    const result = run("test", "sleep", ["30"], { ...quick, signal: controller.signal });
    controller.abort();
    assert.equal((await result).kind, "cancelled");
  });
});

describe("process identity", function () {
  this.timeout(15_000);
  let child: ChildProcess | undefined;
  let directory: string;

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "sharedha-process-"));
  });
  afterEach(() => {
    child?.kill("SIGKILL");
    child = undefined;
    rmSync(directory, { recursive: true });
  });

  async function start(): Promise<ProcessIdentity> {
    child = spawn("sleep", ["60"], { stdio: "ignore" });
    await once(child, "spawn");
    const startTime = processStartTime(child.pid!);
    assert.ok(startTime !== undefined);
    return { pid: child.pid!, startTime };
  }

  it("is the start time of the kernel's table, also for a name with parentheses", async () => {
    assert.ok(isAlive(ownIdentity()));
    const name = join(directory, ") R 1 (x");
    writeFileSync(name, "#!/bin/sh\nread line\n", { mode: 0o755 });
    child = spawn(name, [], { stdio: ["pipe", "ignore", "ignore"] });
    await once(child, "spawn");
    await until("the script has its name", () =>
      readFileSync(`/proc/${child!.pid}/comm`, "utf8").startsWith(") R"),
    );
    const uptimeTicks = Number(readFileSync("/proc/uptime", "utf8").split(" ")[0]) * 100;
    const startTime = Number(processStartTime(child.pid!));
    assert.ok(startTime > uptimeTicks - 1000 && startTime <= uptimeTicks + 1);
  });

  it("signals this process and not another one with its number", async () => {
    const identity = await start();
    assert.equal(killExact({ ...identity, startTime: identity.startTime + 1n }, "SIGKILL"), "gone");
    assert.ok(isAlive(identity));
    const exit = once(child!, "exit");
    assert.equal(killExact(identity, "SIGKILL"), "sent");
    assert.deepEqual(await exit, [null, "SIGKILL"]);
    assert.equal(isAlive(identity), false);
    assert.equal(killExact(identity, "SIGKILL"), "gone");
  });

  it("counts a zombie as gone", async () => {
    // The shell starts a child, becomes a program that never waits, and only then the child ends (a shell would reap it).
    child = spawn("sh", ["-c", "sleep 0.3 & echo $!; exec sleep 60"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const [output] = (await once(child.stdout!, "data")) as [Buffer];
    const pid = Number(output.toString().trim());
    await until("a zombie", () => readFileSync(`/proc/${pid}/stat`, "latin1").includes(") Z "));
    assert.equal(processStartTime(pid), undefined);
    const ticks = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ")[19];
    assert.ok(isEnded({ pid, startTime: BigInt(ticks ?? 0) }));
  });

  it("starts a program in a session of its own that keeps an inherited descriptor", async () => {
    const path = join(directory, "held");
    const fd = openSync(path, "w");
    const identity = await startDetached("/bin/sleep", ["60"], {
      stdio: ["ignore", "ignore", "ignore", fd],
      env: { SHAREDHA_TEST: "1" },
    });
    closeSync(fd);
    try {
      const stat = readFileSync(`/proc/${identity.pid}/stat`, "latin1");
      const session = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[3]);
      assert.equal(session, identity.pid);
      assert.match(readFileSync(`/proc/${identity.pid}/environ`, "latin1"), /SHAREDHA_TEST=1/);
      const info = readFileSync(`/proc/${identity.pid}/fdinfo/3`, "latin1");
      assert.match(info, /flags:/);
    } finally {
      assert.equal(killExact(identity, "SIGKILL"), "sent");
    }
    await until("ended", () => !isAlive(identity));
  });

  it("says when a detached program cannot be started", async () => {
    await assert.rejects(
      startDetached("/no/such/program", []),
      (error) => error instanceof ShareHaError && error.code === "ERR_SPAWN",
    );
  });
});
