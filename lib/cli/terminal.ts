/**
 * How commands speak: text for people, JSON for programs. Colours only on a terminal. The tests give their own.
 */
import { styleText } from "node:util";

export type Style = "bold" | "dim" | "red" | "green" | "yellow" | "cyan";

export interface Terminal {
  /** To standard output, as it is. */
  out(text: string): void;
  /** To standard error, as it is. */
  err(text: string): void;
  /** Whether standard output is a terminal, and colours are welcome there. */
  readonly isColourful: boolean;
  readonly isTty: boolean;
  /** Whether a human can be asked: standard input and standard error are a terminal. */
  readonly canAsk: boolean;
  /** Columns and rows; 0 when it is no terminal. */
  readonly columns: number;
  readonly rows: number;
}

export function processTerminal(): Terminal {
  const { stdout, stderr, stdin, env } = process;
  // A reader that went away (`sharedha events | head`) has seen enough; that is no error.
  stdout.on("error", (error: NodeJS.ErrnoException) => {
    process.exit(error.code === "EPIPE" ? 0 : 3);
  });
  const noColour = (env["NO_COLOR"] ?? "") !== "" || env["TERM"] === "dumb";
  return {
    out: (text) => {
      stdout.write(text);
    },
    err: (text) => {
      stderr.write(text);
    },
    isColourful: stdout.isTTY && !noColour,
    isTty: stdout.isTTY,
    canAsk: stdin.isTTY && stderr.isTTY,
    columns: stdout.isTTY ? stdout.columns : 0,
    rows: stdout.isTTY ? stdout.rows : 0,
  };
}

export type Paint = (style: Style | undefined, text: string) => string;

export function painter(isColourful: boolean): Paint {
  return (style, text) => (isColourful && style !== undefined ? styleText(style, text) : text);
}
