/**
 * Messages between the processes of one node: one JSON value per line over a Unix socket. u64 values and bytes survive:
 * a bigint travels as {"$bigint":"123"}, a Uint8Array as {"$hex":"00ff"}. Nothing here is bounded by trust: a line, the
 * queue of unsent bytes and the depth of what is taken in all have limits, and whoever breaks one loses the connection.
 */
import { type Socket } from "node:net";

import { ShareHaError } from "../errors.js";

/** Bytes of one line, without its line feed. The largest real message is a beat of 64 hosts, about 60 KiB. */
export const LINE_BYTES_MAX = 1024 * 1024;
/** Bytes that may wait for a reader; more than two of the largest lines is a reader that has stopped. */
export const UNSENT_BYTES_MAX = 2 * LINE_BYTES_MAX;
const DIGITS_MAX = 21;
const LINE_FEED = 0x0a;

/** @throws ERR_LINE_TOO_LONG; the TypeError of JSON.stringify for a circular value (a defect). */
export function encodeLine(message: unknown): string {
  const line = JSON.stringify(message, wrap);
  if (Buffer.byteLength(line) > LINE_BYTES_MAX) {
    throw new ShareHaError("ERR_LINE_TOO_LONG", `a message of ${line.length} characters`, {
      hint: `The limit is ${LINE_BYTES_MAX} bytes. A defect of the program; please report it.`,
    });
  }
  return `${line}\n`;
}

/** @throws ERR_BAD_LINE: not JSON, or a wrapped value that is none. */
export function decodeLine(line: string): unknown {
  try {
    return JSON.parse(line, unwrap) as unknown;
  } catch (error) {
    if (error instanceof ShareHaError) {
      throw error;
    }
    throw badLine(`it is not JSON: ${line.slice(0, 80)}`, error);
  }
}

function wrap(this: unknown, key: string, value: unknown): unknown {
  if (typeof value === "bigint") {
    return { $bigint: String(value) };
  }
  // Buffer has a toJSON of its own, which has already run when the replacer sees the value.
  const original = isRecord(this) ? this[key] : undefined;
  return original instanceof Uint8Array
    ? { $hex: Buffer.from(original.buffer, original.byteOffset, original.length).toString("hex") }
    : value;
}

function unwrap(_key: string, value: unknown): unknown {
  if (!isRecord(value)) {
    return value;
  }
  const digits = value["$bigint"];
  const hex = value["$hex"];
  if (digits === undefined && hex === undefined) {
    return value;
  }
  const isAlone = Object.keys(value).length === 1;
  if (
    isAlone &&
    typeof digits === "string" &&
    digits.length <= DIGITS_MAX &&
    /^-?\d+$/.test(digits)
  ) {
    return BigInt(digits);
  }
  if (isAlone && typeof hex === "string" && /^([0-9a-f]{2})*$/.test(hex)) {
    return new Uint8Array(Buffer.from(hex, "hex"));
  }
  throw badLine("it has a wrapped value that is neither an integer nor bytes", undefined);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function badLine(why: string, cause: unknown): ShareHaError {
  return new ShareHaError("ERR_BAD_LINE", `a message cannot be read: ${why}`, {
    hint: "The two processes are of different versions, or something else talks to this socket.",
    cause,
  });
}

/** Cuts a stream of bytes into lines. */
export class LineSplitter {
  #pending: Buffer[] = [];
  #pendingBytes = 0;

  /** The lines that `chunk` completes. @throws ERR_LINE_TOO_LONG before more than the limit is kept */
  push(chunk: Buffer): string[] {
    const lines: string[] = [];
    let rest = chunk;
    for (;;) {
      const end = rest.indexOf(LINE_FEED);
      const part = end < 0 ? rest : rest.subarray(0, end);
      if (this.#pendingBytes + part.length > LINE_BYTES_MAX) {
        throw new ShareHaError("ERR_LINE_TOO_LONG", `a line of more than ${LINE_BYTES_MAX} bytes`, {
          hint: "Something that does not speak this protocol talks to this socket.",
        });
      }
      this.#pending.push(part);
      this.#pendingBytes += part.length;
      if (end < 0) {
        return lines;
      }
      lines.push(Buffer.concat(this.#pending).toString("utf8"));
      this.#pending = [];
      this.#pendingBytes = 0;
      rest = rest.subarray(end + 1);
    }
  }
}

export interface LineHandlers {
  readonly onMessage: (message: unknown) => void;
  /** Once; `error` is what ended the connection, undefined when the other side simply went away. */
  readonly onClose: (error: Error | undefined) => void;
}

export class JsonLines {
  readonly #socket: Socket;
  readonly #splitter = new LineSplitter();
  #error: Error | undefined;
  #closed = false;

  /** `handlers.onMessage` may throw: that too ends this connection, with the error, and nothing else. */
  constructor(socket: Socket, handlers: LineHandlers) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#take(chunk, handlers.onMessage);
    });
    // `close` follows every error.
    socket.on("error", (error) => {
      this.#error ??= error;
    });
    // Unix sockets of ours are never half open: nothing waits for answers after it ended its side.
    socket.on("end", () => socket.end());
    socket.on("close", () => {
      this.#closed = true;
      handlers.onClose(this.#error);
    });
  }

  get closed(): boolean {
    return this.#closed || this.#socket.destroyed;
  }

  /** Bytes that the other side has not taken yet. */
  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  /**
   * `sent`: handed to the kernel or queued. `closed`: there is nobody. `full`: the other side does not read; nothing was
   * queued, and the connection is ended unless `droppable` (a beat: the next one says it all again).
   */
  send(
    message: unknown,
    options: { readonly droppable?: boolean } = {},
  ): "sent" | "full" | "closed" {
    if (this.closed || this.#socket.writableEnded) {
      return "closed";
    }
    const isDroppable = options.droppable === true;
    // A droppable message never waits behind another one.
    const limit = isDroppable ? 0 : UNSENT_BYTES_MAX;
    if (this.#socket.writableLength > limit) {
      if (!isDroppable) {
        this.fail(
          new ShareHaError("ERR_LINE_BACKLOG", `${this.#socket.writableLength} bytes are unread`, {
            hint: "The other process has stopped reading; it is hung or was stopped.",
          }),
        );
      }
      return "full";
    }
    this.#socket.write(encodeLine(message));
    return "sent";
  }

  /** Ends the connection after what is queued. */
  end(): void {
    this.#socket.end();
  }

  /** Ends the connection now; `onClose` gets the error. */
  fail(error: Error): void {
    this.#error ??= error;
    this.#socket.destroy();
  }

  #take(chunk: Buffer, onMessage: (message: unknown) => void): void {
    try {
      for (const line of this.#splitter.push(chunk)) {
        if (this.closed) {
          return;
        }
        onMessage(decodeLine(line));
      }
    } catch (error) {
      this.fail(error instanceof Error ? error : new Error(String(error)));
    }
  }
}
