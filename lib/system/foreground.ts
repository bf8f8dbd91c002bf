import { spawn } from "node:child_process";
import { constants } from "node:os";

import { ShareHaError } from "../errors.js";

/**
 * A program that has this process's terminal and streams, in a session and process group of its own: it can be signalled
 * with everything it started, and this process is not hit by that.
 */
export interface ForegroundProcess {
  /** Also the number of its session and process group. */
  readonly pid: number;
  /** As shells tell it: the exit code, or 128 + the number of the signal that ended it. */
  readonly exitCode: Promise<number>;
  /** To its process group; `gone` when nobody is left in it. @throws the system's error, such as EPERM */
  signalGroup(signal: NodeJS.Signals | 0): "sent" | "gone";
}

/**
 * @param env in addition to the own environment
 * @throws ERR_SPAWN, with `errno` among its fields (ENOENT: no such program, EACCES: not executable)
 */
export async function startForeground(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<ForegroundProcess> {
  const child = spawn(file, args, {
    // setsid(2): a process group alone cannot be had from Node.
    detached: true,
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
  const exitCode = new Promise<number>((resolve) => {
    child.once("exit", (code, signal) => {
      resolve(exitCodeOf(code, signal));
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error) => {
      reject(spawnError(file, error));
    });
  });
  const { pid } = child;
  if (pid === undefined) {
    throw spawnError(file, new Error("it has no process number"));
  }
  return { pid, exitCode, signalGroup: (signal) => signalGroup(pid, signal) };
}

/**
 * Runs a program that needs the terminal for itself, such as an editor, in this process's own group.
 * @returns its exit code, or 128 + the number of the signal. @throws ERR_SPAWN
 */
export async function runOnTerminal(file: string, args: readonly string[]): Promise<number> {
  // What the user types at the editor is the editor's: Ctrl-C there must not end this process.
  const ignore = (): undefined => undefined;
  process.on("SIGINT", ignore);
  try {
    const child = spawn(file, args, { stdio: "inherit" });
    return await new Promise<number>((resolve, reject) => {
      child.once("exit", (code, signal) => {
        resolve(exitCodeOf(code, signal));
      });
      child.once("error", (error) => {
        reject(spawnError(file, error));
      });
    });
  } finally {
    process.off("SIGINT", ignore);
  }
}

function exitCodeOf(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
}

function signalGroup(pid: number, signal: NodeJS.Signals | 0): "sent" | "gone" {
  try {
    process.kill(-pid, signal);
    return "sent";
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ESRCH") {
      return "gone";
    }
    throw error;
  }
}

function spawnError(file: string, error: Error): ShareHaError {
  const errno = "code" in error ? String(error.code) : "EUNKNOWN";
  const why = errno === "ENOENT" ? "there is no such program" : error.message;
  return new ShareHaError("ERR_SPAWN", `${file} cannot be started: ${why}`, {
    hint: "Give the program's name as in PATH, or its path; check that it is executable.",
    fields: { file, errno },
    cause: error,
  });
}
