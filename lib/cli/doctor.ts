/** `sharedha doctor`: is this machine fit for a cluster, and are these LUNs? The exit code is the worst finding. */
import { resolve } from "node:path";

import { type Command, Option } from "commander";

import { exitCodeOfLevel } from "../health/finding.js";
import { type Bind, example } from "./command.js";
import { type Context, report } from "./context.js";
import { type ExitCode, usageError } from "./exit-code.js";
import { readNodeFile } from "./node-file.js";

const PROFILES = ["fast", "default", "multipath"] as const;

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("doctor [path...]")
    .description(
      "is this machine fit for a cluster, and are these LUNs? only reads; exit code 0 ok, 1 warning, 2 critical",
    )
    .addOption(
      new Option(
        "--profile <profile>",
        "timers to judge against (default: the region's own, else default)",
      ).choices(PROFILES),
    )
    .action(bind((context, args, options) => examineMachine(context, args, options)));
  example(
    command,
    "sharedha doctor                       # the machine, and the LUNs of node.json if it is a member",
    "sharedha doctor /dev/sdb --profile fast",
    "sharedha doctor /dev/mapper/mpatha --json",
  );
}

async function examineMachine(
  context: Context,
  args: readonly string[],
  options: Readonly<Record<string, unknown>>,
): Promise<ExitCode> {
  const [{ examine, PATHS_MAX }, { doctorText }] = await Promise.all([
    import("../doctor/examine.js"),
    import("./doctor-text.js"),
  ]);
  const paths = args.length > 0 ? args.map((path) => resolve(path)) : await pathsOfNode(context);
  if (paths.length > PATHS_MAX) {
    throw usageError(
      `${paths.length} paths are more than ${PATHS_MAX}`,
      "Give the quorum LUNs in one command, and the others in the next.",
    );
  }
  if (context.terminal.isTty && !context.isJson && paths.length > 0) {
    context.terminal.err(`looking at ${paths.join(" ")}, some seconds ...\n`);
  }
  const profile = PROFILES.find((name) => name === options["profile"]);
  const examined = await examine({ paths, profile, stateDir: context.stateDir });
  const columns = context.terminal.columns;
  report(context, examined, () => doctorText(examined, context.paint, columns));
  return exitCodeOfLevel(examined.level);
}

/** Where its LUNs are now. @throws ERR_NODE_FILE when it is damaged */
async function pathsOfNode(context: Context): Promise<readonly string[]> {
  const node = readNodeFile(context.stateDir);
  if (node === undefined) {
    return [];
  }
  const { currentPaths } = await import("../san/current-paths.js");
  return currentPaths(node);
}
