/** What doctor has found, for people: what is wrong first, each with reason and remedy, then in short what is fine. */
import {
  type DoctorFinding,
  type DoctorReport,
  type LatencySummary,
} from "../doctor/doctor-finding.js";
import { type Level } from "../health/finding.js";
import { duration, plural, printable, wrap } from "./text.js";
import { type Paint, type Style } from "./terminal.js";

const COLUMNS_MAX = 100;
const COLUMNS_MIN = 60;
const BAR_COLUMNS = 40;

const STYLE: Readonly<Record<Level, Style>> = {
  ok: "green",
  info: "cyan",
  warning: "yellow",
  critical: "red",
  unknown: "cyan",
};

/** @param columns of the terminal; 0 when it is none */
export function doctorText(report: DoctorReport, paint: Paint, columns: number): string {
  const width = columns === 0 ? COLUMNS_MAX : Math.max(COLUMNS_MIN, Math.min(COLUMNS_MAX, columns));
  const of = (level: Level): readonly DoctorFinding[] =>
    report.findings.filter((one) => one.level === level);
  const problems = [...of("critical"), ...of("warning")];
  const page: Page = { paint, width, paths: report.paths };
  const parts = [
    headline(report, paint),
    ...problems.map((one) => problem(one, page)),
    section(of("info").map((one) => note(one, page))),
    section(fine(of("ok"), page)),
    section(report.latency.map((one) => histogram(one, page))),
    footer(report, paint),
  ];
  return parts.filter((part) => part !== "").join("\n");
}

interface Page {
  readonly paint: Paint;
  readonly width: number;
  readonly paths: readonly string[];
}

function section(parts: readonly string[]): string {
  return parts.join("");
}

function headline({ level, findings, profile }: DoctorReport, paint: Paint): string {
  const count = (wanted: Level): number => findings.filter((one) => one.level === wanted).length;
  const counts = [
    ...(count("critical") > 0 ? [`${count("critical")} critical`] : []),
    ...(count("warning") > 0 ? [plural(count("warning"), "warning")] : []),
  ];
  const verdict = counts.length === 0 ? "all is well" : counts.join(", ");
  const { intervalMs, deadlineMs, ttlMs, watchdogMs } = profile.timings;
  const whose = profile.source === "region" ? ", as the region has it" : "";
  const timers = `h ${duration(intervalMs)}, d ${duration(deadlineMs)}, T ${duration(ttlMs)}, W ${duration(watchdogMs)}`;
  return (
    `${paint("bold", "doctor")} ${paint(STYLE[level], verdict)}\n` +
    `${paint("dim", `judged by profile ${printable(profile.profile)}${whose}: ${timers}`)}\n`
  );
}

const LEVEL_COLUMNS = 8;

/** `critical  watchdog: TEXT`, and below it the reason and the remedy. */
function problem(finding: DoctorFinding, page: Page): string {
  const label = page.paint(STYLE[finding.level], finding.level.padEnd(LEVEL_COLUMNS));
  const indent = " ".repeat(LEVEL_COLUMNS + 2);
  const lines = block(`${titleOf(finding, page)}: ${finding.text}`, indent, "", page, "bold");
  return (
    `${label}  ${lines.slice(indent.length)}` +
    block(finding.why, indent, "why: ", page, "dim") +
    (finding.remedy === null ? "" : block(finding.remedy, indent, "fix: ", page))
  );
}

function note(finding: DoctorFinding, page: Page): string {
  const label = page.paint(STYLE[finding.level], "note".padEnd(LEVEL_COLUMNS));
  const indent = " ".repeat(LEVEL_COLUMNS + 2);
  const lines = block(`${titleOf(finding, page)}: ${finding.text}`, indent, "", page);
  const remedy =
    finding.remedy === null ? "" : block(finding.remedy, indent, "if need be: ", page, "dim");
  return `${label}  ${lines.slice(indent.length)}${remedy}`;
}

/** A path is named; the device of a watchdog is in the sentence already. */
function titleOf({ check, subject }: DoctorFinding, page: Page): string {
  return subject !== null && page.paths.includes(subject)
    ? `${check} of ${printable(subject)}`
    : check;
}

function block(text: string, indent: string, head: string, page: Page, style?: Style): string {
  const hang = " ".repeat(head.length);
  const lines = wrap(printable(text), page.width - indent.length - head.length);
  return lines
    .map((line, index) => `${indent}${page.paint(style, (index === 0 ? head : hang) + line)}\n`)
    .join("");
}

/** One line for each thing that is fine, under the machine and under each path. */
function fine(findings: readonly DoctorFinding[], page: Page): readonly string[] {
  const groups = new Map<string, DoctorFinding[]>();
  for (const one of findings) {
    const path = page.paths.find((name) => name === one.subject);
    const title = path ?? "this machine";
    groups.set(title, [...(groups.get(title) ?? []), one]);
  }
  const width = Math.max(0, ...findings.map(({ check }) => check.length));
  return [...groups].map(([title, ones]) => {
    const lines = ones.map(({ check, text }) => {
      const indent = " ".repeat(6 + width);
      const body = block(text, indent, "", page).slice(indent.length);
      return `  ${page.paint("green", "ok")}  ${check.padEnd(width)}${body === "" ? "" : `  ${body}`}`;
    });
    return `${page.paint("bold", printable(title))}\n${lines.join("")}`;
  });
}

function histogram({ path, count, histogram: buckets }: LatencySummary, page: Page): string {
  const most = Math.max(1, ...buckets.map((bucket) => bucket.count));
  const lines = buckets.map((bucket) => {
    // A single slow read among hundreds is what one looks for, so it gets a bar of its own.
    const length =
      bucket.count === 0 ? 0 : Math.max(1, Math.round((bucket.count / most) * BAR_COLUMNS));
    const upTo = (bucket.upToMs < 1 ? `${bucket.upToMs} ms` : duration(bucket.upToMs)).padStart(8);
    const bar = page.paint("cyan", "#".repeat(length)) + " ".repeat(BAR_COLUMNS - length);
    return `  up to ${upTo}  ${bar}  ${String(bucket.count).padStart(4)}\n`;
  });
  const title = `${plural(count, "direct read")} of ${printable(path)}`;
  return `${page.paint("bold", title)}\n${lines.join("")}`;
}

function footer({ paths }: DoctorReport, paint: Paint): string {
  const text =
    paths.length === 0
      ? "No LUN was looked at: sharedha doctor PATH..."
      : "Nothing was written. Writes are timed by `sharedha init` and by every heartbeat (`sharedha health`).";
  return `${paint("dim", text)}\n`;
}
