/** What the tests of faults share: real nodes on one region, bounded waiting, and the form that every refusal has. */
import assert from "node:assert/strict";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Readable } from "node:stream";

import {
  type ErrorBody,
  type EventBody,
  type EventsBody,
  type StatusBody,
} from "../../../lib/net/api.js";
import { type NodeOptions, type Ran, sharedha, TestNode } from "../../helpers/nodes.js";
import { findRoot } from "../../helpers/root.js";
import { must, Workspace } from "../../helpers/workspace.js";
import { skipIf } from "../../helpers/skip.js";
import { whyNotRoot } from "../../helpers/loop-image.js";

/** Everything lies on this very machine, so the guard's expiry may count (DESIGN section 8, `expired-guard`). */
const CONFIG = "accept_guard = true\n";

/** Polls until `look` gives something; fails with `what` after the bound. */
export async function until<T>(
  what: string,
  boundMs: number,
  look: () => T | undefined | false | Promise<T | undefined | false>,
): Promise<T> {
  const startedMs = performance.now();
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) {
      return found;
    }
    const elapsedMs = performance.now() - startedMs;
    assert(elapsedMs < boundMs, `${what}: not within ${boundMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** As `until`, but the opposite: `look` must stay false all the time. */
export async function never(
  what: string,
  forMs: number,
  look: () => boolean | Promise<boolean>,
): Promise<void> {
  const startedMs = performance.now();
  while (performance.now() - startedMs < forMs) {
    assert.equal(await look(), false, what);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export function expectDone(ran: Ran): void {
  assert.equal(ran.exitCode, 0, `exit ${ran.exitCode}\n${ran.stdout}${ran.stderr}`);
}

/**
 * Runs a command that must fail, with `--json`, and checks the form of its error: exit code, stable code, a message that
 * names the cause, a remedy, the same words on standard error, and no stack.
 */
export function expectError(
  ran: Ran,
  expected: { readonly exitCode: 1 | 2 | 3; readonly code: string; readonly message: RegExp },
): ErrorBody["error"] {
  const all = `exit ${ran.exitCode}\n${ran.stdout}${ran.stderr}`;
  assert.equal(ran.exitCode, expected.exitCode, all);
  const { error } = JSON.parse(ran.stdout) as ErrorBody;
  assert.equal(error.code, expected.code, all);
  assert.match(error.message, expected.message);
  assert.match(error.hint, /\w{3,}/, "an error has a remedy");
  assert.match(ran.stderr, expected.message);
  assert.match(ran.stderr, /^ {2}remedy: .{10}/m);
  assert.doesNotMatch(ran.stderr, /^\s+at .*[:(]\d+/m, "no stack");
  return error;
}

/** Some nodes on one region; everything ends with `clean`. */
export class Cluster {
  readonly workspace: Workspace;
  readonly luns: readonly string[];

  private constructor(workspace: Workspace, luns: readonly string[]) {
    this.workspace = workspace;
    this.luns = luns;
  }

  /** A region of the `fast` profile: T = 1 s, others act 2.8 s (several LUNs: 3.0 s) after the last change. */
  static async make(
    name: string,
    options: {
      readonly workspace?: Workspace;
      /** Files that exist already, or a number of new ones. */
      readonly luns?: readonly string[] | number;
      readonly initArgs?: readonly string[];
      readonly config?: string;
      readonly profile?: "fast" | "default" | "multipath";
    } = {},
  ): Promise<Cluster> {
    const workspace = options.workspace ?? new Workspace(`faults-${name}`);
    try {
      const { luns = 1, initArgs = [], config = CONFIG, profile = "fast" } = options;
      const paths =
        typeof luns === "number"
          ? Array.from({ length: luns }, (_, index) => workspace.path(`lun${index + 1}`))
          : luns;
      const configPath = workspace.path("cluster.toml");
      writeFileSync(configPath, config);
      const words = ["init", ...paths, "--cluster", name, "--profile", profile, "--config"];
      expectDone(await sharedha([...words, configPath, ...initArgs]));
      return new Cluster(workspace, paths);
    } catch (error) {
      await workspace.clean();
      throw error;
    }
  }

  node(name: string, options: Partial<NodeOptions> = {}): TestNode {
    return new TestNode(this.workspace, {
      name,
      luns: this.luns,
      watchdog: "guard",
      ...options,
    });
  }

  async joined(name: string, options: Partial<NodeOptions> = {}): Promise<TestNode> {
    const node = this.node(name, options);
    expectDone(await node.join());
    return node;
  }

  /** Fails when something was left behind. */
  async clean(): Promise<void> {
    assert.deepEqual(await this.workspace.clean(), []);
  }
}

/** With a group "data": an ext4 file system beside the region, mounted on `dataDir`. */
export async function makeWithData(
  name: string,
  profile: "fast" | "default",
  on: { readonly workspace?: Workspace; readonly luns?: readonly string[] } = {},
): Promise<DataCluster> {
  const workspace = on.workspace ?? new Workspace(`faults-${name}`);
  const dataDir = workspace.path("data");
  const mount = `{ path = ${JSON.stringify(dataDir)}, type = "ext4", options = "noatime" }`;
  const cluster = await Cluster.make(name, {
    ...on,
    workspace,
    profile,
    initArgs: ["--mkfs", "ext4", "--size", "128M"],
    config: `[group.data]\ndevice = "lun"\nmount = ${mount}\n`,
  });
  return { cluster, dataDir };
}

export interface DataCluster {
  readonly cluster: Cluster;
  readonly dataDir: string;
}

/** A service of a node: appends numbered records, each flushed before it is acknowledged. */
export class Writer {
  readonly path: string;
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  #acknowledged = 0;
  #complaint = "";
  readonly ended: Promise<void>;

  constructor(node: TestNode, path: string) {
    this.path = path;
    const script = join(findRoot(), "dist", "test", "demo", "writer.js");
    const words = [process.execPath, script, path, "1", "--state-dir", node.stateDir];
    const [file, ...args] = [...node.inside(), ...words];
    this.#child = spawn(file ?? "", args, { stdio: ["ignore", "pipe", "pipe"] });
    this.#child.stdout.on("data", (chunk: Buffer) => {
      this.#acknowledged = Number(chunk.toString().trimEnd().split("\n").at(-1));
    });
    this.#child.stderr.on("data", (chunk: Buffer) => (this.#complaint += chunk.toString()));
    this.ended = new Promise((resolve) => {
      this.#child.once("close", () => {
        resolve();
      });
    });
  }

  /** The last record that the service was told is on the disk. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  get complaint(): string {
    return this.#complaint;
  }

  async untilAcknowledged(records: number): Promise<void> {
    await until(`${records} records`, 10_000, () => this.#acknowledged >= records);
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.ended;
  }
}

/** The records as they are on the disk, around this node's page cache. */
export function recordsOf(node: TestNode, path: string): readonly number[] {
  const [file, ...args] = [...node.inside(), "dd", `if=${path}`, "iflag=direct", "bs=1M"];
  return must(file, [...args, "status=none"])
    .trimEnd()
    .split("\n")
    .map(Number);
}

/** Every acknowledged record, in order, once. One more may follow: its acknowledgement did not arrive. */
export function checkRecords(found: readonly number[], acknowledged: number): void {
  found.forEach((record, index) => {
    assert.equal(record, index + 1, `record ${index + 1} reads ${record}`);
  });
  assert(found.length >= acknowledged, `${found.length} of ${acknowledged} acknowledged records`);
  assert(found.length <= acknowledged + 1, `${found.length} records, ${acknowledged} acknowledged`);
}

/** What the daemon noted, oldest first. */
export async function eventsOf(node: TestNode, event?: string): Promise<readonly EventBody[]> {
  const { events } = (await node.call("GET", "/v1/events?after=0")) as EventsBody;
  return event === undefined ? events : events.filter((one) => one.event === event);
}

/** The version under which `node` has the lease now; undefined when it has not. */
export async function heldVersion(node: TestNode, lease: string): Promise<string | undefined> {
  const status = await node.status();
  const found = status.leases.find((one) => one.name === lease);
  return found?.heldHere === true ? found.version : undefined;
}

/**
 * Member again, under a newer generation than `before`. Where the guard has ended the daemon too, somebody starts it again:
 * here the test, on a real machine the service manager.
 */
export async function untilRejoined(
  node: TestNode,
  before: bigint,
  boundMs: number,
): Promise<bigint> {
  return await until(`${node.name} is a member again`, boundMs, async () => {
    if (!node.processes().some((one) => one.role === "daemon")) {
      expectDone(await node.join());
    }
    const own = await statusOrNothing(node);
    const generation = BigInt(own?.node.generation ?? "0");
    return own?.node.state === "joined" && generation > before ? generation : undefined;
  });
}

/** Undefined while no daemon answers. */
async function statusOrNothing(node: TestNode): Promise<StatusBody | undefined> {
  try {
    return await node.status();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ECONNREFUSED" || code === "ECONNRESET" || code === "ENOENT") {
      return undefined;
    }
    throw error;
  }
}

export async function generationOf(node: TestNode): Promise<bigint> {
  return BigInt((await node.status()).node.generation ?? "0");
}

/** What the guard of a node noted when it expired; undefined when it did not. */
export function guardReport(node: TestNode): unknown {
  const path = `${node.stateDir}/guard-expired.json`;
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as unknown) : undefined;
}

/** Why a test that needs root must be skipped, or undefined. */
export function skipUnlessRoot(context: Mocha.Context): void {
  skipIf(context, whyNotRoot());
}
