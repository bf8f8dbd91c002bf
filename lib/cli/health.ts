/** `sharedha health`: asks the daemon, or without one reads the LUNs; the exit code is the worst finding. */
import { type Command, Option } from "commander";

import { ShareHaError } from "../errors.js";
import { exitCodeOfLevel, type HealthReport, type Level } from "../health/finding.js";
import { healthPluginLine, healthText } from "../health/health-text.js";
import { healthOfNobody, healthWithoutDaemon } from "../health/lun-checks.js";
import { healthOfStatus } from "../health/status-checks.js";
import { ControlClient } from "../net/control-client.js";
import { type Bind, example } from "./command.js";
import { type Context } from "./context.js";
import { type ExitCode } from "./exit-code.js";
import { readNodeFile } from "./node-file.js";
import { type Style } from "./terminal.js";
import { VERSION } from "./version.js";

/** Monitoring gives up after 10 s; this and the two looks at the LUNs fit. */
const ANSWER_MS = 4_000;

const LEVEL_STYLE: Readonly<Record<Level, Style>> = {
  ok: "green",
  info: "cyan",
  warning: "yellow",
  critical: "red",
  unknown: "cyan",
};

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("health")
    .description(
      "is all well? exit code 0 ok, 1 warning, 2 critical, 3 unknown; works without the daemon",
    )
    .option("--cron", "print nothing when all is well")
    .addOption(
      new Option(
        "--format <format>",
        "text, one line for monitoring plugins, or JSON (default: text)",
      ).choices(["text", "plugin", "json"]),
    )
    .action(bind((context, _args, options) => showHealth(context, options)));
  example(
    command,
    "sharedha health",
    "sharedha health --format plugin",
    "*/5 * * * * root sharedha health --cron     # in /etc/cron.d/sharedha",
  );
}

async function showHealth(
  context: Context,
  options: Readonly<Record<string, unknown>>,
): Promise<ExitCode> {
  const health = await assess(context);
  if (options["cron"] !== true || health.level !== "ok") {
    context.terminal.out(render(context, health, options["format"]));
  }
  return exitCodeOfLevel(health.level);
}

function render(context: Context, health: HealthReport, format: unknown): string {
  if (format === "plugin") {
    return healthPluginLine(health);
  }
  if (format === "json" || (format === undefined && context.isJson)) {
    return `${JSON.stringify(health)}\n`;
  }
  return healthText(health, (level, text) => context.paint(LEVEL_STYLE[level], text));
}

async function assess(context: Context): Promise<HealthReport> {
  const client = new ControlClient({ stateDir: context.stateDir, answerMs: ANSWER_MS });
  const start = performance.now();
  try {
    const status = await client.status();
    return healthOfStatus(status, VERSION, performance.now() - start);
  } catch (error) {
    if (!(error instanceof ShareHaError)) {
      throw error;
    }
    return assessWithoutDaemon(context, error);
  }
}

async function assessWithoutDaemon(context: Context, why: ShareHaError): Promise<HealthReport> {
  const file = readNodeFile(context.stateDir);
  if (file === undefined && why.code === "ERR_NO_DAEMON") {
    return healthOfNobody(context.stateDir);
  }
  const node = file?.node ?? "?";
  const trouble =
    file === undefined
      ? {
          message: "the LUNs are not known: there is no node.json",
          hint: "Join again: `sharedha join PATH...`.",
        }
      : undefined;
  const nothing = { node, luns: [], hosts: undefined, windowMs: 0, trouble };
  const look =
    file === undefined ? nothing : await (await import("./lun-look.js")).lookAtLuns(file);
  return healthWithoutDaemon(why, look);
}
