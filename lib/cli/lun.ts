import { resolve } from "node:path";

import { type Command } from "commander";

import { type Bind, example } from "./command.js";
import { type Context, report } from "./context.js";
import { printable } from "./text.js";

export function register(program: Command, bind: Bind): void {
  const lun = program.command("lun").description("the LUNs of the quorum");
  example(lun, "sharedha lun replace /dev/sdc");
  example(
    lun
      .command("replace <path>")
      .description("make a blank or changed LUN count: copy a majority's records to it, new epoch")
      .option("--force", "overwrite a device that holds data; never one that is in use")
      .action(
        bind((context, args, options) =>
          replace(context, args[0] ?? "", options["force"] === true),
        ),
      ),
    "sharedha lun replace /dev/sdc",
    "sharedha lun replace /dev/sdc --force",
  );
}

async function replace(context: Context, path: string, force: boolean): Promise<undefined> {
  // The daemon has another working directory.
  const replaced = await context.client.replaceLun({ path: resolve(path), force });
  report(
    context,
    replaced,
    () =>
      `LUN ${replaced.lun} is now ${printable(path)}; it counts from epoch ${printable(replaced.epoch)} on\n`,
  );
  return undefined;
}
