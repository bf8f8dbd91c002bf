/**
 * Looks at one path, in a process that may hang with it: what it is, what lies on it, how long direct reads take, who
 * renews there. Only reads. Argument: the path.
 */
import { statSync } from "node:fs";

import { ShareHaError } from "../errors.js";
import { deltaOffset, lockspaceReadLength } from "../format/geometry.js";
import { geometryOfSuperblock, type Superblock } from "../format/superblock.js";
import { ZERO_STAMP } from "../format/stamp.js";
import { readConfig } from "../lease/config-decision.js";
import { type LunSet } from "../lease/procedure.js";
import { parseClusterConfig } from "../region/cluster-config.js";
import { decodeDocument } from "../region/config-document.js";
import { openPort, type RegionPort } from "../region/find-region.js";
import { compareLooks, readLockspace } from "../region/lockspace-look.js";
import { RegionLun } from "../region/region-lun.js";
import { NO_STANDING, runProcedure } from "../region/run-procedure.js";
import { createClock } from "../system/clock.js";
import { splitDevice } from "../system/loop.js";
import { probeLun } from "../system/lun-probe.js";
import { type LunDevice } from "../port/disk.js";
import { type LatencySamples, type LunMessage } from "./lun-facts.js";
import { send } from "./send.js";

const SAMPLES_MAX = 500;
/** The samples are spread over this time: a stall that comes once a second must have a chance to be met. */
const SPREAD_MS = 3_000;
const MEASURE_MS_MAX = 5_000;
/** For devices without a region; a heartbeat reads about as much. */
const READ_BYTES = 4_096;
const READ_DEADLINE_MS = 5_000;
/** Longer than a member of any profile needs to renew twice. */
const WINDOW_MS_MAX = 8_000;

const clock = createClock();
const tell = async (message: LunMessage): Promise<void> => {
  await send(message);
};

try {
  await look(process.argv[2] ?? "");
} catch (error) {
  if (!(error instanceof ShareHaError)) {
    throw error;
  }
  const { code, message, hint } = error;
  await tell({ kind: "trouble", trouble: { code, message, hint } });
}
process.disconnect();

async function look(path: string): Promise<void> {
  const facts = probeLun(path);
  await tell({ kind: "probe", facts, ...splitDevice(statSync(path, { bigint: true }).rdev) });
  const options = { path, lockFile: undefined, lockWaitMs: 0, readOnly: true, realtime: false };
  const port = await openPort(options);
  const { content, window, raw } = port;
  await tell({ kind: "region", content, window, isOpen: raw !== undefined });
  if (raw === undefined) {
    return;
  }
  try {
    await (content.kind === "superblock"
      ? lookAtRegion(port, raw, content.superblock)
      : measure(raw, 0, Math.min(READ_BYTES, wholeSectors(facts.sizeBytes, port.sectorSize))));
  } finally {
    await raw.close();
  }
}

function wholeSectors(bytes: number, sectorSize: number): number {
  return bytes - (bytes % sectorSize);
}

async function lookAtRegion(
  port: RegionPort,
  raw: LunDevice,
  superblock: Superblock,
): Promise<void> {
  const geometry = geometryOfSuperblock(superblock);
  const { maxHosts, intervalMs, deadlineMs } = superblock;
  const start = port.window.offset;
  const place = { geometry, maxHosts, start };
  const startMs = clock.bootMs();
  const before = await readLockspace(raw, place, READ_DEADLINE_MS);
  const isAlive = await measure(
    raw,
    start + deltaOffset(geometry, 1),
    lockspaceReadLength(geometry, maxHosts),
  );
  if (!isAlive) {
    return;
  }
  const windowMs = Math.min(WINDOW_MS_MAX, 2 * intervalMs + deadlineMs);
  const restMs = windowMs - (clock.bootMs() - startMs);
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, restMs)));
  const after = await readLockspace(raw, place, READ_DEADLINE_MS);
  const failure = before.failure ?? after.failure;
  const hosts = compareLooks(maxHosts, [before], [after]);
  await tell({ kind: "hosts", hosts: { hosts, windowMs, failure } });
  await readConfiguration(port, raw, superblock);
}

/**
 * The newest configuration that this one LUN has; a majority may have a newer one, but nothing is decided by it here.
 * @throws ERR_CONFIG_DOCUMENT
 */
async function readConfiguration(
  port: RegionPort,
  raw: LunDevice,
  superblock: Superblock,
): Promise<void> {
  const device = new RegionLun();
  device.attach(raw, port.window, undefined);
  const luns: LunSet = { total: 1, counts: [true] };
  const geometry = geometryOfSuperblock(superblock);
  const outcome = await runProcedure(
    readConfig({ geometry, luns, maxHosts: superblock.maxHosts }, ZERO_STAMP),
    {
      devices: [device],
      luns,
      deadlineMs: READ_DEADLINE_MS,
      clock,
      standing: () => NO_STANDING,
      post: () => Promise.resolve(false),
      arm: () => Promise.resolve(false),
    },
  );
  if (outcome.kind !== "ok") {
    return;
  }
  const parsed = parseClusterConfig(decodeDocument(outcome.current.text).toml);
  if (parsed.kind === "ok") {
    await tell({ kind: "configuration", vmPause: parsed.config.vmPause });
  }
}

/** Reads the same place over and over, as heartbeats do, and sends the times. False: the device does not answer any more. */
async function measure(raw: LunDevice, offset: number, length: number): Promise<boolean> {
  const samples: number[] = [];
  let end: LatencySamples["end"];
  const startMs = clock.bootMs();
  const sinceStart = (): number => clock.bootMs() - startMs;
  while (samples.length < SAMPLES_MAX && sinceStart() < MEASURE_MS_MAX && end === undefined) {
    const result = await raw.submit([{ kind: "read", offset, length }], READ_DEADLINE_MS);
    const timing = result.kind === "done" ? result.timings[0] : undefined;
    if (timing === undefined) {
      end =
        result.kind === "failed"
          ? { kind: "failed", why: result.message }
          : { kind: "late", afterMs: READ_DEADLINE_MS };
      break;
    }
    samples.push(timing.completedMs - timing.startedMs);
    const nextMs = (samples.length * SPREAD_MS) / SAMPLES_MAX;
    if (nextMs - sinceStart() > 1) {
      await new Promise((resolve) => setTimeout(resolve, nextMs - sinceStart()));
    }
  }
  await tell({ kind: "latency", latency: { samples, end, readBytes: length } });
  return end === undefined;
}
