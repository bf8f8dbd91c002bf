import { type Command } from "commander";

import { type Bind, example } from "./command.js";
import { type Context, report } from "./context.js";
import { removeNodeFile } from "./node-file.js";

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("leave")
    .description("leave the cluster: disarm, free the host id, stop the processes of this node")
    .action(bind((context) => leave(context)));
  example(command, "sharedha leave");
}

async function leave(context: Context): Promise<undefined> {
  await context.client.leave();
  // From now on this is no member's directory; a later `join` starts from its own arguments.
  removeNodeFile(context.stateDir);
  report(context, { left: true }, () => "left the cluster\n");
  return undefined;
}
