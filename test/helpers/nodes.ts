/**
 * Real nodes for tests, the demo and the benchmark: separate process trees started by the `sharedha` command itself,
 * each with its own state directory and, where asked for, its own mount namespace.
 */
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { type StatusBody } from "../../lib/net/api.js";
import { findRoot } from "./root.js";
import { type Workspace } from "./workspace.js";

export interface Ran {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly ms: number;
}

export interface NodeOptions {
  readonly name: string;
  readonly hostId?: number;
  readonly luns: readonly string[];
  readonly watchdog?: "auto" | "hardware" | "guard" | "none";
  /** Own mount namespace (root only), so that several nodes on one machine each mount for themselves. */
  readonly mountNamespace?: boolean;
  /** Words before the command of `join`, instead of those of `mountNamespace`: a namespace made for the test. */
  readonly joinPrefix?: readonly string[];
  /** Default: one named after the node; two nodes of one name need it. */
  readonly stateDir?: string;
}

export type Role = "daemon" | "pulse" | "guard" | "other";

export interface NodeProcess {
  readonly pid: number;
  readonly startTime: string;
  readonly role: Role;
}

const CLI = join(findRoot(), "dist", "bin", "sharedha.js");

/** Runs the CLI of this build to its end. Never throws for an exit code. */
export async function sharedha(
  args: readonly string[],
  options: { readonly prefix?: readonly string[]; readonly input?: string } = {},
): Promise<Ran> {
  const [file, ...rest] = [...(options.prefix ?? []), process.execPath, CLI, ...args];
  const startedMs = performance.now();
  return await new Promise((resolve, reject) => {
    const child = spawn(file ?? process.execPath, rest, { stdio: ["pipe", "pipe", "pipe"] });
    let stdout = "";
    let stderr = "";
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (stderr += chunk.toString()));
    child.on("error", reject);
    // "exit" and not "close": the processes that `join` leaves behind may share our pipes.
    child.on("exit", (code, signal) => {
      setImmediate(() => {
        const exitCode = code ?? (signal === null ? -1 : 128);
        resolve({ exitCode, stdout, stderr, ms: performance.now() - startedMs });
      });
    });
    child.stdin.end(options.input ?? "");
  });
}

export class TestNode {
  readonly name: string;
  readonly stateDir: string;
  readonly #options: NodeOptions;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 4 });

  constructor(workspace: Workspace, options: NodeOptions) {
    this.name = options.name;
    this.#options = options;
    this.stateDir = options.stateDir ?? workspace.path(`state-${options.name}`);
    mkdirSync(this.stateDir, { recursive: true, mode: 0o700 });
    workspace.defer(`end ${options.name}`, async () => {
      this.#agent.destroy();
      await this.end();
    });
  }

  /** @param more further words of the command, such as `--json` */
  async join(...more: readonly string[]): Promise<Ran> {
    const { mountNamespace, joinPrefix } = this.#options;
    const prefix =
      joinPrefix ??
      (mountNamespace === true ? ["unshare", "--mount", "--propagation", "private", "--"] : []);
    return await this.#join(prefix, more);
  }

  /** A new daemon where the former one ran; while anything of it lives. */
  async rejoin(): Promise<Ran> {
    return await this.#join(this.inside(), []);
  }

  async #join(prefix: readonly string[], more: readonly string[]): Promise<Ran> {
    const { luns, hostId, watchdog } = this.#options;
    return await sharedha(
      [
        "join",
        ...luns,
        "--node",
        this.name,
        ...(hostId === undefined ? [] : ["--host-id", String(hostId)]),
        ...(watchdog === undefined ? [] : ["--watchdog", watchdog]),
        "--state-dir",
        this.stateDir,
        ...more,
      ],
      { prefix },
    );
  }

  /** Words that run a program where this node sees its mounts; while anything of it lives. */
  inside(): readonly string[] {
    const all = this.processes();
    // A daemon that was just killed is still seen for a moment.
    const one = all.find(({ role }) => role === "pulse" || role === "guard") ?? all[0];
    if (one === undefined) {
      throw new Error(`nothing of ${this.name} runs`);
    }
    return ["nsenter", `--mount=/proc/${one.pid}/ns/mnt`, "--"];
  }

  async cli(...args: readonly string[]): Promise<Ran> {
    return await sharedha([...args, "--state-dir", this.stateDir]);
  }

  async status(): Promise<StatusBody> {
    return (await this.call("GET", "/v1/status")) as StatusBody;
  }

  /** One request over a kept-alive connection; rejects with the body's text when the status is not 2xx. */
  async call(method: "GET" | "POST" | "PUT", path: string, body?: unknown): Promise<unknown> {
    const text = body === undefined ? undefined : JSON.stringify(body);
    return await new Promise((resolve, reject) => {
      const call = request(
        {
          socketPath: join(this.stateDir, "control.sock"),
          path,
          method,
          agent: this.#agent,
          headers:
            text === undefined
              ? {}
              : { "content-type": "application/json", "content-length": Buffer.byteLength(text) },
        },
        (response) => {
          let answer = "";
          response.setEncoding("utf8");
          response.on("data", (chunk: string) => (answer += chunk));
          response.on("end", () => {
            if ((response.statusCode ?? 500) < 300) {
              resolve(answer === "" ? undefined : JSON.parse(answer));
            } else {
              reject(new Error(answer));
            }
          });
        },
      );
      call.on("error", reject);
      call.end(text);
    });
  }

  /** Every process of this node that lives now: those started with its state directory on the command line. */
  processes(): readonly NodeProcess[] {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
      .flatMap((name) => this.#processOf(Number(name)));
  }

  #processOf(pid: number): NodeProcess[] {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
      if (!words.includes(this.stateDir)) {
        return [];
      }
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      if (fields[0] === "Z") {
        return [];
      }
      return [{ pid, startTime: fields[19] ?? "", role: roleOf(words) }];
    } catch (error) {
      // The process ended while we looked.
      if (
        error instanceof Error &&
        "code" in error &&
        (error.code === "ENOENT" || error.code === "ESRCH")
      ) {
        return [];
      }
      throw error;
    }
  }

  /** Sends a signal to this node's processes of these roles, all at (nearly) the same time. */
  signal(signal: NodeJS.Signals, ...roles: readonly Role[]): readonly NodeProcess[] {
    const victims = this.processes().filter(
      (one) => roles.length === 0 || roles.includes(one.role),
    );
    for (const victim of victims) {
      process.kill(victim.pid, signal);
    }
    return victims;
  }

  /** Leaves if it can, ends what is left, unmounts nothing that is not its own. */
  async end(): Promise<void> {
    if (this.processes().length === 0) {
      return;
    }
    for (const victim of this.processes()) {
      spawnSync("kill", ["-CONT", String(victim.pid)]);
    }
    await this.cli("leave");
    for (let round = 0; round < 100 && this.processes().length > 0; round++) {
      if (round >= 20) {
        // Daemon first: it would start a new pulse.
        this.signal("SIGKILL", "daemon", "other");
        this.signal("SIGKILL");
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const left = this.processes().map(({ pid, role }) => `${role} ${pid}`);
    if (left.length > 0) {
      throw new Error(`${this.name} does not end: ${left.join(", ")}`);
    }
  }
}

function roleOf(words: readonly string[]): Role {
  const script = words.find((word) => /sharedha[a-z-]*\.js$/.test(word)) ?? "";
  if (script.endsWith("sharedhad.js")) {
    return "daemon";
  }
  if (script.endsWith("sharedha-pulse.js")) {
    return "pulse";
  }
  return script.endsWith("sharedha-guard.js") ? "guard" : "other";
}
