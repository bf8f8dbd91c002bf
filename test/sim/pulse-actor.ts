/**
 * A node's pulse in the simulator: the same order of steps as lib/pulse/beater.ts, around the real Heartbeat, Observer,
 * OutboxState, joinHost and petAfter.
 */
import { decodeOutbox, type Outbox } from "../../lib/format/outbox.js";
import { decodeDeltaSector } from "../../lib/format/delta-sector.js";
import {
  joinHost,
  type JoinOutcome,
  type Membership,
  readLockspaceOp,
} from "../../lib/lease/delta-lease.js";
import { Heartbeat, type AfterWrite } from "../../lib/lease/heartbeat.js";
import { type HostObservation, Observer, unchangedMsOf } from "../../lib/lease/observer.js";
import { OutboxState } from "../../lib/lease/outbox-state.js";
import {
  doneOn,
  isMajority,
  majorityOf,
  type DiskProcedure,
  type OutboxChange,
  type Standing,
} from "../../lib/lease/procedure.js";
import { chooseRecord } from "../../lib/lease/record-choice.js";
import { petWindowMs } from "../../lib/lease/timings.js";
import { type BatchResult, type DiskOp } from "../../lib/port/disk.js";
import { petAfter, type Petter } from "../../lib/pulse/petter.js";
import { judgeHost } from "../../lib/fence/evidence.js";
import { SimFailure } from "./failure.js";
import { Process } from "./machine.js";
import { type SimNode } from "./node.js";
import { drive, submitAll } from "./procedure-driver.js";
import { SimDevice } from "./sim-device.js";
import { GEOMETRY, SPACE } from "./space.js";
import { type World } from "./world.js";

/** What a restarted pulse carries on with. */
export interface Resume {
  readonly membership: Membership;
  readonly renewedAtMs: number;
}

interface Waiter {
  readonly armed: boolean;
  readonly done: (published: boolean) => void;
}

export class PulseActor {
  readonly node: SimNode;
  readonly process: Process;
  readonly devices: readonly SimDevice[];
  readonly observer: Observer;
  readonly #world: World;
  #heartbeat: Heartbeat | undefined;
  #membership: Membership | undefined;
  #outbox: OutboxState | undefined;
  #outboxOp: DiskOp | undefined;
  readonly #outboxLanded: (DiskOp | undefined)[];
  readonly #inBeat: boolean[];
  readonly #again: boolean[];
  #waiters: Waiter[] = [];
  #resume: Resume | undefined;
  #toldLoss = false;
  /** Why joining does not get on, for the human. */
  stuckJoin: { readonly sinceMs: number; readonly why: string } | undefined;
  leaving = false;
  /** It could not carry on with its generation: teardown, and a new one. */
  gaveUp = false;
  /** The own outbox carries this generation on a majority. */
  #generationIsOut = false;
  #standing: Standing = { renewedAtMs: -Infinity, ttlMs: 0, lost: true, armed: false };
  #hosts: (HostObservation | undefined)[] = [];

  constructor(node: SimNode, resume: Resume | undefined) {
    this.node = node;
    this.#world = node.world;
    this.process = new Process(node.machine, "pulse");
    const { luns, maxHosts } = node.world.options;
    this.devices = Array.from({ length: luns }, (_, lun) => new SimDevice(this.process, lun));
    this.observer = new Observer(GEOMETRY, maxHosts, luns);
    this.#outboxLanded = Array.from({ length: luns }, () => undefined);
    this.#inBeat = Array.from({ length: luns }, () => false);
    this.#again = Array.from({ length: luns }, () => false);
    this.#resume = resume;
  }

  get heartbeat(): Heartbeat | undefined {
    return this.#heartbeat;
  }

  get membership(): Membership | undefined {
    return this.#heartbeat === undefined ? undefined : this.#membership;
  }

  get isMember(): boolean {
    return (
      this.process.alive && this.#heartbeat !== undefined && this.#heartbeat.loss === undefined
    );
  }

