/** Real sanlock daemons to measure beside: own run directories, no watchdog, ended by pid. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { findRoot } from "../test/helpers/root.js";
import { must, type Workspace } from "../test/helpers/workspace.js";

export type SanlockPresence =
  | { readonly kind: "present"; readonly version: string; readonly client: string }
  | { readonly kind: "absent"; readonly why: string };

/** Builds the measuring client; says why there is nothing to compare with when it cannot. */
export function findSanlock(workspace: Workspace): SanlockPresence {
  const version = spawnSync("sanlock", ["version"], { encoding: "utf8" });
  if (version.error !== undefined) {
    return { kind: "absent", why: "sanlock is not installed (Debian package sanlock)" };
  }
  if (process.getuid?.() !== 0) {
    return { kind: "absent", why: "sanlock daemons need root here" };
  }
  const client = workspace.path("sanlock-client");
  const source = join(findRoot(), "bench", "sanlock-client.c");
  const built = spawnSync("gcc", ["-O2", "-o", client, source, "-lsanlock"], { encoding: "utf8" });
  if (built.status !== 0) {
    return {
      kind: "absent",
      why: `its client does not build (package libsanlock-dev): ${built.stderr.trim()}`,
    };
  }
  return { kind: "present", version: version.stdout.trim().split("\n")[0] ?? "", client };
}

export class SanlockDaemon {
  readonly runDir: string;
  readonly hostId: number;
  readonly #child: ChildProcess;
  readonly #env: NodeJS.ProcessEnv;

  constructor(workspace: Workspace, hostId: number, ioTimeout: number, tag = "") {
    this.hostId = hostId;
    this.runDir = workspace.path(`sanlock-${hostId}${tag}`);
    mkdirSync(this.runDir);
    this.#env = { ...process.env, SANLOCK_PRIVILEGED: "0", SANLOCK_RUN_DIR: this.runDir };
    this.#child = spawn(
      "sanlock",
      [
        ..."daemon -D -Q 0 -w 0 -l 0 -h 0 -U root -G root -S 0 -L 0".split(" "),
        "-o",
        String(ioTimeout),
        "-e",
        `sanlock-${hostId}${tag}`,
      ],
      { env: this.#env, stdio: "ignore" },
    );
    workspace.defer(`end sanlock daemon ${hostId}`, () => {
      this.kill();
    });
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  async ready(): Promise<void> {
    for (let round = 0; round < 200; round++) {
      if (existsSync(join(this.runDir, "sanlock.sock")) && this.#ask(["status"]) === 0) {
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error(`sanlock daemon ${this.hostId} did not come up`);
  }

  #ask(words: readonly string[]): number | null {
    return spawnSync("sanlock", ["client", ...words], { env: this.#env, encoding: "utf8" }).status;
  }

  /** Joins the lockspace; resolves with how long it took, ms. */
  async join(lockspace: string, path: string, ioTimeout: number): Promise<number> {
    const startedMs = performance.now();
    const spec = `${lockspace}:${this.hostId}:${path}:0`;
    const code = await new Promise<number | null>((resolve, reject) => {
      const child = spawn(
        "sanlock",
        ["client", "add_lockspace", "-s", spec, "-o", String(ioTimeout)],
        {
          env: this.#env,
          stdio: "ignore",
        },
      );
      child.on("error", reject);
      child.on("exit", resolve);
    });
    if (code !== 0) {
      throw new Error(`sanlock add_lockspace ${spec}: exit ${String(code)}`);
    }
    return performance.now() - startedMs;
  }

  /** Runs the measuring client against this daemon. */
  async measure(
    client: string,
    mode: "lat" | "loop" | "hold" | "take",
    resource: string,
    amount: number,
  ): Promise<unknown> {
    return await new Promise((resolve, reject) => {
      const child = spawn(client, [mode, resource, String(amount)], {
        env: this.#env,
        stdio: ["ignore", "pipe", "pipe"],
      });
      let stdout = "";
      let stderr = "";
      child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
      child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
      child.on("error", reject);
      child.on("close", (code) => {
        if (code === 0) {
          resolve(JSON.parse(stdout));
        } else {
          reject(new Error(`sanlock client: exit ${String(code)}: ${stderr.trim()}`));
        }
      });
    });
  }
}

/** A lockspace at 0 and `resources` leases behind it, 512-byte sectors. */
export function formatSanlock(
  path: string,
  lockspace: string,
  resources: readonly string[],
  ioTimeout: number,
): void {
  must("sanlock", ["direct", "init", "-s", `${lockspace}:0:${path}:0`, "-o", String(ioTimeout)]);
  resources.forEach((name, index) => {
    must("sanlock", [
      "direct",
      "init",
      "-r",
      `${lockspace}:${name}:${path}:${(index + 1) * 1048576}`,
    ]);
  });
}
