/** One node: a machine, its pulse and daemon as they come and go, and what lies in its state directory. */
import { type Confirmation } from "../../lib/fence/evidence.js";
import { decodeDeltaSector } from "../../lib/format/delta-sector.js";
import { type HeldLease } from "../../lib/lease/ballot.js";
import { type Identity, type Membership } from "../../lib/lease/delta-lease.js";
import { type Heartbeat } from "../../lib/lease/heartbeat.js";
import { type LunSet } from "../../lib/lease/procedure.js";
import { judgeLuns } from "../../lib/lease/lun-set.js";
import { RESTART_GRACE_MS, type Timings } from "../../lib/lease/timings.js";
import { DaemonActor } from "./daemon-actor.js";
import { SimFailure } from "./failure.js";
import { findLuns } from "./lun-probe.js";
import { type Machine, type Mount } from "./machine.js";
import { PulseActor, type Resume } from "./pulse-actor.js";
import { GEOMETRY } from "./space.js";
import { type World } from "./world.js";

/** leases.json: what the next daemon finds. */
export interface HoldNote {
  readonly held: HeldLease;
  mount: Mount | undefined;
}

/**
 * A second machine with n1's name and host id: it is no member while n1 is one, and in phase 2 somebody switches it off. A
 * clone also has n1's machine id and state directory.
 */
export type Twin = "other machine" | "clone";

export class SimNode {
  readonly world: World;
  readonly machine: Machine;
  readonly name: string;
  readonly wantedHostId: number | undefined;
  readonly held = new Map<number, HoldNote>();
  readonly confirmations = new Map<number, Confirmation>();
  readonly #machineIdHash: bigint;
  readonly #counts: boolean[];
  readonly lunSet: LunSet;
  /** Its own timers, as it publishes them. */
  readonly timings: Timings;
  #countedAtMs: { hostId: number; generation: bigint; atMs: number } | undefined;
  /** Since when the daemon has not answered, true time. */
  #silentSinceMs: number | undefined;
  pulse: PulseActor | undefined;
  daemon: DaemonActor | undefined;
  /** A human has taken it out for good (a twin, a decommissioned machine). */
  retired = false;
  readonly twin: Twin | undefined;
  /** Which LUN each of its paths leads to. */
  lunPaths: readonly number[];
  /** In the state directory, so it survives a reboot. */
  lastMembership: { readonly hostId: number; readonly generation: bigint } | undefined;
  /** The host id it had last. */
  lastHostId: number | undefined;
  #busyAtMs = 0;
  #acknowledged: { hostId: number; generation: bigint; timestamp: bigint } | undefined;

