import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, truncateSync } from "node:fs";
import { constants, tmpdir } from "node:os";
import { join } from "node:path";

import { type FaultAnswer, type FaultCommand } from "./fuse-message.js";

type ErrnoName = keyof typeof constants.errno;

interface Which {
  readonly reads?: boolean;
  readonly writes?: boolean;
}

/**
 * A LUN (a file of a FUSE file system, so the hang is the kernel's own) that can be made to hang and to fail. O_DIRECT
 * works on it, and so does a loop device. Needs root. Every command has taken effect when its promise resolves. Reads and
 * writes alike unless told otherwise; opens always succeed.
 */
export interface FaultyLun {
  readonly path: string;
  /** The plain file behind: what has really landed. */
  readonly backingPath: string;
  /** Every further request hangs in the kernel, its caller in state D. */
  hang(which?: Which): Promise<void>;
  /** Ends the fault and carries out, in order, what hung: the writes land now. */
  release(): Promise<void>;
  /** Ends the fault; what hung fails with this errno and never lands. */
  drop(errno?: ErrnoName): Promise<void>;
  failWith(errno: ErrnoName, which?: Which): Promise<void>;
  /** Writes fail with EROFS, reads go on. */
  readOnly(): Promise<void>;
  /** Ends a fault of `failWith` or `readOnly`; what hangs goes on hanging. */
  heal(): Promise<void>;
  /** Requests that hang now, and writes that have landed since the start. */
  counts(): Promise<FaultAnswer>;
  /** Resolves when this many requests hang; rejects after 5 s. */
  untilHeld(count: number): Promise<void>;
  /** Fails what hangs, unmounts, removes everything. */
  close(): Promise<void>;
}

/** The reason why a test that needs it must be skipped, or undefined. */
export function whyNoFaultyLun(): string | undefined {
  if (process.getuid?.() !== 0) {
    return "needs root (FUSE mount)";
  }
  try {
    closeSync(openSync("/dev/fuse", "r+"));
    return undefined;
  } catch (error) {
    return `needs /dev/fuse: ${String(error)}`;
  }
}

export async function createFaultyLun(options: { sizeBytes: number }): Promise<FaultyLun> {
  const directory = mkdtempSync(join(tmpdir(), "sharedha-faulty-"));
  const mountPoint = join(directory, "mnt");
  const backingPath = join(directory, "backing");
  mkdirSync(mountPoint);
  const backing = openSync(backingPath, "w+");
  truncateSync(backingPath, options.sizeBytes);
  const fuse = openSync("/dev/fuse", "r+");
  try {
    const mountOptions = "fd=3,rootmode=40000,user_id=0,group_id=0,allow_other";
    execFileSync("mount", ["-i", "-t", "fuse", "-o", mountOptions, "sharedha-test", mountPoint], {
      stdio: ["ignore", "ignore", "pipe", fuse],
    });
    const script = new URL("./fuse-server.js", import.meta.url).pathname;
    const server = spawn(process.execPath, [script, mountPoint], {
      stdio: ["ignore", "ignore", "inherit", fuse, backing, "ipc"],
    });
    const lun = new FuseLun(server, directory, mountPoint, backingPath);
    await lun.counts();
    return lun;
  } finally {
    closeSync(fuse);
    closeSync(backing);
  }
}

class FuseLun implements FaultyLun {
  readonly path: string;
  readonly backingPath: string;
  readonly #server: ChildProcess;
  readonly #directory: string;
  readonly #mountPoint: string;
  #last: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(server: ChildProcess, directory: string, mountPoint: string, backingPath: string) {
    this.path = join(mountPoint, "lun");
    this.backingPath = backingPath;
    this.#server = server;
    this.#directory = directory;
    this.#mountPoint = mountPoint;
  }

  async hang(which: Which = {}): Promise<void> {
    await this.#send({ do: "hang", reads: which.reads ?? true, writes: which.writes ?? true });
  }

  async release(): Promise<void> {
    await this.#send({ do: "release" });
  }

  async drop(errno: ErrnoName = "EIO"): Promise<void> {
    await this.#send({ do: "drop", errno: constants.errno[errno] });
  }

  async failWith(errno: ErrnoName, which: Which = {}): Promise<void> {
    const { reads = true, writes = true } = which;
    await this.#send({ do: "fail", errno: constants.errno[errno], reads, writes });
  }

  async readOnly(): Promise<void> {
    await this.#send({ do: "fail", errno: constants.errno.EROFS, reads: false, writes: true });
  }

  async heal(): Promise<void> {
    await this.#send({ do: "heal" });
  }

  async counts(): Promise<FaultAnswer> {
    return await this.#send({ do: "count" });
  }

  async untilHeld(count: number): Promise<void> {
    const giveUpAtMs = performance.now() + 5_000;
    while ((await this.counts()).held < count) {
      if (performance.now() > giveUpAtMs) {
        throw new Error(`fewer than ${count} requests hang after 5 s`);
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  async close(): Promise<void> {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    await this.#send({ do: "quit" });
    const gone = new Promise((resolve) => this.#server.once("exit", resolve));
    execFileSync("umount", ["-l", this.#mountPoint]);
    // A descriptor that somebody still has open keeps the file system alive; the server ends all the same.
    this.#server.kill("SIGTERM");
    await gone;
    rmSync(this.#directory, { recursive: true });
  }

  /** One command at a time, each answered by one message. */
  async #send(command: FaultCommand): Promise<FaultAnswer> {
    const answer = this.#last.then(
      async () =>
        await new Promise<FaultAnswer>((resolve, reject) => {
          const failed = (code: unknown): void => {
            reject(new Error(`the FUSE server has ended (${String(code)})`));
          };
          this.#server.once("exit", failed);
          this.#server.once("message", (message) => {
            this.#server.off("exit", failed);
            resolve(message as FaultAnswer);
          });
          this.#server.send(command);
        }),
    );
    this.#last = answer.catch(() => undefined);
    return await answer;
  }
}
