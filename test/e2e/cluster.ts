/**
 * Three members on the SAN with two groups, ext4 on LUN 0 and xfs on LUN 1. Joining takes a minute under emulation, so the
 * machines are saved once with everything joined, and each `describe` begins there.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { afterEach, before, beforeEach } from "mocha";

import { type EventBody, type ReservedBody, type StatusBody } from "../../lib/net/api.js";
import { STATE_DIR_DEFAULT } from "../../lib/system/state-dir.js";
import { type GuestProcess, type Ran } from "../lab/agent-client.js";
import { built, inputsKey } from "../lab/cache.js";
import { type Lab } from "../lab/lab.js";
import { openLab } from "../lab/mocha.js";
import { diskOf, lunUrl } from "../lab/san.js";
import { NODES, type VmName } from "../lab/settings.js";
import { type Vm } from "../lab/vm.js";
import { type Acknowledged, judgeRecords, parseRecord } from "./records.js";
import { Timeline } from "./timeline.js";

export const MACHINES: readonly VmName[] = ["san", ...NODES];
export type NodeName = (typeof NODES)[number];

const SAN_FILE = join(import.meta.dirname, "../lab/san.js");

/** The whole device of the group "files". */
const LUN1 = diskOf("lun1");

export interface GroupSpec {
  readonly name: string;
  readonly mount: string;
  readonly type: "ext4" | "xfs";
}
export const WEB: GroupSpec = { name: "web", mount: "/srv/web", type: "ext4" };
export const FILES: GroupSpec = { name: "files", mount: "/srv/files", type: "xfs" };

/** `vmPause`: the lab is virtual, and the tests pause no machine but where that is what they are about. */
export function configText(vmPause: "never" | "possible"): string {
  return `vm_pause = "${vmPause}"

[group.web]
device = "lun"
mount = { path = "${WEB.mount}", type = "ext4", options = "noatime" }

[group.files]
device = "${LUN1}"
mount = { path = "${FILES.mount}", type = "xfs", options = "noatime" }
`;
}

export const JOIN_LOG = "/run/sharedha-join.log";

/** What a real machine's unit file would do at boot: the watchdog's module, then the former join again. */
const BOOT_UNIT = `#!/bin/sh
modprobe softdog
exec setsid sharedha join > ${JOIN_LOG} 2>&1 &
`;

const RESTORES_MAX = 3;
const LOG_MS = 10_000;

/** What a `reserve --wait` has brought, and when: performance.now(). */
export type Taken = ReservedBody & { readonly atMs: number };

export class Cluster {
  readonly lab: Lab;
  readonly timeline = new Timeline();
  readonly #acknowledged = new Map<string, Acknowledged[]>();

  constructor(lab: Lab) {
    this.lab = lab;
  }

  node(name: NodeName): Vm {
    return this.lab.vm(name);
  }

  // --- making it ---

  async make(): Promise<void> {
    await this.lab.start(MACHINES, "snapshot", () => undefined);
    this.timeline.mark("the machines run");
    await Promise.all(
      NODES.map((name) =>
        this.node(name).steps([
          { do: "mkdir", path: "/state/boot.d" },
          { do: "write", path: "/state/boot.d/50-sharedha", text: BOOT_UNIT },
          { do: "write", path: "/root/cluster.toml", text: configText("never") },
        ]),
      ),
    );
    await Promise.all(
      NODES.map((name) => this.node(name).must(["chmod", "755", "/state/boot.d/50-sharedha"])),
    );
    const init = ["init", lunUrl("lun0"), "--cluster", "e2e", "--mkfs", "ext4"];
    await this.must("n1", [...init, "--config", "/root/cluster.toml"], 120_000);
    await this.node("n1").must(["mkfs.xfs", "-q", "-K", LUN1]);
    this.timeline.mark("n1 has made the region and the file systems");
    await Promise.all(NODES.map((name) => this.join(name)));
  }

  async join(name: NodeName): Promise<void> {
    await this.node(name).must(["modprobe", "softdog"]);
    await this.must(name, ["join", lunUrl("lun0")], 240_000);
    this.timeline.mark(`${name} is a member`);
  }

  /** From the saved state, which is made when this build has none yet. */
  async begin(): Promise<void> {
    const dir = await built(
      "joined",
      // Also this very file and the SAN's, by which it is made.
      inputsKey([this.lab.stateKey], [import.meta.filename, SAN_FILE]),
      () => undefined,
      async (target) => {
        await this.make();
        await this.lab.saveAll(MACHINES, target);
      },
    );
    await this.#restore(dir);
    this.#acknowledged.clear();
    this.timeline.mark("the cluster runs");
  }