  constructor(world: World, machine: Machine, name: string, id: number, twin?: Twin) {
    this.world = world;
    this.machine = machine;
    this.name = name;
    // All ask for their ids or none does: a mixture would be a mistake of the configuration.
    this.wantedHostId = twin !== undefined || world.options.seed % 2 === 0 ? id : undefined;
    this.twin = twin;
    this.#machineIdHash = BigInt(twin === "other machine" ? 9_000 + id : 1_000 + id);
    const { timings, mixedTimers } = world.options;
    this.timings =
      mixedTimers && id % 2 === 1 ? { ...timings, watchdogMs: 2 * timings.watchdogMs } : timings;
    const { luns, doubled } = world.options;
    this.lunPaths = [...world.media.keys()];
    if (luns > 1 && doubled && id === 2) {
      this.lunPaths = this.lunPaths.map((lun) => (lun === 1 ? 0 : lun));
    }
    this.#counts = Array.from({ length: world.options.luns }, () => true);
    this.lunSet = { total: world.options.luns, counts: this.#counts };
  }

  identity(): Identity {
    const { kind } = this.world.options;
    return {
      name: this.name,
      watchdog: kind === "virtual" ? "hardware" : kind,
      virtual: kind === "virtual",
      bootIdHash: BigInt(this.machine.id) * 1_000n + BigInt(this.machine.boots),
      machineIdHash: this.#machineIdHash,
      stateIdHash: 7,
    };
  }

  /** Who has the watchdog open from arming to disarming. */
  get watchdogHolders(): readonly string[] {
    return ["pulse", "keeper"];
  }

  /** Looks at the LUNs' superblocks again. */
  probeLuns(): boolean {
    const { media, options } = this.world;
    const judgement = judgeLuns(findLuns(options, media, this.lunPaths));
    if (judgement.kind === "refused") {
      return false;
    }
    judgement.lunSet.counts.forEach((counts, lun) => {
      this.#counts[lun] = counts;
    });
    return true;
  }

  start(delayMs: number): void {
    this.machine.after(delayMs, () => {
      this.startDaemon();
    });
  }

  startDaemon(): void {
    if (this.daemon?.process.alive !== true && this.machine.on && !this.retired) {
      this.confirmations.clear();
      if (this.twin === "clone") {
        this.lastMembership ??= this.world.nodes[0]?.lastMembership;
      }
      this.daemon = new DaemonActor(this);
      this.daemon.start();
    }
  }

  startPulse(resume: Resume | undefined): void {
    if (this.pulse?.process.alive === true || this.retired) {
      return;
    }
    if (!this.probeLuns()) {
      // Refused with the reason; somebody puts the cables right after a while.
      this.machine.after(3_000, () => {
        this.lunPaths = [...this.world.media.keys()];
      });
      return;
    }
    // A new pulse knows no later record than the one it finds.
    this.#acknowledged = undefined;
    this.pulse = new PulseActor(this, resume);
    this.pulse.start();
  }

  onMember(heartbeat: Heartbeat, resumed: boolean): void {
    this.lastHostId = this.pulse?.membership?.hostId;
    this.daemon?.process.deliver(() => {
      this.daemon?.onMember(heartbeat, resumed);
    });
  }

  onLost(): void {
    this.daemon?.process.deliver(() => {
      this.daemon?.onLost();
    });
  }

  noteJoin(kind: string): void {
    this.world.trace.mix(kind.length);
  }

  daemonAnswers(): boolean {
    const answers =
      this.daemon?.process.alive === true && !this.daemon.process.paused && !this.machine.frozen;
    this.#silentSinceMs = answers ? undefined : (this.#silentSinceMs ?? this.world.scheduler.now);
    return answers;
  }

  /** A daemon that is silent while a group is up brings the machine down: nobody else looks after the group. */
  checkDaemon(): void {
    const { kind } = this.world.options;
    this.daemonAnswers();
    if (this.#silentSinceMs === undefined || (kind !== "hardware" && kind !== "guard")) {
      return;
    }
    const { deadlineMs, intervalMs, watchdogMs } = this.timings;
    const boundMs = RESTART_GRACE_MS + watchdogMs + 2 * deadlineMs + 2 * intervalMs + 500;
    if (this.world.scheduler.now - this.#silentSinceMs > boundMs) {
      throw new SimFailure(
        "safety",
        `${this.name} is still up, although its daemon has been silent for more than ${boundMs} ms`,
      );
    }
  }

  /** A renewal counted. */
  noteCounted(membership: Membership): void {
    const { hostId, generation } = membership;
    this.#countedAtMs = { hostId, generation, atMs: this.machine.bootMs() };
  }

  /** Something of a group is up: told to pulse with every pong. */
  get groupUp(): boolean {
    return this.machine.mounts.size > 0;
  }

  noteBusy(): void {
    this.#busyAtMs = this.world.scheduler.now;
  }

  hasReasonToBeReset(): boolean {
    const { timings } = this;
    const recentlyMs = timings.watchdogMs + 3 * (timings.intervalMs + 3 * timings.deadlineMs);
    const nothing =
      this.held.size === 0 &&
      this.machine.mounts.size === 0 &&
      this.daemon?.process.alive === true &&
      this.daemon.isIdle;
    const isRecent = this.world.scheduler.now - this.#busyAtMs < recentlyMs;
    // A node that was stopped or cut off since may not have got as far as disarming.
    return !nothing || isRecent || !this.world.isWellSince(this.machine.id, this.#busyAtMs);
  }

  onPowerOff(): void {
    this.held.clear();
    this.pulse = undefined;
    this.daemon?.forgetTickets();
    this.daemon = undefined;
    this.#acknowledged = undefined;
    this.#silentSinceMs = undefined;
    this.#countedAtMs = undefined;
  }

  /** The guard acts: file systems first, then the processes; a service manager starts the daemon again. */
  guardExpires(): void {
    this.world.note(`${this.name}: the guard expires`);
    for (const mount of this.machine.mounts) {
      mount.live = false;
    }
    this.machine.mounts.clear();
    this.machine.watchdog.off();
    this.killProcesses();
    this.held.clear();
    this.machine.after(this.world.random.between(200, 1_000), () => {
      this.startDaemon();
    });
  }

  killProcesses(): void {
    this.daemon?.forgetTickets();
    this.daemon?.process.kill();
    this.daemon = undefined;
    this.pulse?.process.kill();
    this.pulse = undefined;
  }

  /** Loss is for ever: a generation that has not renewed for T never renews again. One LUN: there is only one count. */
  #checkSticky(membership: Membership): void {
    const counted = this.#countedAtMs;
    const { deadlineMs, ttlMs } = this.timings;
    // The start of that renewal was at most d before its completion, when it was noted.
    if (
      this.world.options.luns === 1 &&
      counted?.hostId === membership.hostId &&
      counted.generation === membership.generation &&
      this.machine.bootMs() - counted.atMs > ttlMs + deadlineMs
    ) {
      throw new SimFailure(
        "safety",
        `${this.name} renews again after more than T without a renewal`,
      );
    }
  }

  /** Nobody renews over a medium that has gone back in time (a target that lost acknowledged writes). */
  checkRenewal(lockspace: Uint8Array, membership: Membership): void {
    this.#checkSticky(membership);
    if (this.world.options.faults.rollback === 0 || this.world.options.luns !== 1) {
      return;
    }
    const at = (membership.hostId - 1) * GEOMETRY.sectorSize;
    const decoded = decodeDeltaSector(GEOMETRY, lockspace.subarray(at, at + GEOMETRY.sectorSize));
    if (
      decoded.kind !== "ok" ||
      decoded.value.leader.ownerGeneration !== membership.generation ||
      decoded.value.leader.resourceName !== this.name
    ) {
      return;
    }
    const { timestamp } = decoded.value.leader;
    const known = this.#acknowledged;
    const isSame =
      known?.hostId === membership.hostId && known.generation === membership.generation;
    if (isSame && timestamp < known.timestamp) {
      throw new SimFailure(
        "safety",
        `${this.name} renews although its record went back from ${known.timestamp} to ${timestamp}`,
      );
    }
    const { hostId, generation } = membership;
    this.#acknowledged = { hostId, generation, timestamp };
  }

  isAtRest(): boolean {
    // Its name is on another machine's record: that is for a human to settle.
    const isRefused = this.pulse?.stuckJoin?.why === "name-taken";
    return this.retired || isRefused || (this.machine.on && this.daemon?.isServed === true);
  }

  describe(): string {
    const member =
      this.pulse?.isMember === true ? "member" : `no member (${this.pulse?.stuckJoin?.why ?? "?"})`;
    return `${this.name} ${this.machine.on ? "on" : "off"}, ${member}, ${this.daemon?.describe() ?? "no daemon"}`;
  }
}
