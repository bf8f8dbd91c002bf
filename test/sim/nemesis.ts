/** Everything that goes wrong in phase 1, and the humans who look after it: they start machines again, and say what is off. */
import { deltaOffset } from "../../lib/format/geometry.js";
import { type FaultRates } from "./options.js";
import { type Machine, type Process } from "./machine.js";
import { type Medium } from "./medium.js";
import { type SimNode } from "./node.js";
import { GEOMETRY } from "./space.js";
import { type World } from "./world.js";

const MINUTE_MS = 60_000;

export class Nemesis {
  readonly #world: World;
  /** Until when a node is not to be judged by its speed. */
  readonly #unwellUntilMs = new Map<number, number>();
  #clusterUnwellUntilMs = 0;
  #crashedAtMs = -Infinity;
  /** No operation is slow or fails by itself in this run. */
  readonly #isSteady: boolean;

  constructor(world: World) {
    this.#world = world;
    const { hang, error, slow, stall } = world.options.ops;
    this.#isSteady = hang + error + slow + stall === 0;
  }

  start(): void {
    const { faults } = this.#world.options;
    for (const name of Object.keys(faults) as (keyof FaultRates)[]) {
      if (faults[name] > 0) {
        this.#plan(name, faults[name]);
      }
    }
    this.#human();
  }

