/** The rows of the benchmark, as a table for people and JSON for machines. */
import { mkdirSync, writeFileSync } from "node:fs";
import { cpus, loadavg, release } from "node:os";
import { join } from "node:path";
import { findRoot } from "../test/helpers/root.js";

export interface Row {
  readonly what: string;
  readonly unit: string;
  readonly ours: number;
  /** The peer in the same run; null where there is none, `peerNote` says why. */
  readonly peer: number | null;
  readonly peerNote?: string;
  /** In words, from the issue. */
  readonly goal: string;
  readonly reached: boolean | null;
}

export class Report {
  readonly #rows: Row[] = [];
  readonly #notes: string[] = [];

  add(row: Row): void {
    this.#rows.push(row);
    process.stderr.write(`${lineOf(row)}\n`);
  }

  /** ours / peer must be at most `limit`. */
  ratio(row: Omit<Row, "goal" | "reached"> & { readonly limit: number }): void {
    const { limit, ...rest } = row;
    const reached = row.peer === null ? null : row.ours / row.peer <= limit;
    this.add({ ...rest, goal: `<= ${limit} x sanlock`, reached });
  }

  /** ours / peer must be at least `limit`. */
  atLeast(row: Omit<Row, "goal" | "reached"> & { readonly limit: number }): void {
    const { limit, ...rest } = row;
    const reached = row.peer === null ? null : row.ours / row.peer >= limit;
    this.add({ ...rest, goal: `>= ${limit} x sanlock`, reached });
  }

  /** ours must be at most (or at least) a figure. */
  figure(
    row: Omit<Row, "goal" | "reached"> & { readonly limit: number; readonly atLeast?: boolean },
  ): void {
    const { limit, atLeast = false, ...rest } = row;
    const reached = atLeast ? row.ours >= limit : row.ours <= limit;
    this.add({ ...rest, goal: `${atLeast ? ">=" : "<="} ${limit} ${row.unit}`, reached });
  }

  note(text: string): void {
    this.#notes.push(text);
    process.stderr.write(`  note: ${text}\n`);
  }

  print(): void {
    const lines = [
      `kernel ${release()}, ${cpus().length} cores, load ${loadavg()
        .map((one) => one.toFixed(1))
        .join(" ")}`,
      ...this.#rows.map(lineOf),
      ...this.#notes.map((note) => `note: ${note}`),
    ];
    process.stdout.write(`\n${lines.join("\n")}\n`);
    const dir = join(findRoot(), "bench", "results");
    mkdirSync(dir, { recursive: true });
    const file = join(dir, `${new Date().toISOString().replaceAll(":", "-")}.json`);
    writeFileSync(file, `${JSON.stringify({ rows: this.#rows, notes: this.#notes }, null, 2)}\n`);
    process.stdout.write(`results: ${file}\n`);
  }
}

function number(value: number | null): string {
  if (value === null || Number.isNaN(value)) {
    return "-";
  }
  return value >= 1000 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2);
}

function lineOf(row: Row): string {
  const ratio = row.peer === null ? (row.peerNote ?? "") : `${(row.ours / row.peer).toFixed(2)} x`;
  const verdict = row.reached === null ? "no peer" : row.reached ? "reached" : "MISSED";
  return [
    row.what.padEnd(58),
    `${number(row.ours).padStart(8)} ${row.unit.padEnd(8)}`,
    `sanlock ${number(row.peer).padStart(8)}`,
    ratio.padEnd(9),
    row.goal.padEnd(18),
    verdict,
  ].join("  ");
}
