/** How long direct reads of a LUN take, held against d and T (DESIGN section 8). */
import { msText } from "../../health/finding.js";
import { type ProfileName, PROFILES, type Timings } from "../../lease/timings.js";
import {
  diagnosis,
  type DoctorFinding,
  type LatencySummary,
  type Yardstick,
} from "../doctor-finding.js";
import { type LatencySamples } from "../lun-facts.js";

const WHY =
  "A heartbeat that takes longer than d does not count, and a node whose heartbeats did not count for T has lost.";

/** From the quickest. */
const PROFILE_NAMES: readonly ProfileName[] = ["fast", "default", "multipath"];

export function judgeLatency(
  path: string,
  latency: LatencySamples,
  yardstick: Yardstick,
): readonly DoctorFinding[] {
  const { samples, end } = latency;
  const stopped = end === undefined ? [] : [judgeEnd(path, end)];
  if (samples.length === 0) {
    return stopped;
  }
  const summary = summaryOf(path, samples);
  const { timings, profile } = yardstick;
  const { level, verdict } = judge(summary, timings);
  const isGood = level === "ok";
  const { p50Ms, p99Ms, p999Ms, maxMs } = summary;
  const text =
    `reads p50 ${readMs(p50Ms)}, p99 ${readMs(p99Ms)}, p99.9 ${readMs(p999Ms)}, max ${readMs(maxMs)}; ` +
    `${verdict} d ${msText(timings.deadlineMs)} and T ${msText(timings.ttlMs)}${fitText(summary.fits, profile)}`;
  const own = diagnosis("latency", level, text, WHY, {
    subject: path,
    figure: summary.maxMs,
    unit: "ms",
    limit: timings.ttlMs,
    warningLimit: timings.deadlineMs,
    remedy: isGood ? null : remedyFor(path, summary.fits),
  });
  return [...stopped, own];
}

function judgeEnd(path: string, end: NonNullable<LatencySamples["end"]>): DoctorFinding {
  const rest = {
    subject: path,
    remedy: "Repair the path to the storage: dmesg, iscsiadm -m session, multipath -ll.",
  };
  return end.kind === "late"
    ? diagnosis(
        "latency",
        "critical",
        `a read did not come back within ${msText(end.afterMs)}`,
        WHY,
        {
          ...rest,
          figure: end.afterMs,
          unit: "ms",
        },
      )
    : diagnosis("latency", "critical", `a read failed: ${end.why}`, WHY, rest);
}

/** The slowest of the samples stands for the p99.99 that so few cannot show. */
function judge(
  figures: LatencySummary,
  { deadlineMs, ttlMs }: Timings,
): { readonly level: "ok" | "warning" | "critical"; readonly verdict: string } {
  if (figures.maxMs >= ttlMs || figures.p99Ms >= deadlineMs) {
    return { level: "critical", verdict: "too slow for" };
  }
  if (figures.maxMs >= deadlineMs || figures.p99Ms >= deadlineMs / 2) {
    return { level: "warning", verdict: "too close to" };
  }
  return { level: "ok", verdict: "within" };
}

/** A quick disk reads within some microseconds. */
function readMs(ms: number): string {
  return ms < 1 ? `${Number(ms.toFixed(2))} ms` : msText(ms);
}

function fitText(fits: ProfileName | null, profile: string): string {
  if (fits === profile) {
    return "";
  }
  return fits === null ? "; no profile fits" : `; profile ${fits} fits`;
}

function remedyFor(path: string, fits: ProfileName | null): string {
  return fits === null
    ? "Lower the load of the LUN or use a quicker one: no profile is slow enough for it."
    : `sharedha init ${path} --profile ${fits} (a new region), or lower the load of the LUN.`;
}

export function summaryOf(path: string, samples: readonly number[]): LatencySummary {
  const sorted = [...samples].sort((one, other) => one - other);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  const figures = { p50Ms: at(0.5), p99Ms: at(0.99), p999Ms: at(0.999), maxMs: at(1) };
  return {
    path,
    count: sorted.length,
    ...figures,
    fits:
      PROFILE_NAMES.find((name) => {
        const { deadlineMs } = PROFILES[name];
        return figures.maxMs < deadlineMs && figures.p99Ms < deadlineMs / 2;
      }) ?? null,
    histogram: histogramOf(sorted),
  };
}

/** Upper edges of the buckets in milliseconds: 1, 2, 5 in each decade; the last takes whatever is longer. */
const EDGES = [
  0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000,
];

function histogramOf(samples: readonly number[]): LatencySummary["histogram"] {
  const counts = EDGES.map((upToMs, index) => {
    const from = EDGES[index - 1] ?? 0;
    const isLast = index === EDGES.length - 1;
    const count = samples.filter(
      (ms) => (index === 0 || ms > from) && (isLast || ms <= upToMs),
    ).length;
    return { upToMs, count };
  });
  const first = counts.findIndex(({ count }) => count > 0);
  const last = counts.findLastIndex(({ count }) => count > 0);
  return first < 0 ? [] : counts.slice(first, last + 1);
}
