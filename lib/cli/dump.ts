import { resolve } from "node:path";

import { type Command, Option } from "commander";

import { type Dump } from "../region/dump.js";
import { type Bind, example } from "./command.js";
import { type Context, report } from "./context.js";
import { withNewline } from "./text.js";

type AreaName = Dump["areas"][number]["use"];

/** As lib/region/dump.ts has them; that file would be loaded for every --help. */
const AREAS: readonly AreaName[] = [
  "superblock",
  "outboxes",
  "reservations",
  "lockspace",
  "rindex",
  "lease",
];

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("dump <path>")
    .description(
      "print the records of a LUN or file, also plain sanlock ones; works without the daemon",
    )
    .addOption(new Option("--area <name>", "only areas of this use").choices(AREAS))
    .option("--raw", "every place that can hold a record, with its bytes in hexadecimal")
    .action(bind(dump));
  example(command, "sharedha dump /dev/sdb", "sharedha dump /dev/sdb --area lockspace --json");
}

async function dump(
  context: Context,
  args: readonly string[],
  options: Readonly<Record<string, unknown>>,
): Promise<undefined> {
  const [{ dumpPath }, { renderDump }] = await Promise.all([
    import("../region/dump.js"),
    import("../region/dump-text.js"),
  ]);
  const area = AREAS.find((name) => name === options["area"]);
  const dumped = await dumpPath(resolve(args[0] ?? ""), {
    raw: options["raw"] === true,
    ...(area === undefined ? {} : { area }),
  });
  report(context, dumped, () => withNewline(renderDump(dumped)));
  return undefined;
}
