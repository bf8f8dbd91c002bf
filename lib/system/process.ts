import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { constants } from "node:os";

import { ShareHaError } from "../errors.js";
import { close, errnoName, ESRCH, pidfdOpen, pidfdSendSignal } from "./libc.js";

/** Output beyond this is cut off and the program ended: nothing that we call writes megabytes. */
const OUTPUT_BYTES_MAX = 4 * 1024 * 1024;
/** From TERM to KILL, and from KILL to giving the program up. */
const GRACE_MS = 1_000;
/** Where administrative programs are, also for a daemon that was started with a poor environment. */
export const SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

export interface RunOptions {
  readonly timeoutMs: number;
  /** Written to the program's standard input; without it, the input is empty. */
  readonly input?: string | Uint8Array;
  /** In addition to the own environment; LC_ALL is C unless given. */
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  /** At the deadline or the abort; default SIGTERM, and SIGKILL a second later. */
  readonly killSignal?: "SIGTERM" | "SIGKILL";
}

/**
 * How a program ended. `timeout`: it was still running at the deadline, got TERM and KILL; `gone` tells whether it has
 * ended (a program that hangs in the kernel has not). `overflow`: it wrote more than 4 MiB and was ended. `missing`: it
 * could not be started (`code`: ENOENT, EACCES ...).
 */
export type RunResult =
  | { readonly kind: "ok"; readonly stdout: string; readonly stderr: string }
  | {
      readonly kind: "exit";
      readonly exitCode: number;
      readonly stdout: string;
      readonly stderr: string;
    }
  | {
      readonly kind: "signal";
      readonly signal: string;
      readonly stdout: string;
      readonly stderr: string;
    }
  | { readonly kind: "timeout"; readonly timeoutMs: number; readonly gone: boolean }
  | { readonly kind: "overflow" }
  | { readonly kind: "cancelled" }
  | { readonly kind: "missing"; readonly file: string; readonly code: string };

/**
 * Runs a program to its end, without a shell. Never rejects for what the program does, and never takes longer than
 * `timeoutMs` and two seconds.
 * @param op what it is for, in the words of a log line ("mount /srv/web")
 */
export async function run(
  op: string,
  file: string,
  args: readonly string[],
  options: RunOptions,
): Promise<RunResult> {
  // Loading execa takes about 140 ms, and most commands never start a program.
  const { execa } = await import("execa");
  const { timeoutMs, input, signal, killSignal = "SIGTERM" } = options;
  if (signal?.aborted === true) {
    return { kind: "cancelled" };
  }
  const subprocess = execa(file, args, {
    reject: false,
    stripFinalNewline: false,
    maxBuffer: OUTPUT_BYTES_MAX,
    timeout: timeoutMs,
    killSignal,
    forceKillAfterDelay: GRACE_MS,
    env: { PATH: SEARCH_PATH, LC_ALL: "C", ...options.env },
    ...(signal === undefined ? {} : { cancelSignal: signal }),
    ...(input === undefined ? { stdin: "ignore" as const } : { input }),
  });
  let timer: NodeJS.Timeout | undefined;
  // execa waits for the end of the program and of whoever inherited its output, and either may hang for ever.
  const givenUp = new Promise<"given up">((resolve) => {
    timer = setTimeout(resolve, timeoutMs + 2 * GRACE_MS, "given up");
  });
  const result = await Promise.race([subprocess, givenUp]);
  clearTimeout(timer);
  if (result === "given up") {
    abandon(op, subprocess);
    return { kind: "timeout", timeoutMs, gone: !isRunning(subprocess.pid) };
  }
  if (result.timedOut) {
    return { kind: "timeout", timeoutMs, gone: true };
  }
  if (result.isCanceled) {
    return { kind: "cancelled" };
  }
  if (result.isMaxBuffer) {
    return { kind: "overflow" };
  }
  const { stdout, stderr } = result;
  if (result.signal !== undefined) {
    return { kind: "signal", signal: result.signal, stdout, stderr };
  }
  // Node gives a failed start as no exit code, or as the negative errno.
  if (result.exitCode === undefined || result.exitCode < 0) {
    return { kind: "missing", file, code: result.code ?? "EUNKNOWN" };
  }
  return result.exitCode === 0
    ? { kind: "ok", stdout, stderr }
    : { kind: "exit", exitCode: result.exitCode, stdout, stderr };
}

interface Abandoned {
  readonly stdout: { destroy(): unknown } | null;
  readonly stderr: { destroy(): unknown } | null;
  unref?: () => void;
  catch(onRejected: (error: unknown) => unknown): unknown;
}

/** Lets go of a program that does not end, so that neither its pipes nor its end concern this process any more. */
function abandon(op: string, subprocess: Abandoned): void {
  subprocess.catch((error: unknown) => {
    process.emitWarning(`${op}: ${String(error)}`);
  });
  subprocess.stdout?.destroy();
  subprocess.stderr?.destroy();
  subprocess.unref?.();
}

function isRunning(pid: number | undefined): boolean {
  return pid !== undefined && existsSync(`/proc/${pid}`);
}

/** One line for a log or an error: how the program ended, with the last line that it wrote. */
export function describeRun(result: RunResult): string {
  switch (result.kind) {
    case "ok":
      return "succeeded";
    case "exit":
      return withLastLine(`exit code ${result.exitCode}`, result.stderr, result.stdout);
    case "signal":
      return withLastLine(`ended by ${result.signal}`, result.stderr, result.stdout);
    case "timeout":
      return `no answer within ${result.timeoutMs} ms${result.gone ? "" : ", and it cannot be killed (it hangs in the kernel)"}`;
    case "overflow":
      return `wrote more than ${OUTPUT_BYTES_MAX} bytes and was ended`;
    case "cancelled":
      return "was cancelled";
    case "missing":
      return result.code === "ENOENT"
        ? `the program ${result.file} is not installed`
        : `the program ${result.file} cannot be started (${result.code})`;
  }
}