  get stuck(): boolean {
    return this.devices.some((device) => device.busy);
  }

  /** As the daemon was last told. */
  standing(): Standing {
    return this.#standing;
  }

  /** A host as the newest reads show it. */
  host(hostId: number): HostObservation {
    return (this.#hosts[hostId] ??= this.observer.host(hostId, this.node.lunSet.counts));
  }

  #tell(): void {
    const { ttlMs } = this.node.timings;
    const heartbeat = this.#heartbeat;
    this.#standing = {
      renewedAtMs: heartbeat?.renewedAtMs ?? -Infinity,
      ttlMs,
      lost: heartbeat === undefined || heartbeat.loss !== undefined,
      armed: heartbeat?.isPublished(true) ?? false,
    };
  }

  /** Waits for the lock files of an earlier pulse, which a task stuck in the kernel keeps. */
  start(): void {
    if ((this.node.machine.outstanding.get("pulse") ?? 0) > 0) {
      this.process.after(50, () => {
        this.start();
      });
      return;
    }
    if (this.#resume === undefined) {
      this.#join();
    } else {
      this.#carryOn(this.#resume);
    }
  }

  #driver(): Parameters<typeof drive>[1] {
    return {
      process: this.process,
      devices: this.devices,
      luns: this.node.lunSet,
      deadlineMs: this.node.timings.deadlineMs,
      standing: () => this.standing(),
      post: (_, done) => {
        done(false);
      },
      arm: (done) => {
        done(false);
      },
      wanted: () => this.process.alive,
    };
  }

  #join(): void {
    const { node } = this;
    const { options } = this.#world;
    const { timings } = node;
    const procedure = joinHost({
      geometry: GEOMETRY,
      luns: node.lunSet,
      maxHosts: options.maxHosts,
      spaceName: SPACE,
      identity: node.identity(),
      timings,
      hostId: node.wantedHostId,
      timestamp: BigInt(1 + Math.floor(node.machine.bootMs() / 1_000)),
      predecessorGone: true,
      replacesNamesake: false,
      lastMembership: node.lastMembership,
      evidenceFor: (hostId, generation) => {
        const verdict = judgeHost(
          this.host(hostId),
          generation,
          this.#world.policy,
          node.confirmations.get(hostId),
          node.machine.bootMs(),
        );
        if (verdict.kind === "impossible" && this.observer.sighting(0, hostId) !== undefined) {
          this.#stuckBecause(verdict.why);
        } else {
          this.stuckJoin = undefined;
        }
        if (verdict.kind !== "evidence") {
          return undefined;
        }
        this.#world.checker.evidence(verdict.evidence);
        return verdict.evidence;
      },
      unchangedMs: (hostId, record) => unchangedMsOf(this.host(hostId), record),
    });
    drive(watchJoin(procedure), this.#driver(), (outcome) => {
      this.#joined(outcome);
    });
  }

  #stuckBecause(why: string): void {
    this.stuckJoin ??= { sinceMs: this.#world.scheduler.now, why };
  }

  #joined(outcome: JoinOutcome): void {
    const { node } = this;
    if (outcome.kind === "joined") {
      const { hostId, generation } = outcome.membership;
      this.#world.note(
        `${node.name} joined as host ${hostId} generation ${generation} (${outcome.evidence})`,
      );
      this.stuckJoin = undefined;
      node.lastMembership = { hostId, generation };
      this.#world.checker.joined(node.machine, hostId, generation);
      this.#becomeMember(outcome.membership, undefined);
      return;
    }
    if (outcome.kind === "name-taken" || outcome.kind === "full" || outcome.kind === "damaged") {
      this.#stuckBecause(outcome.kind);
    }
    node.noteJoin(outcome.kind);
    // Observing goes on while the id is not free, so that there will be evidence.
    this.#observeThen(() => {
      this.process.after(
        this.node.timings.intervalMs * (0.7 + 0.6 * this.#world.random.fraction()),
        () => {
          this.#join();
        },
      );
    });
  }

  /** Reads lockspace and outboxes on every LUN that answers. */
  #observeThen(then: (results: readonly BatchResult[]) => void): void {
    const { options } = this.#world;
    const ops = [readLockspaceOp(GEOMETRY, options.maxHosts), this.#world.outboxesOp];
    const { deadlineMs } = this.node.timings;
    submitAll(
      { devices: this.devices, luns: this.node.lunSet, deadlineMs },
      ops,
      "all",
      (results) => {
        results.forEach((result, lun) => {
          this.#noteReads(lun, result);
        });
        then(results);
      },
    );
  }

  #noteReads(lun: number, result: BatchResult): void {
    if (result.kind === "done") {
      this.#hosts = [];
      this.observer.note(lun, result.reads[0]!, result.timings[0]!);
    }
  }

  /** Out of turn, because somebody's bound has passed right now. */
  observe(): void {
    if (
      this.process.alive &&
      this.#heartbeat?.loss === undefined &&
      !this.devices.some((device) => device.stuck)
    ) {
      this.#observeThen(() => undefined);
    }
  }

  /** A restarted pulse goes on with the generation only when the disk still shows it, and within T. */
  #carryOn(resume: Resume): void {
    const { node } = this;
    this.#observeThen((results) => {
      const done = doneOn(node.lunSet, results);
      const records = done.flatMap((batch) => {
        const at = (resume.membership.hostId - 1) * GEOMETRY.sectorSize;
        const decoded = decodeDeltaSector(
          GEOMETRY,
          batch.reads[0]!.subarray(at, at + GEOMETRY.sectorSize),
        );
        return decoded.kind === "ok" ? [decoded.value] : [];
      });
      const { newest } = chooseRecord(records, node.lunSet.total);
      const gapMs = node.machine.bootMs() - resume.renewedAtMs;
      const isSame =
        newest?.leader.ownerGeneration === resume.membership.generation &&
        newest.leader.resourceName === node.name &&
        newest.leader.timestamp !== 0n;
      if (gapMs >= this.node.timings.ttlMs) {
        this.#world.note(`${node.name}: pulse comes back after ${Math.round(gapMs)} ms: lost`);
        this.#loseResumed();
      } else if (!isMajority(node.lunSet, results)) {
        this.process.after(10, () => {
          this.#carryOn(resume);
        });
      } else if (newest === undefined || !isSame) {
        this.#loseResumed();
      } else {
        this.node.machine.watchdog.adopt("pulse");
        this.#becomeMember({ ...resume.membership, record: newest }, resume.renewedAtMs);
      }
    });
  }

  #loseResumed(): void {
    this.gaveUp = true;
    this.node.onLost();
  }

  #becomeMember(membership: Membership, resumedAtMs: number | undefined): void {
    const { node } = this;
    submitAll(
      { devices: this.devices, luns: node.lunSet, deadlineMs: this.node.timings.deadlineMs },
      [this.#world.outboxesOp],
      "majority",
      (results) => {
        if (!isMajority(node.lunSet, results)) {
          this.process.after(10, () => {
            this.#becomeMember(membership, resumedAtMs);
          });
          return;
        }
        const found = this.#ownOutbox(results, membership.hostId);
        this.#outbox = new OutboxState(GEOMETRY, membership.hostId, membership.generation, found);
        this.#membership = membership;
        this.#heartbeat = new Heartbeat({
          geometry: GEOMETRY,
          luns: node.lunSet,
          timings: this.node.timings,
          membership,
          resumedAtMs,
        });
        this.#tell();
        // The outbox says that this generation has been a member, whatever becomes of its record; before it can arm.
        this.#publishGeneration();
        node.onMember(this.#heartbeat, resumedAtMs !== undefined);
        this.devices.forEach((_, lun) => {
          this.#beatEvery(lun);
        });
      },
    );
  }

  #publishGeneration(): void {
    this.post({ remove: [], add: [] }, (accepted) => {
      this.#generationIsOut = accepted;
      if (!accepted && this.isMember) {
        this.process.after(20, () => {
          this.#publishGeneration();
        });
      }
    });
  }

  #ownOutbox(results: readonly BatchResult[], hostId: number): Outbox | undefined {
    let found: Outbox | undefined;
    for (const batch of doneOn(this.node.lunSet, results)) {
      const at = (hostId - 1) * GEOMETRY.sectorSize;
      const decoded = decodeOutbox(
        GEOMETRY,
        batch.reads[0]!.subarray(at, at + GEOMETRY.sectorSize),
      );
      if (
        decoded.kind === "ok" &&
        (found === undefined || decoded.value.sequence > found.sequence)
      ) {
        found = decoded.value;
      }
    }
    return found;
  }

  #beatEvery(lun: number): void {
    if (this.#checkLoss() || this.leaving) {
      return;
    }
    this.process.after(this.node.timings.intervalMs, () => {
      this.#beatEvery(lun);
    });
    this.#beat(lun);
  }

  #beat(lun: number): void {
    const heartbeat = this.#heartbeat;
    const device = this.devices[lun]!;
    if (heartbeat === undefined || this.leaving || this.#checkLoss()) {
      return;
    }
    if (this.#inBeat[lun] === true || device.stuck) {
      this.#again[lun] = this.#inBeat[lun] === true;
      return;
    }
    const nowMs = this.node.machine.bootMs();
    const daemonAnswers = this.node.daemonAnswers();
    if (daemonAnswers) {
      heartbeat.hearDaemon(nowMs, this.node.groupUp);
    }
    heartbeat.mayRenew(nowMs);
    if (this.#checkLoss()) {
      return;
    }
    this.#inBeat[lun] = true;
    const asked = heartbeat.recheckOps();
    const ops = [
      readLockspaceOp(GEOMETRY, this.#world.options.maxHosts),
      this.#world.outboxesOp,
      ...asked,
    ];
    device.submit(ops, this.node.timings.deadlineMs, (read) => {
      this.#afterRead(lun, heartbeat, asked, read);
    });
  }

  #afterRead(lun: number, heartbeat: Heartbeat, asked: readonly DiskOp[], read: BatchResult): void {
    const { timings } = this.node;
    this.#noteReads(lun, read);
    if (read.kind !== "done") {
      this.#endBeat(lun);
      return;
    }
    const nowMs = this.node.machine.bootMs();
    heartbeat.mayRenew(nowMs);
    const needed = heartbeat.recheckOps();
    if (needed.length > 0 && !isSameReads(asked, needed)) {
      this.#again[lun] = true;
      this.#endBeat(lun);
      return;
    }
    const [lockspace, , ...leaders] = read.reads;
    const next = heartbeat.afterRead(lun, lockspace!, leaders, nowMs);
    if (next.kind !== "write") {
      this.#endBeat(lun);
      return;
    }
    this.node.checkRenewal(lockspace!, this.#membership!);
    this.devices[lun]!.submit([next.op], timings.deadlineMs, (written) => {
      this.#afterWrite(lun, heartbeat, written);
    });
  }

  #afterWrite(lun: number, heartbeat: Heartbeat, written: BatchResult): void {
    const verdict = heartbeat.afterWrite(lun, written, this.node.machine.bootMs());
    if (verdict.kind === "counted" || verdict.kind === "pet") {
      this.node.noteCounted(this.#membership!);
    }
    this.#tell();
    if (verdict.kind === "pet") {
      this.#pet(verdict);
    }
    this.#settleWaiters();
    if (!this.#checkLoss()) {
      this.#refreshOutbox(lun);
    }
    this.#endBeat(lun);
  }

  /** The petter may be stopped between its look at the clock and its pet, and looks again right after the pet. */
  #pet(verdict: Extract<AfterWrite, { kind: "pet" }>): void {
    const { machine } = this.node;
    const { random, options } = this.#world;
    const lookedAtMs = machine.bootMs();
    const petNow = (): void => {
      let looks = 0;
      const clock = { bootMs: () => (looks++ === 0 ? lookedAtMs : machine.bootMs()) };
      petAfter(verdict, clock, this.#petter());
    };
    const { stall } = options.ops;
    if (stall > 0 && random.chance(3 * stall)) {
      this.process.after(random.between(0, 1.2 * this.node.timings.watchdogMs), petNow);
    } else {
      // Zero: the process may still be stopped in between.
      this.process.after(0, petNow);
    }
  }

  #petter(): Petter {
    const { machine } = this.node;
    const { options } = this.#world;
    const later = async (): Promise<void> => {
      await Promise.resolve();
    };
    return {
      kind: "hardware",
      device: undefined,
      arm: async () => await Promise.resolve(0),
      pet: (petUntilMs) => {
        if (options.kind === "guard") {
          machine.watchdog.petUntil(petUntilMs + this.node.timings.watchdogMs);
        } else {
          machine.watchdog.pet();
        }
      },
      overran: () => {
        if (options.kind !== "guard" && options.kind !== "none") {
          this.#world.resetItself(machine);
        }
      },
      disarm: later,
      leave: later,
    };
  }

  #endBeat(lun: number): void {
    this.#inBeat[lun] = false;
    if (this.#checkLoss()) {
      return;
    }
    if (this.#again[lun] === true) {
      this.#again[lun] = false;
      this.process.after(0.01, () => {
        this.#beat(lun);
      });
    }
  }

  #beatNow(): void {
    this.devices.forEach((_, lun) => {
      this.#beat(lun);
    });
  }

  #checkLoss(): boolean {
    const loss = this.#heartbeat?.loss;
    if (loss === undefined) {
      return false;
    }
    if (!this.#toldLoss) {
      this.#toldLoss = true;
      this.#tell();
      this.#world.note(`${this.node.name} lost: ${loss}`);
      this.#settleWaiters();
      this.node.onLost();
    }
    return true;
  }

  post(change: OutboxChange, done: (accepted: boolean) => void): void {
    const outbox = this.#outbox;
    if (outbox === undefined || !this.isMember) {
      done(false);
      return;
    }
    const op = outbox.apply(change);
    this.#outboxOp = op;
    const { luns } = { luns: this.node.lunSet };
    let answered = 0;
    let landed = 0;
    let over = false;
    this.devices.forEach((_, lun) => {
      this.#writeOutbox(lun, op, (isDone) => {
        answered++;
        landed += isDone && luns.counts[lun] === true ? 1 : 0;
        if (!over && (landed >= majorityOf(luns) || answered === this.devices.length)) {
          over = true;
          done(landed >= majorityOf(luns));
        }
      });
    });
  }

  #refreshOutbox(lun: number): void {
    const op = this.#outboxOp;
    if (op !== undefined && this.#outboxLanded[lun] !== op) {
      this.#writeOutbox(lun, op, () => undefined);
    }
  }

  #writeOutbox(lun: number, op: DiskOp, done: (isDone: boolean) => void): void {
    this.devices[lun]!.submit([op], this.node.timings.deadlineMs, (result) => {
      if (result.kind === "done") {
        this.#outboxLanded[lun] = op;
      }
      done(result.kind === "done");
    });
  }

  arm(done: (published: boolean) => void): void {
    const heartbeat = this.#heartbeat;
    const mayArm = this.isMember && this.#generationIsOut;
    if (heartbeat?.renewedAtMs === undefined || !mayArm) {
      done(false);
      return;
    }
    if (heartbeat.isPublished(true)) {
      done(true);
      return;
    }
    const { kind, luns } = this.#world.options;
    const { timings } = this.node;
    const { watchdog } = this.node.machine;
    if (!watchdog.running && kind !== "none") {
      watchdog.start(timings.watchdogMs, this.node.watchdogHolders);
      if (kind === "guard") {
        watchdog.petUntil(heartbeat.renewedAtMs + petWindowMs(timings, luns) + timings.watchdogMs);
      }
    }
    heartbeat.arm(timings.watchdogMs);
    this.#tell();
    this.#beatNow();
    this.#waiters.push({ armed: true, done });
    this.#timeoutWaiters();
  }

  /** Publishes armed = 0 on a majority, and only then stops the watchdog. */
  disarm(done: (disarmed: boolean) => void): void {
    const heartbeat = this.#heartbeat;
    if (
      heartbeat === undefined ||
      !this.isMember ||
      heartbeat.watched.length > 0 ||
      !heartbeat.armed
    ) {
      done(false);
      return;
    }
    heartbeat.disarm();
    this.#tell();
    this.#beatNow();
    this.#waiters.push({
      armed: false,
      done: (published) => {
        if (published) {
          this.node.machine.watchdog.off();
        } else if (this.isMember && !heartbeat.armed) {
          heartbeat.arm(this.node.timings.watchdogMs);
        }
        done(published);
      },
    });
    this.#timeoutWaiters();
  }

  #timeoutWaiters(): void {
    const { intervalMs, deadlineMs } = this.node.timings;
    const those = [...this.#waiters];
    this.process.after(intervalMs + 3 * deadlineMs, () => {
      for (const waiter of those) {
        if (this.#waiters.includes(waiter)) {
          this.#waiters = this.#waiters.filter((other) => other !== waiter);
          waiter.done(false);
        }
      }
    });
  }

  #settleWaiters(): void {
    const heartbeat = this.#heartbeat;
    if (heartbeat === undefined || this.#waiters.length === 0) {
      return;
    }
    for (const waiter of [...this.#waiters]) {
      const published = heartbeat.loss === undefined && heartbeat.isPublished(waiter.armed);
      const overtaken = heartbeat.armed !== waiter.armed;
      if (published || overtaken || heartbeat.loss !== undefined) {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        waiter.done(published);
      }
    }
  }

  /** Clean leave: nothing held, disarmed, the left record on a majority. */
  leave(done: (outcome: "left" | "refused" | "lost") => void): void {
    const heartbeat = this.#heartbeat;
    if (heartbeat === undefined || !this.isMember || heartbeat.armed || this.stuck) {
      done("refused");
      return;
    }
    this.leaving = true;
    const { deadlineMs } = this.node.timings;
    submitAll(
      { devices: this.devices, luns: this.node.lunSet, deadlineMs },
      [heartbeat.leaveOp()],
      "all",
      (results) => {
        const left = isMajority(this.node.lunSet, results);
        if (left) {
          this.#end();
        } else {
          heartbeat.lose("leaving failed half-way");
        }
        done(left ? "left" : "lost");
      },
    );
  }

  /** By itself, whether or not the daemon that asked is still there. */
  #end(): void {
    this.process.after(20, () => {
      if (this.stuck) {
        this.#end();
      } else {
        this.process.kill();
      }
    });
  }
}

/** Passes everything on; a join whose write began too late after its read must not end as joined. */
function* watchJoin(procedure: DiskProcedure<JoinOutcome>): DiskProcedure<JoinOutcome> {
  let readMs = Infinity;
  let writeMs = -Infinity;
  let step = procedure.next();
  while (step.done !== true) {
    const request = step.value;
    const turn = yield request;
    const first = request.kind === "io" ? request.ops[0]?.kind : undefined;
    const starts = turn.luns.flatMap((result) =>
      result.kind === "done" ? [result.timings[0]!.startedMs] : [],
    );
    if (first === "read" && readMs === Infinity) {
      readMs = Math.min(...starts);
    } else if (first === "write") {
      writeMs = Math.max(...starts);
    }
    step = procedure.next(turn);
  }
  if (step.value.kind === "joined" && writeMs - readMs >= 500) {
    throw new SimFailure(
      "safety",
      `joined by a write that began ${Math.round(writeMs - readMs)} ms after its read`,
    );
  }
  return step.value;
}

function isSameReads(one: readonly DiskOp[], other: readonly DiskOp[]): boolean {
  return (
    one.length === other.length && one.every((op, index) => op.offset === other[index]?.offset)
  );
}
