/** A command of this build that goes on until it is ended, such as `status --watch`: what it has said so far, and its end. */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { join } from "node:path";
import { type Readable } from "node:stream";

import { findRoot } from "./root.js";
import { type Workspace } from "./workspace.js";

const CLI = join(findRoot(), "dist", "bin", "sharedha.js");

export interface Ended {
  readonly exitCode: number | null;
  readonly signal: NodeJS.Signals | null;
}

export class RunningCommand {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  #stdout = "";
  #stderr = "";
  #isOver = false;
  /** Resolves when the process has ended and everything it said has been read. */
  readonly ended: Promise<Ended>;

  constructor(workspace: Workspace, args: readonly string[]) {
    const child = spawn(process.execPath, [CLI, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    child.stdout.on("data", (chunk: Buffer) => (this.#stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (this.#stderr += chunk.toString()));
    this.ended = new Promise((resolve) => {
      child.once("close", (exitCode, signal) => {
        this.#isOver = true;
        resolve({ exitCode, signal });
      });
    });
    workspace.defer(`end ${args.join(" ")}`, () => {
      child.kill("SIGKILL");
    });
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  /** The whole lines so far. */
  get lines(): readonly string[] {
    return this.#stdout.split("\n").slice(0, -1);
  }

  async end(signal: NodeJS.Signals): Promise<Ended> {
    this.#child.kill(signal);
    return await this.ended;
  }
}