function withLastLine(what: string, stderr: string, stdout: string): string {
  const text = stderr.trim() === "" ? stdout : stderr;
  const line = text.trim().split("\n").at(-1) ?? "";
  return line === "" ? what : `${what}: ${line.slice(0, 300)}`;
}

/** A process, and no later one that got the same number: pid and start time (clock ticks since boot). */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTime: bigint;
}

export interface DetachedOptions {
  /** Descriptors 0, 1, 2 and so on of the program: a number is a descriptor of this process. */
  readonly stdio?: readonly ("ignore" | number)[];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

/**
 * Starts a program in a session of its own, so that it survives this process and its terminal.
 * @throws ERR_SPAWN
 */
export async function startDetached(
  file: string,
  args: readonly string[],
  options: DetachedOptions = {},
): Promise<ProcessIdentity> {
  const child = spawn(file, args, {
    detached: true,
    stdio: [...(options.stdio ?? ["ignore", "ignore", "ignore"])],
    env: { ...process.env, ...options.env },
    cwd: options.cwd ?? "/",
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => {
      reject(
        new ShareHaError("ERR_SPAWN", `${file} cannot be started: ${error.message}`, {
          hint: "Check that the program is installed and that the machine has memory and processes left.",
          fields: { file },
          cause: error,
        }),
      );
    });
  });
  child.unref();
  const { pid } = child;
  const startTime = pid === undefined ? undefined : processStartTime(pid);
  if (pid === undefined || startTime === undefined) {
    throw new ShareHaError("ERR_SPAWN", `${file} ended at once`, {
      hint: "Start the program by hand to see why.",
      fields: { file },
    });
  }
  return { pid, startTime };
}

/**
 * Field 22 of /proc/PID/stat: clock ticks since boot at which the process started. Undefined when there is no such
 * process, or its first thread has ended (a zombie runs no code; see `isEnded` for what else of it may be left).
 */
export function processStartTime(pid: number): bigint | undefined {
  const stat = readStat(pid);
  return stat === undefined || stat.isZombie ? undefined : stat.startTime;
}

function readStat(
  pid: number,
):
  { readonly isZombie: boolean; readonly threads: number; readonly startTime: bigint } | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ESRCH") {
      return undefined;
    }
    throw error;
  }
  // The second field is the program's name in parentheses and may hold anything, also parentheses.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const state = fields[0];
  const threads = Number(fields[17]);
  const startTime = fields[19];
  if (
    state === undefined ||
    startTime === undefined ||
    !/^\d+$/.test(startTime) ||
    Number.isNaN(threads)
  ) {
    throw new ShareHaError("ERR_PROC_FORMAT", `unknown form of /proc/${pid}/stat: ${stat}`, {
      hint: "This kernel prints process states in a form that this version does not know; report it.",
    });
  }
  return { isZombie: state === "Z" || state === "X", threads, startTime: BigInt(startTime) };
}

/** This process. */
export function ownIdentity(): ProcessIdentity {
  const startTime = processStartTime(process.pid);
  if (startTime === undefined) {
    throw new ShareHaError("ERR_PROC_FORMAT", "/proc does not show this process", {
      hint: "Mount /proc (of this pid namespace).",
    });
  }
  return { pid: process.pid, startTime };
}

/** False also for a zombie and for another process that got the number. */
export function isAlive(identity: ProcessIdentity): boolean {
  return processStartTime(identity.pid) === identity.startTime;
}

/**
 * Nothing of it is left but the number. A killed process of which a thread is still on its way out, or hangs in the
 * kernel, is a zombie to `isAlive` and has its files, sockets and locks all the same.
 */
export function isEnded(identity: ProcessIdentity): boolean {
  const stat = readStat(identity.pid);
  return stat?.startTime !== identity.startTime || (stat.isZombie && stat.threads <= 1);
}

/**
 * Sends a signal to this process and to no other: the pidfd is taken before the start time is compared, so a process that
 * gets the number in between is not hit. Returns `gone` when it no longer runs.
 * @throws ERR_KILL when the kernel refuses (EPERM, or no pidfd before Linux 5.3)
 */
export function killExact(identity: ProcessIdentity, signal: NodeJS.Signals): "sent" | "gone" {
  const pidfd = pidfdOpen(identity.pid);
  if (pidfd === -ESRCH) {
    return "gone";
  }
  if (pidfd < 0) {
    throw killError(identity, pidfd);
  }
  try {
    if (!isAlive(identity)) {
      return "gone";
    }
    const result = pidfdSendSignal(pidfd, constants.signals[signal]);
    if (result === -ESRCH) {
      return "gone";
    }
    if (result < 0) {
      throw killError(identity, result);
    }
    return "sent";
  } finally {
    close(pidfd);
  }
}

function killError(identity: ProcessIdentity, errno: number): ShareHaError {
  const code = errnoName(errno);
  return new ShareHaError("ERR_KILL", `process ${identity.pid} cannot be signalled: ${code}`, {
    hint: "Run as root; Linux 5.3 or newer is needed.",
    fields: { pid: identity.pid, errno: code },
  });
}
