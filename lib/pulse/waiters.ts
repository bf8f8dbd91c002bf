/** Those who wait for something that a later beat brings about. */

interface Waiter {
  readonly isDone: () => boolean;
  readonly settle: (isDone: boolean) => void;
}

export class Waiters {
  readonly #waiting = new Set<Waiter>();

  /** Resolves with true as soon as the condition holds at a `settle`, with false after `timeoutMs` or when told to give up. */
  async until(isDone: () => boolean, timeoutMs: number): Promise<boolean> {
    if (isDone()) {
      return true;
    }
    return await new Promise<boolean>((resolve) => {
      const waiter: Waiter = {
        isDone,
        settle: (result) => {
          clearTimeout(timer);
          this.#waiting.delete(waiter);
          resolve(result);
        },
      };
      const timer = setTimeout(waiter.settle, timeoutMs, false);
      this.#waiting.add(waiter);
    });
  }

  /** @param giveUp nothing will come any more: those whose condition does not hold now get false */
  settle(giveUp: boolean): void {
    for (const waiter of [...this.#waiting]) {
      if (waiter.isDone()) {
        waiter.settle(true);
      } else if (giveUp) {
        waiter.settle(false);
      }
    }
  }
}
