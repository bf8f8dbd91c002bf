import { type Command } from "commander";

import { ShareHaError } from "../errors.js";
import { type Bind, example } from "./command.js";
import { type Context, report } from "./context.js";
import { renderStatus } from "./status-text.js";
import { localTime } from "./text.js";

const WATCH_MS = 1_000;
const CLEAR_SCREEN = "\u001b[H\u001b[J";

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("status")
    .description("members, groups, leases, watchdog, LUNs, and why something is not possible now")
    .option("--watch", "show it again every second until interrupted")
    .action(bind((context, _args, options) => showStatus(context, options["watch"] === true)));
  example(
    command,
    "sharedha status",
    "sharedha status --json | jq .members",
    "sharedha status --watch",
  );
}

async function showStatus(context: Context, isWatching: boolean): Promise<undefined> {
  if (isWatching) {
    return watch(context);
  }
  const status = await context.client.status();
  report(context, status, () => renderStatus(status, context.paint, context.nowMs()));
  return undefined;
}

/** Goes on while the daemon is away (an upgrade, a restart) and says so; ends with a signal. */
async function watch(context: Context): Promise<never> {
  for (;;) {
    show(context, await oneView(context));
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
  }
}

function show(context: Context, text: string): void {
  const { terminal } = context;
  if (context.isJson || !terminal.isTty) {
    terminal.out(text);
    return;
  }
  const time = localTime(new Date(context.nowMs()).toISOString());
  const lines = `${time}\n\n${text}`.split("\n");
  // What does not fit would scroll, and the head would be gone.
  terminal.out(CLEAR_SCREEN + lines.slice(0, Math.max(1, terminal.rows - 1)).join("\n"));
}

async function oneView(context: Context): Promise<string> {
  try {
    const status = await context.client.status();
    return context.isJson
      ? `${JSON.stringify(status)}\n`
      : renderStatus(status, context.paint, context.nowMs());
  } catch (error) {
    if (!(error instanceof ShareHaError)) {
      throw error;
    }
    const { code, message, hint, fields } = error;
    return context.isJson
      ? `${JSON.stringify({ error: { code, message, hint, fields } })}\n`
      : `${message}\n  remedy: ${hint}\n`;
  }
}
