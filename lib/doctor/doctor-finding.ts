/** What doctor says: health's findings, each with the reason why it matters. */
import { finding, type Finding, type Level, worstLevel } from "../health/finding.js";
import { type ProfileName, type Timings } from "../lease/timings.js";

export type DoctorCheck =
  // of the machine
  | "user"
  | "kernel"
  | "node.js"
  | "clock"
  | "virtual"
  | "realtime"
  | "memory"
  | "sysrq"
  | "watchdog"
  | "systemd"
  | "state-dir"
  | "tools"
  // of a path
  | "device"
  | "direct-io"
  | "sectors"
  | "cache"
  | "latency"
  | "reservations"
  | "paths"
  | "iscsi"
  | "identity"
  | "region"
  | "members";

export interface DoctorFinding extends Finding<DoctorCheck> {
  /** One sentence: what goes wrong, or could, without it. */
  readonly why: string;
}

type Rest = Partial<
  Pick<DoctorFinding, "subject" | "figure" | "unit" | "limit" | "warningLimit" | "remedy">
>;

export function diagnosis(
  check: DoctorCheck,
  level: Level,
  text: string,
  why: string,
  rest: Rest = {},
): DoctorFinding {
  return { ...finding(check, level, text, rest), why };
}

/** A look that came to nothing is no good news: what is not known cannot be relied on. */
export function unlooked(
  check: DoctorCheck,
  what: string,
  reason: string,
  rest: Rest = {},
): DoctorFinding {
  return diagnosis(
    check,
    "warning",
    `${what} could not be looked at: ${reason}`,
    "What is not known cannot be relied on.",
    { remedy: "Remove the cause, or run doctor as root on the machine itself.", ...rest },
  );
}

/** The timers that everything is held against. */
export interface Yardstick {
  readonly profile: string;
  readonly timings: Timings;
  /** `option`: --profile; `region`: what the region was made with; `default`: neither. */
  readonly source: "option" | "region" | "default";
}

export interface LatencySummary {
  readonly path: string;
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly p999Ms: number;
  readonly maxMs: number;
  /** The quickest profile that these reads allow. */
  readonly fits: ProfileName | null;
  /** How many reads took at most so long, and longer than the bucket before; only from the first to the last that has any. */
  readonly histogram: readonly { readonly upToMs: number; readonly count: number }[];
}

/** The value of `sharedha doctor --json`. */
export interface DoctorReport {
  readonly level: Level;
  readonly profile: Yardstick;
  readonly paths: readonly string[];
  readonly findings: readonly DoctorFinding[];
  readonly latency: readonly LatencySummary[];
}

export function levelOf(findings: readonly DoctorFinding[]): Level {
  return worstLevel(findings.map(({ level }) => level));
}
