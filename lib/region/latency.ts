/**
 * Measures how long a LUN takes for writes like those of a heartbeat, without changing what is on it.
 */
import { ShareHaError } from "../errors.js";
import { type LunDevice } from "../port/disk.js";
import { type Timings } from "../lease/timings.js";

export interface LatencyFigures {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

const SAMPLES = 200;
/** A slow LUN is known to be slow long before all samples are taken. */
const TOTAL_MS_MAX = 10_000;
const WRITE_DEADLINE_MS = 30_000;

/**
 * Writes one sector over and over, always with the bytes that are there.
 * @param offset of the sector; nothing else may write to it meanwhile
 * @throws ERR_LUN_READ, ERR_LUN_WRITE
 */
export async function measureLatency(
  path: string,
  device: LunDevice,
  offset: number,
  sectorSize: number,
): Promise<LatencyFigures> {
  const read = await device.submit(
    [{ kind: "read", offset, length: sectorSize }],
    WRITE_DEADLINE_MS,
  );
  const data = read.kind === "done" ? read.reads[0] : undefined;
  if (data === undefined) {
    throw ioError(path, "ERR_LUN_READ", read);
  }
  const samples: number[] = [];
  let totalMs = 0;
  while (samples.length < SAMPLES && totalMs < TOTAL_MS_MAX) {
    const result = await device.submit([{ kind: "write", offset, data }], WRITE_DEADLINE_MS);
    const timing = result.kind === "done" ? result.timings[0] : undefined;
    if (timing === undefined) {
      throw ioError(path, "ERR_LUN_WRITE", result);
    }
    const ms = timing.completedMs - timing.startedMs;
    samples.push(ms);
    totalMs += ms;
  }
  return figuresOf(samples);
}

/** @param samples at least one */
export function figuresOf(samples: readonly number[]): LatencyFigures {
  const sorted = [...samples].sort((one, other) => one - other);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return { count: sorted.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) };
}

/**
 * The slowest of the samples stands for the p99.99 that so few cannot show.
 * @throws ERR_LUN_TOO_SLOW; `--force` does not help, another profile does
 */
export function requireFastEnough(path: string, figures: LatencyFigures, timings: Timings): void {
  const { maxMs, p50Ms, p99Ms, count } = figures;
  const { ttlMs, deadlineMs } = timings;
  if (maxMs < ttlMs && p99Ms < deadlineMs) {
    return;
  }
  const figure = `p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms, max ${maxMs.toFixed(1)} ms over ${count} writes`;
  throw new ShareHaError(
    "ERR_LUN_TOO_SLOW",
    `${path} is too slow for these timers (deadline ${deadlineMs} ms, ttl ${ttlMs} ms): ${figure}.`,
    {
      hint: "Choose a slower profile (--profile default or --profile multipath), or a quicker device.",
      fields: { path, p50Ms, p99Ms, maxMs, ttlMs, deadlineMs },
    },
  );
}

function ioError(
  path: string,
  code: string,
  result: Awaited<ReturnType<LunDevice["submit"]>>,
): ShareHaError {
  const why = result.kind === "failed" ? result.message : `it ended ${result.kind}`;
  return new ShareHaError(code, `${path} could not be measured: ${why}`, {
    hint: "Repair the path to the storage; see the kernel log (dmesg).",
    fields: { path },
  });
}
