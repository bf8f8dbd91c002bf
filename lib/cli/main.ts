/**
 * The command line: finds the command, loads only its file, runs it, and turns whatever goes wrong into a message with a
 * remedy and an exit code. Never a stack trace.
 */
import { Command, CommanderError } from "commander";

import { ShareHaError } from "../errors.js";
import {
  type Action,
  type Bind,
  type CommandModule,
  commonOptionsOf,
  withCommonOptions,
} from "./command.js";
import { createContext, type Edges } from "./context.js";
import { printError } from "./error-text.js";
import { exitCodeOf, usageError } from "./exit-code.js";
import { processTerminal, type Terminal } from "./terminal.js";
import { VERSION } from "./version.js";

type Load = () => Promise<CommandModule>;

/** In the order in which --help shows them. */
const COMMANDS: Readonly<Record<string, Load>> = {
  init: () => import("./init.js"),
  join: () => import("./join.js"),
  leave: () => import("./leave.js"),
  status: () => import("./status.js"),
  reserve: () => import("./reserve.js"),
  release: () => import("./release.js"),
  run: () => import("./run.js"),
  lease: () => import("./lease.js"),
  health: () => import("./health.js"),
  doctor: () => import("./doctor.js"),
  events: () => import("./events.js"),
  fence: () => import("./fence.js"),
  config: () => import("./config.js"),
  lun: () => import("./lun.js"),
  iscsi: () => import("./iscsi.js"),
  dump: () => import("./dump.js"),
};

/** When the output is no terminal. */
const HELP_COLUMNS = 100;

const EPILOGUE = `
Exit codes: 0 done, 1 refused (held, timed out ...), 2 bad usage or bad input, 3 fault (no daemon, no quorum, I/O).
            health: 0 ok, 1 warning, 2 critical, 3 unknown. doctor: 0 ok, 1 warning, 2 critical.

Example:
  sharedha init /dev/sdb          # once
  sharedha join /dev/sdb          # on every node
  sharedha reserve web            # lease, fsck as needed, mount
  sharedha COMMAND --help         # options and examples of a command`;

/**
 * @param argv without the interpreter and the script
 * @returns the exit code
 */
export async function main(
  argv: readonly string[],
  terminal: Terminal = processTerminal(),
  env: Readonly<Record<string, string | undefined>> = process.env,
  edges: Edges = {},
): Promise<number> {
  const isJson = asksForJson(argv);
  try {
    return await parseAndRun(argv, terminal, env, edges);
  } catch (error) {
    return reportError(error, terminal, isJson);
  }
}

async function parseAndRun(
  argv: readonly string[],
  terminal: Terminal,
  env: Readonly<Record<string, string | undefined>>,
  edges: Edges,
): Promise<number> {
  let exitCode = 0;
  const bind: Bind =
    (action: Action) =>
    async (...args: unknown[]) => {
      const command = args.at(-1) as Command;
      const options: Record<string, unknown> = command.optsWithGlobals();
      const context = createContext(commonOptionsOf(options), terminal, env, edges);
      exitCode = (await action(context, command.args, options)) ?? 0;
    };
  const program = createProgram(terminal);
  await registerCommands(program, bind, argv);
  settle(program);
  if (argv.length === 0) {
    terminal.err(program.helpInformation());
    terminal.err(`${EPILOGUE}\n`);
    return 2;
  }
  await program.parseAsync([...argv], { from: "user" });
  return exitCode;
}

function createProgram(terminal: Terminal): Command {
  return withCommonOptions(new Command("sharedha"))
    .description("Shared-storage high availability: at most one node has the data writable.")
    .version(VERSION, "-V, --version", "print the version")
    .helpCommand("help [command]", "help for a command")
    .usage("COMMAND [options]")
    .enablePositionalOptions()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => {
        terminal.out(text);
      },
      writeErr: (text) => {
        terminal.err(text);
      },
      getOutHelpWidth: () => (terminal.columns > 0 ? terminal.columns : HELP_COLUMNS),
      // The message comes back as an exception and is printed once, with its remedy.
      outputError: () => undefined,
    })
    .addHelpText("after", EPILOGUE);
}

/** Loading all commands costs more than most commands do; only help and unknown names need them all. */
async function registerCommands(
  program: Command,
  bind: Bind,
  argv: readonly string[],
): Promise<void> {
  const name = commandNameOf(argv);
  const load = name === undefined || !Object.hasOwn(COMMANDS, name) ? undefined : COMMANDS[name];
  const loads = load === undefined ? Object.values(COMMANDS) : [load];
  for (const module of await Promise.all(loads.map((one) => one()))) {
    module.register(program, bind);
  }
}

/** Settings that commander does not hand down to commands that were added before, or not at all. */
function settle(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command);
    child.showHelpAfterError(false);
    withCommonOptions(child);
    settle(child);
  }
}

/** The first argument that is no option, nor the value of one. */
function commandNameOf(argv: readonly string[]): string | undefined {
  for (let index = 0; index < argv.length; index += 1) {
    const argument = argv[index] ?? "";
    if (argument === "--state-dir") {
      index += 1;
    } else if (!argument.startsWith("-")) {
      return argument;
    }
  }
  return undefined;
}

/** Known before anything is parsed, because also a usage error is printed as JSON; what follows `--` is not ours. */
function asksForJson(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  return argv.slice(0, end === -1 ? argv.length : end).includes("--json");
}

function reportError(thrown: unknown, terminal: Terminal, isJson: boolean): number {
  if (thrown instanceof CommanderError && thrown.exitCode === 0) {
    return 0;
  }
  const error = asShareHaError(thrown);
  if (thrown instanceof CommanderError && thrown.code === "commander.help" && !isJson) {
    // A group of commands without the command: its help is on standard error already.
    return exitCodeOf(error);
  }
  printError(error, terminal, isJson);
  return exitCodeOf(error);
}

function asShareHaError(thrown: unknown): ShareHaError {
  if (thrown instanceof ShareHaError) {
    return thrown;
  }
  if (thrown instanceof CommanderError) {
    const message =
      thrown.code === "commander.help"
        ? "the command is not complete"
        : thrown.message.replace(/^error: /, "");
    return usageError(
      message,
      "`sharedha --help` and `sharedha COMMAND --help` show what is possible.",
    );
  }
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const isSystem = thrown instanceof Error && "syscall" in thrown;
  return isSystem
    ? new ShareHaError("ERR_SYSTEM", message, {
        hint: "The operating system refused; the message names the call and the path.",
        cause: thrown,
      })
    : new ShareHaError("ERR_INTERNAL", `internal error: ${message}`, {
        hint: "This is a fault of the program; report it with the command and `sharedha --version`.",
        cause: thrown,
      });
}
