/** An error as every command prints it: for people on standard error, with `--json` on standard output too. */
import { type ShareHaError } from "../errors.js";
import { type Terminal } from "./terminal.js";
import { printable } from "./text.js";

export function printError(error: ShareHaError, terminal: Terminal, isJson: boolean): void {
  if (isJson) {
    const { code, message, hint, fields } = error;
    terminal.out(`${JSON.stringify({ error: { code, message, hint, fields } })}\n`);
  }
  terminal.err(`sharedha: ${lines(error.message)}\n  remedy: ${lines(error.hint)}\n`);
}

/** A message may have several lines (what a region holds); control characters it may not have. */
function lines(text: string): string {
  return text.split("\n").map(printable).join("\n  ");
}
