/** Real sanlock for the interop tests: daemons with run directories of their own, no watchdog, ended by pid. */
import assert from "node:assert/strict";
import { type ChildProcess, type ChildProcessByStdio, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import { type Readable, type Writable } from "node:stream";
import { findRoot } from "../helpers/root.js";
import { must, type Workspace } from "../helpers/workspace.js";

/** Why these tests cannot run here, or undefined. */
export function whyNoSanlock(): string | undefined {
  if (process.getuid?.() !== 0) {
    return "sanlock daemons need root";
  }
  if (spawnSync("sanlock", ["version"]).error !== undefined) {
    return "sanlock is not installed (Debian package sanlock)";
  }
  return spawnSync("gcc", ["--version"]).error === undefined && existsSync("/usr/include/sanlock.h")
    ? undefined
    : "gcc or libsanlock-dev is not installed";
}

export function sanlock(...words: readonly string[]): string {
  return must("sanlock", words);
}

/** What `sanlock direct read_leader` says, by field. */
export function readLeader(words: readonly string[]): ReadonlyMap<string, string> {
  const lines = sanlock("direct", "read_leader", ...words).split("\n");
  return new Map(
    lines.map((line) => {
      const [key = "", ...rest] = line.split(" ");
      return [key, rest.join(" ")] as const;
    }),
  );
}

export function buildClient(workspace: Workspace): string {
  const client = workspace.path("client");
  const source = join(findRoot(), "test", "interop", "client.c");
  must("gcc", ["-O2", "-Wall", "-o", client, source, "-lsanlock"]);
  return client;
}

export class SanlockDaemon {
  readonly hostId: number;
  readonly runDir: string;
  readonly #child: ChildProcess;
  readonly #env: NodeJS.ProcessEnv;

  private constructor(workspace: Workspace, hostId: number) {
    this.hostId = hostId;
    this.runDir = workspace.path(`run-${hostId}`);
    mkdirSync(this.runDir);
    this.#env = { ...process.env, SANLOCK_PRIVILEGED: "0", SANLOCK_RUN_DIR: this.runDir };
    const words = "daemon -D -Q 0 -w 0 -l 0 -h 0 -U root -G root -S 0 -L 0 -o 1 -e".split(" ");
    this.#child = spawn("sanlock", [...words, `sanlock-${hostId}`], {
      env: this.#env,
      stdio: "ignore",
    });
  }

  static async start(workspace: Workspace, hostId: number): Promise<SanlockDaemon> {
    const daemon = new SanlockDaemon(workspace, hostId);
    workspace.defer(`end sanlock daemon ${hostId}`, () => daemon.end());
    const endAtMs = performance.now() + 10_000;
    while (!existsSync(join(daemon.runDir, "sanlock.sock")) || daemon.ask("status").code !== 0) {
      assert(performance.now() < endAtMs, `sanlock daemon ${hostId} did not come up`);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    return daemon;
  }

  /** SIGKILL, as a machine that dies; waits until the process is gone. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
      return;
    }
    const gone = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await gone;
  }

  /** `sanlock client WORDS`. Blocks; only for commands that answer at once. */
  ask(...words: readonly string[]): { readonly code: number | null; readonly text: string } {
    const { status, stdout, stderr } = spawnSync("sanlock", ["client", ...words], {
      env: this.#env,
      encoding: "utf8",
    });
    return { code: status, text: stdout + stderr };
  }

  /** The same for commands that take long, while heartbeats of this process go on. */
  async askSlowly(...words: readonly string[]): Promise<string> {
    const child = spawn("sanlock", ["client", ...words], {
      env: this.#env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()));
    const code = await new Promise((resolve, reject) => {
      child.on("error", reject);
      child.on("close", resolve);
    });
    assert.equal(code, 0, `sanlock client ${words.join(" ")}: ${text}`);
    return text;
  }

  client(path: string, ...words: readonly string[]): SanlockClient {
    return new SanlockClient(
      spawn(path, words, { env: this.#env, stdio: ["pipe", "pipe", "inherit"] }),
    );
  }
}

/** One run of client.c; see there for what it understands. */
export class SanlockClient {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
    this.#reader = createInterface({ input: child.stdout });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  async say(word: "take" | "release"): Promise<string> {
    this.#child.stdin.write(`${word}\n`);
    return await this.#next();
  }

  /** Closes its stdin and returns its last line, or "" when it has none. */
  async finish(): Promise<string> {
    const gone = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.stdin.end();
    const line = await this.#lines.next();
    await gone;
    this.#reader.close();
    return line.done === true ? "" : line.value;
  }

  async #next(): Promise<string> {
    const line = await this.#lines.next();
    assert(line.done !== true, "the sanlock client has ended");
    return line.value;
  }
}
