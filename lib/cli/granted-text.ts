/** How a grant is told: the version that is the fencing token, and what the take-over rests on. */
import { type AcquiredBody } from "../net/api.js";
import { type Context } from "./context.js";
import { duration, printable } from "./text.js";

export function grantedText(granted: AcquiredBody): string {
  const waited = granted.waitedMs < 1 ? "" : ` after ${duration(granted.waitedMs)}`;
  const mode = granted.shared ? "shared" : "exclusive";
  const evidence = granted.evidence.map(
    ({ kind, hostId, detail }) =>
      `  taken over with evidence '${printable(kind)}' of host ${hostId}: ${printable(detail)}\n`,
  );
  const name = printable(granted.name);
  return `${name}: ${mode}, version ${printable(granted.version)}${waited}\n${evidence.join("")}`;
}

const TELL_AFTER_MS = 700;

/** While a wait lasts, tells a human once what it waits for. The answer of the wait itself is not delayed by it. */
export async function whileWaiting<T>(
  context: Context,
  lease: string,
  waitMs: number | null,
  wait: Promise<T>,
): Promise<T> {
  if (waitMs === 0 || context.isJson) {
    return wait;
  }
  const timer = setTimeout(() => {
    tellHolder(context, lease).catch(() => {
      // The wait itself reports what is wrong with the daemon; this was only company.
      context.terminal.err(`waiting for ${printable(lease)} ...\n`);
    });
  }, TELL_AFTER_MS);
  try {
    return await wait;
  } finally {
    clearTimeout(timer);
  }
}

async function tellHolder(context: Context, name: string): Promise<void> {
  const lease = await context.client.lease(name);
  const holders = lease.holders.map((holder) => printable(holder.name)).join(", ");
  const queue = lease.queue.length === 0 ? "" : `; queue: ${lease.queue.map(printable).join(", ")}`;
  const held = holders === "" ? "it is free but not granted yet" : `held by ${holders}`;
  context.terminal.err(`waiting for ${printable(name)}: ${held}${queue}\n`);
}