  #plan(name: keyof FaultRates, perMinute: number): void {
    const { random, scheduler } = this.#world;
    const nodes = this.#world.nodes.length;
    scheduler.after(random.exponential(MINUTE_MS / (perMinute * nodes)), () => {
      if (this.#world.phase === 1) {
        this.#inject(name, random.pick(this.#world.nodes));
        this.#plan(name, perMinute);
      }
    });
  }

  #inject(name: keyof FaultRates, node: SimNode): void {
    const { machine } = node;
    if (!machine.on) {
      return;
    }
    switch (name) {
      case "pausePulse":
        this.#pause(node, [node.pulse?.process]);
        break;
      case "pauseDaemon":
        this.#pause(node, [node.daemon?.process]);
        break;
      case "silentDaemon":
        this.#pauseFor(node, [node.daemon?.process], this.#world.random.between(12_000, 20_000));
        break;
      case "pauseNode":
        this.#pause(node, [...machine.processes]);
        break;
      case "killPulse":
        this.#touch(node, 3_000);
        this.#world.note(`${node.name}: pulse is killed`);
        node.pulse?.process.kill();
        break;
      case "killDaemon":
        this.#killDaemon(node);
        break;
      case "crash":
        this.#world.note(`${node.name} loses power`);
        this.#crashedAtMs = this.#world.scheduler.now;
        machine.powerOff();
        this.considerReboot(machine);
        break;
      default:
        this.#injectMore(name, node);
    }
  }

  #injectMore(name: keyof FaultRates, node: SimNode): void {
    const { machine } = node;
    switch (name) {
      case "vmStop":
        this.#vmStop(node);
        break;
      case "suspend":
        this.#suspend(node);
        break;
      case "cutPath":
        this.#cut(node, [this.#world.random.below(machine.paths.length)]);
        break;
      case "cutHost":
        this.#cut(node, this.#someLuns());
        break;
      case "lastGasp":
        this.#lastGasp(node);
        break;
      case "errorPath":
        this.#fail(node, "failing");
        break;
      case "readOnlyPath":
        this.#fail(node, "readOnly");
        break;
      case "lunAway":
        this.#lunAway();
        break;
      case "lunBlank":
        this.#lunBlank();
        break;
      case "leave":
        node.daemon?.leave(this.#world.random.between(100, 5_000));
        this.#touch(node, 6_000);
        break;
      case "rollback":
        this.#rollBack(node, "same generation");
        break;
      case "rollbackDeep":
        this.#rollBack(node, "earlier generation");
        break;
      case "zeroSector":
        this.#rollBack(node, "zero");
        break;
      default:
        break;
    }
  }

  /** From a blink to much longer than the watchdog. */
  #durationMs(): number {
    const { random } = this.#world;
    const { intervalMs, ttlMs, watchdogMs } = this.#world.options.timings;
    const high = random.pick([intervalMs, ttlMs, watchdogMs, 1.5 * watchdogMs, 3 * watchdogMs]);
    return random.between(0, high);
  }

  #touch(node: SimNode, ms: number): void {
    const until = this.#world.scheduler.now + ms + 4 * this.#world.options.timings.ttlMs;
    const id = node.machine.id;
    this.#unwellUntilMs.set(id, Math.max(until, this.#unwellUntilMs.get(id) ?? 0));
  }

  /** Every node that runs is well, and whoever does not has been off for long enough to be known as gone. */
  isQuietSince(sinceMs: number): boolean {
    const { ttlMs } = this.#world.options.timings;
    return (
      this.#crashedAtMs + 3 * ttlMs < sinceMs &&
      this.#world.nodes.every(
        (node) => !node.machine.on || this.isWellSince(node.machine.id, sinceMs),
      )
    );
  }

  isWellSince(nodeId: number, sinceMs: number): boolean {
    return (
      this.#isSteady &&
      Math.max(this.#clusterUnwellUntilMs, this.#unwellUntilMs.get(nodeId) ?? 0) < sinceMs
    );
  }

  #pause(node: SimNode, processes: readonly (Process | undefined)[]): void {
    this.#pauseFor(node, processes, this.#durationMs());
  }

  #pauseFor(node: SimNode, processes: readonly (Process | undefined)[], ms: number): void {
    this.#touch(node, ms);
    const those = processes.filter((process) => process?.alive === true);
    const roles = those.map((process) => process?.role ?? "").join(" and ");
    this.#world.note(`${node.name}: ${roles} stopped for ${Math.round(ms)} ms`);
    if (those.length > 1 && this.#world.options.kind === "guard") {
      node.machine.watchdog.pauseGuard(ms);
    }
    for (const process of those) {
      process?.pause(ms);
    }
  }

  #killDaemon(node: SimNode): void {
    const { random } = this.#world;
    const ms = random.chance(0.8) ? random.between(50, 2_000) : random.between(5_000, 14_000);
    this.#touch(node, ms);
    this.#world.note(
      `${node.name}: the daemon is killed, and started again after ${Math.round(ms)} ms`,
    );
    node.daemon?.forgetTickets();
    node.daemon?.process.kill();
    node.machine.after(ms, () => {
      node.startDaemon();
    });
  }

  considerReboot(machine: Machine): void {
    const { random, scheduler } = this.#world;
    const node = this.#world.nodeOf(machine);
    this.#touch(node, 11_000);
    if (this.#world.phase === 2 || random.chance(0.75)) {
      scheduler.after(random.between(500, 10_000), () => {
        this.#powerOn(node);
      });
    }
  }

  #powerOn(node: SimNode): void {
    if (!node.machine.on && !node.retired) {
      node.machine.powerOn();
      this.#world.note(`${node.name} is started`);
      this.#touch(node, 5_000);
      node.start(this.#world.random.between(100, 1_000));
    }
  }

  #vmStop(node: SimNode): void {
    const { machine } = node;
    const ms = this.#durationMs();
    this.#touch(node, ms);
    this.#world.note(`${node.name}: the VM stands still for ${Math.round(ms)} ms`);
    const { boots } = machine;
    machine.freeze();
    this.#world.scheduler.after(ms, () => {
      if (machine.boots === boots) {
        machine.unfreeze();
      }
    });
  }

  #suspend(node: SimNode): void {
    const { machine } = node;
    const ms = this.#durationMs();
    this.#touch(node, ms);
    this.#world.note(`${node.name} is suspended for ${Math.round(ms)} ms`);
    const { boots } = machine;
    machine.suspend();
    this.#world.scheduler.after(ms, () => {
      if (machine.boots === boots) {
        machine.resume();
      }
    });
  }

  #cut(node: SimNode, luns: readonly number[]): void {
    const ms = this.#durationMs();
    this.#touch(node, ms);
    this.#world.note(
      `${node.name}: path to LUN ${luns.map((lun) => lun + 1).join()} cut for ${Math.round(ms)} ms`,
    );
    for (const lun of luns) {
      node.machine.paths[lun]!.cut = true;
    }
    this.#world.scheduler.after(ms, () => {
      for (const lun of luns) {
        node.machine.paths[lun]!.cut = false;
      }
      this.#world.releaseHung();
    });
  }

  /** All of them, or any set of them. */
  #someLuns(): readonly number[] {
    const { media, random } = this.#world;
    const all = [...media.keys()];
    const some = random.chance(0.5) ? all : all.filter(() => random.chance(0.6));
    return some.length > 0 ? some : all;
  }

  #lastGasp(node: SimNode): void {
    const { random, scheduler } = this.#world;
    const { deadlineMs, ttlMs, watchdogMs } = node.timings;
    const ms = random.between(watchdogMs, 3 * watchdogMs);
    this.#touch(node, ms);
    this.#world.note(`${node.name}: its paths die slowly, for ${Math.round(ms)} ms`);
    for (const path of node.machine.paths) {
      const inTime = random.between(0.8 * deadlineMs, 0.99 * deadlineMs);
      path.gaspMs = random.chance(0.7) ? inTime : random.between(deadlineMs, 0.95 * ttlMs);
    }
    scheduler.after(ms, () => {
      for (const path of node.machine.paths) {
        path.cut = false;
        path.gaspMs = undefined;
      }
      this.#world.releaseHung();
    });
  }

  #fail(node: SimNode, how: "failing" | "readOnly"): void {
    const ms = this.#durationMs();
    const path = this.#world.random.pick(node.machine.paths);
    this.#touch(node, ms);
    this.#world.note(`${node.name}: a path is ${how} for ${Math.round(ms)} ms`);
    path[how] = true;
    this.#world.scheduler.after(ms, () => {
      path[how] = false;
    });
  }

  #lunAway(): void {
    const { random, scheduler } = this.#world;
    const ms = this.#durationMs();
    const medium = random.pick(this.#world.media);
    this.#clusterUnwellUntilMs = scheduler.now + ms + 20_000;
    this.#world.note(`LUN ${medium.index + 1} is away for ${Math.round(ms)} ms`);
    medium.awayUntilMs = Math.max(medium.awayUntilMs, scheduler.now + ms);
    scheduler.after(ms + 0.001, () => {
      this.#world.releaseHung();
    });
  }

  /** One sector of the lockspace is what it was a while ago, or zero: a target that lost acknowledged writes. */
  #rollBack(node: SimNode, to: Parameters<Medium["rollBack"]>[1]): void {
    const hostId = node.pulse?.membership?.hostId;
    const { media, random, scheduler } = this.#world;
    if (hostId !== undefined && media[0]!.rollBack(deltaOffset(GEOMETRY, hostId), to, random)) {
      this.#world.note(`the record of ${node.name} goes back in time (${to})`);
      this.#clusterUnwellUntilMs = scheduler.now + 20_000;
    }
  }

  /** Another disk, never formatted, is in the place of one LUN; it counts for nothing from then on. Once in a run. */
  #lunBlank(): void {
    const { media, nodes, random } = this.#world;
    if (media.length > 1 && media.every((medium) => medium.identity !== undefined)) {
      const medium = random.pick(media);
      this.#world.note(`LUN ${medium.index + 1} is replaced by a blank one`);
      this.#clusterUnwellUntilMs = Infinity;
      medium.blank();
      for (const node of nodes) {
        node.probeLuns();
      }
    }
  }

  /** `sharedha fence NODE --confirm-off` on every node that runs: refused while the host renews. */
  #confirmEverywhere(hostId: number): void {
    for (const node of this.#world.nodes) {
      const host = node.pulse?.host(hostId);
      if (host?.record === undefined || !node.daemonAnswers()) {
        continue;
      }
      if (host.unchangedMs >= this.#world.options.timings.ttlMs) {
        node.confirmations.set(hostId, {
          hostId,
          generation: host.record.leader.ownerGeneration,
          confirmedAtMs: node.machine.bootMs(),
        });
      }
    }
  }

  /** Every two seconds somebody looks: confirms what is really off, and reboots what cannot get on by itself. */
  #human(): void {
    const { scheduler } = this.#world;
    scheduler.after(2_000, () => {
      this.#human();
      for (const node of this.#world.nodes) {
        if (!node.machine.on && node.lastHostId !== undefined) {
          this.#confirmEverywhere(node.lastHostId);
        }
        const stuck = node.pulse?.stuckJoin;
        if (
          node.machine.on &&
          !node.retired &&
          node.twin === undefined &&
          stuck !== undefined &&
          scheduler.now - stuck.sinceMs > 8_000
        ) {
          this.#world.note(`${node.name} is rebooted by hand: ${stuck.why}`);
          node.machine.powerOff();
          this.#powerOn(node);
        }
      }
    });
  }

  /** Phase 2. */
  heal(): void {
    for (const node of this.#world.nodes) {
      if (node.twin !== undefined) {
        node.machine.powerOff();
        node.retired = true;
        continue;
      }
      for (const path of node.machine.paths) {
        path.cut = false;
        path.failing = false;
        path.readOnly = false;
        path.gaspMs = undefined;
      }
      node.machine.unfreeze();
      node.machine.resume();
      for (const process of node.machine.processes) {
        process.continue();
      }
      node.machine.watchdog.pauseGuard(0);
      this.#powerOn(node);
    }
    for (const medium of this.#world.media) {
      medium.awayUntilMs = 0;
    }
    this.#world.releaseHung();
    const { ops } = this.#world.options;
    ops.hang = 0;
    ops.error = 0;
    ops.slow = 0;
    ops.stall = 0;
  }
}
