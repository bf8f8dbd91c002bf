/**
 * Who uses the protected mounts, looked up in a thread of its own: whoever asks can go on, and takes at its time what has
 * been found by then. A search that blocks in the kernel holds up nothing but later searches.
 */
import { Worker } from "node:worker_threads";

import { type ProcessId } from "../pulse/messages.js";
import { type MountTarget } from "../system/mounted-filesystem.js";

export interface Search {
  readonly number: number;
  readonly targets: readonly MountTarget[];
}

/** One user; without one, the search is over. */
export interface SearchNews {
  readonly number: number;
  readonly user: ProcessId | undefined;
}

/** Behind a search that blocks no more than this wait. */
const SEARCHES_MAX = 4;

export class UserFinder {
  /** The number of the search that is wanted; the thread looks at it between two processes. */
  readonly #wanted = new Int32Array(new SharedArrayBuffer(4));
  readonly #program: URL;
  #thread: Worker | undefined;
  #unanswered = 0;
  #found: ProcessId[] = [];
  #onOver: () => void = ignore;

  constructor(program = new URL("./users-worker.js", import.meta.url)) {
    this.#program = program;
  }

  /** Keeps a thread ready. Resolves when it is. */
  async prepare(): Promise<void> {
    if (this.#thread !== undefined) {
      return;
    }
    const thread = new Worker(this.#program, {
      name: "users",
      execArgv: [],
      workerData: this.#wanted,
      resourceLimits: { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 },
    });
    this.#thread = thread;
    thread.on("message", (news: SearchNews) => {
      this.#hear(news);
    });
    thread.on("error", warn);
    await new Promise<void>((resolve) => {
      thread.once("online", resolve);
      thread.once("exit", () => {
        this.#lost(thread);
        resolve();
      });
    });
  }

  /** Begins to look, in place of any search before; `found` grows from now on. False: there is nobody to do it. */
  begin(targets: readonly MountTarget[]): boolean {
    this.drop();
    if (this.#thread === undefined || this.#unanswered >= SEARCHES_MAX) {
      return false;
    }
    this.#unanswered++;
    const search: Search = { number: Atomics.load(this.#wanted, 0), targets };
    this.#thread.postMessage(search);
    return true;
  }

  /** Who has been found since `begin`: exact processes, though they may have ended or closed their files meanwhile. */
  get found(): readonly ProcessId[] {
    return this.#found;
  }

  /** Ends the search, and forgets what it has found. */
  drop(): void {
    Atomics.add(this.#wanted, 0, 1);
    this.#found = [];
    this.#onOver();
    this.#onOver = ignore;
  }

  /** Looks now: who has been found when the search is over, or after `boundMs`. Never rejects. */
  async find(targets: readonly MountTarget[], boundMs: number): Promise<readonly ProcessId[]> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, boundMs)));
    await Promise.race([this.prepare().catch(warn), late]);
    if (this.begin(targets)) {
      await Promise.race([new Promise<void>((resolve) => (this.#onOver = resolve)), late]);
    }
    clearTimeout(timer);
    const found = this.#found;
    this.drop();
    return found;
  }

  /** A thread that blocks in the kernel is left to end when it can. */
  close(): void {
    this.drop();
    this.#thread?.unref();
    void this.#thread?.terminate();
  }

  #hear({ number, user }: SearchNews): void {
    const isWanted = number === Atomics.load(this.#wanted, 0);
    if (user === undefined) {
      this.#unanswered--;
      if (isWanted) {
        this.#onOver();
      }
    } else if (isWanted) {
      this.#found.push(user);
    }
  }

  /** Whoever waits takes what there is; the next one to prepare starts another. */
  #lost(thread: Worker): void {
    if (this.#thread === thread) {
      this.#thread = undefined;
      this.#unanswered = 0;
      this.#onOver();
    }
  }
}

/** Without a thread nobody is found. */
function warn(error: unknown): void {
  const why = error instanceof Error ? error.message : String(error);
  process.emitWarning(`no search for users of the mounts: ${why}`);
}

function ignore(): void {
  // Nobody waits.
}
