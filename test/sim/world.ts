/**
 * The simulated cluster: machines, LUNs, virtual time, faults, and the judge. One seed, one thread, one run.
 *
 * Phase 1: everything may fail; the invariants hold after every step. Phase 2: all faults are healed, dead machines are
 * started again; whoever waits must be served within a bound.
 */
import { type EvidencePolicy } from "../../lib/fence/evidence.js";
import { encodeOutbox } from "../../lib/format/outbox.js";
import { encodeDeltaSector } from "../../lib/format/delta-sector.js";
import {
  AREA,
  areaOffset,
  deltaOffset,
  leaderOffset,
  outboxOffset,
} from "../../lib/format/geometry.js";
import { encodePaxosLeaderSector, PAXOS_VERSION } from "../../lib/format/leader-record.js";
import { type HeldLease } from "../../lib/lease/ballot.js";
import { vacantRecord } from "../../lib/lease/delta-lease.js";
import { type LeaseAddress } from "../../lib/lease/lease-view.js";
import { expiredAfterMs, holdBackMs } from "../../lib/lease/timings.js";
import { Checker } from "./checker.js";
import { SimFailure } from "./failure.js";
import { Machine, type Mount } from "./machine.js";
import { Medium } from "./medium.js";
import { Nemesis } from "./nemesis.js";
import { SimNode } from "./node.js";
import { type SimOptions } from "./options.js";
import { SimRandom } from "./random.js";
import { Scheduler } from "./scheduler.js";
import { GEOMETRY, SPACE } from "./space.js";
import { Trace } from "./trace.js";

interface Hung {
  readonly machine: Machine;
  readonly lun: number;
  readonly proceed: () => void;
}

export class World {
  readonly options: SimOptions;
  readonly random: SimRandom;
  readonly scheduler = new Scheduler();
  readonly trace = new Trace();
  readonly media: Medium[];
  readonly nodes: SimNode[] = [];
  readonly #nodeOf = new Map<Machine, SimNode>();
  readonly checker: Checker;
  readonly nemesis: Nemesis;
  readonly policy: EvidencePolicy;
  readonly holdBackMs: number;
  readonly hangMs: number;
  diskOps = 0;
  phase: 1 | 2 = 1;
  #hung: Hung[] = [];

  constructor(options: SimOptions) {
    this.options = options;
    this.random = new SimRandom(options.seed + 1);
    this.media = Array.from(
      { length: options.luns },
      (_, index) => new Medium(index, AREA.firstResource + options.leases),
    );
    this.checker = new Checker(this, options.leases);
    this.policy = {
      lunCount: options.luns,
      vmPauseNever: false,
      guardAccepted: true,
      foreignWatchdog: false,
    };
    this.holdBackMs = holdBackMs(options.timings);
    this.hangMs = options.profile === "fast" ? 8_000 : 20_000;
    this.#format();
    const drift = options.driftPpm / 1_000_000;
    for (let id = 1; id <= options.hosts; id++) {
      const machine = new Machine(this, id, 1 + this.random.between(-drift, drift), options.luns);
      this.nodes.push(new SimNode(this, machine, `n${id}`, id));
    }
    const { twin, clone } = options.faults;
    if (twin + clone > 0) {
      const machine = new Machine(this, 90, 1, options.luns);
      this.nodes.push(new SimNode(this, machine, "n1", 1, clone > 0 ? "clone" : "other machine"));
    }
    for (const node of this.nodes) {
      this.#nodeOf.set(node.machine, node);
    }
    this.nemesis = new Nemesis(this);
  }

