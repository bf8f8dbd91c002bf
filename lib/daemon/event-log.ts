/**
 * What happened on this node, for people: a bounded ring in memory (the API's `events`), and `events.jsonl` in the state
 * directory, rotated at 8 MiB, two files. Nothing decides on it. Writing never holds anybody up: lines are appended in
 * the background, and when the disk is full the ring still has them and `fileTrouble` says why the file has not.
 */
import { appendFile, rename, stat } from "node:fs/promises";
import { join } from "node:path";

import { type EventBody, type EventsBody } from "../net/api.js";
import { type Clock } from "../port/clock.js";

const RING_EVENTS_MAX = 2_000;
const FILE_BYTES_MAX = 8 * 1024 * 1024;
/** Lines that wait for a slow disk; beyond it the oldest are left out of the file. */
const PENDING_LINES_MAX = 1_000;
/** Lines of a busy moment go out together: a contended lease makes hundreds of events a second. */
const COLLECT_MS = 50;
/** More would only delay the answer: the client asks again. */
export const EVENTS_WAIT_MS_MAX = 60_000;
const EVENTS_PER_ANSWER_MAX = 500;

export type EventFields = Readonly<Record<string, string | number | boolean>>;

export interface EventLogOptions {
  readonly stateDir: string;
  readonly clock: Clock;
  /** Wall clock, ms since 1970: for people only. */
  readonly wallMs: () => number;
}

export class EventLog {
  readonly #options: EventLogOptions;
  readonly #path: string;
  readonly #ring: EventBody[] = [];
  readonly #waiters = new Set<() => void>();
  #pending: string[] = [];
  #writing: Promise<void> | undefined;
  #bytes: number | undefined;
  #seq = 0;
  #fileTrouble: string | undefined;

  constructor(options: EventLogOptions) {
    this.#options = options;
    this.#path = join(options.stateDir, "events.jsonl");
  }

  /** Why the newest events are not in the file; undefined when they are. */
  get fileTrouble(): string | undefined {
    return this.#fileTrouble;
  }

  /** @param text one plain sentence */
  add(event: string, text: string, fields: EventFields = {}): void {
    this.#seq++;
    const body: EventBody = {
      seq: this.#seq,
      at: new Date(this.#options.wallMs()).toISOString(),
      bootMs: Math.round(this.#options.clock.bootMs() * 1_000) / 1_000,
      event,
      text,
      fields,
    };
    this.#ring.push(body);
    if (this.#ring.length > RING_EVENTS_MAX) {
      this.#ring.shift();
    }
    this.#pending.push(`${JSON.stringify(body)}\n`);
    if (this.#pending.length > PENDING_LINES_MAX) {
      this.#pending.shift();
    }
    this.#writing ??= this.#write();
    for (const wake of this.#waiters) {
      wake();
    }
  }

  /** The events after `after`; a number above the newest starts again from the oldest (the daemon was restarted). */
  after(after: number): EventsBody {
    const from = after > this.#seq ? 0 : after;
    const events = this.#ring.filter((event) => event.seq > from).slice(0, EVENTS_PER_ANSWER_MAX);
    return { events, next: events.at(-1)?.seq ?? Math.min(from, this.#seq) };
  }

  /** The sequence number of the newest event. */
  get newest(): number {
    return this.#seq;
  }

  /** Long poll: resolves with the first events after `after`, or with none when the time is up or `signal` says so. */
  async waitAfter(after: number, waitMs: number, signal: AbortSignal): Promise<EventsBody> {
    const now = this.after(after);
    if (now.events.length > 0 || waitMs <= 0 || signal.aborted) {
      return now;
    }
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      const timer = setTimeout(wake, Math.min(waitMs, EVENTS_WAIT_MS_MAX));
      this.#waiters.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
    return this.after(after);
  }

  /** Everything added so far is in the file, or `fileTrouble` says why not. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    try {
      while (this.#pending.length > 0) {
        await new Promise((resolve) => setTimeout(resolve, COLLECT_MS));
        const lines = this.#pending;
        this.#pending = [];
        await this.#append(lines.join(""));
      }
      this.#fileTrouble = undefined;
    } catch (error) {
      this.#fileTrouble = error instanceof Error ? error.message : String(error);
    } finally {
      this.#writing = undefined;
    }
  }

  async #append(text: string): Promise<void> {
    this.#bytes ??= await sizeOf(this.#path);
    if (this.#bytes > FILE_BYTES_MAX) {
      await rename(this.#path, `${this.#path}.1`);
      this.#bytes = 0;
    }
    await appendFile(this.#path, text, { mode: 0o600 });
    this.#bytes += Buffer.byteLength(text);
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") {
      return 0;
    }
    throw error;
  }
}
