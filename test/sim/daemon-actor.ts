/**
 * A node's daemon in the simulator, with clients that want leases: the order of steps around the real procedures is that
 * of lib/daemon (hold noted and watched before it is reported, teardown on loss, disarm when nothing is held).
 */
import { heldInView, lookAtLease, settleBallot } from "../../lib/daemon/lease-adoption.js";
import { judgeHost, type Evidence } from "../../lib/fence/evidence.js";
import { type HeldLease, type Self } from "../../lib/lease/ballot.js";
import { type Heartbeat } from "../../lib/lease/heartbeat.js";
import { type OutboxChange, type Standing } from "../../lib/lease/procedure.js";
import { holdBackMs } from "../../lib/lease/timings.js";
import {
  acquireOrWait,
  nameSuccessor,
  releaseLease,
  type WaitOutcome,
  type WaitTerms,
} from "../../lib/lease/wait.js";
import { SimFailure } from "./failure.js";
import { GroupMount } from "./group-mount.js";
import { Process } from "./machine.js";
import { type SimNode } from "./node.js";
import { drive, type DriverHost } from "./procedure-driver.js";
import { SimDevice } from "./sim-device.js";
import { type World } from "./world.js";

type SlotState = "idle" | "acquiring" | "holding" | "releasing" | "settling";

interface Slot {
  readonly lease: number;
  state: SlotState;
  hold: GroupMount | undefined;
  waitsForever: boolean;
}

export class DaemonActor {
  readonly node: SimNode;
  readonly process: Process;
  readonly devices: readonly SimDevice[];
  readonly #world: World;
  readonly #slots: Slot[];
  readonly #looks = new Set<string>();
  #self: Self | undefined;
  #life = 0;
  #tearingDown = false;
  #leaving = false;

