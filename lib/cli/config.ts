import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type Command } from "commander";

import { ShareHaError } from "../errors.js";
import { type Bind, example } from "./command.js";
import { readConfigText } from "./config-text.js";
import { type Context, report } from "./context.js";
import { type ExitCode, usageError } from "./exit-code.js";
import { diffLines } from "./line-diff.js";
import { printable, withNewline } from "./text.js";

export function register(program: Command, bind: Bind): void {
  const config = program
    .command("config")
    .description("the cluster's configuration, kept on the LUN: groups and policies, as TOML");
  example(config, "sharedha config edit", "sharedha config apply cluster.toml");
  example(
    config
      .command("show")
      .description("print the configuration")
      .action(bind((context) => show(context))),
    "sharedha config show > cluster.toml",
  );
  example(
    config
      .command("apply <file>")
      .description("make a file the configuration ('-': standard input)")
      .action(bind((context, args) => apply(context, args[0] ?? ""))),
    "sharedha config apply cluster.toml",
  );
  example(
    config
      .command("diff <file>")
      .description("what `apply` would change; exit code 1 when it would")
      .action(bind((context, args) => diff(context, args[0] ?? ""))),
    "sharedha config diff cluster.toml",
  );
  example(
    config
      .command("edit")
      .description("edit it in $VISUAL, $EDITOR or vi, then apply it")
      .action(bind((context) => edit(context))),
    "EDITOR=nano sharedha config edit",
  );
  example(
    config
      .command("undo")
      .description("go back to the text before the last change, as a change of its own")
      .action(bind((context) => undo(context))),
    "sharedha config undo",
  );
}

async function show(context: Context): Promise<undefined> {
  const config = await context.client.config();
  report(context, config, () => withNewline(config.toml));
  return undefined;
}

async function apply(context: Context, file: string): Promise<undefined> {
  const toml = readConfigText(file);
  const current = await context.client.config();
  await applyText(context, toml, current);
  return undefined;
}

async function applyText(
  context: Context,
  toml: string,
  current: { readonly toml: string; readonly stamp: string },
): Promise<void> {
  if (toml === current.toml) {
    report(context, { ...current, changed: false }, () => "nothing to change\n");
    return;
  }
  const applied = await context.client.changeConfig({ toml, stamp: current.stamp });
  report(
    context,
    { ...applied, changed: true },
    () => diffText(context, current.toml, toml) + `applied, stamp ${printable(applied.stamp)}\n`,
  );
}

async function diff(context: Context, file: string): Promise<ExitCode> {
  const toml = readConfigText(file);
  const current = await context.client.config();
  const isChange = toml !== current.toml;
  const lines = diffLines(current.toml, toml);
  report(context, { changed: isChange, lines: lines.filter((line) => line.kind !== "same") }, () =>
    isChange ? diffText(context, current.toml, toml) : "",
  );
  return isChange ? 1 : 0;
}

async function undo(context: Context): Promise<undefined> {
  const current = await context.client.config();
  const undone = await context.client.undoConfig({ stamp: current.stamp });
  report(
    context,
    undone,
    () =>
      diffText(context, current.toml, undone.toml) + `undone, stamp ${printable(undone.stamp)}\n`,
  );
  return undefined;
}

async function edit(context: Context): Promise<undefined> {
  if (context.isJson || !context.terminal.canAsk) {
    throw usageError(
      "there is no terminal to edit on",
      "Use `sharedha config show`, then `config apply FILE`.",
    );
  }
  const current = await context.client.config();
  // A directory of its own, mode 0700: nobody else can put a link in the editor's way.
  const directory = mkdtempSync(join(tmpdir(), "sharedha-config-"));
  const file = join(directory, "cluster.toml");
  writeFileSync(file, withNewline(current.toml), { mode: 0o600 });
  await runEditor(file);
  const edited = readConfigText(file);
  if (edited === withNewline(current.toml)) {
    report(context, { ...current, changed: false }, () => "nothing changed\n");
  } else {
    try {
      await applyText(context, edited, current);
    } catch (error) {
      context.terminal.err(`your text is kept in ${file}\n`);
      throw error;
    }
  }
  rmSync(directory, { recursive: true });
  return undefined;
}

async function runEditor(file: string): Promise<void> {
  const editor = [process.env["VISUAL"], process.env["EDITOR"]].find(
    (one) => one !== undefined && one.trim() !== "",
  );
  // No shell: the words are the program and its arguments, as in `code -w`.
  const [program = "vi", ...args] = editor?.trim().split(/\s+/) ?? ["vi"];
  const { runOnTerminal } = await import("../system/foreground.js");
  const exitCode = await runOnTerminal(program, [...args, file]);
  if (exitCode !== 0) {
    throw new ShareHaError(
      "ERR_CANCELLED",
      `${program} ended with exit code ${exitCode}, nothing was applied`,
      {
        hint: `Your text is kept in ${file}.`,
        fields: { file, exitCode },
      },
    );
  }
}

function diffText(context: Context, before: string, after: string): string {
  return diffLines(before, after)
    .filter((line) => line.kind !== "same")
    .map(({ kind, text }) =>
      kind === "added"
        ? `${context.paint("green", `+ ${printable(text)}`)}\n`
        : `${context.paint("red", `- ${printable(text)}`)}\n`,
    )
    .join("");
}
