import { type Command } from "commander";

import { ShareHaError } from "../errors.js";
import { ask } from "./ask.js";
import { type Bind, example } from "./command.js";
import { type Context, report } from "./context.js";
import { usageError } from "./exit-code.js";
import { duration, printable } from "./text.js";

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("fence <node>")
    .description("give a human's word that a node is off, as evidence for taking over what it held")
    .option("--confirm-off", "the node is powered off or cut from the LUN: you have made sure")
    .option("--yes", "do not ask (for scripts)")
    .action(bind((context, args, options) => fence(context, args[0] ?? "", options)));
  example(command, "sharedha fence n2 --confirm-off");
}

async function fence(
  context: Context,
  node: string,
  options: Readonly<Record<string, unknown>>,
): Promise<undefined> {
  if (options["confirmOff"] !== true) {
    throw usageError(
      `say how ${node} is fenced`,
      `Power ${node} off or cut it from the LUN, then run \`sharedha fence ${node} --confirm-off\`.`,
    );
  }
  if (options["yes"] !== true) {
    await askFirst(context, node);
  }
  const confirmed = await context.client.confirmOff(node);
  report(
    context,
    confirmed,
    () =>
      `confirmed: ${printable(node)} (host ${confirmed.hostId}, generation ${printable(confirmed.generation)}) is off; ` +
      `valid for ${duration(confirmed.validSeconds * 1_000)}\n`,
  );
  return undefined;
}

async function askFirst(context: Context, node: string): Promise<void> {
  if (!context.terminal.canAsk) {
    throw usageError(
      "there is no terminal to ask on",
      "Run it on a terminal, or add --yes when a program has made sure that the node is off.",
    );
  }
  context.terminal.err(
    `Others will take over what ${printable(node)} held and write to its data.\n` +
      `If ${printable(node)} still runs and reaches the LUN, both write and THE DATA IS LOST.\n`,
  );
  const answer = await ask(`Type the name of the node to say that it is off: `);
  if (answer.trim() !== node) {
    throw new ShareHaError("ERR_CANCELLED", "not confirmed, nothing was done", {
      hint: `Make sure that ${node} is off, then run the command again.`,
    });
  }
}
