/**
 * `sharedha run`: a command that must not run without its lease. The lease is bound to this process's connection to the
 * daemon, and so is the protection of the command: if this process is killed, the daemon ends the command before it gives
 * the lease away; if the daemon goes, or says that the node has lost, this process ends the command.
 */
import { type Command } from "commander";

import { ShareHaError } from "../errors.js";
import { type StatusBody } from "../net/api.js";
import { type ControlSession, openControlSession } from "../net/control-client.js";
import { type ForegroundProcess } from "../system/foreground.js";
import {
  type Bind,
  example,
  numberOption,
  parseWait,
  parseWhole,
  stringOption,
  waitOption,
} from "./command.js";
import { type Context } from "./context.js";
import { printError } from "./error-text.js";
import { usageError } from "./exit-code.js";
import { whileWaiting } from "./granted-text.js";
import { printable } from "./text.js";

const DEFAULT_LEASE = "run";
const DEFAULT_KILL_AFTER_MS = 2_000;
/** The bound connection never idles longer, so that neither side takes it for dead. */
const PING_EVERY_MS = 1_000;
/** A daemon that does not answer a ping for this long is as good as gone. */
const PING_ANSWER_MS = 3_000;
/** After KILL: what has not ended by then hangs in the kernel. */
const REAP_MS = 5_000;
/** From the end of the command to the moment when this process knows of it. */
const EXIT_SEEN_MS = 1_000;
const FORWARDED = [
  "SIGINT",
  "SIGTERM",
  "SIGHUP",
  "SIGQUIT",
  "SIGUSR1",
  "SIGUSR2",
  "SIGWINCH",
] as const;

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("run <command...>")
    .usage("[options] -- COMMAND [ARGUMENT...]")
    .description("run a command under a lease; when the lease is lost, the command is ended")
    .option("--lease <name>", `the lease (default: ${DEFAULT_LEASE})`)
    .option("--shared", "together with other shared holders")
    .option("--wait <seconds>", "queue up to this long, or 'forever' (default: one try)", parseWait)
    .option(
      "--kill-after <ms>",
      "from TERM to KILL when the lease is lost (default: 2000, and never beyond half of W - T)",
      parseWhole(0, 600_000),
    )
    .passThroughOptions()
    .action(bind(runUnderLease));
  command.addHelpText(
    "after",
    "\nThe command finds SHAREDHA_LEASE and SHAREDHA_LEASE_VERSION (the fencing token) in its environment. It gets a" +
      "\nsession of its own; signals are passed on. What is left of its processes when it ends is ended too." +
      "\nExit code: the command's; 128 + n after signal n; 126/127 when it cannot be started; 1 when the lease was" +
      "\nrefused or lost.",
  );
  example(
    command,
    "sharedha run --lease backup --wait 60 -- rsync -a /srv/web/ /backup/",
    "sharedha run --lease job -- my-job --flag",
  );
}

async function runUnderLease(
  context: Context,
  args: readonly string[],
  options: Readonly<Record<string, unknown>>,
): Promise<number> {
  const [file, ...rest] = args;
  if (file === undefined || file === "") {
    throw usageError("no command is given", "sharedha run --lease NAME -- COMMAND [ARGUMENT...]");
  }
  const lease = stringOption(options, "lease") ?? DEFAULT_LEASE;
  const waitMs = waitOption(options);
  const session = await openControlSession({ stateDir: context.stateDir });
  try {
    const status = await session.client.status();
    const killAfterMs = killAfter(numberOption(options, "killAfter"), status.timers);
    const granted = await whileWaiting(
      context,
      lease,
      waitMs,
      session.client.acquire(lease, {
        shared: options["shared"] === true,
        waitMs,
        bindToConnection: true,
      }),
    );
    return await superviseCommand(context, session, {
      lease,
      version: granted.version,
      file,
      args: rest,
      killAfterMs,
    });
  } finally {
    // The daemon releases what is bound to the connection, whatever happened here.
    session.close();
  }
}

/** Half of the time from the loss (T) to the watchdog (W) is for TERM, the rest for KILL and unmount (DESIGN 8). */
export function killAfter(asked: number | undefined, timers: StatusBody["timers"]): number {
  const bound = Math.max(0, (timers.watchdogMs - timers.ttlMs) / 2);
  return Math.min(asked ?? DEFAULT_KILL_AFTER_MS, bound);
}

interface Job {
  readonly lease: string;
  readonly version: string;
  readonly file: string;
  readonly args: readonly string[];
  readonly killAfterMs: number;
}

async function superviseCommand(
  context: Context,
  session: ControlSession,
  job: Job,
): Promise<number> {
  const { startForeground } = await import("../system/foreground.js");
  let command: ForegroundProcess;
  try {
    command = await startForeground(job.file, job.args, {
      SHAREDHA_LEASE: job.lease,
      SHAREDHA_LEASE_VERSION: job.version,
    });
  } catch (error) {
    await releaseLease(context, session, job.lease);
    return reportUnstarted(context, error);
  }
  const stopForwarding = forwardSignals(command);
  const stop = new AbortController();
  try {
    const ended = await Promise.race([
      command.exitCode,
      protectAndPing(session, command, stop.signal),
      session.closed.then(() => new Error("the daemon closed the connection")),
    ]);
    if (typeof ended === "number") {
      await endGroup(command, job.killAfterMs);
      stop.abort();
      await releaseLease(context, session, job.lease);
      return ended;
    }
    throw await loseLease(context, command, job, ended);
  } finally {
    stop.abort();
    stopForwarding();
  }
}