  #format(): void {
    const { options } = this;
    const vacant = encodeDeltaSector(
      GEOMETRY,
      vacantRecord(GEOMETRY, SPACE, options.timings, options.luns),
    );
    for (const medium of this.media) {
      if (options.faults.rollback + options.faults.rollbackDeep > 0) {
        medium.remember();
      }
      for (let hostId = 1; hostId <= options.maxHosts; hostId++) {
        medium.write(deltaOffset(GEOMETRY, hostId), vacant);
        medium.write(
          outboxOffset(GEOMETRY, hostId),
          encodeOutbox(GEOMETRY, {
            hostId,
            generation: 0n,
            sequence: 0n,
            tableGeneration: 0n,
            entries: [],
          }),
        );
      }
      for (let lease = 0; lease < options.leases; lease++) {
        const address = this.address(lease);
        medium.write(
          leaderOffset(GEOMETRY, address.area),
          encodePaxosLeaderSector(GEOMETRY, {
            kind: "paxos",
            version: PAXOS_VERSION,
            flags: GEOMETRY.lflFlag,
            sectorSize: 512,
            numHosts: BigInt(options.maxHosts),
            maxHosts: BigInt(GEOMETRY.maxHostsFormat),
            ownerId: 0n,
            ownerGeneration: 0n,
            lver: 0n,
            spaceName: SPACE,
            resourceName: address.resourceName,
            timestamp: 0n,
            ioTimeout: 0,
            writeId: 0n,
            writeGeneration: 0n,
            writeTimestamp: 0n,
          }),
        );
      }
    }
  }

  address(lease: number): LeaseAddress {
    return {
      geometry: GEOMETRY,
      area: AREA.firstResource + lease,
      spaceName: SPACE,
      resourceName: `group:g${lease}`,
      numHosts: this.options.maxHosts,
    };
  }

  get outboxesOp(): { readonly kind: "read"; readonly offset: number; readonly length: number } {
    return {
      kind: "read",
      offset: areaOffset(GEOMETRY, AREA.outboxes),
      length: this.options.maxHosts * GEOMETRY.sectorSize,
    };
  }

  note(line: string): void {
    this.trace.note(this.scheduler.now, line);
  }

  latencyMs(): number {
    const { latencyMs } = this.options;
    return latencyMs * (0.5 + this.random.fraction());
  }

  nodeOf(machine: Machine): SimNode {
    return this.#nodeOf.get(machine)!;
  }

  /** I/O that cannot go anywhere now; it goes on, or fails, when the way is whole again. */
  hangUntilHealed(machine: Machine, lun: number, proceed: () => void): void {
    this.#hung.push({ machine, lun, proceed });
  }

  isReachable(machine: Machine, lun: number): boolean {
    return !machine.paths[lun]!.cut && this.media[lun]!.awayUntilMs <= this.scheduler.now;
  }

  /** After any path or LUN came back. */
  releaseHung(): void {
    const still: Hung[] = [];
    for (const hung of this.#hung.splice(0)) {
      if (this.isReachable(hung.machine, hung.lun)) {
        hung.proceed();
      } else {
        still.push(hung);
      }
    }
    this.#hung.push(...still);
  }

  onPowerOff(machine: Machine): void {
    this.nodeOf(machine).onPowerOff();
  }

  onWatchdog(machine: Machine): void {
    this.checker.reset(machine, "watchdog");
    const node = this.nodeOf(machine);
    if (this.options.kind === "guard") {
      node.guardExpires();
      return;
    }
    this.note(`n${machine.id} is reset by its watchdog`);
    machine.powerOff();
    this.nemesis.considerReboot(machine);
  }

  /** A petter that found itself too late. */
  resetItself(machine: Machine): void {
    this.checker.reset(machine, "too late after the pet");
    this.note(`n${machine.id} resets itself: too late after the pet`);
    if (this.options.kind === "guard") {
      this.nodeOf(machine).guardExpires();
      return;
    }
    machine.powerOff();
    this.nemesis.considerReboot(machine);
  }

  mayReset(machine: Machine): boolean {
    return this.nodeOf(machine).hasReasonToBeReset();
  }

  /** Write commands of other machines that have not come to rest, in the target or on the way. */
  readonly #dataInFlight: { machine: Machine; lease: number; inTarget: boolean }[] = [];

  hasDataInFlight(lease: number): boolean {
    return this.#dataInFlight.some((write) => write.lease === lease && write.inTarget);
  }

  /** The kernel writes back dirty pages, until it has the file system no more. */
  startWriting(mount: Mount, hostId: number, everyMs: number): void {
    const { machine } = mount;
    const { boots } = machine;
    const write = (): void => {
      if (!mount.live || !machine.on || machine.boots !== boots) {
        return;
      }
      this.#writeData(mount, hostId, boots);
      machine.after(everyMs, write);
    };
    machine.after(this.random.between(0, everyMs), write);
  }

  #writeData(mount: Mount, hostId: number, boots: number): void {
    const { machine } = mount;
    this.checker.dataIssued(mount, hostId);
    mount.inFlight++;
    const entry = { machine, lease: mount.lease, inTarget: true };
    this.#dataInFlight.push(entry);
    const land = (): void => {
      this.#dataInFlight.splice(this.#dataInFlight.indexOf(entry), 1);
      if (entry.inTarget) {
        this.checker.dataLanded(mount, hostId);
        mount.inFlight--;
      }
    };
    const { heldData } = this.options.ops;
    if (!this.isReachable(machine, 0) && this.options.kind !== "guard") {
      // It waits in the machine, and goes down with it.
      entry.inTarget = false;
      this.hangUntilHealed(machine, 0, () => {
        entry.inTarget = machine.on && machine.boots === boots;
        this.scheduler.after(this.latencyMs(), land);
      });
      return;
    }
    const isHeld = heldData > 0 && this.phase === 1 && this.random.chance(heldData);
    this.scheduler.after(isHeld ? this.random.between(0, this.hangMs) : this.latencyMs(), land);
  }

  /**
   * What a look through the mount namespaces finds before data in a local file is mounted: whatever superblock of another
   * node is left over it. Only holders of a shared lease leave each other alone.
   */
  foreignMounts(held: HeldLease, lease: number, own: Machine): readonly Mount[] {
    return this.nodes
      .filter(({ machine }) => machine !== own)
      .flatMap(({ machine }) => [...machine.mounts])
      .filter((mount) => mount.lease === lease && mount.live && !(mount.shared && held.shared));
  }

  isWellSince(nodeId: number, sinceMs: number): boolean {
    return this.nemesis.isWellSince(nodeId, sinceMs);
  }

  isQuietSince(sinceMs: number): boolean {
    return this.nemesis.isQuietSince(sinceMs - 1_000);
  }

  run(): void {
    for (const node of this.nodes) {
      node.start(
        node.twin !== undefined ? this.random.between(2_000, 8_000) : this.random.between(0, 50),
      );
    }
    this.nemesis.start();
    this.scheduler.run(this.options.phase1Ms, () => false);
    this.phase = 2;
    this.note("phase 2: everything is healed");
    this.nemesis.heal();
    const boundMs = this.#livenessBoundMs();
    const until = this.scheduler.now + boundMs;
    this.scheduler.run(until, () => this.nodes.every((node) => node.isAtRest()));
    const waiting = this.nodes.filter((node) => !node.isAtRest());
    if (waiting.length > 0) {
      throw new SimFailure(
        "liveness",
        `not at rest ${Math.round(boundMs)} ms after all faults were healed: ${waiting.map((node) => node.describe()).join("; ")}`,
      );
    }
  }

  /** Hung I/O, reboot, rejoin, expiry of whoever was lost, and then everybody's turn. */
  #livenessBoundMs(): number {
    const { timings, hosts, luns, holdMs, leases } = this.options;
    const watchdogMs = this.options.mixedTimers ? 2 * timings.watchdogMs : timings.watchdogMs;
    const expiry = expiredAfterMs({ ...timings, watchdogMs }, luns);
    return (
      this.hangMs +
      15_000 +
      3 * expiry +
      10 * timings.ttlMs +
      hosts * leases * (3 * holdMs + 4 * this.holdBackMs + 2_000)
    );
  }
}