  /**
   * The first seconds are no test's: an emulator that has just been started translates every program anew, and a node may
   * lose by that alone what it had. Then all are restored again.
   */
  async #restore(dir: string): Promise<void> {
    for (let tries = 1; ; tries++) {
      await this.lab.restoreAll(MACHINES, dir);
      const states = await Promise.all(
        NODES.map(async (name) => `${name} ${(await this.status(name)).node.state}`),
      );
      const lost = states.filter((state) => !state.endsWith(" joined"));
      if (lost.length === 0) {
        return;
      }
      assert(tries < RESTORES_MAX, `after ${tries} tries: ${lost.join(", ")}`);
      this.timeline.mark(`${lost.join(", ")} while the emulators warmed up: restored again`);
    }
  }

  /** What the daemons said last, where a machine still answers. */
  async printLogs(): Promise<void> {
    const argv = ["tail", "-n", "30", `${STATE_DIR_DEFAULT}/daemon.log`];
    for (const vm of this.lab.runningVms().filter(({ name }) => name !== "san")) {
      const said = await vm.run(argv, { timeoutMs: LOG_MS }).then(
        ({ stdout, stderr }) => stdout + stderr,
        (error: unknown) => `cannot be asked: ${String(error)}`,
      );
      process.stdout.write(`--- daemon of ${vm.name}\n${said}\n`);
    }
  }

  // --- asking and telling ---

  async must(name: NodeName, args: readonly string[], timeoutMs = 60_000): Promise<string> {
    return await this.node(name).must(["sharedha", ...args], { timeoutMs });
  }

  async status(name: NodeName): Promise<StatusBody> {
    return JSON.parse(await this.must(name, ["status", "--json"])) as StatusBody;
  }

  async events(name: NodeName, event?: string): Promise<readonly EventBody[]> {
    const lines = (await this.must(name, ["events", "--json"])).trim().split("\n");
    const events = lines.filter((line) => line !== "").map((line) => JSON.parse(line) as EventBody);
    return event === undefined ? events : events.filter((one) => one.event === event);
  }

  async reserve(name: NodeName, group: GroupSpec, waitS = 0): Promise<ReservedBody> {
    const wait = waitS === 0 ? [] : ["--wait", String(waitS)];
    const words = ["reserve", group.name, ...wait, "--json"];
    const text = await this.must(name, words, waitS * 1000 + 60_000);
    this.timeline.mark(`${name} has ${group.name} mounted`);
    return JSON.parse(text) as ReservedBody;
  }

  /**
   * Begins a `reserve --wait`, and returns when its ticket is on disk, or when it has ended. `taken` tells how; that it
   * failed is nobody else's failure while nobody looks.
   */
  async queue(
    waiter: NodeName,
    group: GroupSpec,
    waitS = 120,
  ): Promise<{ readonly taken: Promise<Taken> }> {
    let isOver = false;
    const taken = this.reserve(waiter, group, waitS).then((body) => ({
      ...body,
      atMs: performance.now(),
    }));
    const over = (): void => {
      isOver = true;
    };
    taken.then(over, over);
    const look = async (): Promise<boolean> => {
      const { groups } = await this.status(waiter);
      return groups.find(({ name }) => name === group.name)?.queue.includes(waiter) === true;
    };
    // A look is a whole program, which takes the one processor from the heartbeats.
    const what = `${waiter} waits for ${group.name}`;
    await this.until(what, 60_000, async () => isOver || (await look()), 2_000);
    return { taken };
  }

  async release(name: NodeName, group: GroupSpec): Promise<void> {
    await this.must(name, ["release", group.name]);
    this.timeline.mark(`${name} has released ${group.name}`);
  }

  /** A refusal, as JSON on standard output. */
  async refused(name: NodeName, args: readonly string[]): Promise<Ran> {
    const ran = await this.node(name).sharedha([...args, "--json"]);
    assert.notEqual(ran.exitCode, 0, `${args.join(" ")} must be refused: ${ran.stdout}`);
    return ran;
  }

  /** Polls until `look` gives something. */
  async until<T>(
    what: string,
    boundMs: number,
    look: () => Promise<T | undefined | false>,
    everyMs = 250,
  ): Promise<T> {
    const startedMs = performance.now();
    for (;;) {
      const found = await look();
      if (found !== undefined && found !== false) {
        this.timeline.mark(what);
        return found;
      }
      assert(performance.now() - startedMs < boundMs, `${what}: not within ${boundMs} ms`);
      await new Promise((resolve) => setTimeout(resolve, everyMs));
    }
  }

  /** Member again by its own boot unit, after a reset or a power cut. */
  async untilMember(name: NodeName, boundMs = 150_000): Promise<void> {
    await this.node(name).untilAgent(boundMs);
    this.timeline.mark(`${name} has booted`);
    const look = async (): Promise<boolean> => {
      const { exitCode, stdout } = await this.node(name).sharedha(["status", "--json"]);
      return exitCode === 0 && (JSON.parse(stdout) as StatusBody).node.state === "joined";
    };
    // A look is a whole program, which takes the one processor from the daemon that is to start.
    await this.until(`${name} is a member again`, boundMs, look, 4_000);
  }

  // --- the service and the proof ---

  /** A service that writes records on the group's file system, under the version of the lease. */
  startWriter(name: NodeName, group: GroupSpec, version: string): GuestProcess {
    const acknowledged = this.#acknowledged.get(group.name) ?? [];
    this.#acknowledged.set(group.name, acknowledged);
    let rest = "";
    const program = "/opt/sharedha/dist/test/e2e/guest/writer.js";
    const argv = ["node", program, recordsPath(group), name, version];
    return this.node(name).start(argv, (text) => {
      const atMs = performance.now();
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        const record = parseRecord(line);
        assert(record !== undefined, `the writer says ${line}`);
        acknowledged.push({ ...record, atMs });
      }
    });
  }

  acknowledged(group: GroupSpec): readonly Acknowledged[] {
    return this.#acknowledged.get(group.name) ?? [];
  }

  async untilRecords(group: GroupSpec, more: number, boundMs = 30_000): Promise<void> {
    const wanted = this.acknowledged(group).length + more;
    await this.until(`${wanted} records on ${group.name}`, boundMs, () =>
      Promise.resolve(this.acknowledged(group).length >= wanted),
    );
  }

  /** The records as the device has them, read by the node that has the group; around its page cache. */
  async checkRecords(holder: NodeName, group: GroupSpec): Promise<void> {
    const path = recordsPath(group);
    // Before the look: a writer may be at work.
    const acknowledged = [...this.acknowledged(group)];
    const text = await this.node(holder).must([
      ...["dd", `if=${path}`, "iflag=direct", "bs=1M", "status=none"],
    ]);
    assert.deepEqual(judgeRecords(text, acknowledged), []);
    assert(acknowledged.length > 0, "no record was acknowledged: nothing is proven");
    const versions = new Set(acknowledged.map(({ node, version }) => `${node} v${version}`));
    this.timeline.mark(
      `${group.name}: all ${acknowledged.length} acknowledged records are there (${[...versions].join(", ")})`,
    );
  }

  /** The service ends, every record is there, and the file system is in order once it is released. */
  async endAndCheck(name: NodeName, group: GroupSpec, writer: GuestProcess): Promise<void> {
    writer.signal("SIGTERM");
    await writer.ended;
    await this.checkRecords(name, group);
    await this.release(name, group);
    await this.checkFilesystem(name, group);
  }

  /** `fsck -n` of the released group finds nothing. */
  async checkFilesystem(name: NodeName, group: GroupSpec): Promise<void> {
    const node = this.node(name);
    if (group.type === "ext4") {
      const region = await node.must(["readlink", "-f", diskOf("lun0")]);
      await node.must(["e2fsck", "-f", "-n", `${region.trim()}2`]);
    } else {
      await node.must(["xfs_repair", "-n", LUN1]);
    }
    this.timeline.mark(`${group.name}: fsck -n finds nothing`);
  }
}

function recordsPath(group: GroupSpec): string {
  return `${group.mount}/records`;
}

/** For a `describe`: the joined cluster, made anew before all or before each of its tests; after each test the timeline. */
export function useCluster(anew: "once" | "for each test" = "once"): Cluster {
  const cluster = new Cluster(openLab());
  const hook = anew === "once" ? before : beforeEach;
  hook(async function () {
    this.timeout(400_000);
    await cluster.begin();
  });
  afterEach(async function () {
    cluster.timeline.print();
    if (this.currentTest?.state === "failed") {
      this.timeout(5 * LOG_MS);
      await cluster.printLogs();
    }
  });
  return cluster;
}
