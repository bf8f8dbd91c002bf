/** The guard at work: real ext4 on a loop device, real processes, killed and stopped. Needs root. */
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { PROFILES } from "../../lib/lease/timings.js";
import { type ExpiryReport } from "../../lib/guard/expiry.js";
import { findMounts } from "../../lib/system/mounts.js";
import { ownIdentity, processStartTime } from "../../lib/system/process.js";
import { whyNotRoot, Workshop } from "../helpers/loop-image.js";
import { eventually, guardPid, isGuardOf, pause, PulseLab } from "./pulse-harness.js";
import { mountTarget, noSuchMount } from "../helpers/mount-target.js";
import { skipIf } from "../helpers/skip.js";

const MIB = 1024 * 1024;
const FAST = PROFILES.fast;

function reportOf(stateDir: string): ExpiryReport {
  return JSON.parse(readFileSync(join(stateDir, "guard-expired.json"), "utf8")) as ExpiryReport;
}

function isMounted(path: string): boolean {
  return findMounts().some((mount) => mount.mountPoint === path);
}

describe("guard", function () {
  this.timeout(60_000);
  let lab: PulseLab;
  let shop: Workshop;
  before(function () {
    skipIf(this, whyNotRoot());
  });
  beforeEach(() => {
    lab = new PulseLab();
    shop = new Workshop();
  });
  afterEach(async () => {
    await lab.dispose();
    shop.dispose();
  });

  function mountedExt4(): { image: string; mountPoint: string } {
    const image = shop.file("data", 32 * MIB);
    const device = shop.loop(image);
    execFileSync("mkfs.ext4", ["-F", "-q", device]);
    const mountPoint = shop.mountPoint("mnt");
    execFileSync("mount", ["-t", "ext4", device, mountPoint]);
    return { image, mountPoint };
  }

  /** Syncs one record and leaves another one dirty; says so, and goes on with the files open. */
  function startUser(mountPoint: string): { ended: Promise<unknown[]>; pid: number; said: string } {
    const script = `
      const { fsyncSync, openSync, writeSync } = require("node:fs");
      const synced = openSync(process.argv[1] + "/synced", "w");
      writeSync(synced, "ACKNOWLEDGED-RECORD-1 ".repeat(200));
      fsyncSync(synced);
      writeSync(openSync(process.argv[1] + "/late", "w"), "DIRTY-RECORD-2 ".repeat(200));
      process.stdout.write("ready");
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ["--eval", script, mountPoint], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const user = { ended: once(child, "exit"), pid: child.pid ?? 0, said: "" };
    child.stdout.on("data", (chunk: Buffer) => (user.said += chunk.toString()));
    return user;
  }

  it("pulse killed: writers and users are killed, and the file system fails before anything dirty is written", async () => {
    const stateDir = lab.node("n1", await lab.init("fast"));
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    const writer = spawn("/bin/sleep", ["1000"], { stdio: "ignore" });
    const writerEnded = once(writer, "exit");
    const pid = writer.pid ?? 0;
    await daemon.call({ op: "arm" });
    const { image, mountPoint } = mountedExt4();
    await daemon.call({
      op: "protect",
      protect: {
        mounts: [mountTarget(mountPoint)],
        processes: [{ pid, startTime: String(processStartTime(pid)) }],
      },
    });
    // Nobody has told the guard of these two. The second one sees the mount in a namespace of its own, like a container.
    const user = startUser(mountPoint);
    const apart = spawn("unshare", ["--mount", "sleep", "1000"], {
      cwd: mountPoint,
      stdio: "ignore",
    });
    const apartEnded = once(apart, "exit");
    await eventually("the user has written", () => user.said === "ready");
    pulse.child.kill("SIGKILL");
    for (const ended of [writerEnded, user.ended, apartEnded]) {
      assert.deepEqual(await ended, [null, "SIGKILL"]);
    }
    await eventually("the report", () => existsSync(join(stateDir, "guard-expired.json")));
    const report = reportOf(stateDir);
    assert.equal(report.mounts[0]?.outcome, "cut");
    assert.equal(report.mounts[0].unmounted, "unmounted");
    assert.equal(isMounted(mountPoint), false);
    assert.ok(report.silencedAtMs - report.expiredAtMs < 500, JSON.stringify(report));
    for (const expected of [pid, user.pid, apart.pid ?? 0]) {
      const found = report.killedFirst.find((each) => each.pid === expected);
      assert.equal(found?.outcome, "sent", `${expected}: ${JSON.stringify(report)}`);
    }
    const bytes = readFileSync(image, "latin1");
    assert.ok(bytes.includes("ACKNOWLEDGED-RECORD-1"), "what was synced is on the device");
    assert.equal(bytes.includes("DIRTY-RECORD-2"), false, "what was dirty never reached it");
  });

  it("stopped together with pulse for longer than W, it acts as soon as it runs again", async () => {
    const stateDir = lab.node("n1", await lab.init("fast"));
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const { mountPoint } = mountedExt4();
    await daemon.call({
      op: "protect",
      protect: { mounts: [mountTarget(mountPoint)], processes: [] },
    });
    const guard = guardPid(stateDir);
    assert.ok(guard !== undefined && isGuardOf(guard, stateDir));
    process.kill(guard, "SIGSTOP");
    pulse.child.kill("SIGSTOP");
    await pause(FAST.watchdogMs + FAST.deadlineMs + 500);
    pulse.child.kill("SIGCONT");
    assert.ok(isMounted(mountPoint));
    process.kill(guard, "SIGCONT");
    await eventually("it has acted", () => !isMounted(mountPoint));
    await pulse.ended;
    assert.equal(pulse.child.signalCode, "SIGKILL");
    await eventually("the report", () => existsSync(join(stateDir, "guard-expired.json")));
    const report = reportOf(stateDir);
    assert.ok(report.actedAtMs > report.expiredAtMs + 200, "it had been stopped past its time");
  });

  it("stopped alone, it is ended and replaced, and the new one is armed and protects the same", async () => {
    const stateDir = lab.node("n1", await lab.init("default"));
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const { mountPoint } = mountedExt4();
    await daemon.call({
      op: "protect",
      protect: { mounts: [mountTarget(mountPoint)], processes: [] },
    });
    const stopped = guardPid(stateDir);
    assert.ok(stopped !== undefined && isGuardOf(stopped, stateDir));
    const stoppedAtMs = performance.now();
    process.kill(stopped, "SIGSTOP");
    await eventually("pulse has a new guard", () =>
      lab.log(stateDir).includes("started a new guard"),
    );
    const tookMs = performance.now() - stoppedAtMs;
    assert.ok(tookMs > PROFILES.default.ttlMs, `${tookMs} ms: a short stop replaces nothing`);
    assert.equal(isGuardOf(stopped, stateDir), false, "SIGKILL ends a stopped process too");
    const next = guardPid(stateDir);
    assert.ok(next !== undefined && next !== stopped && isGuardOf(next, stateDir));
    // Longer than the stopped one's time would have lasted.
    await pause(PROFILES.default.watchdogMs);
    assert.equal(daemon.newest?.lost, undefined);
    writeFileSync(join(mountPoint, "file"), "still writable");
    pulse.child.kill("SIGKILL");
    await eventually("the new one cuts", () => !isMounted(mountPoint));
    await eventually("the report", () => existsSync(join(stateDir, "guard-expired.json")));
    assert.equal(reportOf(stateDir).mounts[0]?.outcome, "cut");
  });

  it("stopped alone for less than T, it stays", async () => {
    const stateDir = lab.node("n1", await lab.init("default"));
    const [, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const guard = guardPid(stateDir);
    assert.ok(guard !== undefined);
    process.kill(guard, "SIGSTOP");
    await pause(PROFILES.default.ttlMs - 1_000);
    process.kill(guard, "SIGCONT");
    await pause(PROFILES.default.ttlMs);
    assert.ok(isGuardOf(guard, stateDir));
    assert.equal(daemon.newest?.lost, undefined);
    await daemon.call({ op: "leave" });
  });

  it("stopped, and no other one can be had within W: the generation is lost", async () => {
    const stateDir = lab.node("n1", await lab.init("fast"));
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const guard = guardPid(stateDir);
    assert.ok(guard !== undefined);
    // Gets the lock in the moment in which the stopped guard is ended.
    const thief = spawn("flock", ["--no-fork", join(stateDir, "guard.lock"), "sleep", "100"], {
      stdio: "ignore",
    });
    const thiefEnded = once(thief, "exit");
    try {
      process.kill(guard, "SIGSTOP");
      await eventually("it is lost", () => daemon.newest?.lost !== undefined);
      assert.match(daemon.newest?.lost ?? "", /guard/);
      assert.equal(isGuardOf(guard, stateDir), false);
      // Torn down; no guard is armed, for there is none.
      await daemon.call({ op: "leave" });
      assert.equal(await pulse.ended, 5);
    } finally {
      thief.kill("SIGKILL");
      await thiefEnded;
    }
  });

  it("found stopped by a pulse that carries the generation on, it is replaced", async () => {
    const stateDir = lab.node("n1", await lab.init("multipath"));
    const [first, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const guard = guardPid(stateDir);
    assert.ok(guard !== undefined);
    process.kill(guard, "SIGSTOP");
    first.child.kill("SIGKILL");
    await first.ended;
    const [, next, hello] = await lab.startAndConnect(
      stateDir,
      "--resume-at",
      String(daemon.newest?.renewedAtMs ?? 0),
      "--resume-armed",
    );
    assert.equal(isGuardOf(guard, stateDir), false);
    assert.ok(hello.guard !== undefined && hello.guard.pid !== guard);
    await next.call({ op: "watch", leases: [] });
    await eventually("it renews", () => next.newest?.armed === true);
  });

  it("renewed and petted for longer than W, it does nothing; protects what is announced later too", async () => {
    const stateDir = lab.node("n1", await lab.init("fast"));
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const { mountPoint } = mountedExt4();
    await daemon.call({
      op: "protect",
      protect: { mounts: [mountTarget(mountPoint)], processes: [] },
    });
    await pause(2 * (FAST.watchdogMs + FAST.deadlineMs));
    writeFileSync(join(mountPoint, "file"), "still writable");
    execFileSync("umount", [mountPoint]);
    await daemon.call({ op: "protect", protect: { mounts: [], processes: [] } });
    await daemon.call({ op: "leave" });
    assert.equal(await pulse.ended, 0);
    assert.equal(existsSync(join(stateDir, "guard-expired.json")), false);
  });

  it("a path that is announced but not mounted costs the file system below it nothing", async () => {
    const stateDir = lab.node("n1", await lab.init("fast"));
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const { mountPoint } = mountedExt4();
    const inside = join(mountPoint, "sub");
    execFileSync("mkdir", [inside]);
    await daemon.call({ op: "protect", protect: { mounts: [noSuchMount(inside)], processes: [] } });
    pulse.child.kill("SIGKILL");
    await eventually("the report", () => existsSync(join(stateDir, "guard-expired.json")));
    assert.equal(reportOf(stateDir).mounts[0]?.outcome, "not-mounted");
    writeFileSync(join(mountPoint, "file"), "still writable");
    unlinkSync(join(mountPoint, "file"));
  });

  it("never hits a process that got the number of one that is gone", async () => {
    const stateDir = lab.node("n1", await lab.init("fast"));
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const { pid, startTime } = ownIdentity();
    const processes = [{ pid, startTime: String(startTime - 1n) }];
    await daemon.call({ op: "protect", protect: { mounts: [], processes } });
    pulse.child.kill("SIGKILL");
    await eventually("the report", () => existsSync(join(stateDir, "guard-expired.json")));
    assert.deepEqual(reportOf(stateDir).processes[0], { pid, outcome: "gone" });
  });
});
