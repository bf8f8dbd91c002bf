/**
 * One of our nodes inside the test: real LUN devices, the real heartbeat and procedures, driven as pulse and daemon do.
 * Its watchdog is a counter of pets. The watchdog kind says `none`: nobody may take anything from it.
 */
import assert from "node:assert/strict";
import { AREA, areaOffset, type Geometry, outboxesReadLength } from "../../lib/format/geometry.js";
import { type DeltaSector } from "../../lib/format/delta-sector.js";
import { type HeldLease } from "../../lib/lease/ballot.js";
import { joinHost, type JoinOutcome, readLockspaceOp } from "../../lib/lease/delta-lease.js";
import { Heartbeat } from "../../lib/lease/heartbeat.js";
import { type LeaseAddress } from "../../lib/lease/lease-view.js";
import { Observer } from "../../lib/lease/observer.js";
import { OutboxState } from "../../lib/lease/outbox-state.js";
import { type OutboxChange, type Standing } from "../../lib/lease/procedure.js";
import { holdBackMs, type Timings } from "../../lib/lease/timings.js";
import {
  acquireOrWait,
  nameSuccessor,
  type QueueTerms,
  releaseLease,
  type WaitOutcome,
} from "../../lib/lease/wait.js";
import { type LunDevice, type ReadOp } from "../../lib/port/disk.js";
import { type ProcedureHost, NO_STANDING, runProcedure } from "../../lib/region/run-procedure.js";
import { createClock } from "../../lib/system/clock.js";
import { openLun } from "../../lib/system/lun-device.js";
import { createRandom } from "../../lib/system/random.js";

export interface NodeOptions {
  readonly path: string;
  readonly geometry: Geometry;
  readonly size: number;
  readonly spaceName: string;
  readonly name: string;
  readonly hostId: number;
  readonly maxHosts: number;
  readonly timings: Timings;
}

const LUNS = { total: 1, counts: [true] } as const;

export class OurNode {
  readonly hostId: number;
  readonly generation: bigint;
  readonly observer: Observer;
  pets = 0;
  readonly #options: NodeOptions;
  readonly #pulseDevice: LunDevice;
  readonly #device: LunDevice;
  readonly #heartbeat: Heartbeat;
  readonly #outbox: OutboxState;
  readonly #clock = createClock();
  readonly #random = createRandom();
  readonly #held = new Map<number, HeldLease>();
  readonly #published: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #beating: Promise<void> | undefined;
  #stopped = false;

