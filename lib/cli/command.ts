/** How a command is declared; lib/cli/main.ts loads only the one that is asked for. */
import { type Command, InvalidArgumentError } from "commander";

import { type CommonOptions, type Context } from "./context.js";

/** Returns the exit code; nothing is 0. */
export type Action = (
  context: Context,
  args: readonly string[],
  options: Readonly<Record<string, unknown>>,
) => Promise<number | undefined>;

export type Bind = (action: Action) => (...args: unknown[]) => Promise<void>;

export interface CommandModule {
  /** Adds the command to the program. */
  readonly register: (program: Command, bind: Bind) => void;
}

export function withCommonOptions(command: Command): Command {
  return command
    .option("--json", "print one JSON value instead of text (also for errors)")
    .option(
      "--state-dir <dir>",
      "state directory of the node (default: $SHAREDHA_STATE_DIR, else /var/lib/sharedha)",
    );
}

export function example(command: Command, ...lines: readonly string[]): Command {
  const title = lines.length > 1 ? "Examples" : "Example";
  return command.addHelpText(
    "after",
    `\n${title}:\n${lines.map((line) => `  ${line}`).join("\n")}`,
  );
}

export function commonOptionsOf(options: Readonly<Record<string, unknown>>): CommonOptions {
  const { json, stateDir } = options;
  return {
    ...(json === true ? { json } : {}),
    ...(typeof stateDir === "string" ? { stateDir } : {}),
  };
}

/** Longest wait that a timer can hold is 24.8 days; a week is more than anybody waits with a number. */
const WAIT_SECONDS_MAX = 604_800;

/** `--wait 2.5` -> 2500. (For ever stays a word: commander makes an empty text of null.) */
export function parseWait(text: string): number | "forever" {
  if (text === "forever") {
    return text;
  }
  const seconds = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || seconds > WAIT_SECONDS_MAX) {
    throw new InvalidArgumentError(
      `It must be seconds from 0 to ${WAIT_SECONDS_MAX}, such as 30 or 2.5, or the word forever.`,
    );
  }
  return Math.round(seconds * 1_000);
}

export function parseWhole(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < min || value > max) {
      throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

const UNITS: Readonly<Record<string, number>> = {
  "": 1,
  K: 2 ** 10,
  M: 2 ** 20,
  G: 2 ** 30,
  T: 2 ** 40,
};

/** `64M`, `1G`, `33554432`. */
export function parseSize(text: string): number {
  const match = /^(\d{1,13})([KMGT]?)(i?B)?$/i.exec(text);
  const bytes = Number(match?.[1]) * (UNITS[match?.[2]?.toUpperCase() ?? ""] ?? NaN);
  if (match === null || !Number.isSafeInteger(bytes) || bytes <= 0) {
    throw new InvalidArgumentError("It must be a number of bytes, such as 33554432, 32M or 1G.");
  }
  return bytes;
}

export function stringOption(
  options: Readonly<Record<string, unknown>>,
  name: string,
): string | undefined {
  const value = options[name];
  return typeof value === "string" ? value : undefined;
}

export function numberOption(
  options: Readonly<Record<string, unknown>>,
  name: string,
): number | undefined {
  const value = options[name];
  return typeof value === "number" ? value : undefined;
}

/** Milliseconds of `--wait`: 0 without it, null for ever. */
export function waitOption(options: Readonly<Record<string, unknown>>): number | null {
  const value = options["wait"];
  if (value === "forever") {
    return null;
  }
  return typeof value === "number" ? value : 0;
}
