/**
 * One finding of `sharedha health` or `sharedha doctor`: what was looked at, how it is, the figure and the limit it is held
 * against, and what to do. Everything in this folder is pure: it judges what it is given.
 */

/** `info` is worth knowing and as well as `ok`; only doctor has it. Only health has `unknown`. */
export type Level = "ok" | "info" | "warning" | "critical" | "unknown";

export type Check =
  | "daemon"
  | "node"
  | "heartbeat"
  | "latency"
  | "members"
  | "quorum"
  | "watchdog"
  | "leases"
  | "groups"
  | "versions";

export interface Finding<C extends string = Check> {
  readonly check: C;
  /** Which one of several: the name of a member, lease, group, or the path of a LUN; null when there is one only. */
  readonly subject: string | null;
  readonly level: Level;
  /** One sentence. */
  readonly text: string;
  readonly figure: number | null;
  /** Of figure, limit and warningLimit: milliseconds, bytes, or a plain count. */
  readonly unit: "ms" | "bytes" | "count";
  /** From here on it is critical (for bytes and counts: below it); null: no such limit. */
  readonly limit: number | null;
  /** From here on it is a warning (for bytes and counts: below it); null: no such limit. */
  readonly warningLimit: number | null;
  /** What to do; null when all is well. */
  readonly remedy: string | null;
}

export interface HealthReport {
  readonly level: Level;
  readonly findings: readonly Finding[];
  /** Where the figures come from. */
  readonly source: "daemon" | "luns" | "none";
}

const SEVERITY: Readonly<Record<Level, number>> = {
  ok: 0,
  info: 0,
  unknown: 1,
  warning: 2,
  critical: 3,
};
const EXIT_CODE: Readonly<Record<Level, 0 | 1 | 2 | 3>> = {
  ok: 0,
  info: 0,
  warning: 1,
  critical: 2,
  unknown: 3,
};

/** As monitoring plugins do: what is known to be bad counts more than what is not known. Never `info`. */
export function worstLevel(levels: readonly Level[]): Level {
  return levels.reduce<Level>(
    (worst, level) => (SEVERITY[level] > SEVERITY[worst] ? level : worst),
    "ok",
  );
}

export function exitCodeOfLevel(level: Level): 0 | 1 | 2 | 3 {
  return EXIT_CODE[level];
}

export function reportOf(
  findings: readonly Finding[],
  source: HealthReport["source"],
): HealthReport {
  // An empty list would read as "all is well", and nothing was looked at.
  const level = findings.length === 0 ? "unknown" : worstLevel(findings.map((one) => one.level));
  return { level, findings, source };
}

export function finding<C extends string>(
  check: C,
  level: Level,
  text: string,
  rest: Partial<Omit<Finding<C>, "check" | "level" | "text">> = {},
): Finding<C> {
  return {
    check,
    subject: null,
    level,
    text,
    figure: null,
    unit: "count",
    limit: null,
    warningLimit: null,
    remedy: null,
    ...rest,
  };
}

/** Milliseconds for sentences: `85 ms`, `1.5 s`. */
export function msText(ms: number): string {
  if (ms < 10) {
    return `${Number(ms.toFixed(1))} ms`;
  }
  return ms < 1_000
    ? `${Math.round(ms)} ms`
    : `${Number((ms / 1_000).toFixed(ms < 10_000 ? 1 : 0))} s`;
}
