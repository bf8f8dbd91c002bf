/** The host's side of the agent: programs and files of a guest. Must run inside of the lab's network namespace. */
import { connect, type Socket } from "node:net";

import { type End, onFrames, type Request, sendFrame, type Step } from "./frames.js";

const PORT = 5;

export interface Ran {
  /** 128 + the signal's number is never used: `signal` says it. */
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly timeoutMs?: number;
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string>>;
}

/** A program that runs in a guest. It ends when the connection does: with the VM, the lab or this process. */
export class GuestProcess {
  readonly #socket: Socket;
  readonly #stdout: Buffer[] = [];
  readonly #stderr: Buffer[] = [];
  #end: End | undefined;
  /** Never rejects: "lost" when the connection went away first (a power cut, a reset). */
  readonly ended: Promise<End | "lost">;

  constructor(
    address: string,
    request: Request,
    options: {
      readonly onStdout?: (text: string) => void;
      readonly input?: RunOptions["input"];
      /** More input follows, by `write`. */
      readonly keepsInput?: boolean;
    } = {},
  ) {
    const socket = connect({ host: address, port: PORT });
    this.#socket = socket;
    socket.once("connect", () => {
      sendFrame(socket, "R", JSON.stringify(request));
      if (options.input !== undefined) {
        sendFrame(socket, "I", options.input);
      }
      if (options.keepsInput !== true) {
        sendFrame(socket, "E", "");
      }
    });
    onFrames(socket, (type, payload) => {
      if (type === "1") {
        this.#stdout.push(payload);
        options.onStdout?.(payload.toString());
      } else if (type === "2") {
        this.#stderr.push(payload);
      } else if (type === "X") {
        this.#end = JSON.parse(payload.toString()) as End;
        socket.end();
      }
    });
    this.ended = new Promise((resolve) => {
      // Why a connection ended tells nothing here: the guest was reset, cut off, or had no agent yet.
      socket.on("error", () => socket.destroy());
      socket.once("close", () => {
        resolve(this.#end ?? "lost");
      });
    });
  }

  get stdout(): string {
    return Buffer.concat(this.#stdout).toString();
  }

  get stderr(): string {
    return Buffer.concat(this.#stderr).toString();
  }

  /** To its standard input. */
  write(text: string): void {
    const send = (): void => {
      sendFrame(this.#socket, "I", text);
    };
    // The request itself goes first, once there is a connection.
    if (this.#socket.connecting) {
      this.#socket.once("connect", send);
    } else {
      send();
    }
  }

  signal(signal: NodeJS.Signals): void {
    sendFrame(this.#socket, "S", signal);
  }

  /** Ends the program by ending the connection. */
  drop(): void {
    this.#socket.destroy();
  }
}

/** No command of a test takes longer under emulation, if nobody says otherwise. */
const TIMEOUT_MS = 60_000;

async function call(
  address: string,
  request: Request,
  options: RunOptions,
): Promise<{ readonly process: GuestProcess; readonly end: End | "lost" | "late" }> {
  const process = new GuestProcess(address, request, options);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<"late">((resolve) => {
    timer = setTimeout(resolve, options.timeoutMs ?? TIMEOUT_MS, "late");
  });
  const end = await Promise.race([process.ended, late]);
  clearTimeout(timer);
  process.drop();
  return { process, end };
}

/** @throws Error when it cannot be started, does not end in time, or the guest goes away */
export async function runInGuest(
  address: string,
  argv: readonly string[],
  options: RunOptions = {},
): Promise<Ran> {
  const request: Request = { op: "run", argv, env: options.env ?? {} };
  const { process, end } = await call(address, request, options);
  const { stdout, stderr } = process;
  if (typeof end === "object" && "exitCode" in end) {
    return { ...end, stdout, stderr };
  }
  const why = typeof end === "string" ? end : JSON.stringify(end);
  throw new Error(`${address}: ${argv.join(" ")}: ${why}\n${stdout}${stderr}`);
}

/** @returns the texts of the `read` steps @throws Error naming the step that failed */
export async function takeSteps(
  address: string,
  steps: readonly Step[],
  timeoutMs = TIMEOUT_MS,
): Promise<readonly string[]> {
  const { end } = await call(address, { op: "files", steps }, { timeoutMs });
  if (typeof end === "object" && "texts" in end) {
    return end.texts;
  }
  throw new Error(`${address}: ${typeof end === "string" ? end : JSON.stringify(end)}`);
}
