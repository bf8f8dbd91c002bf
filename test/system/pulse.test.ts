import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

import { PROFILES } from "../../lib/lease/timings.js";
import {
  eventually,
  type FakeDaemon,
  guardPid,
  isGuardOf,
  pause,
  PulseLab,
} from "./pulse-harness.js";

const FAST = PROFILES.fast;

function lease(lver: bigint): {
  area: number;
  lver: bigint;
  resourceName: string;
  shared: boolean;
} {
  return { area: 6, lver, resourceName: "group:web", shared: true };
}

function recordOf(daemon: FakeDaemon, hostId: number) {
  return daemon.newest?.hosts.find((host) => host.hostId === hostId)?.record;
}

describe("pulse", function () {
  this.timeout(60_000);
  let lab: PulseLab;
  beforeEach(() => {
    lab = new PulseLab();
  });
  afterEach(async () => {
    await lab.dispose();
  });

  it("two nodes join one region, get different ids, and see each other renew", async () => {
    const paths = await lab.init("fast");
    const [, one, helloOne] = await lab.startAndConnect(lab.node("n1", paths));
    const [, two, helloTwo] = await lab.startAndConnect(lab.node("n2", paths));
    assert.notEqual(helloOne.hostId, helloTwo.hostId);
    assert.equal(helloOne.watchdog.kind, "guard");
    const timestamps = new Set<bigint>();
    await eventually("n1 sees n2 renew", () => {
      const record = recordOf(one, helloTwo.hostId);
      timestamps.add(record?.leader.timestamp ?? 0n);
      return record?.leader.resourceName === "n2" && timestamps.size >= 4;
    });
    await eventually(
      "n2 sees n1",
      () => recordOf(two, helloOne.hostId)?.leader.resourceName === "n1",
    );
    assert.equal(statSync(join(lab.dir, "n1", "pulse.sock")).mode & 0o777, 0o600);
  });

  it("arms, refuses to disarm and to leave while a lease is watched, then leaves cleanly", async () => {
    const paths = await lab.init("fast");
    const stateDir = lab.node("n1", paths);
    const [pulse, daemon, hello] = await lab.startAndConnect(stateDir);
    assert.equal(hello.beat.armed, false);
    const [armedAt] = await Promise.all([daemon.call({ op: "arm" }), daemon.call({ op: "arm" })]);
    assert.equal(armedAt, null);
    await eventually("the beat says armed", () => daemon.newest?.armed === true);
    await eventually("the record on the LUN says so", () => {
      return recordOf(daemon, hello.hostId)?.host?.armed === true;
    });
    await daemon.call({ op: "watch", leases: [lease(1n)] });
    await assert.rejects(daemon.call({ op: "disarm" }), /^Error: ERR_HELD: .*group:web/);
    await assert.rejects(daemon.call({ op: "leave" }), /^Error: ERR_HELD/);
    await daemon.call({ op: "watch", leases: [] });
    await daemon.call({ op: "stuck", stuck: true });
    await assert.rejects(daemon.call({ op: "disarm" }), /^Error: ERR_STUCK/);
    await daemon.call({ op: "stuck", stuck: false });
    await daemon.call({ op: "disarm" });
    await eventually("the record says armed = 0", () => daemon.newest?.armed === false);
    const guard = guardPid(stateDir);
    assert.ok(guard !== undefined && isGuardOf(guard, stateDir));
    await daemon.call({ op: "leave" });
    assert.equal(await pulse.ended, 0);
    assert.equal(lab.exit(stateDir)["kind"], "left");
    await eventually("the guard ends too", () => !isGuardOf(guard, stateDir));
    const [, , again] = await lab.startAndConnect(stateDir);
    assert.equal(again.hostId, hello.hostId);
    assert.equal(again.generation, hello.generation + 1n);
    assert.equal(again.joinEvidence, "free");
  });

  it("publishes the outbox for others to read", async () => {
    const paths = await lab.init("fast");
    const [, one, hello] = await lab.startAndConnect(lab.node("n1", paths));
    const [, two] = await lab.startAndConnect(lab.node("n2", paths));
    const ticket = {
      kind: "ticket",
      shared: false,
      targetHostId: 0,
      area: 7,
      targetGeneration: 0n,
      value: 5n,
      nonce: 0xffff_ffff_ffff_ffffn,
    } as const;
    await one.call({ op: "post", change: { remove: [], add: [ticket] } });
    await eventually("n2 sees the ticket of n1", () => {
      const outbox = two.newest?.outboxes.find(({ hostId }) => hostId === hello.hostId);
      return outbox?.entries[0]?.nonce === ticket.nonce && outbox.generation === hello.generation;
    });
  });

  it("killed and started again within T, a pulse carries the armed generation on", async () => {
    const paths = await lab.init("default");
    const stateDir = lab.node("n1", paths);
    const [first, daemon, hello] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    await daemon.call({ op: "watch", leases: [lease(3n)] });
    const guard = guardPid(stateDir);
    first.child.kill("SIGKILL");
    await first.ended;
    const renewedAtMs = daemon.newest?.renewedAtMs ?? 0;
    const [second, next, again] = await lab.startAndConnect(
      stateDir,
      "--resume-at",
      String(renewedAtMs),
      "--resume-armed",
    );
    assert.equal(again.generation, hello.generation);
    assert.equal(again.hostId, hello.hostId);
    assert.equal(again.guard?.pid, guard, "the guard is the same one");
    await next.call({ op: "watch", leases: [lease(3n)] });
    await eventually("it renews and is armed", () => {
      return next.newest?.armed === true && (next.newest.renewedAtMs ?? 0) > renewedAtMs;
    });
    // Longer than the first guard deadline could have lasted without pets from the new pulse.
    await pause(PROFILES.default.watchdogMs + PROFILES.default.deadlineMs + 500);
    assert.equal(second.child.exitCode, null);
    assert.equal(next.newest?.lost, undefined);
  });

  it("does not carry on a generation whose last renewal is older than T", async () => {
    const paths = await lab.init("fast");
    const stateDir = lab.node("n1", paths);
    const [first, daemon] = await lab.startAndConnect(stateDir);
    await eventually("a beat", () => daemon.newest?.renewedAtMs !== undefined);
    first.child.kill("SIGKILL");
    await first.ended;
    await pause(FAST.ttlMs);
    const renewedAtMs = String(daemon.newest?.renewedAtMs);
    const second = lab.start(stateDir, "--resume-at", renewedAtMs);
    assert.equal(await second.ended, 6);
    assert.equal(lab.exit(stateDir)["code"], "ERR_NOT_RESUMED");
  });

  it("stopped for longer than T it has lost, never renews again, and ends when the teardown is done", async () => {
    const paths = await lab.init("default");
    const stateDir = lab.node("n1", paths);
    const [pulse, daemon, hello] = await lab.startAndConnect(stateDir);
    const [, other] = await lab.startAndConnect(lab.node("n2", paths));
    await daemon.call({ op: "arm" });
    await daemon.call({ op: "watch", leases: [lease(1n)] });
    pulse.child.kill("SIGSTOP");
    await pause(PROFILES.default.ttlMs + 300);
    const before = recordOf(other, hello.hostId)?.leader.timestamp;
    pulse.child.kill("SIGCONT");
    await eventually("the loss is told", () => daemon.newest?.lost !== undefined);
    await assert.rejects(daemon.call({ op: "arm" }), /ERR_LOST/);
    await assert.rejects(daemon.call({ op: "post", change: { remove: [], add: [] } }), /ERR_LOST/);
    const seen = other.beats.length;
    await eventually("n2 reads on", () => other.beats.length > seen + 2);
    assert.equal(
      recordOf(other, hello.hostId)?.leader.timestamp,
      before,
      "it wrote after its loss",
    );
    await daemon.call({ op: "leave" });
    assert.equal(await pulse.ended, 5);
    assert.equal(lab.exit(stateDir)["torndown"], true);
    const [, , again] = await lab.startAndConnect(stateDir);
    assert.equal(
      again.generation,
      hello.generation + 1n,
      "it joins again at once, by its own proof",
    );
    assert.equal(again.joinEvidence, "released");
  });

  it("killed while armed, the same node may not join again without evidence", async () => {
    const paths = await lab.init("fast");
    const stateDir = lab.node("n1", paths);
    const [first, daemon, hello] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    first.child.kill("SIGKILL");
    await first.ended;
    const refused = lab.start(stateDir);
    assert.equal(await refused.ended, 4);
    assert.equal(lab.exit(stateDir)["code"], "ERR_NO_EVIDENCE");
    const [, , again] = await lab.startAndConnect(
      stateDir,
      "--torn-down",
      `${hello.hostId}/${hello.generation}`,
    );
    assert.equal(again.generation, hello.generation + 1n);
  });

  it("with accept_guard it waits for the bound and joins with evidence expired-guard", async () => {
    const paths = await lab.init("fast");
    const stateDir = lab.node("n1", paths);
    const [first, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    first.child.kill("SIGKILL");
    await first.ended;
    const [, , again] = await lab.startAndConnect(stateDir, "--accept-guard");
    assert.equal(again.joinEvidence, "expired-guard");
  });

  it("a second pulse of the same node waits for the first one to end", async () => {
    const paths = await lab.init("fast");
    const stateDir = lab.node("n1", paths);
    const [first, daemon] = await lab.startAndConnect(stateDir);
    const second = lab.start(stateDir);
    await eventually("the second one waits", () =>
      lab.log(stateDir).includes("waiting for the earlier pulse"),
    );
    const again = await daemon.hello();
    assert.equal(again.process.pid, first.child.pid);
    await daemon.call({ op: "leave" });
    assert.equal(await first.ended, 0);
    const next = await lab.connect(stateDir);
    assert.equal((await next.hello()).process.pid, second.child.pid);
  });

  it("starts another guard when the guard is killed, and stays armed", async () => {
    const paths = await lab.init("default");
    const stateDir = lab.node("n1", paths);
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    const before = guardPid(stateDir);
    assert.ok(before !== undefined && isGuardOf(before, stateDir));
    process.kill(before, "SIGKILL");
    await eventually("another guard runs", () => {
      const pid = guardPid(stateDir);
      return pid !== undefined && pid !== before && isGuardOf(pid, stateDir);
    });
    await eventually("it is told", () => lab.log(stateDir).includes("started a new guard"));
    await daemon.call({ op: "disarm" });
    await daemon.call({ op: "leave" });
    assert.equal(await pulse.ended, 0);
  });

  it("garbage on the socket ends that connection and nothing else", async () => {
    const paths = await lab.init("fast");
    const stateDir = lab.node("n1", paths);
    const [, daemon] = await lab.startAndConnect(stateDir);
    for (const garbage of [
      "GET / HTTP/1.1\r\n\r\n",
      "{}\n",
      "null\n",
      '{"id":1,"op":"unknown"}\n',
      '{"id":1,"op":"watch","leases":[{"area":-1}]}\n',
      '{"id":1,"op":"protect","protect":{"mounts":["/"],"processes":[]}}\n',
      '{"id":1,"op":"post","change":{"remove":[],"add":[{"kind":"ticket","value":5}]}}\n',
      "x".repeat(1024 * 1024 + 1),
    ]) {
      const socket = connect(join(stateDir, "pulse.sock"));
      socket.on("error", () => undefined);
      const closed = new Promise((resolve) => socket.once("close", resolve));
      socket.write(garbage);
      socket.resume();
      await closed;
    }
    const seen = daemon.beats.length;
    await eventually("it beats on", () => daemon.beats.length > seen + 2);
  });

  it("SIGTERM is a leave when nothing is held, and nothing when something is", async () => {
    const paths = await lab.init("fast");
    const stateDir = lab.node("n1", paths);
    const [pulse, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    await daemon.call({ op: "watch", leases: [lease(1n)] });
    pulse.child.kill("SIGTERM");
    await eventually("it says so", () => lab.log(stateDir).includes("SIGTERM is ignored"));
    await daemon.call({ op: "watch", leases: [] });
    pulse.child.kill("SIGTERM");
    assert.equal(await pulse.ended, 0);
    assert.equal(lab.exit(stateDir)["kind"], "left");
  });

  it("without a daemon: with nothing held it leaves, with a lease it stops renewing", async () => {
    const paths = await lab.init("fast");
    const idle = lab.node("n1", paths);
    const holder = lab.node("n2", paths);
    const [idlePulse, idleDaemon] = await lab.startAndConnect(idle);
    const [, daemon] = await lab.startAndConnect(holder);
    await daemon.call({ op: "arm" });
    await daemon.call({ op: "watch", leases: [lease(1n)] });
    idleDaemon.close();
    daemon.answersPings = false;
    assert.equal(await idlePulse.ended, 0);
    assert.equal(lab.exit(idle)["kind"], "left");
    await eventually("the holder has lost", () => daemon.newest?.lost !== undefined, 15_000);
  });

  it("tells why it cannot start", async () => {
    const stateDir = lab.node("n1", [join(lab.dir, "nothing")]);
    assert.equal(await lab.start(stateDir).ended, 3);
    assert.equal(lab.exit(stateDir)["code"], "ERR_NO_SUCH_DEVICE");
    writeFileSync(join(stateDir, "node.json"), "{}");
    assert.equal(await lab.start(stateDir).ended, 2);
    assert.equal(lab.exit(stateDir)["code"], "ERR_NODE_SETTINGS");
    assert.match(readFileSync(join(stateDir, "pulse-exit.json"), "utf8"), /sharedha join/);
  });

  it("one of three LUNs is enough to lose nothing: renews on the other two", async () => {
    const paths = await lab.init("fast", 3);
    const stateDir = lab.node("n1", paths);
    const [, daemon] = await lab.startAndConnect(stateDir);
    await daemon.call({ op: "arm" });
    writeFileSync(paths[1] ?? "", "");
    const from = daemon.newest?.renewedAtMs ?? 0;
    await eventually("it goes on for more than W", () => {
      return (daemon.newest?.renewedAtMs ?? 0) > from + FAST.watchdogMs + FAST.deadlineMs + 500;
    });
    assert.equal(daemon.newest?.lost, undefined);
    assert.equal(daemon.newest?.armed, true);
    assert.notEqual(daemon.newest.luns[1]?.state, "ok");
  });
});
