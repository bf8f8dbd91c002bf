import { type Command } from "commander";

import { type ReservedBody } from "../net/api.js";
import { type Bind, example, parseWait, waitOption } from "./command.js";
import { type Context, report } from "./context.js";
import { grantedText, whileWaiting } from "./granted-text.js";
import { duration, printable } from "./text.js";

/** In the API: the only group there is. */
export const ONLY_GROUP = "-";

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("reserve [group]")
    .description("take a group for this node: lease, file system check as needed, mount")
    .option("--wait <seconds>", "queue up to this long, or 'forever' (default: one try)", parseWait)
    .action(
      bind((context, args, options) =>
        reserve(context, args[0] ?? ONLY_GROUP, waitOption(options)),
      ),
    );
  example(command, "sharedha reserve web", "sharedha reserve web --wait 60");
}

async function reserve(context: Context, group: string, waitMs: number | null): Promise<undefined> {
  const asked = context.client.reserve(group, { waitMs });
  const reserved = await (group === ONLY_GROUP
    ? asked
    : whileWaiting(context, `group:${group}`, waitMs, asked));
  report(context, reserved, () => reservedText(reserved));
  return undefined;
}

function reservedText(reserved: ReservedBody): string {
  const mounted =
    reserved.mountPath === null ? "" : `  mounted on ${printable(reserved.mountPath)}\n`;
  const steps = reserved.steps
    .map(({ step, ms }) => `${printable(step)} ${duration(ms)}`)
    .join(", ");
  return (
    `reserved ${printable(reserved.group)}\n  lease ${grantedText(reserved)}${mounted}` +
    (steps === "" ? "" : `  steps: ${steps}\n`)
  );
}
