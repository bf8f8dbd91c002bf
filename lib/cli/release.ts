import { type Command } from "commander";

import { type Bind, example } from "./command.js";
import { type Context, report } from "./context.js";
import { ONLY_GROUP } from "./reserve.js";
import { printable } from "./text.js";

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("release [group]")
    .description("give a group back: unmount, then release its lease")
    .action(bind((context, args) => release(context, args[0] ?? ONLY_GROUP)));
  example(command, "sharedha release web");
}

async function release(context: Context, group: string): Promise<undefined> {
  await context.client.releaseGroup(group);
  const name = group === ONLY_GROUP ? "the group" : printable(group);
  report(
    context,
    { released: true, group: group === ONLY_GROUP ? null : group },
    () => `released ${name}\n`,
  );
  return undefined;
}
