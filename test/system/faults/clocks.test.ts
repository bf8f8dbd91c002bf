/**
 * Clock steps and suspend. A wall clock cannot be stepped for one process, and CLOCK_BOOTTIME cannot be moved, so it is shown
 * in another way: nothing that decides reads a wall clock at all, and the heartbeat is given a clock that jumps.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { vacantRecord } from "../../../lib/lease/delta-lease.js";
import { Heartbeat } from "../../../lib/lease/heartbeat.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { geometryOf } from "../../../lib/format/geometry.js";
import { createClock } from "../../../lib/system/clock.js";
import { findRoot } from "../../helpers/root.js";

/** Ways to read a wall clock. */
const WALL_CLOCK = /new Date\(\)|\bDate\.now\b|\bperformance\b|\bprocess\.hrtime\b|CLOCK_REALTIME/;

/**
 * The lines of lib that may read it, with what for: times for people in logs, events and reports, and sanlock's field for
 * them. None of them is compared with anything.
 */
const FOR_PEOPLE: Readonly<Record<string, RegExp>> = {
  "pulse/exit-report.ts": /at: new Date\(\)\.toISOString\(\)/,
  "guard/main.ts": /at: new Date\(\)\.toISOString\(\)/,
  "daemon/node.ts": /wallMs: Date\.now \}|wallSeconds: \(\) => BigInt/,
  "region/config-document.ts": /const updatedAt = new Date\(\)\.toISOString\(\)/,
  "region/config-store.ts": /updatedAt: new Date\(\)\.toISOString\(\)/,
  "region/format-region.ts": /createdAtUnix: Math\.floor/,
};

const DECIDING = ["format", "lease", "fence", "group", "pulse", "guard", "daemon", "region"];

function sourcesOf(folder: string): readonly string[] {
  const dir = join(findRoot(), "lib", folder);
  return readdirSync(dir)
    .filter((name) => name.endsWith(".ts"))
    .map((name) => `${folder}/${name}`);
}

/** Lines of code that read a wall clock; comments and texts are none. */
function wallClockLines(path: string): readonly string[] {
  const text = readFileSync(join(findRoot(), "lib", path), "utf8");
  return text
    .replaceAll(/\/\*[\s\S]*?\*\//g, "")
    .split("\n")
    .map((line) => line.replace(/\/\/.*$/, "").replaceAll(/"[^"]*"|`[^`$]*`/g, '""'))
    .filter((line) => WALL_CLOCK.test(line));
}

describe("clocks", () => {
  it("finds a wall clock where there is one", () => {
    assert(wallClockLines("pulse/exit-report.ts").length > 0);
  });

  for (const folder of DECIDING) {
    it(`lib/${folder} decides nothing by a wall clock`, () => {
      for (const path of sourcesOf(folder)) {
        for (const line of wallClockLines(path)) {
          const allowed = FOR_PEOPLE[path];
          assert(allowed?.test(line) === true, `lib/${path}: ${line.trim()}`);
        }
      }
    });
  }

  it("suspend (simulated: the clock jumps between two renewals): the generation has lost, for ever", () => {
    const timings = PROFILES.default;
    const geometry = geometryOf(512);
    const vacant = vacantRecord(geometry, "demo", timings, 1);
    const leader = { ...vacant.leader, ownerId: 1n, ownerGeneration: 1n, timestamp: 100n };
    const heartbeat = new Heartbeat({
      geometry,
      luns: { total: 1, counts: [true] },
      timings,
      membership: { hostId: 1, generation: 1n, record: { ...vacant, leader } },
      resumedAtMs: 10_000,
    });
    const suspendedMs = 60_000;
    assert.equal(heartbeat.mayRenew(10_000 + timings.intervalMs).kind, "yes");
    assert.equal(heartbeat.mayRenew(10_000 + suspendedMs).kind, "lost");
    assert.equal(heartbeat.mayRenew(10_000 + timings.intervalMs).kind, "lost", "also afterwards");
  });

  it("the clock that decides goes on during suspend: CLOCK_BOOTTIME, which is never behind CLOCK_MONOTONIC", () => {
    const clock = createClock();
    const [uptime = ""] = readFileSync("/proc/uptime", "latin1").split(" ");
    const differenceMs = clock.bootMs() - Number(uptime) * 1_000;
    // /proc/uptime is CLOCK_BOOTTIME (Linux 2.6.39 and newer), in hundredths of a second.
    assert(Math.abs(differenceMs) < 500, `${differenceMs} ms`);
  });
});
