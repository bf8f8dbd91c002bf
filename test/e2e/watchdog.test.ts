/**
 * The watchdog (softdog, a real device of the kernel) resets a holder that does not renew any more, within B of its last
 * renewal, whatever happens to pulse meanwhile: the kernel pets a watchdog by itself when its last descriptor is closed
 * (DESIGN section 4), which must not give a lost node more time.
 */
import assert from "node:assert/strict";

import { PROFILES, resetBoundMs } from "../../lib/lease/timings.js";
import { type GuestClock } from "../lab/vm.js";
import { type Cluster, type Taken, useCluster, WEB } from "./cluster.js";

const BOUND_MS = resetBoundMs(PROFILES.default, 1);
const PULSE = "dist/bin/sharedha-pulse.js";
/** All processes of the product, and none of the tests. */
const ALL = "sharedha/dist/(bin|lib)/";

/** n1 holds and writes. */
async function holdAlone(cluster: Cluster): Promise<void> {
  const { version } = await cluster.reserve("n1", WEB);
  cluster.startWriter("n1", WEB, version);
  await cluster.untilRecords(WEB, 20);
}

/** And n2 waits in the queue. */
async function hold(cluster: Cluster): Promise<{ readonly taken: Promise<Taken> }> {
  await holdAlone(cluster);
  return await cluster.queue("n2", WEB);
}

/** @returns performance.now() of the moment from which n1 ran nothing any more */
async function untilReset(cluster: Cluster, clock: GuestClock): Promise<number> {
  const resetMs = await cluster.until("n1 has been reset by its watchdog", 30_000, async () => {
    const events = await cluster.node("n1").events();
    return events.find(({ name, atMs }) => name === "RESET" && atMs > clock.atMs)?.atMs;
  });
  const firedMs = cluster.node("n1").softdogFiredMs(clock);
  assert(firedMs !== undefined, "it was softdog");
  cluster.timeline.mark(`the emulator needed ${Math.round(resetMs - firedMs)} ms for the reset`);
  return firedMs;
}

/** As often as it is there, until the machine goes down. @returns how often */
async function killPulse(cluster: Cluster, signal: AbortSignal): Promise<number> {
  const pkill = ["pkill", "--signal=KILL", "--full", PULSE];
  let kills = 0;
  while (!signal.aborted) {
    try {
      const { exitCode } = await cluster.node("n1").run(pkill, { timeoutMs: 2_000 });
      kills += exitCode === 0 ? 1 : 0;
    } catch (error) {
      // The agent goes down with the machine, which is what is waited for.
      cluster.timeline.mark(`n1 does not answer: ${String(error).split("\n")[0] ?? ""}`);
    }
    await sleep(400);
  }
  return kills;
}

async function killPulseUntilReset(
  cluster: Cluster,
  clock: GuestClock,
  heal: () => Promise<void>,
): Promise<void> {
  const over = new AbortController();
  const killing = killPulse(cluster, over.signal);
  try {
    await untilReset(cluster, clock);
  } finally {
    over.abort();
    await heal();
  }
  const kills = await killing;
  assert(kills > 0, "pulse was there to be killed");
  cluster.timeline.mark(`pulse was killed ${kills} times before the reset`);
}

/** n2 lost its membership too; it held nothing. */
async function takeAsMember(cluster: Cluster): Promise<Taken> {
  await cluster.untilMember("n2");
  const reserved = await cluster.reserve("n2", WEB, 120);
  return { ...reserved, atMs: performance.now() };
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

/** The reset came in time, the other node has taken over after it, and nothing is lost. */
async function checkEnd(cluster: Cluster, clock: GuestClock, taken: Promise<Taken>): Promise<void> {
  const { timeline } = cluster;
  const resetMs = await untilReset(cluster, clock);
  const afterMs = resetMs - clock.atMs;
  timeline.mark(`the reset came ${(afterMs / 1000).toFixed(2)} s after; B is ${BOUND_MS / 1000} s`);
  assert(afterMs <= BOUND_MS, `reset after ${afterMs} ms`);
  const { version, atMs } = await taken;
  assert(atMs > resetMs, "nobody takes over before the reset");
  const writer = cluster.startWriter("n2", WEB, version);
  await cluster.untilRecords(WEB, 10);
  await cluster.endAndCheck("n2", WEB, writer);
}

describe("the watchdog resets", function () {
  this.timeout(300_000);
  const cluster = useCluster("for each test");

  it("a node whose processes are frozen", async () => {
    const { taken } = await hold(cluster);
    const clock = await cluster.node("n1").clock();
    await cluster.node("n1").signal(ALL, "SIGSTOP");
    cluster.timeline.mark("everything of sharedha on n1 is frozen");
    await checkEnd(cluster, clock, taken);
  });

  it("a node whose pulse hangs and is killed at the last moment before the reset", async () => {
    const { taken } = await hold(cluster);
    const clock = await cluster.node("n1").clock();
    await cluster.node("n1").signal(PULSE, "SIGSTOP");
    cluster.timeline.mark("pulse of n1 is frozen");
    await sleep(3_500);
    // Were this its last descriptor, the kernel would now pet once more: a reset only W later.
    await cluster.node("n1").signal(PULSE, "SIGKILL");
    cluster.timeline.mark("pulse of n1 is killed");
    await checkEnd(cluster, clock, taken);
  });

  it("a node without its LUN, whose pulse dies again and again", async () => {
    const { network } = cluster.lab;
    const { taken } = await hold(cluster);
    const clock = await cluster.node("n1").clock();
    await network.cut("n1", "san");
    cluster.timeline.mark("n1 is cut off from the SAN");
    await killPulseUntilReset(cluster, clock, async () => {
      await network.heal();
    });
    await checkEnd(cluster, clock, taken);
  });

  it("a node whose LUN hangs, for everybody, and whose pulse dies again and again", async () => {
    const { san } = cluster.lab;
    await holdAlone(cluster);
    const clock = await cluster.node("n1").clock();
    await san.hang("lun0");
    cluster.timeline.mark("LUN 0 hangs");
    await killPulseUntilReset(cluster, clock, async () => {
      await san.heal("lun0");
    });
    await checkEnd(cluster, clock, takeAsMember(cluster));
  });
});
