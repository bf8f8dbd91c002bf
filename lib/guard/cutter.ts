/**
 * Threads that stand ready to cut the protected mounts, one per mount: started when the mount is announced, so that at
 * expiry nothing has to be started or allocated first, and a device that hangs holds up its own thread only.
 */
import { Worker } from "node:worker_threads";

import { cutMount, type CutOutcome } from "../system/cut-mount.js";
import { type MountTarget } from "../system/mounted-filesystem.js";

/** More mounts than this share threads. */
const THREADS_MAX = 8;

export class Cutter {
  readonly #threads: Worker[] = [];
  #preparing = Promise.resolve();
  readonly #waiting = new Map<Worker, ((outcome: CutOutcome) => void)[]>();

  /** Keeps a thread ready for each of `mounts` mounts. Resolves when they are; calls take their turn. */
  async prepare(mounts: number): Promise<void> {
    const turn = this.#preparing.then(async () => {
      await this.#prepare(mounts);
    });
    this.#preparing = turn;
    await turn;
  }

  async #prepare(mounts: number): Promise<void> {
    const wanted = Math.min(mounts, THREADS_MAX);
    while (this.#threads.length > wanted) {
      const thread = this.#threads.pop();
      await thread?.terminate();
    }
    while (this.#threads.length < wanted) {
      const thread = new Worker(new URL("./cut-worker.js", import.meta.url), {
        name: "cut",
        execArgv: [],
        resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 32 },
      });
      thread.on("message", (outcome: CutOutcome) => {
        this.#waiting.get(thread)?.shift()?.(outcome);
      });
      thread.on("error", (error) => {
        this.#lost(thread, error);
      });
      this.#threads.push(thread);
      this.#waiting.set(thread, []);
      await new Promise<void>((resolve) => {
        thread.once("online", resolve);
        thread.once("exit", () => {
          resolve();
        });
      });
    }
  }

  /**
   * Cuts all at once; resolves when all have answered or after `boundMs`, with `failed` for those that still hang (their
   * threads go on). Without a thread (memory was short) it does the work itself.
   */
  async cut(targets: readonly MountTarget[], boundMs: number): Promise<readonly CutOutcome[]> {
    const late = new Promise<"late">((resolve) => setTimeout(resolve, boundMs, "late"));
    const outcomes = targets.map(async (target, index) => {
      const thread = this.#threads[index % Math.max(1, this.#threads.length)];
      const outcome = thread === undefined ? cutMount(target) : this.#ask(thread, target);
      const answer = await Promise.race([outcome, late]);
      return answer === "late"
        ? { kind: "failed" as const, why: `no answer in ${boundMs} ms` }
        : answer;
    });
    return await Promise.all(outcomes);
  }

  async #ask(thread: Worker, target: MountTarget): Promise<CutOutcome> {
    return await new Promise<CutOutcome>((resolve) => {
      this.#waiting.get(thread)?.push(resolve);
      thread.postMessage(target);
    });
  }

  /** A thread ends only for want of memory: what it was asked for is done here. */
  #lost(thread: Worker, error: Error): void {
    process.emitWarning(`a thread of the guard ended: ${error.message}`);
    this.#threads.splice(this.#threads.indexOf(thread), 1);
    for (const resolve of this.#waiting.get(thread) ?? []) {
      resolve({ kind: "failed", why: error.message });
    }
    this.#waiting.delete(thread);
  }
}
