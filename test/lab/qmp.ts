/** QEMU's control socket (QEMU Machine Protocol): commands, and the events with the time at which they came. */
import { connect, type Socket } from "node:net";

export interface QmpEvent {
  readonly name: string;
  /** performance.now() of this process. */
  readonly atMs: number;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

const ANSWER_MS = 20_000;

export class Qmp {
  readonly #socket: Socket;
  readonly #waiting: Waiting[] = [];
  readonly #events: QmpEvent[] = [];
  readonly #onEvent: (event: QmpEvent) => void;
  #pending = "";

  private constructor(socket: Socket, onEvent: (event: QmpEvent) => void) {
    this.#socket = socket;
    this.#onEvent = onEvent;
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => {
      this.#pending += text;
      const lines = this.#pending.split("\n");
      this.#pending = lines.pop() ?? "";
      for (const line of lines) {
        this.#take(JSON.parse(line) as Record<string, unknown>);
      }
    });
    socket.on("error", () => socket.destroy());
    socket.once("close", () => {
      for (const { reject } of this.#waiting.splice(0)) {
        reject(new Error("QEMU ended"));
      }
    });
  }

  static async open(path: string, onEvent: (event: QmpEvent) => void): Promise<Qmp> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    const qmp = new Qmp(socket, onEvent);
    await qmp.command("qmp_capabilities");
    return qmp;
  }

  /** @throws Error with QEMU's own words, or when it ends or does not answer */
  async command(execute: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        timer = setTimeout(() => {
          reject(new Error(`QEMU does not answer ${execute}`));
        }, ANSWER_MS);
        this.#waiting.push({ resolve, reject });
        this.#socket.write(`${JSON.stringify({ execute, arguments: args })}\n`);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** The events since the connection was made, oldest first. */
  get events(): readonly QmpEvent[] {
    return this.#events;
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(message: Record<string, unknown>): void {
    if (typeof message["event"] === "string") {
      const event = { name: message["event"], atMs: whenOf(message["timestamp"]) };
      this.#events.push(event);
      this.#onEvent(event);
    } else if ("error" in message) {
      this.#waiting.shift()?.reject(new Error(JSON.stringify(message["error"])));
    } else if ("return" in message) {
      this.#waiting.shift()?.resolve(message["return"]);
    }
  }
}

/** QEMU says when it happened; this process may hear of it later. As of `performance.now()`. */
function whenOf(timestamp: unknown): number {
  const { seconds, microseconds } = timestamp as { seconds: number; microseconds: number };
  return seconds * 1_000 + microseconds / 1_000 - performance.timeOrigin;
}
