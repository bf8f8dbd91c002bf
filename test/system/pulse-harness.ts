/** Real pulses on a file region, each with its own state directory, and a daemon's end of pulse.sock. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { type ProfileName } from "../../lib/lease/timings.js";
import { JsonLines } from "../../lib/net/json-lines.js";
import { connectUnix } from "../../lib/net/unix-server.js";
import {
  type Beat,
  type Hello,
  type PulseMessage,
  type PulseRequest,
} from "../../lib/pulse/messages.js";
import { initRegion } from "../../lib/region/format-region.js";

const PULSE = join(import.meta.dirname, "..", "..", "bin", "sharedha-pulse.js");

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits for a condition that something else brings about; fails with `what` when it does not come. */
export async function eventually(
  what: string,
  isTrue: () => boolean,
  withinMs = 10_000,
): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!isTrue()) {
    assert.ok(performance.now() < untilMs, `${what} did not happen within ${withinMs} ms`);
    await pause(10);
  }
}

/** A daemon's end: asks, hears beats, answers pings as long as it is told to. */
export class FakeDaemon {
  readonly beats: Beat[] = [];
  closed = false;
  answersPings = true;
  groupUp = false;
  readonly #lines: JsonLines;
  readonly #waiting = new Map<number, (message: PulseMessage) => void>();
  #nextId = 1;

  constructor(lines: (handlers: ConstructorParameters<typeof JsonLines>[1]) => JsonLines) {
    this.#lines = lines({
      onMessage: (message) => {
        this.#hear(message as PulseMessage);
      },
      onClose: () => {
        this.closed = true;
        for (const resolve of this.#waiting.values()) {
          resolve({ id: 0, ok: false, code: "CLOSED", message: "the connection was closed" });
        }
      },
    });
  }

  get newest(): Beat | undefined {
    return this.beats.at(-1);
  }

  /** The result; rejects with an Error whose message begins with the code. */
  async call(request: PulseRequest): Promise<unknown> {
    const id = this.#nextId++;
    const answer = await new Promise<PulseMessage>((resolve) => {
      this.#waiting.set(id, resolve);
      assert.equal(this.#lines.send({ ...request, id }), "sent");
    });
    assert.ok("ok" in answer);
    if (!answer.ok) {
      throw new Error(`${answer.code}: ${answer.message}`);
    }
    return answer.result;
  }

  async hello(): Promise<Hello> {
    return (await this.call({ op: "hello" })) as Hello;
  }

  close(): void {
    this.#lines.fail(new Error("closed by the test"));
  }

  #hear(message: PulseMessage): void {
    if ("event" in message) {
      if (message.event === "beat") {
        this.beats.push(message.beat);
      } else if (this.answersPings) {
        this.#lines.send({ op: "pong", id: this.#nextId++, groupUp: this.groupUp });
      }
      return;
    }
    this.#waiting.get(message.id)?.(message);
    this.#waiting.delete(message.id);
  }
}

export interface PulseProcess {
  readonly child: ChildProcess;
  readonly stateDir: string;
  readonly ended: Promise<number | null>;
}

/** Everything of one test; `dispose` ends what is left, by exact pid. */
export class PulseLab {
  readonly dir = mkdtempSync(join(tmpdir(), "sh-pulse-"));
  readonly #pulses: PulseProcess[] = [];
  readonly #daemons: FakeDaemon[] = [];

  async init(profile: ProfileName, luns = 1): Promise<readonly string[]> {
    const paths = Array.from({ length: luns }, (_, index) => join(this.dir, `lun${index}`));
    await this.initAt(paths, profile);
    return paths;
  }

  async initAt(paths: readonly string[], profile: ProfileName): Promise<void> {
    await initRegion({
      paths,
      clusterName: "lab",
      profile,
      sizeBytes: 32 * 1024 * 1024,
      whole: true,
    });
  }

  node(name: string, paths: readonly string[], watchdog = "guard"): string {
    const stateDir = join(this.dir, name);
    mkdirSync(stateDir, { mode: 0o700 });
    writeFileSync(join(stateDir, "node.json"), JSON.stringify({ paths, node: name, watchdog }));
    return stateDir;
  }

  start(stateDir: string, ...flags: readonly string[]): PulseProcess {
    const child = spawn(process.execPath, [PULSE, "--state-dir", stateDir, ...flags], {
      stdio: ["ignore", "ignore", "inherit"],
      cwd: "/",
    });
    const ended = once(child, "exit").then(([code]) => code as number | null);
    const pulse = { child, stateDir, ended };
    this.#pulses.push(pulse);
    return pulse;
  }

  /** Connects when pulse has joined and listens. */
  async connect(stateDir: string): Promise<FakeDaemon> {
    const path = join(stateDir, "pulse.sock");
    for (let attempt = 0; attempt < 1_000; attempt++) {
      const socket = await connectUnix(path);
      if (socket !== undefined) {
        const daemon = new FakeDaemon((handlers) => new JsonLines(socket, handlers));
        this.#daemons.push(daemon);
        return daemon;
      }
      await pause(10);
    }
    assert.fail(`nobody listens at ${path}: ${this.log(stateDir)}`);
  }

  async startAndConnect(
    stateDir: string,
    ...flags: readonly string[]
  ): Promise<[PulseProcess, FakeDaemon, Hello]> {
    const pulse = this.start(stateDir, ...flags);
    const daemon = await this.connect(stateDir);
    return [pulse, daemon, await daemon.hello()];
  }

  log(stateDir: string): string {
    return (
      readIfThere(join(stateDir, "pulse.log")) + readIfThere(join(stateDir, "pulse-exit.json"))
    );
  }

  exit(stateDir: string): Record<string, unknown> {
    return JSON.parse(readFileSync(join(stateDir, "pulse-exit.json"), "utf8")) as Record<
      string,
      unknown
    >;
  }

  async dispose(): Promise<void> {
    for (const daemon of this.#daemons) {
      daemon.close();
    }
    for (const { child, stateDir, ended } of this.#pulses) {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill("SIGKILL");
      }
      await ended;
      killGuard(stateDir);
    }
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export function guardPid(stateDir: string): number | undefined {
  const text = readIfThere(join(stateDir, "guard.lock")).trim();
  return text === "" ? undefined : Number(text);
}

/** True while this pid is the guard of this very state directory. */
export function isGuardOf(pid: number, stateDir: string): boolean {
  return readIfThere(`/proc/${pid}/cmdline`).includes(`${stateDir}\0`);
}

function killGuard(stateDir: string): void {
  const pid = guardPid(stateDir);
  if (pid !== undefined && isGuardOf(pid, stateDir)) {
    process.kill(pid, "SIGKILL");
  }
}

function readIfThere(path: string): string {
  return existsSync(path) ? readFileSync(path, "latin1") : "";
}
