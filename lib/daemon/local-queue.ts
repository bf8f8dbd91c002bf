/** Requests of one node for one lease, one at a time, in the order in which they came. */

type Turn = "entered" | "timed-out" | "cancelled" | "closed";

/** Requests that may wait here; beyond it something asks without end. */
const WAITING_MAX = 1_000;

export class LocalQueue {
  readonly #waiting: ((turn: Turn) => void)[] = [];
  #busy = false;

  /**
   * Resolves at once when nobody is inside.
   * @param waitMs undefined: for ever
   */
  async enter(waitMs: number | undefined, signal?: AbortSignal): Promise<Turn> {
    if (!this.#busy) {
      this.#busy = true;
      return "entered";
    }
    if (signal?.aborted === true) {
      return "cancelled";
    }
    if (this.#waiting.length >= WAITING_MAX) {
      return "timed-out";
    }
    return await new Promise<Turn>((resolve) => {
      const settle = (turn: Turn): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", cancel);
        const index = this.#waiting.indexOf(settle);
        if (index >= 0) {
          this.#waiting.splice(index, 1);
        }
        resolve(turn);
      };
      const cancel = (): void => {
        settle("cancelled");
      };
      const timer = waitMs === undefined ? undefined : setTimeout(settle, waitMs, "timed-out");
      signal?.addEventListener("abort", cancel, { once: true });
      this.#waiting.push(settle);
    });
  }

  /** For one who is inside already: a hold that was found. */
  enterNow(): void {
    this.#busy = true;
  }

  /** Lets the next one in; `empty` when there is none. */
  leave(): "next" | "empty" {
    const next = this.#waiting[0];
    if (next === undefined) {
      this.#busy = false;
      return "empty";
    }
    next("entered");
    return "next";
  }

  /** Nobody gets in any more. */
  close(): void {
    for (const settle of [...this.#waiting]) {
      settle("closed");
    }
  }
}
