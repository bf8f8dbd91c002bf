import { type Command } from "commander";

import { type EventBody } from "../net/api.js";
import { type Bind, example } from "./command.js";
import { type Context } from "./context.js";
import { localTime, printable } from "./text.js";

/** One long poll; the daemon answers earlier when something happens. */
const POLL_MS = 20_000;

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("events")
    .description("what happened on this node, oldest first; with --json one object per line")
    .option("--follow", "go on as things happen, until interrupted")
    .action(bind((context, _args, options) => showEvents(context, options["follow"] === true)));
  example(command, "sharedha events", "sharedha events --follow --json");
}

async function showEvents(context: Context, isFollowing: boolean): Promise<undefined> {
  let shown = 0;
  let answer = await context.client.events(0, 0);
  // The daemon gives a few hundred at a time; an empty answer is the end of what there is now.
  while (answer.events.length > 0 || isFollowing) {
    print(context, answer.events);
    shown += answer.events.length;
    const waitMs = answer.events.length === 0 ? POLL_MS : 0;
    answer = await context.client.events(answer.next, waitMs);
  }
  if (shown === 0 && !context.isJson) {
    context.terminal.out("nothing has happened yet\n");
  }
  return undefined;
}

function print(context: Context, events: readonly EventBody[]): void {
  const { paint, terminal } = context;
  const width = Math.max(12, ...events.map(({ event }) => event.length));
  const text = events.map((event) =>
    context.isJson
      ? `${JSON.stringify(event)}\n`
      : `${paint("dim", localTime(event.at))}  ${paint("bold", printable(event.event).padEnd(width))}  ${printable(event.text)}\n`,
  );
  terminal.out(text.join(""));
}
