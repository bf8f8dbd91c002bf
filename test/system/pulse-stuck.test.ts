/** Pulses on a LUN that truly hangs (FUSE; state D). Needs root and /dev/fuse. */
import assert from "node:assert/strict";
import { closeSync } from "node:fs";
import { join } from "node:path";

import { PROFILES } from "../../lib/lease/timings.js";
import { tryFileLock } from "../../lib/system/file-lock.js";
import { isEnded, processStartTime } from "../../lib/system/process.js";
import { createFaultyLun, type FaultyLun, whyNoFaultyLun } from "../helpers/hanging-lun.js";
import { eventually, type FakeDaemon, pause, PulseLab } from "./pulse-harness.js";
import { skipIf } from "../helpers/skip.js";

const TIMINGS = PROFILES.default;

function isHeld(path: string): boolean {
  const lock = tryFileLock(path);
  if (lock.kind === "locked") {
    closeSync(lock.fd);
  }
  return lock.kind === "held";
}

describe("pulse on a LUN that hangs", function () {
  this.timeout(60_000);
  let lab: PulseLab;
  let lun: FaultyLun;

  before(function () {
    skipIf(this, whyNoFaultyLun());
  });
  beforeEach(async () => {
    lab = new PulseLab();
    lun = await createFaultyLun({ sizeBytes: 32 * 1024 * 1024 });
  });
  afterEach(async () => {
    // First what hangs is let go: a process in state D cannot be ended.
    await lun.release();
    await lab.dispose();
    await lun.close();
  });

  function isStuck(daemon: FakeDaemon): boolean {
    return daemon.newest?.luns[0]?.state === "stuck";
  }

  it("is `stuck`, sends nothing more to it, and goes on when the I/O returns within T", async () => {
    // Time enough between "past its deadline" (d) and "lost" (T).
    await lab.initAt([lun.path], "multipath");
    const stateDir = lab.node("n1", [lun.path]);
    const [, daemon] = await lab.startAndConnect(stateDir);
    await eventually("a renewal", () => daemon.newest?.renewedAtMs !== undefined);
    await lun.hang();
    await eventually("it is stuck", () => isStuck(daemon));
    const { held } = await lun.counts();
    assert.equal(held, 1);
    await daemon.call({ op: "observe" });
    const beats = daemon.beats.length;
    await eventually("two more beats", () => daemon.beats.length > beats + 1);
    assert.equal((await lun.counts()).held, 1, "a second I/O was issued");
    const renewedAtMs = daemon.newest?.renewedAtMs ?? 0;
    await lun.release();
    await eventually("it renews again", () => (daemon.newest?.renewedAtMs ?? 0) > renewedAtMs);
    assert.equal(daemon.newest?.lost, undefined);
    await daemon.call({ op: "leave" });
  });

  it("is lost after T, says that it is stuck, keeps its locks, and ends when the I/O has returned", async () => {
    await lab.initAt([lun.path], "default");
    const stateDir = lab.node("n1", [lun.path]);
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    await lun.hang();
    await eventually("it is lost", () => daemon.newest?.lost !== undefined);
    await assert.rejects(daemon.call({ op: "leave" }), /^Error: ERR_STUCK: .*may still land/);
    await assert.rejects(daemon.call({ op: "disarm" }), /^Error: ERR_STUCK/);
    assert.equal((await lun.counts()).held, 1);
    assert.equal(pulse.child.exitCode, null);
    assert.ok(isHeld(join(stateDir, "pulse.lock")) && isHeld(join(stateDir, "lun-1.pulse.lock")));
    const { written } = await lun.counts();
    await lun.release();
    assert.equal((await lun.counts()).held, 0);
    await pause(2 * TIMINGS.intervalMs);
    const landed = (await lun.counts()).written - written;
    assert.ok(landed <= 1, `${landed} writes after the loss; at most the one that hung`);
    await daemon.call({ op: "leave" });
    assert.equal(await pulse.ended, 5);
  });

  it("killed while its I/O is out, it keeps the locks; the next one waits for the I/O to return", async () => {
    await lab.initAt([lun.path], "default");
    const stateDir = lab.node("n1", [lun.path]);
    const [first, daemon] = await lab.startAndConnect(stateDir);
    await lun.hang();
    await eventually("it is stuck", () => isStuck(daemon));
    const pid = first.child.pid ?? 0;
    const startTime = processStartTime(pid) ?? 0n;
    first.child.kill("SIGKILL");
    await eventually("its main thread has ended", () => processStartTime(pid) === undefined);
    assert.ok(isHeld(join(stateDir, "pulse.lock")), "a thread in the kernel keeps the lock");
    assert.equal(isEnded({ pid, startTime }), false);
    lab.start(stateDir);
    await eventually("the second one waits", () =>
      lab.log(stateDir).includes("waiting for the earlier pulse"),
    );
    assert.equal((await lun.counts()).held, 1);
    await lun.release();
    await first.ended;
    assert.equal(first.child.signalCode, "SIGKILL");
    assert.ok(isEnded({ pid, startTime }));
    const next = await lab.connect(stateDir);
    await eventually("the second one renews", () => next.newest?.renewedAtMs !== undefined);
  });
});
