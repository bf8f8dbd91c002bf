/** A multipath map as device-mapper and multipathd see it, for `sharedha doctor`. Only asks. */
import { describeRun, run, type RunResult } from "./process.js";

export interface MultipathFacts {
  /** I/O waits for ever (or as long as multipathd lets it) when no path is left. Undefined: dmsetup did not tell. */
  readonly queuesIfNoPath: boolean | undefined;
  /** "8:16" -> whether device-mapper uses the path. */
  readonly pathsUsable: Readonly<Record<string, boolean>>;
  /** What multipathd does without a path: "12 chk", "on", "off", "-" ...; undefined: it did not tell. */
  readonly queueing: string | undefined;
  readonly pollingSeconds: number | undefined;
  /** Why something could not be asked. */
  readonly problems: readonly string[];
}

/** dmsetup opens only the control device, and never waits for a path. */
const TIMEOUT_MS = 4_000;

/** @param map its name, as in /dev/mapper */
export async function lookAtMultipath(map: string): Promise<MultipathFacts> {
  const ask = async (file: string, args: readonly string[]): Promise<RunResult> =>
    await run(`${file} for ${map}`, file, args, { timeoutMs: TIMEOUT_MS });
  const [table, status, maps, config] = await Promise.all([
    ask("dmsetup", ["table", "--", map]),
    ask("dmsetup", ["status", "--", map]),
    ask("multipathd", ["show", "maps", "raw", "format", "%n|%Q"]),
    ask("multipathd", ["show", "config", "local"]),
  ]);
  const answers = { "dmsetup table": table, "dmsetup status": status, multipathd: maps };
  return {
    queuesIfNoPath: table.kind === "ok" ? parseFeatures(table.stdout) : undefined,
    pathsUsable: status.kind === "ok" ? parsePathStates(status.stdout) : {},
    queueing: maps.kind === "ok" ? parseQueueing(maps.stdout, map) : undefined,
    pollingSeconds: config.kind === "ok" ? parsePolling(config.stdout) : undefined,
    problems: Object.entries(answers)
      .filter(([, result]) => result.kind !== "ok")
      .map(([name, result]) => `${name}: ${describeRun(result)}`),
  };
}

/**
 * `0 2097152 multipath 1 queue_if_no_path 1 alua ...`: after the target's name the number of feature words, then they.
 * Undefined when it is no multipath table.
 */
export function parseFeatures(table: string): boolean | undefined {
  const words = table.trim().split(/\s+/);
  const at = words.indexOf("multipath");
  const count = Number(words[at + 1]);
  if (at < 0 || !Number.isInteger(count) || count < 0 || count > words.length) {
    return undefined;
  }
  return words.slice(at + 2, at + 2 + count).includes("queue_if_no_path");
}

/** `... 8:0 A 0 ... 8:16 F 3 ...`: A is active, F has failed. */
export function parsePathStates(status: string): Readonly<Record<string, boolean>> {
  return Object.fromEntries(
    [...status.matchAll(/(?:^|\s)(\d+:\d+) ([AF])(?=\s|$)/g)].map((match) => [
      match[1] ?? "",
      match[2] === "A",
    ]),
  );
}

/** `mpatha|12 chk` */
export function parseQueueing(maps: string, map: string): string | undefined {
  const line = maps.split("\n").find((one) => one.startsWith(`${map}|`));
  const value = line?.slice(map.length + 1).trim();
  return value === "" ? undefined : value;
}

/** The first polling_interval is that of the section `defaults`. */
export function parsePolling(config: string): number | undefined {
  const match = /^\s*polling_interval\s+"?(\d{1,6})"?\s*$/m.exec(config);
  return match?.[1] === undefined ? undefined : Number(match[1]);
}
