/**
 * Runs one of our own scripts in a process of its own, for looks at devices that may hang. A thread would not do: a process
 * of which a thread hangs in the kernel cannot end, and whoever waits for it waits too. A child that hangs is left behind.
 */
import { fork } from "node:child_process";

export type ChildEnd =
  /** It has said everything. */
  | { readonly kind: "ended" }
  /** It was still at work, and was killed; in the kernel it may hang on. */
  | { readonly kind: "late"; readonly timeoutMs: number }
  | { readonly kind: "failed"; readonly why: string };

export interface ChildOptions {
  readonly timeoutMs: number;
  /** Everything that it sends, in order, also before it is late. */
  readonly onMessage: (message: unknown) => void;
}

const STDERR_MAX = 4_096;
/** From the child's good-bye to its end; later it hangs in the kernel, and nobody waits for it. */
const GOODBYE_MS = 1_000;

/** @param script a compiled module that calls `process.disconnect()` when it has said everything, and ends */
export async function watchChild(
  script: URL,
  args: readonly string[],
  options: ChildOptions,
): Promise<ChildEnd> {
  const child = fork(script, [...args], {
    // The process's own options (a profiler, an inspector) are not for this one.
    execArgv: [],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let stderr = "";
  child.stderr?.on("data", (chunk: Buffer) => {
    stderr = (stderr + chunk.toString("utf8")).slice(-STDERR_MAX);
  });
  child.on("message", options.onMessage);
  return await new Promise<ChildEnd>((resolve) => {
    const leaveBehind = (end: ChildEnd): void => {
      child.kill("SIGKILL");
      if (child.connected) {
        child.disconnect();
      }
      child.stderr?.destroy();
      child.unref();
      settle(end);
    };
    let timer = setTimeout(() => {
      leaveBehind({ kind: "late", timeoutMs: options.timeoutMs });
    }, options.timeoutMs);
    let isSettled = false;
    const settle = (end: ChildEnd): void => {
      isSettled = true;
      clearTimeout(timer);
      resolve(end);
    };
    child.once("error", (error) => {
      settle({ kind: "failed", why: error.message });
    });
    child.once("disconnect", () => {
      if (isSettled) {
        return;
      }
      clearTimeout(timer);
      timer = setTimeout(() => {
        leaveBehind({ kind: "ended" });
      }, GOODBYE_MS);
    });
    // Not "exit": messages may still be on their way then.
    child.once("close", (code, signal) => {
      settle(
        code === 0
          ? { kind: "ended" }
          : { kind: "failed", why: `${signal ?? `exit code ${code ?? 0}`} ${lastLine(stderr)}` },
      );
    });
  });
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}