  private constructor(
    options: NodeOptions,
    devices: readonly [LunDevice, LunDevice],
    joined: Extract<JoinOutcome, { kind: "joined" }>,
  ) {
    const { geometry, timings, maxHosts } = options;
    const { membership } = joined;
    this.#options = options;
    [this.#pulseDevice, this.#device] = devices;
    this.hostId = membership.hostId;
    this.generation = membership.generation;
    this.observer = new Observer(geometry, maxHosts, 1);
    this.#heartbeat = new Heartbeat({
      geometry,
      luns: LUNS,
      timings,
      membership,
      resumedAtMs: undefined,
    });
    this.#outbox = new OutboxState(geometry, this.hostId, this.generation, undefined);
  }

  /** Joins; throws when it is refused. */
  static async join(options: NodeOptions): Promise<OurNode> {
    const { path, geometry, size, timings } = options;
    const open = { path, baseOffset: 0, size, sectorSize: geometry.sectorSize };
    const devices = [await openLun(open), await openLun(open)] as const;
    const host: ProcedureHost = {
      devices: [devices[0]],
      luns: LUNS,
      deadlineMs: timings.deadlineMs,
      clock: createClock(),
      standing: () => NO_STANDING,
      post: () => Promise.resolve(false),
      arm: () => Promise.resolve(false),
    };
    const outcome = await runProcedure(
      joinHost({
        geometry,
        luns: LUNS,
        maxHosts: options.maxHosts,
        spaceName: options.spaceName,
        identity: {
          name: options.name,
          watchdog: "none",
          virtual: false,
          bootIdHash: 1n,
          machineIdHash: BigInt(options.hostId),
          stateIdHash: options.hostId,
        },
        timings,
        hostId: options.hostId,
        timestamp: BigInt(Math.ceil(host.clock.bootMs() / 1_000)),
        predecessorGone: true,
        replacesNamesake: false,
        lastMembership: undefined,
        evidenceFor: () => undefined,
        unchangedMs: () => 0,
      }),
      host,
    );
    if (outcome.kind !== "joined") {
      await Promise.all(devices.map((device) => device.close()));
      throw new Error(`${options.name} could not join: ${JSON.stringify(outcome)}`);
    }
    const node = new OurNode(options, devices, outcome);
    await node.#beat();
    node.#schedule();
    return node;
  }

  get loss(): string | undefined {
    return this.#heartbeat.loss;
  }

  addressOf(area: number, resourceName: string, numHosts: number): LeaseAddress {
    const { geometry, spaceName } = this.#options;
    return { geometry, area, spaceName, resourceName, numHosts };
  }

  /** @param waitMs undefined: one look */
  async acquire(
    address: LeaseAddress,
    options: { readonly shared?: boolean; readonly waitMs?: number } = {},
  ): Promise<WaitOutcome> {
    const now = this.#clock.bootMs();
    const { waitMs } = options;
    const outcome = await runProcedure(
      acquireOrWait({
        ...this.#queueTerms(),
        address,
        luns: LUNS,
        self: { hostId: this.hostId, generation: this.generation },
        shared: options.shared ?? false,
        timestamp: BigInt(Math.ceil(now / 1_000)),
        wallSeconds: BigInt(Math.floor(Date.now() / 1_000)),
        random: this.#random,
        evidenceFor: () => undefined,
        untilMs: waitMs === undefined ? undefined : now + waitMs,
      }),
      this.#procedureHost(),
    );
    if (outcome.kind === "granted") {
      this.#held.set(address.area, outcome.held);
      this.#watchHeld();
    }
    return outcome;
  }

  async release(area: number): Promise<void> {
    const held = this.#held.get(area);
    assert(held !== undefined, "not held");
    this.#held.delete(area);
    this.#watchHeld();
    const self = { hostId: this.hostId, generation: this.generation };
    const host = this.#procedureHost();
    const outcome = await runProcedure(releaseLease(LUNS, self, held), host);
    assert.equal(outcome.kind, "released");
    await runProcedure(nameSuccessor({ ...this.#queueTerms(), luns: LUNS, self }, held), host);
  }

  /** Leaves: everything released, disarmed on disk, then the host id freed. */
  async leave(): Promise<void> {
    assert.equal(this.#held.size, 0, "release first");
    await this.#settle();
    if (this.#heartbeat.armed) {
      this.#heartbeat.disarm();
    }
    await this.#beat();
    const result = await this.#pulseDevice.submit([this.#heartbeat.leaveOp()], 5_000);
    assert.equal(result.kind, "done");
    await this.close();
  }

  /** Dies: nothing more is written. */
  async close(): Promise<void> {
    await this.#settle();
    await this.#pulseDevice.close();
    await this.#device.close();
  }

  async #settle(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#beating;
  }

  #watchHeld(): void {
    this.#heartbeat.watch(
      [...this.#held].map(([area, held]) => ({
        area,
        lver: held.leader.lver,
        resourceName: held.address.resourceName,
        shared: held.shared,
      })),
    );
  }

  #queueTerms(): QueueTerms {
    const { geometry, maxHosts, timings } = this.#options;
    const outboxes: ReadOp = {
      kind: "read",
      offset: areaOffset(geometry, AREA.outboxes),
      length: outboxesReadLength(geometry, maxHosts),
    };
    return {
      outboxes,
      holdBackMs: holdBackMs(timings),
      isLive: (hostId, generation) => isLive(this.record(hostId), generation),
    };
  }

  /** A host's record as this node last read it. */
  record(hostId: number): DeltaSector | undefined {
    return this.observer.host(hostId, LUNS.counts).record;
  }

  #procedureHost(): ProcedureHost {
    return {
      devices: [this.#device],
      luns: LUNS,
      deadlineMs: this.#options.timings.deadlineMs,
      clock: this.#clock,
      standing: () => this.#standing(),
      post: (change) => this.#post(change),
      arm: () => this.#arm(),
    };
  }

  #standing(): Standing {
    return {
      renewedAtMs: this.#heartbeat.renewedAtMs ?? 0,
      ttlMs: this.#options.timings.ttlMs,
      lost: this.#heartbeat.loss !== undefined,
      armed: this.#heartbeat.isPublished(true),
    };
  }

  async #post(change: OutboxChange): Promise<boolean> {
    const op = this.#outbox.apply(change);
    const result = await this.#device.submit([op], this.#options.timings.deadlineMs);
    return result.kind === "done";
  }

  async #arm(): Promise<boolean> {
    if (!this.#heartbeat.isPublished(true)) {
      const published = new Promise<void>((resolve) => this.#published.push(resolve));
      this.#heartbeat.arm(this.#options.timings.watchdogMs);
      await published;
    }
    return this.#heartbeat.isPublished(true);
  }

  #schedule(): void {
    if (this.#stopped) {
      return;
    }
    this.#timer = setTimeout(() => {
      this.#beating = this.#beat().then(() => {
        this.#schedule();
      });
    }, this.#options.timings.intervalMs);
  }

  /** One heartbeat, as lib/lease/heartbeat.ts describes it. */
  async #beat(): Promise<void> {
    const { geometry, maxHosts, timings } = this.#options;
    const ops = [readLockspaceOp(geometry, maxHosts), ...this.#heartbeat.recheckOps()];
    const read = await this.#pulseDevice.submit(ops, timings.deadlineMs);
    if (read.kind !== "done") {
      return;
    }
    const [lockspace, ...leaders] = read.reads;
    const timing = read.timings[0];
    assert(lockspace !== undefined && timing !== undefined);
    this.observer.note(0, lockspace, timing);
    const next = this.#heartbeat.afterRead(0, lockspace, leaders, this.#clock.bootMs());
    if (next.kind !== "write") {
      return;
    }
    const written = await this.#pulseDevice.submit([next.op], timings.deadlineMs);
    const after = this.#heartbeat.afterWrite(0, written, this.#clock.bootMs());
    this.pets += after.kind === "pet" ? 1 : 0;
    if (this.#heartbeat.isPublished(true)) {
      for (const resolve of this.#published.splice(0)) {
        resolve();
      }
    }
  }
}

function isLive(record: DeltaSector | undefined, generation: bigint): boolean {
  return record?.leader.ownerGeneration === generation && record.leader.timestamp !== 0n;
}
