/** One virtual machine, with the faults that only its owner can make: power, pause, snapshots, clocks. */
import {
  existsSync,
  mkdirSync,
  openSync,
  closeSync,
  ftruncateSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";

import { GuestProcess, type Ran, runInGuest, type RunOptions, takeSteps } from "./agent-client.js";
import { type Step } from "./frames.js";
import { tscKhz } from "./host-tsc.js";
import { INSIDE, tapOf } from "./network.js";
import { NICE, setNice } from "./priority.js";
import { Qmp, type QmpEvent } from "./qmp.js";
import { killVm, noteVmProcess, vmDir, vmProcess } from "./run-dir.js";
import { type DiskSpec, SPECS, type VmName, type VmSpec } from "./settings.js";
import { QEMU, tool } from "./tool.js";

export interface Images {
  readonly vmlinux: string;
  readonly root: string;
  readonly initrd: string;
  readonly app: string;
}

const AGENT_MS = 90_000;
const LOOK_EVERY_MS = 50;
const POWER = [
  "console=ttyS0",
  "quiet",
  "panic=-1",
  "nokaslr",
  "mitigations=off",
  "random.trust_cpu=on",
];
/** Shorter boots under emulation; none of them changes what the storage stack does. */
const QUICK = ["no_timer_check", "cryptomgr.notests", "audit=0", "apparmor=0", "tsc=reliable"];

export interface GuestClock {
  /** Since the boot of the guest. */
  readonly uptimeMs: number;
  /** performance.now() */
  readonly atMs: number;
}

interface BootOptions {
  /** Starts no services: it is saved before it has touched a disk. */
  readonly forSnapshot?: boolean;
  /** What its firmware says it is, if not its own. */
  readonly uuid?: string;
  /** Its iSCSI name, if not what is on its disk. */
  readonly initiator?: string;
}

export class Vm {
  readonly spec: VmSpec;
  readonly #images: Images;
  /** Programs started by `start`: a machine without power closes no connection, so the lab does it for it. */
  readonly #started = new Set<GuestProcess>();
  #qmp: Qmp | undefined;

  constructor(name: VmName, images: Images) {
    this.spec = SPECS[name];
    this.#images = images;
  }

  get name(): VmName {
    return this.spec.name;
  }

  get #dir(): string {
    return vmDir(this.name);
  }

  // --- programs and files ---

  async run(argv: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return await runInGuest(this.spec.address, argv, options);
  }

  /** As `run`. @returns standard output @throws Error unless it exits with 0 */
  async must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
    const ran = await this.run(argv, options);
    if (ran.exitCode !== 0) {
      const how = `exit ${ran.exitCode ?? ran.signal ?? "?"}`;
      throw new Error(`${this.name}: ${argv.join(" ")}: ${how}\n${ran.stdout}${ran.stderr}`);
    }
    return ran.stdout;
  }

  /** The command under test. */
  async sharedha(args: readonly string[], options: RunOptions = {}): Promise<Ran> {
    return await this.run(["sharedha", ...args], options);
  }

  /** Runs until it ends, is dropped, or the VM goes away. */
  start(
    argv: readonly string[],
    onStdout: (text: string) => void,
    options: { readonly keepsInput?: boolean } = {},
  ): GuestProcess {
    const request = { op: "run", argv, env: {} } as const;
    const started = new GuestProcess(this.spec.address, request, { onStdout, ...options });
    this.#started.add(started);
    void started.ended.then(() => this.#started.delete(started));
    return started;
  }

  async steps(steps: readonly Step[]): Promise<readonly string[]> {
    return await takeSteps(this.spec.address, steps);
  }

  // --- power ---

  /** Disks as new: the LUNs blank, the state disk empty. */
  async makeDisks(): Promise<void> {
    mkdirSync(this.#dir, { recursive: true });
    for (const disk of this.spec.disks) {
      const path = this.#diskPath(disk);
      rmSync(path, { force: true });
      const fd = openSync(path, "w", 0o600);
      ftruncateSync(fd, disk.sizeMiB * 1024 * 1024);
      closeSync(fd);
      if (disk.hasFilesystem === true) {
        await tool("mkfs.ext4", ["-q", "-F", path]);
      }
    }
  }

  /** Boots from nothing, and returns when the agent answers and the services have been started. */
  async boot(options: BootOptions = {}): Promise<void> {
    await this.#launch(undefined, options);
    await this.untilAgent();
  }

  /** From a snapshot that had none of its disks open: these may be others of the same sizes. */
  async restore(state: string): Promise<void> {
    await this.load(state);
    await this.resume();
    await this.wake();
    await this.must(["/lab/services.sh"]);
  }

  /** A saved state in memory, still stopped. */
  async load(state: string): Promise<void> {
    await this.#launch(state);
    await this.#untilLoaded();
  }

  /** After `load` and `resume`: the wall clock and the randomness are still those of the moment when it was saved. */
  async wake(): Promise<void> {
    await this.untilAgent();
    await this.stepClock(0);
    const seed = randomBytes(64).toString("hex");
    // RNDRESEEDCRNG: else the kernel would give out the same ids as in every earlier run.
    const script =
      'open(F, "+<", "/dev/urandom") && syswrite(F, pack("H*", shift)) && ioctl(F, 0x5207, 0) or die $!';
    await this.must(["perl", "-e", script, seed]);
  }

  /** A power cut: nothing gets a chance to say good-bye. */
  async powerCut(): Promise<void> {
    await killVm(this.name);
    this.forget();
  }

  /** The reset button: the machine boots again, without any shutdown. */
  async reset(): Promise<void> {
    await this.#command("system_reset");
  }

  /** Stops the machine with its clocks and its watchdog, as a hypervisor does for a snapshot or a migration. */
  async pause(): Promise<void> {
    await this.#command("stop");
  }

  async resume(): Promise<void> {
    await this.#command("cont");
  }

  get isRunning(): boolean {
    return vmProcess(this.name) !== undefined;
  }

  /** Memory and disks as they are now, into `dir`, to go back to. The machine stands still until `resume`. */
  async saveTo(dir: string): Promise<void> {
    await this.pause();
    await this.saveState(join(dir, `${this.name}.state`));
    for (const disk of this.spec.disks) {
      await copySparse(this.#diskPath(disk), join(dir, `${this.name}-${disk.name}.img`));
    }
  }

  /** Its disks as `saveTo` left them. */
  async takeDisksFrom(dir: string): Promise<void> {
    mkdirSync(this.#dir, { recursive: true });
    for (const disk of this.spec.disks) {
      await copySparse(join(dir, `${this.name}-${disk.name}.img`), this.#diskPath(disk));
    }
  }

  /** As a hypervisor's "revert to snapshot": what the machine did since `saveTo` is gone, and it does not know. */
  async revertTo(dir: string): Promise<void> {
    await this.powerCut();
    await this.takeDisksFrom(dir);
    await this.load(join(dir, `${this.name}.state`));
    await this.resume();
    await this.wake();
  }

  /** Writes the state of the stopped machine. */
  async saveState(file: string): Promise<void> {
    await this.#command("migrate-set-parameters", { "max-bandwidth": 2 ** 36 });
    await this.#command("migrate", { uri: `exec:cat > ${file}` });
    for (;;) {
      const state = (await this.#command("query-migrate")) as { status: string };
      if (state.status === "completed") {
        return;
      }
      if (state.status === "failed") {
        throw new Error(`the state of ${this.name} cannot be saved: ${JSON.stringify(state)}`);
      }
      await pause(LOOK_EVERY_MS);
    }
  }

  /** This machine's disks as a copy for another: a cloned installation, with the same machine id and state. */
  async cloneDisksTo(other: Vm): Promise<void> {
    mkdirSync(other.#dir, { recursive: true });
    await this.pause();
    for (const disk of this.spec.disks) {
      await copySparse(this.#diskPath(disk), other.#diskPath(disk));
    }
    await this.resume();
  }

  // --- looking, waiting, small faults inside ---

  get console(): string {
    const file = join(this.#dir, "console.log");
    return existsSync(file) ? readFileSync(file, "latin1") : "";
  }

  /** QEMU's events (RESET, STOP, SHUTDOWN, WATCHDOG ...) since this process has known the VM. */
  async events(): Promise<readonly QmpEvent[]> {
    return (await this.#control()).events;
  }

  async untilAgent(boundMs = AGENT_MS): Promise<void> {
    const startedMs = performance.now();
    for (;;) {
      const answer = new GuestProcess(this.spec.address, { op: "files", steps: [] });
      const end = await Promise.race([answer.ended, pause(1_000)]);
      answer.drop();
      if (typeof end === "object") {
        this.#setNice(NICE.working);
        return;
      }
      if (!this.isRunning) {
        throw new Error(`QEMU of ${this.name} ended:\n${this.console.slice(-2000)}`);
      }
      if (performance.now() - startedMs > boundMs) {
        throw new Error(`${this.name}: no agent in ${boundMs} ms:\n${this.console.slice(-2000)}`);
      }
      await pause(LOOK_EVERY_MS);
    }
  }

  /** The kernel's clock, which `console` shows too, and a moment of this process's `performance.now()` just after it. */
  async clock(): Promise<GuestClock> {
    const [uptime = ""] = await this.steps([{ do: "read", path: "/proc/uptime" }]);
    return { uptimeMs: 1_000 * Number(uptime.split(" ")[0]), atMs: performance.now() };
  }

  /** How fast the guest's clock runs; 1 is as fast as this host's. */
  async clockRate(overMs: number): Promise<number> {
    const first = await this.clock();
    await pause(overMs);
    const last = await this.clock();
    return (last.uptimeMs - first.uptimeMs) / (last.atMs - first.atMs);
  }

  /**
   * When softdog brought the machine down, as of `performance.now()`, by its kernel's last words. From that moment on it
   * runs nothing any more; QEMU's RESET comes when the emulator has got as far, up to 1.6 s later when the host is busy.
   *
   * @param clock of this boot. As it was read a little before `atMs`, the result is late by as much at most
   */
  softdogFiredMs(clock: GuestClock): number | undefined {
    const [, seconds] =
      [...this.console.matchAll(/\[ *(\d+\.\d+)\] softdog: Initiating system reboot/g)].at(-1) ??
      [];
    return seconds === undefined
      ? undefined
      : clock.atMs + 1_000 * Number(seconds) - clock.uptimeMs;
  }

  /** Sets the wall clock off by so much. */
  async stepClock(seconds: number): Promise<void> {
    await this.must(["date", "--set", `@${(Date.now() / 1000 + seconds).toFixed(3)}`]);
  }

  /** @param pattern of pkill -f: every process with this in its command line */
  async signal(pattern: string, signal: NodeJS.Signals): Promise<void> {
    const { exitCode } = await this.run(["pkill", `--signal=${signal}`, "--full", pattern]);
    if (exitCode !== 0) {
      throw new Error(`${this.name}: nothing to signal: ${pattern}`);
    }
  }

  /** Lets go of every connection: the machine is off, or this process leaves it to others. */
  forget(): void {
    this.#dropStarted();
    this.#qmp?.close();
    this.#qmp = undefined;
  }

  // --- inside ---

  async #untilLoaded(): Promise<void> {
    const startedMs = performance.now();
    for (;;) {
      const { status } = (await this.#command("query-status")) as { status: string };
      if (status !== "inmigrate") {
        return;
      }
      if (performance.now() - startedMs > AGENT_MS) {
        throw new Error(`the state of ${this.name} is not loaded after ${AGENT_MS} ms`);
      }
      await pause(20);
    }
  }

  #diskPath(disk: DiskSpec): string {
    return join(this.#dir, `${disk.name}.img`);
  }

  async #control(): Promise<Qmp> {
    this.#qmp ??= await Qmp.open(join(this.#dir, "qmp.sock"), ({ name }) => {
      if (name === "RESET") {
        this.#setNice(NICE.booting);
        this.#dropStarted();
      }
    });
    return this.#qmp;
  }

  #dropStarted(): void {
    for (const started of this.#started) {
      started.drop();
    }
  }

  async #command(name: string, args?: Readonly<Record<string, unknown>>): Promise<unknown> {
    return await (await this.#control()).command(name, args);
  }

  async #launch(state: string | undefined, options: BootOptions = {}): Promise<void> {
    if (this.isRunning) {
      throw new Error(`${this.name} runs already`);
    }
    mkdirSync(this.#dir, { recursive: true });
    const pidFile = join(this.#dir, "pid");
    writeFileSync(join(this.#dir, "console.log"), "");
    const incoming = state === undefined ? [] : ["-incoming", `exec:cat ${state}`];
    const [enter = "", ...inside] = INSIDE;
    await tool(enter, [
      ...[...inside, QEMU, "-name", `${this.name}.sharedha-lab`],
      ...["-accel", "tcg,thread=multi,tb-size=200", "-cpu", "max", "-M", "pc", "-smp", "1"],
      ...["-uuid", options.uuid ?? this.spec.uuid],
      ...["-m", String(this.spec.memoryMiB), "-nodefaults", "-no-user-config", "-display", "none"],
      ...["-kernel", this.#images.vmlinux, "-initrd", this.#images.initrd],
      ...["-append", this.#kernelWords(options)],
      ...this.#diskArgs(),
      ...["-netdev", `tap,id=net,ifname=${tapOf(this.name)},script=no,downscript=no`],
      ...["-device", `virtio-net-pci,netdev=net,romfile=,mac=${this.spec.mac}`],
      ...["-serial", `file:${join(this.#dir, "console.log")}`],
      ...["-qmp", `unix:${join(this.#dir, "qmp.sock")},server=on,wait=off`],
      ...["-pidfile", pidFile, "-daemonize", ...incoming],
    ]);
    noteVmProcess(this.name, pidFile);
    this.#setNice(state === undefined ? NICE.booting : NICE.working);
  }

  #setNice(nice: number): void {
    const identity = vmProcess(this.name);
    if (identity !== undefined) {
      setNice(identity.pid, nice);
    }
  }

  #kernelWords({ forSnapshot, initiator }: BootOptions): string {
    const lab = {
      name: this.name,
      address: this.spec.address,
      modules: this.spec.modules.join(","),
      services: forSnapshot === true ? "later" : "now",
      ...(initiator === undefined ? {} : { initiator }),
    };
    const words = Object.entries(lab).map(([key, value]) => `lab.${key}=${value}`);
    const khz = tscKhz();
    const clock = khz === undefined ? [] : [`tsc_early_khz=${khz}`];
    return [...POWER, ...QUICK, ...clock, ...words].join(" ");
  }

  #diskArgs(): readonly string[] {
    const readOnly = (id: string, file: string): readonly string[] => [
      ...["-drive", `file=${file},format=raw,if=none,id=${id},read-only=on,file.locking=off`],
      ...["-device", `virtio-blk-pci,drive=${id},serial=${id}`],
    ];
    // `unsafe` leaves out the host's fsync alone: what the guest has written survives QEMU's end in the page cache.
    const own = this.spec.disks.flatMap((disk) => [
      ...["-drive", `file=${this.#diskPath(disk)},format=raw,if=none,id=${disk.name},cache=unsafe`],
      ...["-device", `virtio-blk-pci,drive=${disk.name},serial=${disk.name}`],
    ]);
    return [...readOnly("root", this.#images.root), ...readOnly("app", this.#images.app), ...own];
  }
}

async function copySparse(from: string, to: string): Promise<void> {
  await tool("cp", ["--sparse=always", "--", from, to]);
}

async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
