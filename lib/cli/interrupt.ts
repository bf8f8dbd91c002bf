/** Ctrl-C during something that must be undone before the process ends. */

/**
 * Runs `action` with a signal that SIGINT and SIGTERM abort; a second one ends the process as ever. The handler stays
 * until the action is over: where a signal has no other, execa's own (it kills its children at the end) takes the first
 * signal for the end of this process.
 */
export async function interruptible<T>(action: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const stop = (): void => {
    process.removeListener("SIGINT", onSignal);
    process.removeListener("SIGTERM", onSignal);
  };
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) {
      stop();
      process.kill(process.pid, name);
    }
    controller.abort();
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  try {
    return await action(controller.signal);
  } finally {
    stop();
  }
}
