import { type Command } from "commander";

import { type Bind, example, parseWait, waitOption } from "./command.js";
import { type Context, report } from "./context.js";
import { grantedText, whileWaiting } from "./granted-text.js";
import { holderText, leaseTable } from "./status-text.js";
import { localTime, printable } from "./text.js";

export function register(program: Command, bind: Bind): void {
  const lease = program.command("lease").description("leases on the LUN: take, give back, list");
  example(lease, "sharedha lease acquire backup --wait 30", "sharedha lease list");
  registerAcquire(lease, bind);
  example(
    lease
      .command("release <name>")
      .description("give a lease back; only its holder can")
      .action(bind((context, args) => release(context, args[0] ?? ""))),
    "sharedha lease release backup",
  );
  example(
    lease
      .command("list")
      .description("all leases, their holders, versions and queues")
      .action(bind((context) => list(context))),
    "sharedha lease list",
  );
  example(
    lease
      .command("show <name>")
      .description("one lease with everything that is known about it")
      .action(bind((context, args) => show(context, args[0] ?? ""))),
    "sharedha lease show backup",
  );
  example(
    lease
      .command("create <name>")
      .description("make a lease; its version goes on where a deleted one of the name stopped")
      .action(bind((context, args) => change(context, args[0] ?? "", "create"))),
    "sharedha lease create backup",
  );
  example(
    lease
      .command("delete <name>")
      .description("remove a lease that nobody holds")
      .action(bind((context, args) => change(context, args[0] ?? "", "delete"))),
    "sharedha lease delete backup",
  );
}

function registerAcquire(lease: Command, bind: Bind): void {
  example(
    lease
      .command("acquire <name>")
      .description("take a lease for this node, until it is released here")
      .option("--shared", "together with other shared holders")
      .option(
        "--wait <seconds>",
        "queue up to this long, or 'forever' (default: one try)",
        parseWait,
      )
      .action(
        bind((context, args, options) =>
          acquire(context, args[0] ?? "", options["shared"] === true, waitOption(options)),
        ),
      ),
    "sharedha lease acquire backup --wait 30",
  );
}

async function acquire(
  context: Context,
  name: string,
  shared: boolean,
  waitMs: number | null,
): Promise<undefined> {
  const body = { shared, waitMs, bindToConnection: false };
  const granted = await whileWaiting(context, name, waitMs, context.client.acquire(name, body));
  report(context, granted, () => `acquired ${grantedText(granted)}`);
  return undefined;
}

async function release(context: Context, name: string): Promise<undefined> {
  await context.client.release(name);
  report(context, { released: true, name }, () => `released ${printable(name)}\n`);
  return undefined;
}

async function list(context: Context): Promise<undefined> {
  const leases = await context.client.leases();
  report(context, { leases }, () =>
    leases.length === 0
      ? "no leases; `sharedha lease create NAME` makes one\n"
      : leaseTable(leases, context.paint, context.nowMs()),
  );
  return undefined;
}

async function show(context: Context, name: string): Promise<undefined> {
  const lease = await context.client.lease(name);
  report(context, lease, () => {
    const holders = lease.holders.map((holder) => {
      const since = holder.since === null ? "" : ` since ${localTime(holder.since)}`;
      const mode = holder.shared ? "shared" : "exclusive";
      return `  held by ${holderText(holder)}, generation ${printable(holder.generation)}, ${mode}${since}\n`;
    });
    const queue = lease.queue.length === 0 ? "nobody" : lease.queue.map(printable).join(", ");
    return [
      `${context.paint("bold", printable(lease.name))}  version ${printable(lease.version)}, area ${lease.area}${lease.heldHere ? ", held here" : ""}\n`,
      ...(holders.length === 0 ? ["  free\n"] : holders),
      `  waiting: ${queue}\n`,
    ].join("");
  });
  return undefined;
}

async function change(
  context: Context,
  name: string,
  what: "create" | "delete",
): Promise<undefined> {
  const lease = await context.client.changeLease(name, what);
  report(context, { lease }, () =>
    what === "create"
      ? `created ${printable(name)} in area ${lease.area}, version ${printable(lease.version)}\n`
      : `deleted ${printable(name)}\n`,
  );
  return undefined;
}
