/** Tables, durations and sentences for people. */
import { type Paint, type Style } from "./terminal.js";

export interface Cell {
  readonly text: string;
  readonly style?: Style;
}

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/**
 * An aligned table, two blanks between the columns, without trailing blanks.
 * @param rows as many cells as there are columns
 */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly (string | Cell)[])[],
  paint: Paint,
  indent = "  ",
): string {
  const cells = rows.map((row) =>
    row.map((cell): Cell => {
      const { text, ...rest } = typeof cell === "string" ? { text: cell } : cell;
      return { ...rest, text: printable(text) };
    }),
  );
  const widths = columns.map((column, index) =>
    Math.max(column.title.length, ...cells.map((row) => row[index]?.text.length ?? 0)),
  );
  const line = (row: readonly Cell[]): string => {
    const parts = columns.map((column, index) => {
      const cell = row[index] ?? { text: "" };
      const pad = " ".repeat((widths[index] ?? 0) - cell.text.length);
      const painted = paint(cell.style, cell.text);
      if (column.align === "right") {
        return pad + painted;
      }
      return index === columns.length - 1 ? painted : painted + pad;
    });
    return (indent + parts.join("  ")).trimEnd();
  };
  const head = columns.map(({ title }): Cell => ({ text: title, style: "dim" }));
  return [head, ...cells].map((row) => `${line(row)}\n`).join("");
}

/** `85 ms`, `1.2 s`, `45 s`, `3 min 5 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(ms: number): string {
  if (ms < 999.5) {
    return ms < 9.95 && ms > 0 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
  }
  if (ms < 9_950) {
    return `${(ms / 1_000).toFixed(1)} s`;
  }
  const seconds = Math.round(ms / 1_000);
  if (seconds < 60) {
    return `${seconds} s`;
  }
  if (seconds < 3_600) {
    return twoUnits(seconds, 60, "min", 1, "s");
  }
  const minutes = Math.round(seconds / 60);
  return minutes < 1_440
    ? twoUnits(minutes, 60, "h", 1, "min")
    : twoUnits(Math.round(minutes / 60), 24, "d", 1, "h");
}

function twoUnits(
  total: number,
  perBig: number,
  big: string,
  perSmall: number,
  small: string,
): string {
  const rest = Math.floor((total % perBig) / perSmall);
  const head = `${Math.floor(total / perBig)} ${big}`;
  return rest === 0 ? head : `${head} ${rest} ${small}`;
}

/** How long ago, by this machine's wall clock; the other's clock may differ, so never below zero. */
export function ago(iso: string, nowMs: number): string {
  const at = Date.parse(iso);
  return Number.isNaN(at) ? printable(iso) : duration(Math.max(0, nowMs - at));
}

/** Local time with milliseconds, `2026-11-23 22:59:01.250`. */
export function localTime(iso: string): string {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) {
    return printable(iso);
  }
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return `${day} ${time}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** What came from a disk or another program must not steer the terminal. */
export function printable(text: string): string {
  // eslint-disable-next-line no-control-regex -- control characters are exactly what is replaced
  return text.replace(/[\u0000-\u001f\u007f-\u009f]/g, "?");
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

/** `512 B`, `32 MiB`, `1.5 GiB`. */
export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  const value = count / 2 ** (10 * power);
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} ${units[power] ?? "B"}`;
}

/** Lines of at most `width` columns, broken at blanks; a word that is longer stays whole, since it may be a command. */
export function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

export function withNewline(text: string): string {
  return text === "" || text.endsWith("\n") ? text : `${text}\n`;
}