  constructor(node: SimNode) {
    this.node = node;
    this.#world = node.world;
    this.process = new Process(node.machine, "daemon");
    const { luns, leases } = node.world.options;
    this.devices = Array.from({ length: luns }, (_, lun) => new SimDevice(this.process, lun));
    this.#slots = Array.from({ length: leases }, (_, lease) => ({
      lease,
      state: "idle",
      hold: undefined,
      waitsForever: false,
    }));
  }

  get world(): World {
    return this.#world;
  }

  get self(): Self | undefined {
    return this.#self;
  }

  get isIdle(): boolean {
    return this.#slots.every((slot) => slot.state === "idle");
  }

  /** In phase 2: a member that waits for nothing and holds nothing. */
  get isServed(): boolean {
    return (
      this.isIdle &&
      this.#self !== undefined &&
      this.node.pulse?.isMember === true &&
      !this.#tearingDown
    );
  }

  describe(): string {
    const slots = this.#slots.map((slot) => `${slot.lease}:${slot.state}`).join(" ");
    return `daemon ${slots}${this.#tearingDown ? " tearing down" : ""}`;
  }

  start(): void {
    if ((this.node.machine.outstanding.get("daemon") ?? 0) > 0) {
      this.process.after(50, () => {
        this.start();
      });
      return;
    }
    const { pulse } = this.node;
    this.#keepPulse();
    if (pulse?.process.alive !== true) {
      this.#startPulse();
    } else if (pulse.heartbeat?.loss !== undefined) {
      this.onLost();
    } else if (pulse.heartbeat !== undefined) {
      this.onMember(pulse.heartbeat, true);
    }
  }

  /** Starts pulse again when it has gone. */
  #keepPulse(): void {
    this.process.after(100 + this.#world.random.between(0, 100), () => {
      this.#keepPulse();
      if (this.#self !== undefined && this.node.pulse?.process.alive !== true) {
        // It was asked to leave, and has died on the way.
        this.#leaving = false;
      }
      if (this.node.pulse?.gaveUp === true) {
        this.onLost();
      } else if (this.node.pulse?.process.alive !== true && !this.#tearingDown && !this.#leaving) {
        this.#startPulse();
      }
    });
  }

  #startPulse(): void {
    const old = this.node.pulse;
    const membership = old?.membership;
    const renewedAtMs = old?.heartbeat?.renewedAtMs;
    if (
      membership !== undefined &&
      renewedAtMs !== undefined &&
      old?.heartbeat?.loss === undefined
    ) {
      this.node.startPulse({ membership, renewedAtMs });
    } else if (
      this.node.held.size > 0 ||
      this.node.machine.mounts.size > 0 ||
      membership !== undefined
    ) {
      this.onLost();
    } else {
      this.node.startPulse(undefined);
    }
  }

  onMember(heartbeat: Heartbeat, resumed: boolean): void {
    const { pulse } = this.node;
    const membership = pulse?.membership;
    const isEnding = this.#tearingDown || this.#leaving;
    if (pulse?.heartbeat !== heartbeat || membership === undefined || isEnding) {
      return;
    }
    const isSame =
      this.#self?.hostId === membership.hostId && this.#self.generation === membership.generation;
    this.#self = { hostId: membership.hostId, generation: membership.generation };
    this.#watch();
    if (resumed && isSame) {
      return;
    }
    this.#life++;
    this.#adopt(0);
  }

  /** One lease after the other: what is noted and on disk goes on, what is only on disk is brought to an end. */
  #adopt(lease: number): void {
    const slot = this.#slots[lease];
    const self = this.#self;
    if (slot === undefined || self === undefined) {
      this.#watch();
      for (const each of this.#slots) {
        this.#thinkThenRequest(each);
      }
      this.considerDisarming();
      return;
    }
    const life = this.#life;
    slot.state = "settling";
    const address = this.#world.address(lease);
    this.#drive(lookAtLease(address, this.node.lunSet), (look) => {
      if (look.kind !== "view") {
        this.#later(life, 50, () => {
          this.#adopt(lease);
        });
        return;
      }
      const held = heldInView(address, look.view, self);
      const note = this.node.held.get(lease);
      const own = look.view.blocks[self.hostId - 1]?.dblock;
      if (note !== undefined && held?.leader.lver === note.held.leader.lver) {
        slot.state = "holding";
        slot.hold = new GroupMount(this, lease, held, note);
        this.#watch();
        slot.hold.carryOn();
        this.#adopt(lease + 1);
      } else if (note !== undefined) {
        this.node.pulse?.heartbeat?.lose(`lease ${lease} is not held any more`);
        this.onLost();
      } else if (
        held !== undefined ||
        (own !== undefined && own.bal > 0n && own.lver > look.view.leader.lver)
      ) {
        this.#settle(slot, own?.lver ?? 0n, () => {
          this.#adopt(lease + 1);
        });
      } else {
        slot.state = "idle";
        this.#dropTicket(slot, () => {
          this.#adopt(lease + 1);
        });
      }
    });
  }

  #dropTicket(slot: Slot, then: () => void): void {
    const { area } = this.#world.address(slot.lease);
    this.forgetTicket(slot.lease);
    const life = this.#life;
    this.#post({ remove: [{ kind: "ticket", area, targetHostId: 0 }], add: [] }, () => {
      if (life === this.#life) {
        then();
      }
    });
  }

  #settle(slot: Slot, lver: bigint, then: () => void): void {
    slot.state = "settling";
    this.node.noteBusy();
    const life = this.#life;
    this.#drive(settleBallot(this.#terms(slot.lease, false, undefined), lver), (settled) => {
      if (settled.kind === "settled") {
        this.#world.checker.released(slot.lease, -2n);
        slot.state = "idle";
        this.#dropTicket(slot, then);
        return;
      }
      this.#later(life, 20 + this.#world.random.between(0, 100), () => {
        this.#settle(slot, lver, then);
      });
    });
  }

  #thinkThenRequest(slot: Slot): void {
    if (slot.state !== "idle") {
      return;
    }
    const { options, random } = this.#world;
    this.#later(this.#life, random.exponential(options.thinkMs), () => {
      const isMember = this.#self !== undefined && !this.#leaving;
      if (slot.state !== "idle" || this.#world.phase === 2 || !isMember) {
        return;
      }
      this.#request(slot);
    });
  }

  #request(slot: Slot): void {
    const { options, random } = this.#world;
    const shared = random.chance(options.sharedShare);
    const kind = random.fraction();
    const now = this.node.machine.bootMs();
    let untilMs: number | undefined = Infinity;
    if (kind < options.tryShare) {
      untilMs = undefined;
    } else if (kind < options.tryShare + options.timeoutShare) {
      untilMs = now + random.between(0, 4_000);
    }
    this.#acquire(slot, shared, untilMs);
  }

  #acquire(slot: Slot, shared: boolean, untilMs: number | undefined): void {
    slot.state = "acquiring";
    slot.waitsForever = untilMs === Infinity;
    this.#world.checker.begun(slot.lease, this.node.machine.id);
    this.node.noteBusy();
    const life = this.#life;
    this.#drive(acquireOrWait(this.#terms(slot.lease, shared, untilMs)), (outcome) => {
      this.#acquired(slot, shared, untilMs, life, outcome);
    });
  }

  #acquired(
    slot: Slot,
    shared: boolean,
    untilMs: number | undefined,
    life: number,
    outcome: WaitOutcome,
  ): void {
    const { lease } = slot;
    if (outcome.kind === "granted") {
      this.#granted(slot, outcome.held, outcome.evidence);
      return;
    }
    this.forgetTicket(lease);
    if (outcome.kind === "undecided") {
      this.#settle(slot, outcome.lver, () => {
        this.#afterTurn(slot);
      });
      return;
    }
    // Whoever waits for ever asks again, whatever kept it from being served.
    if (untilMs === Infinity) {
      this.#later(life, this.#world.random.between(5, 100), () => {
        this.#acquire(slot, shared, untilMs);
      });
      return;
    }
    slot.state = "idle";
    this.#afterTurn(slot);
  }

  #granted(slot: Slot, held: HeldLease, evidence: readonly Evidence[]): void {
    const { lease } = slot;
    const { node } = this;
    slot.state = "holding";
    // It runs, whether or not pulse has asked it since it was stopped.
    node.daemonAnswers();
    this.#world.note(
      `${node.name} is granted lease ${lease} ${held.shared ? "shared " : ""}lver ${held.leader.lver}${evidence.map((proof) => ` (${proof.kind} ${proof.hostId}/${proof.generation})`).join("")}`,
    );
    this.#world.checker.granted(lease, node.machine.id, held.leader.lver, held.shared, evidence);
    if (!held.shared && evidence.length === 0 && !this.hasRight()) {
      throw new SimFailure(
        "safety",
        `${node.name} is granted lease ${lease} without the right to write`,
      );
    }
    const note = { held, mount: undefined };
    node.held.set(lease, note);
    slot.hold = new GroupMount(this, lease, held, note);
    this.#watch();
    slot.hold.begin(evidence);
  }

  /** The hold has been unmounted, with nothing of it in flight. */
  release(lease: number, held: HeldLease): void {
    const slot = this.#slots[lease]!;
    const self = this.#self;
    if (self === undefined) {
      return;
    }
    slot.state = "releasing";
    slot.hold = undefined;
    this.#watch();
    const life = this.#life;
    this.#drive(releaseLease(this.node.lunSet, self, held), (outcome) => {
      if (outcome.kind !== "released") {
        // Never written blindly again: it may have been released, and taken by others since.
        this.#later(life, this.#world.random.between(5, 50), () => {
          this.node.held.delete(lease);
          this.#settle(slot, held.leader.lver, () => {
            this.#afterTurn(slot);
          });
        });
        return;
      }
      this.#world.checker.released(lease, held.leader.lver);
      this.#world.note(`${this.node.name} released lease ${lease} lver ${held.leader.lver}`);
      this.node.held.delete(lease);
      this.node.noteBusy();
      const terms = { ...this.#terms(lease, false, undefined), luns: this.node.lunSet, self };
      this.#drive(nameSuccessor(terms, outcome.held), () => {
        slot.state = "idle";
        this.#afterTurn(slot);
      });
    });
  }

  #afterTurn(slot: Slot): void {
    this.#thinkThenRequest(slot);
    this.considerDisarming();
  }

  considerDisarming(): void {
    this.#later(this.#life, this.node.timings.intervalMs, () => {
      const { pulse } = this.node;
      if (!this.mayDisarm() || pulse?.heartbeat?.armed !== true) {
        return;
      }
      pulse.process.deliver(() => {
        pulse.disarm((disarmed) => {
          if (!disarmed) {
            this.process.deliver(() => {
              this.considerDisarming();
            });
          }
        });
      });
    });
  }

  /** Nothing held, undecided or on the way, and no I/O of this node in flight. */
  mayDisarm(): boolean {
    return (
      this.isIdle &&
      this.node.held.size === 0 &&
      this.node.machine.mounts.size === 0 &&
      !this.devices.some((device) => device.busy)
    );
  }

  /** The generation has lost its right: teardown, then a new one. */
  onLost(): void {
    if (this.#tearingDown) {
      return;
    }
    if (!this.mayDisarm()) {
      this.node.noteBusy();
    }
    this.#tearingDown = true;
    this.#life++;
    this.#self = undefined;
    this.forgetTickets();
    for (const slot of this.#slots) {
      slot.state = "idle";
      slot.hold = undefined;
    }
    const { timings } = this.node;
    const { machine } = this.node;
    const mayHang = machine.mounts.size > 0 && machine.watchdog.running;
    if (mayHang && this.#world.random.chance(this.#world.options.ops.teardownHang)) {
      this.#world.note(`${this.node.name}: teardown hangs`);
      return;
    }
    const budgetMs = 0.8 * (timings.watchdogMs - timings.ttlMs);
    this.process.after(this.#world.random.between(0, budgetMs), () => {
      for (const mount of this.node.machine.mounts) {
        mount.live = false;
      }
      this.#finishTeardown();
    });
  }

  /** Stopped means: nothing can be in flight any more. Until then the watchdog stays on. */
  #finishTeardown(): void {
    const { node } = this;
    const { machine, pulse } = node;
    const isClean =
      [...machine.mounts].every((mount) => mount.inFlight === 0) &&
      !this.devices.some((device) => device.busy) &&
      (machine.outstanding.get("pulse") ?? 0) === 0 &&
      (pulse?.process.alive !== true || (!pulse.stuck && !pulse.process.paused));
    if (!isClean) {
      this.process.after(20, () => {
        this.#finishTeardown();
      });
      return;
    }
    machine.mounts.clear();
    node.held.clear();
    machine.watchdog.off();
    pulse?.process.kill();
    node.pulse = undefined;
    this.#tearingDown = false;
    this.#world.note(`${node.name} has torn down and joins again`);
    node.startPulse(undefined);
  }

  /** Clean leave, and back after a while. */
  leave(awayMs: number): void {
    const { pulse } = this.node;
    if (
      !this.mayDisarm() ||
      this.#leaving ||
      this.#self === undefined ||
      this.process.paused ||
      pulse?.isMember !== true ||
      pulse.heartbeat?.armed === true
    ) {
      return;
    }
    this.#leaving = true;
    this.#life++;
    pulse.process.deliver(() => {
      pulse.leave((outcome) => {
        this.process.deliver(() => {
          this.#afterLeave(outcome, awayMs);
        });
      });
    });
  }

  #afterLeave(outcome: "left" | "refused" | "lost", awayMs: number): void {
    switch (outcome) {
      case "left":
        this.#world.note(`${this.node.name} left`);
        this.#self = undefined;
        this.#gone(awayMs);
        break;
      case "refused":
        this.#leaving = false;
        for (const slot of this.#slots) {
          this.#afterTurn(slot);
        }
        break;
      case "lost":
        this.#leaving = false;
        this.onLost();
        break;
    }
  }

  #gone(awayMs: number): void {
    const { pulse } = this.node;
    if (pulse?.stuck === true) {
      this.process.after(20, () => {
        this.#gone(awayMs);
      });
      return;
    }
    pulse?.process.kill();
    this.node.pulse = undefined;
    this.process.after(this.#world.phase === 2 ? 0 : awayMs, () => {
      this.#leaving = false;
      this.node.startPulse(undefined);
    });
  }

  /** Once its life has not changed; a lost generation's business is dropped. */
  #later(life: number, ms: number, run: () => void): void {
    this.process.after(ms, () => {
      if (life === this.#life) {
        run();
      }
    });
  }

  #watch(): void {
    const leases = this.#slots.flatMap((slot) =>
      slot.hold === undefined
        ? []
        : [
            {
              area: slot.hold.held.address.area,
              lver: slot.hold.held.leader.lver,
              resourceName: slot.hold.held.address.resourceName,
              shared: slot.hold.held.shared,
            },
          ],
    );
    this.node.pulse?.heartbeat?.watch(leases);
  }

  standing(): Standing {
    const pulse = this.node.pulse;
    return pulse?.process.alive === true
      ? pulse.standing()
      : { renewedAtMs: -Infinity, ttlMs: 0, lost: true, armed: false };
  }

  hasRight(): boolean {
    const standing = this.standing();
    return !standing.lost && this.node.machine.bootMs() - standing.renewedAtMs < standing.ttlMs;
  }

  #driver(): DriverHost {
    const life = this.#life;
    return {
      process: this.process,
      devices: this.devices,
      luns: this.node.lunSet,
      deadlineMs: this.node.timings.deadlineMs,
      standing: () => this.standing(),
      post: (change, done) => {
        this.#post(change, done);
      },
      arm: (done) => {
        this.#ask((pulse, answer) => {
          pulse.arm(answer);
        }, done);
      },
      wanted: () => life === this.#life && this.process.alive,
    };
  }

  #drive<T>(procedure: Parameters<typeof drive<T>>[0], done: (result: T) => void): void {
    drive(procedure, this.#driver(), done);
  }

  #post(change: OutboxChange, done: (accepted: boolean) => void): void {
    const ticket = change.add.find((entry) => entry.kind === "ticket");
    const hostId = this.#self?.hostId ?? 0;
    const life = this.#life;
    this.#ask(
      (pulse, answer) => {
        pulse.post(change, answer);
      },
      (accepted) => {
        if (accepted && ticket !== undefined && life === this.#life) {
          const lease = ticket.area - this.#world.address(0).area;
          this.#world.checker.ticketPosted(
            lease,
            this.node.machine.id,
            hostId,
            ticket.shared,
            ticket.value,
          );
        }
        done(accepted);
      },
    );
  }

  /** A message to pulse and its answer; none in time is a no. */
  #ask(
    ask: (pulse: NonNullable<SimNode["pulse"]>, answer: (accepted: boolean) => void) => void,
    done: (accepted: boolean) => void,
  ): void {
    const { pulse } = this.node;
    let answered = false;
    const answer = (accepted: boolean): void => {
      this.process.deliver(() => {
        if (!answered) {
          answered = true;
          done(accepted);
        }
      });
    };
    const { intervalMs, deadlineMs } = this.node.timings;
    this.process.after(intervalMs + 4 * deadlineMs, () => {
      answer(false);
    });
    if (pulse?.process.alive === true) {
      pulse.process.deliver(() => {
        ask(pulse, answer);
      });
    }
  }

  forgetTicket(lease: number): void {
    this.#world.checker.ticketGone(lease, this.node.machine.id);
  }

  forgetTickets(): void {
    for (const slot of this.#slots) {
      this.forgetTicket(slot.lease);
    }
  }

  #terms(lease: number, shared: boolean, untilMs: number | undefined): WaitTerms {
    const { options, random } = this.#world;
    const self = this.#self!;
    return {
      address: this.#world.address(lease),
      luns: this.node.lunSet,
      self,
      shared,
      timestamp: BigInt(1 + Math.floor(this.node.machine.bootMs())),
      wallSeconds: 1n,
      random: { below: (limit) => random.below(limit), u64: () => random.u64() },
      evidenceFor: (hostId, generation) => this.evidenceFor(hostId, generation),
      outboxes: this.#world.outboxesOp,
      isLive: (hostId, generation) => this.#isLive(hostId, generation),
      holdBackMs: holdBackMs(options.timings),
      untilMs,
    };
  }

  #isLive(hostId: number, generation: bigint): boolean {
    if (hostId === this.#self?.hostId) {
      return generation === this.#self.generation;
    }
    const host = this.node.pulse?.host(hostId);
    return (
      host?.record?.leader.ownerGeneration === generation &&
      host.record.leader.timestamp !== 0n &&
      host.unchangedMs < this.node.timings.ttlMs
    );
  }

  /** As lib/daemon/members.ts: when only time is missing, looks again right when it has passed. */
  evidenceFor(hostId: number, generation: bigint): Evidence | undefined {
    const { pulse, machine } = this.node;
    if (pulse === undefined) {
      return undefined;
    }
    const host = pulse.host(hostId);
    const nowMs = machine.bootMs();
    const verdict = judgeHost(
      host,
      generation,
      this.#world.policy,
      this.node.confirmations.get(hostId),
      nowMs,
    );
    if (verdict.kind === "evidence") {
      this.#world.checker.evidence(verdict.evidence);
      return verdict.evidence;
    }
    if (verdict.kind === "wait" && host.unchangedMs > this.node.timings.ttlMs) {
      const key = `${hostId}/${generation}`;
      if (!this.#looks.has(key)) {
        this.#looks.add(key);
        this.process.after(host.lastSeenMs + verdict.remainingMs + 0.01 - nowMs, () => {
          this.#looks.delete(key);
          this.node.pulse?.observe();
        });
      }
    }
    return undefined;
  }
}
