/** The report in three forms: lines for people, one line for monitoring plugins; JSON is the report itself. */
import { type Finding, type HealthReport, type Level, msText } from "./finding.js";

export type Decorate = (level: Level, text: string) => string;

const PLUGIN_WORD: Readonly<Record<Level, string>> = {
  ok: "OK",
  info: "OK",
  warning: "WARNING",
  critical: "CRITICAL",
  unknown: "UNKNOWN",
};

const PLUGIN_UNIT: Readonly<Record<Finding["unit"], string>> = { ms: "ms", bytes: "B", count: "" };

/** How long a plugin's one line may become; some collectors cut at 1 KiB. */
const PLUGIN_TEXT_MAX = 400;

export function healthText(report: HealthReport, decorate: Decorate): string {
  const width = Math.max(...report.findings.map((one) => one.check.length), 0);
  const lines = report.findings.map((one) => {
    const level = decorate(one.level, one.level.padEnd(8));
    const remedy =
      one.remedy === null ? "" : `\n${" ".repeat(width + 14)}remedy: ${oneLine(one.remedy)}`;
    return `  ${level}  ${one.check.padEnd(width)}  ${oneLine(one.text)}${limitText(one)}${remedy}\n`;
  });
  return `health ${decorate(report.level, report.level)}\n${lines.join("")}`;
}

function limitText(one: Finding): string {
  const limit = one.warningLimit ?? one.limit;
  if (one.figure === null || limit === null || one.level !== "ok" || one.unit !== "ms") {
    return "";
  }
  return ` (limit ${msText(limit)})`;
}

/**
 * The format of the monitoring plugins' guidelines: `SERVICE STATUS - text | 'label'=value[unit];warn;crit;min`. For
 * counts the range `N:` means "alert below N".
 */
export function healthPluginLine(report: HealthReport): string {
  const bad = report.findings.filter((one) => one.level !== "ok");
  const rank = (one: Finding): number =>
    ["critical", "warning", "unknown", "info", "ok"].indexOf(one.level);
  const shown =
    bad.length === 0
      ? report.findings.filter((one) => HEADLINES.includes(one.check) && isTotal(one))
      : [...bad].sort((a, b) => rank(a) - rank(b));
  const text = pluginText(shown.map((one) => oneLine(one.text)).join(", "));
  const figures = report.findings.flatMap(perfdata);
  const tail = figures.length === 0 ? "" : ` | ${figures.join(" ")}`;
  return `SHAREDHA ${PLUGIN_WORD[report.level]} - ${text}${tail}\n`;
}

/** The line of a healthy cluster; the figures of the rest are in the performance data. */
const HEADLINES: readonly Finding["check"][] = ["node", "heartbeat", "members", "quorum", "leases"];

function isTotal(one: Finding): boolean {
  return one.subject === null || one.check === "node";
}

function pluginText(text: string): string {
  const safe = text.replaceAll("|", "/");
  return safe.length <= PLUGIN_TEXT_MAX ? safe : `${safe.slice(0, PLUGIN_TEXT_MAX - 4)} ...`;
}

function perfdata(one: Finding): readonly string[] {
  if (one.figure === null) {
    return [];
  }
  const name = one.subject === null ? one.check : `${one.check} ${one.subject}`;
  // A label may hold anything but a quote and an equals sign.
  const label = `'${oneLine(name).replace(/['=|]/g, "_")}'`;
  const alertsBelow = one.unit !== "ms";
  const range = (limit: number | null): string =>
    limit === null ? "" : `${limit}${alertsBelow ? ":" : ""}`;
  const value = `${Number(one.figure.toFixed(3))}${PLUGIN_UNIT[one.unit]}`;
  return [`${label}=${value};${range(one.warningLimit)};${range(one.limit)};0`];
}

function oneLine(text: string): string {
  // eslint-disable-next-line no-control-regex -- names come from the LUN; they must not steer a terminal or a log
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ");
}