/** Not thrown: as shells have it, the exit code says here why the command did not start. */
function reportUnstarted(context: Context, error: unknown): number {
  if (!(error instanceof ShareHaError)) {
    throw error;
  }
  printError(error, context.terminal, context.isJson);
  return error.fields["errno"] === "ENOENT" ? 127 : 126;
}

/** Resolves with what is wrong as soon as the daemon cannot vouch for the lease any more; never when all stays well. */
async function protectAndPing(
  session: ControlSession,
  command: ForegroundProcess,
  signal: AbortSignal,
): Promise<Error> {
  try {
    await session.client.protect({ pid: command.pid });
    let after = Number.MAX_SAFE_INTEGER;
    while (!signal.aborted) {
      const answer = await session.client.events(after, 0, PING_ANSWER_MS);
      after = answer.next;
      await pause(PING_EVERY_MS, signal);
    }
  } catch (error) {
    if (!signal.aborted && !(await isOfEnded(error, command, signal))) {
      return error instanceof Error ? error : new Error(String(error));
    }
  }
  // The command has ended; its exit code decides.
  return new Promise<never>(() => undefined);
}

/** A short command may be over before it can be protected; one that goes on and cannot be seen must not. */
async function isOfEnded(
  error: unknown,
  command: ForegroundProcess,
  signal: AbortSignal,
): Promise<boolean> {
  if (!(error instanceof ShareHaError) || error.code !== "ERR_NO_SUCH_PROCESS") {
    return false;
  }
  const ended = command.exitCode.then(() => true);
  return Promise.race([ended, pause(EXIT_SEEN_MS, signal).then(() => signal.aborted)]);
}

/** @returns the error to report, when the command has ended */
async function loseLease(
  context: Context,
  command: ForegroundProcess,
  job: Job,
  why: Error,
): Promise<ShareHaError> {
  context.terminal.err(
    `sharedha: the lease ${printable(job.lease)} is no longer sure (${printable(why.message)}); ending the command\n`,
  );
  const [isEnded, state] = await Promise.all([
    endGroup(command, job.killAfterMs),
    nodeStateText(context),
  ]);
  const command_ = isEnded
    ? "the command was ended"
    : `the command does not end even by KILL (process group ${command.pid} hangs in the kernel)`;
  return new ShareHaError(
    "ERR_LEASE_LOST",
    `the lease ${job.lease} (version ${job.version}) was lost: ${why.message}; ${command_}${state}`,
    {
      hint: "Look at `sharedha status` and `sharedha events`; what the command did last may be incomplete.",
      fields: { lease: job.lease, version: job.version, ended: isEnded },
      cause: why,
    },
  );
}

/** A second opinion for the message only; a daemon that is gone has none. */
async function nodeStateText(context: Context): Promise<string> {
  try {
    const { ControlClient } = await import("../net/control-client.js");
    const client = new ControlClient({ stateDir: context.stateDir, answerMs: 500 });
    const { node } = await client.status();
    return `; this node is ${node.state}${node.why === null ? "" : ` (${node.why})`}`;
  } catch (error) {
    return error instanceof ShareHaError ? `; ${error.message}` : "";
  }
}

/** TERM, then KILL after the bound. @returns false when something is left even after KILL */
async function endGroup(command: ForegroundProcess, killAfterMs: number): Promise<boolean> {
  if (command.signalGroup("SIGTERM") === "gone") {
    return true;
  }
  // A stopped process does not see TERM before it goes on.
  command.signalGroup("SIGCONT");
  if (await isGroupGone(command, killAfterMs)) {
    return true;
  }
  command.signalGroup("SIGKILL");
  return isGroupGone(command, REAP_MS);
}

const LOOK_EVERY_MS = 10;

async function isGroupGone(command: ForegroundProcess, withinMs: number): Promise<boolean> {
  const end = performance.now() + withinMs;
  while (command.signalGroup(0) !== "gone") {
    if (performance.now() >= end) {
      return false;
    }
    await pause(LOOK_EVERY_MS);
  }
  return true;
}

/** The command's result stands, also when the release fails: closing the connection releases too. */
async function releaseLease(
  context: Context,
  session: ControlSession,
  lease: string,
): Promise<void> {
  try {
    await session.client.release(lease);
  } catch (error) {
    if (!(error instanceof ShareHaError)) {
      throw error;
    }
    context.terminal.err(
      `sharedha: the lease ${printable(lease)} was not released: ${printable(error.message)}\n` +
        `  remedy: ${printable(error.hint)}\n`,
    );
  }
}

function forwardSignals(command: ForegroundProcess): () => void {
  const handlers: (readonly [NodeJS.Signals, () => void])[] = FORWARDED.map((signal) => [
    signal,
    () => {
      command.signalGroup(signal);
    },
  ]);
  // TSTP itself has no effect on a session without a terminal; the pair stops and goes on together.
  const stopTogether = (): void => {
    command.signalGroup("SIGSTOP");
    process.kill(process.pid, "SIGSTOP");
  };
  const goOn = (): void => {
    command.signalGroup("SIGCONT");
  };
  handlers.push(["SIGTSTP", stopTogether], ["SIGCONT", goOn]);
  for (const [signal, handler] of handlers) {
    process.on(signal, handler);
  }
  return () => {
    for (const [signal, handler] of handlers) {
      process.off(signal, handler);
    }
  };
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}
