/**
 * What must be true after every step, judged from outside: by what the machines' kernels have mounted and what lands on
 * the data, never by what a node believes.
 */
import { type Evidence } from "../../lib/fence/evidence.js";
import { SimFailure } from "./failure.js";
import { type Machine, type Mount } from "./machine.js";
import { type World } from "./world.js";

interface Waiter {
  readonly node: number;
  readonly hostId: number;
  readonly shared: boolean;
  /** True time at which its ticket was seen to be on a majority. */
  readonly ticketAtMs: number;
  readonly ticket: bigint;
}

export class Checker {
  readonly #world: World;
  readonly #mounts: Set<Mount>[];
  readonly #lverGranted: { exclusive: bigint; any: bigint; readonly all: Set<bigint> }[];
  readonly #silent = new Set<string>();
  readonly #members = new Map<string, string>();
  /** By lease: since when it has been free, and who waits with a ticket. */
  readonly #freeSinceMs: number[];
  readonly #waiters: Map<number, Waiter>[];
  readonly #releasedLver: bigint[];
  readonly #begunAtMs: Map<number, number>[];
  grants = 0;
  takeovers = 0;
  resets = 0;

  constructor(world: World, leases: number) {
    this.#world = world;
    this.#mounts = Array.from({ length: leases }, () => new Set<Mount>());
    this.#lverGranted = Array.from({ length: leases }, () => ({
      exclusive: 0n,
      any: 0n,
      all: new Set(),
    }));
    this.#freeSinceMs = Array.from({ length: leases }, () => 0);
    this.#releasedLver = Array.from({ length: leases }, () => -2n);
    this.#begunAtMs = Array.from({ length: leases }, () => new Map<number, number>());
    this.#waiters = Array.from({ length: leases }, () => new Map<number, Waiter>());
  }

  /** A pulse has joined: no two machines may ever be the same host id and generation. */
  joined(machine: Machine, hostId: number, generation: bigint): void {
    const key = `${hostId}/${generation}`;
    const who = `n${machine.id}.${machine.boots}`;
    const known = this.#members.get(key);
    if (known !== undefined) {
      throw new SimFailure(
        "safety",
        `${who} joined as host ${key}, which ${known} has been before`,
      );
    }
    this.#members.set(key, who);
  }

  /** Nobody has proof that a generation is silent which renews, and may renew on. */
  evidence(proof: Evidence): void {
    for (const { name, pulse, machine, timings } of this.#world.nodes) {
      const membership = pulse?.membership;
      const renewedAtMs = pulse?.heartbeat?.renewedAtMs;
      const isIt =
        pulse?.isMember === true &&
        membership?.hostId === proof.hostId &&
        membership.generation === proof.generation;
      if (isIt && renewedAtMs !== undefined && machine.bootMs() - renewedAtMs < timings.ttlMs) {
        throw new SimFailure(
          "safety",
          `there is evidence (${proof.kind}) against ${name}, which renews`,
        );
      }
    }
  }

  granted(
    lease: number,
    node: number,
    lver: bigint,
    shared: boolean,
    evidence: readonly Evidence[],
  ): void {
    this.grants++;
    // Two shared holders may hear of their grants in either order; anybody else later is higher.
    const past = this.#lverGranted[lease]!;
    const before = shared ? past.exclusive : past.any;
    if (lver <= before || past.all.has(lver)) {
      throw new SimFailure(
        "safety",
        `lease ${lease}: lver ${lver} granted to n${node} after ${past.any}`,
      );
    }
    past.all.add(lver);
    past.any = lver > past.any ? lver : past.any;
    past.exclusive = shared ? past.exclusive : lver;
    for (const proof of evidence) {
      this.takeovers++;
      // A guard that does not run stops nobody: only what is taken over is cut, by whoever takes it, before it mounts.
      if (proof.kind !== "expired-guard") {
        this.#silent.add(`${proof.hostId}/${proof.generation}`);
      }
    }
    this.#checkTurn(lease, node, shared);
    if (evidence.length === 0 && lver === this.#releasedLver[lease]! + 1n) {
      this.#checkIdle(lease, node);
    }
    this.#waiters[lease]!.delete(node);
  }

  mounted(mount: Mount): void {
    const mounts = this.#mounts[mount.lease]!;
    for (const other of mounts) {
      if (!other.live) {
        mounts.delete(other);
      } else if (other.machine !== mount.machine && (!other.shared || !mount.shared)) {
        throw new SimFailure(
          "safety",
          `lease ${mount.lease}: n${mount.machine.id} mounts with lver ${mount.lver} while n${other.machine.id} still has it mounted with lver ${other.lver}`,
        );
      }
    }
    mounts.add(mount);
  }

  dataIssued(mount: Mount, hostId: number): void {
    this.#world.nodeOf(mount.machine).checkDaemon();
    if (this.#silent.has(`${hostId}/${mount.generation}`)) {
      throw new SimFailure(
        "safety",
        `lease ${mount.lease}: n${mount.machine.id} writes after there was evidence that host ${hostId} generation ${mount.generation} is silent`,
      );
    }
  }

  /**
   * Only who mounts exclusively waits for the commands that a silent host still has in the target (DESIGN section 8), so
   * one that holds the lease shared may see them land.
   */
  dataLanded(mount: Mount, hostId: number): void {
    const isOfTheSilent = this.#silent.has(`${hostId}/${mount.generation}`);
    for (const other of this.#mounts[mount.lease]!) {
      if (
        other.live &&
        other !== mount &&
        other.lver > mount.lver &&
        !(other.shared && (mount.shared || isOfTheSilent))
      ) {
        throw new SimFailure(
          "safety",
          `lease ${mount.lease}: a write of n${mount.machine.id} (lver ${mount.lver}) lands while n${other.machine.id} has it mounted with lver ${other.lver}`,
        );
      }
    }
  }

  /** The watchdog reset a machine, or a petter reset its own. */
  reset(machine: Machine, why: string): void {
    this.resets++;
    if (!machine.world.mayReset(machine)) {
      throw new SimFailure("safety", `n${machine.id} was reset (${why}) although it held nothing`);
    }
  }

  /** Somebody begins to want a lease. */
  begun(lease: number, node: number): void {
    this.#begunAtMs[lease]!.set(node, this.#world.scheduler.now);
  }

  /** Somebody's ticket is on a majority. */
  ticketPosted(lease: number, node: number, hostId: number, shared: boolean, ticket: bigint): void {
    this.#world.note(`n${node} waits for lease ${lease} with ticket ${ticket}`);
    const waiters = this.#waiters[lease]!;
    waiters.set(node, { node, hostId, shared, ticket, ticketAtMs: this.#world.scheduler.now });
  }

  ticketGone(lease: number, node: number): void {
    this.#waiters[lease]!.delete(node);
  }

  released(lease: number, lver: bigint): void {
    this.#releasedLver[lease] = lver;
    this.#freeSinceMs[lease] = this.#world.scheduler.now;
  }

  /** A lease that is free is not left lying there while somebody waits for it. */
  #checkIdle(lease: number, node: number): void {
    const mine = this.#waiters[lease]!.get(node);
    const { scheduler, holdBackMs } = this.#world;
    if (mine === undefined || this.#waiters[lease]!.size > 1) {
      return;
    }
    const sinceMs = Math.max(mine.ticketAtMs, this.#freeSinceMs[lease]!);
    const idleMs = scheduler.now - sinceMs;
    if (
      idleMs > 0.9 * holdBackMs &&
      this.#freeSinceMs[lease]! > 0 &&
      this.#world.isQuietSince(sinceMs)
    ) {
      throw new SimFailure(
        "liveness",
        `lease ${lease} was free for ${idleMs.toFixed(0)} ms while n${node} alone waited for it`,
      );
    }
  }

  /** Nobody who came later goes first, unless whoever was first let its time go by (DESIGN section 6, "queue"). */
  #checkTurn(lease: number, node: number, shared: boolean): void {
    const waiters = this.#waiters[lease]!;
    const mine = waiters.get(node);
    const { scheduler, holdBackMs } = this.#world;
    const freeMs = scheduler.now - this.#freeSinceMs[lease]!;
    for (const other of waiters.values()) {
      if (other.node === node || (shared && other.shared)) {
        continue;
      }
      // A request that began before the other's ticket was there may have found nobody ahead of it; and a ballot that
      // was overtaken may be finished by the one that overtook it.
      const beganLater = other.ticketAtMs < (this.#begunAtMs[lease]!.get(node) ?? 0);
      const wasFirst = beganLater && (mine === undefined || other.ticket < mine.ticket);
      const areWell =
        this.#world.isWellSince(other.node, this.#freeSinceMs[lease]!) &&
        this.#world.isWellSince(node, other.ticketAtMs);
      if (wasFirst && freeMs < 0.9 * holdBackMs && areWell) {
        throw new SimFailure(
          "safety",
          `lease ${lease}: n${node} overtakes n${other.node}, whose ticket ${other.ticket} was there first; free for ${freeMs.toFixed(1)} ms`,
        );
      }
    }
  }
}
