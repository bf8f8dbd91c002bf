/**
 * The daemon of one node: composes the parts and carries the node through its life.
 *
 *     start -> [adopt a pulse that runs, or clean up and start one] -> joined -> lost -> torn down -> joined ... -> left
 *
 * Start order: region, control API (so that somebody can ask why it takes long), configuration, pulse, adoption. Stop
 * order is the reverse; pulse goes on for `restart_grace`, so that the next daemon finds everything as it was.
 */
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import { outboxOffset, outboxesReadLength } from "../format/geometry.js";
import { type Self } from "../lease/ballot.js";
import { holdBackMs } from "../lease/timings.js";
import { type LunReplacedBody, type ReplaceLunBody } from "../net/api.js";
import { type Clock, type Random } from "../port/clock.js";
import { type ReadOp } from "../port/disk.js";
import { nodeIdentity } from "../pulse/identity.js";
import { type Beat, type Hello, type ProcessId, type Protected } from "../pulse/messages.js";
import { type NodeSettings, readNodeSettings } from "../pulse/options.js";
import { refuseStuckPulse } from "../pulse/stuck-pulse.js";
import { openRegion, type Region } from "../region/open-region.js";
import { reconnectLuns } from "../san/reconnect-luns.js";
import { createClock } from "../system/clock.js";
import { probeLun } from "../system/lun-probe.js";
import { readBootId } from "../system/machine.js";
import { ownIdentity } from "../system/process.js";
import { createRandom } from "../system/random.js";
import { openStateDir, writeFileAtomic } from "../system/state-dir.js";
import { adoptHolds, cleanUpAfterPredecessor } from "./adoption.js";
import { Bindings } from "./bindings.js";
import { ConfigHolder, REFRESH_EVERY_MS } from "./config-holder.js";
import { serveControlApi, type ControlApi } from "./control-api.js";
import { type DataPlace, GROUP_EDGES } from "./data-device.js";
import { DiskAccess } from "./disk-access.js";
import { EventLog } from "./event-log.js";
import { GroupManager } from "./group-manager.js";
import { LeaseDirectory } from "./lease-directory.js";
import { LeaseFile, type LeaseNotes } from "./lease-file.js";
import { LeaseManager } from "./lease-manager.js";
import { LeaseViews } from "./lease-views.js";
import { LossHandler } from "./loss.js";
import { Members, type MemberSettings } from "./members.js";
import { NodeApi } from "./node-api.js";
import { OutboxKeeper } from "./outbox-keeper.js";
import { type HowJoined, PulseKeeper } from "./pulse-keeper.js";
import { type RefusalContext } from "./refusals.js";
import { RegionConfig } from "./region-config.js";
import { RegionIndex } from "./region-index.js";
import { type NodeState } from "./status.js";

/** Earlier daemons of this state directory have this long to let go of the LUNs. */
const LOCK_WAIT_MS = 10_000;
/** LUNs that are away are looked at again this often. */
const REPROBE_EVERY_MS = 10_000;
/** Pulse writes the record that leaves and ends. */
const LEAVE_MS = 10_000;

export interface Logger {
  info(fields: Readonly<Record<string, unknown>>, message: string): void;
  error(fields: Readonly<Record<string, unknown>>, message: string): void;
}

export interface NodeOptions {
  readonly stateDir: string;
  readonly log: Logger;
  /** The node has left: the process may end. */
  readonly onLeft: () => void;
}

/** iSCSI sessions first: pulse and the next start read where the disks are now. */
async function withReachedLuns(
  options: NodeOptions,
  settings: NodeSettings,
): Promise<NodeSettings> {
  if (settings.iscsi === undefined || settings.iscsi.length === 0) {
    return settings;
  }
  const { paths, iscsi, notes } = await reconnectLuns(settings);
  for (const note of notes) {
    options.log.info({}, note);
  }
  const reached = { ...settings, paths, iscsi };
  writeSettings(options.stateDir, reached);
  return reached;
}

function writeSettings(stateDir: string, settings: NodeSettings): void {
  writeFileAtomic(join(stateDir, "node.json"), `${JSON.stringify(settings, undefined, 2)}\n`);
}

export class Node {
  readonly stateDir: string;
  readonly settings: NodeSettings;
  readonly region: Region;
  readonly clock: Clock = createClock();
  readonly events: EventLog;
  readonly members: Members;
  readonly keeper: PulseKeeper;
  readonly disk: DiskAccess;
  readonly directory: LeaseDirectory;
  readonly leases: LeaseManager;
  readonly views: LeaseViews;
  readonly groups: GroupManager;
  readonly bindings: Bindings;
  readonly config: ConfigHolder;
  readonly loss: LossHandler;
  readonly file: LeaseFile;
  readonly #options: NodeOptions;
  readonly #random: Random = createRandom();
  readonly #machineIdHash: bigint;
  readonly #regionConfig: RegionConfig;
  readonly #bootId = readBootId();
  #state: NodeState = "joining";
  #why: string | undefined;
  #self: Self | undefined;
  /** What a daemon of this boot has left. */
  #inherited: LeaseNotes | undefined;
  #isAdopting = false;
  #outbox = new OutboxKeeper();
  #dataIsLocal = false;
  #api: ControlApi | undefined;
  #isClosed = false;
  #ttlTimer: NodeJS.Timeout | undefined;
  #configTimer: NodeJS.Timeout | undefined;
  #reprobedAtMs = 0;

  constructor(options: NodeOptions, settings: NodeSettings, region: Region, stateId: string) {
    this.#options = options;
    this.stateDir = options.stateDir;
    this.settings = settings;
    this.region = region;
    this.#machineIdHash = nodeIdentity(settings.node, stateId, "none").machineIdHash;
    const onEvent = this.#onEvent;
    const clock = this.clock;
    this.events = new EventLog({ stateDir: this.stateDir, clock, wallMs: Date.now });
    this.file = new LeaseFile(this.stateDir, this.#bootId);
    this.keeper = this.#makeKeeper();
    this.members = new Members({
      clock,
      settings: () => this.#memberSettings(),
      observe: async () => {
        await this.keeper.client.observe();
      },
    });
    this.disk = new DiskAccess({
      devices: region.devices,
      luns: region.lunSet,
      deadlineMs: region.timings.deadlineMs,
      clock,
      pulse: this.#pulseAccess(),
      isLost: () => this.#state === "lost",
    });
    const index = new RegionIndex({ ...this.#common(), region, disk: this.disk });
    this.directory = new LeaseDirectory(index);
    this.leases = this.#makeLeases();
    this.views = new LeaseViews({
      disk: this.disk,
      members: this.members,
      isHeldHere: (name) => this.leases.hold(name) !== undefined,
    });
    this.groups = this.#makeGroups();
    this.bindings = new Bindings({
      release: async (binding) => {
        await this.leases.releaseBound(binding);
      },
      protect: this.#protect,
      persist: this.#persist,
      onEvent,
    });
    this.loss = new LossHandler({ clock, groupEdges: GROUP_EDGES, onEvent });
    this.#regionConfig = new RegionConfig({
      region,
      disk: this.disk,
      leases: this.leases,
      nodeName: settings.node,
      self: () => this.#self,
      context: () => this.refusalContext(),
    });
    this.config = new ConfigHolder(this.#regionConfig, region.timings, () => {
      this.#dataIsLocal = this.#isDataLocal();
    });
  }

  /** @throws ERR_NODE_SETTINGS, ERR_STATE_DIR, the errors of openRegion, ERR_SOCKET_IN_USE */
  static async start(options: NodeOptions): Promise<Node> {
    const { stateId } = openStateDir(options.stateDir);
    const settings = await withReachedLuns(options, readNodeSettings(options.stateDir));
    const region = await openRegion({
      paths: settings.paths,
      stateDir: options.stateDir,
      lockName: "daemon",
      lockWaitMs: LOCK_WAIT_MS,
    });
    const node = new Node(options, settings, region, stateId);
    try {
      await node.#serve();
    } catch (error) {
      await region.close();
      throw error;
    }
    return node;
  }

  get state(): NodeState {
    return this.#state;
  }

  get why(): string | undefined {
    if (this.#state === "joining") {
      return this.keeper.trouble?.message ?? "the heartbeat is being started";
    }
    const left = [...this.loss.left, ...this.bindings.left];
    return left.length === 0 ? this.#why : `${this.#why ?? ""}; still there: ${left.join("; ")}`;
  }

  get self(): Self | undefined {
    return this.#self;
  }

  /**
   * Joins, or goes on as its predecessor left off.
   * @param confirmOff a human has made sure that the node which had this name or host id is off
   * @throws why this node can never join as it is
   */
  async join(confirmOff = false): Promise<void> {
    refuseStuckPulse(this.stateDir);
    // Before a pulse is met: without them nobody would know what has to be torn down.
    const notes = this.file.read();
    this.#inherited = notes?.bootId === this.#bootId ? notes : undefined;
    await this.config.refresh();
    this.#armConfigTimer();
    if (await this.keeper.adopt()) {
      return;
    }
    const tornDown = await cleanUpAfterPredecessor({
      notes: this.#inherited,
      loss: this.loss,
      events: this.events,
      boundMs: this.region.timings.watchdogMs - this.region.timings.ttlMs,
      isClosed: () => this.#isClosed,
    });
    await this.keeper.join(tornDown, confirmOff);
  }

  /** Why nothing may be granted now; undefined when it may. */
  hindrance(): ShareHaError | undefined {
    if (this.#state !== "joined") {
      const code = this.#state === "lost" ? "ERR_NODE_LOST" : "ERR_NOT_JOINED";
      return new ShareHaError(code, `this node is ${this.#state}: ${this.why ?? "for a moment"}`, {
        hint: "It joins by itself when that is safe; sharedha status tells.",
      });
    }
    const foreign = this.members.foreignProblem();
    return foreign === undefined
      ? undefined
      : new ShareHaError("ERR_FOREIGN_HOSTS", foreign, {
          hint: "Give every member a hardware watchdog, or set foreign_unprotected = true in the configuration.",
        });
  }

  refusalContext(): RefusalContext {
    const { members } = this;
    return {
      nameOf: (hostId) => members.nameOf(hostId),
      verdict: (hostId, generation) => members.verdict(hostId, generation),
      isLive: (hostId, generation) => members.isLive(hostId, generation),
      selfId: this.#self?.hostId,
    };
  }

  placeOfLun(): DataPlace {
    const { data } = this.region;
    if (data === undefined) {
      throw new ShareHaError(
        "ERR_NO_DATA",
        'the LUN has no room for data beside the region, so device = "lun" means nothing',
        {
          hint: "Name the device's path in the group's configuration, or make the cluster with: sharedha init --mkfs",
        },
      );
    }
    return data;
  }

  /** A new path is noted for the next start of this node's processes, which take it up then. */
  async replaceLun(body: ReplaceLunBody): Promise<LunReplacedBody> {
    const { path } = body;
    const lost = this.region.luns.filter((lun) => !lun.counts).map((lun) => lun.path);
    const replaced = await this.#regionConfig.replaceLun(body);
    const { paths } = this.settings;
    if (!paths.includes(path)) {
      const gone = lost.find((each) => paths.includes(each));
      writeSettings(this.stateDir, {
        ...this.settings,
        paths: paths.map((each) => (each === gone ? path : each)),
      });
    }
    this.#onEvent("lun-replaced", `LUN ${replaced.lun} is ${path} now, epoch ${replaced.epoch}`, {
      lun: replaced.lun,
      path,
    });
    return replaced;
  }

  /** @throws ERR_BUSY with what is held, ERR_PULSE */
  async leave(): Promise<void> {
    const busy = this.leases.busy.map((each) => `${each.name} (${each.doing})`);
    if (busy.length > 0 || this.groups.isAnyUp) {
      throw new ShareHaError("ERR_BUSY", `this node cannot leave: ${busy.join(", ")}`, {
        hint: "Release what it holds first: sharedha release, sharedha lease release NAME.",
        fields: { held: busy.length },
      });
    }
    if (this.#state === "lost") {
      throw new ShareHaError("ERR_NODE_LOST", `this node is being torn down: ${this.why ?? ""}`, {
        hint: "Wait until that is over; sharedha status tells.",
      });
    }
    const before = this.#state;
    this.#state = "leaving";
    try {
      await this.keeper.disarm();
      await this.keeper.leave(LEAVE_MS);
    } catch (error) {
      this.#state = before;
      throw error;
    }
    this.#onEvent("left", `node ${this.settings.node} left`);
    this.#self = undefined;
    this.file.remove();
    this.#options.onLeft();
  }

  /** Ends this daemon; what it holds stays for the next one. */
  async close(graceMs = 0): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#ttlTimer);
    clearTimeout(this.#configTimer);
    this.members.close();
    this.leases.close();
    this.keeper.close();
    await this.#api?.close(graceMs);
    this.disk.close();
    await this.loss.close();
    await this.events.flush();
    await this.region.close();
  }

  async #serve(): Promise<void> {
    this.#api = await serveControlApi({
      path: join(this.stateDir, "control.sock"),
      node: new NodeApi(this),
      onDefect: (error, what) => {
        this.#options.log.error({ err: error }, what);
      },
    });
  }

  #common() {
    return {
      clock: this.clock,
      random: this.#random,
      self: () => this.#self,
      evidenceFor: (hostId: number, generation: bigint) =>
        this.members.evidenceFor(hostId, generation),
      nameOf: (hostId: number) => this.members.nameOf(hostId),
      wallSeconds: () => BigInt(Math.floor(Date.now() / 1_000)),
    };
  }

  #pulseAccess() {
    const { keeper } = this;
    return {
      get standing() {
        return keeper.standing;
      },
      arm: async () => await keeper.arm(),
      stuck: async (stuck: boolean) => {
        await keeper.stuck(stuck);
      },
      post: async (change: Parameters<PulseKeeper["post"]>[0]) => {
        const complete = this.#outbox.complete(change);
        const accepted = await keeper.post(complete);
        if (accepted) {
          this.#outbox.accepted(complete);
        }
        return accepted;
      },
    };
  }

  #makeKeeper(): PulseKeeper {
    return new PulseKeeper({
      stateDir: this.stateDir,
      clock: this.clock,
      timings: this.region.timings,
      policyFlags: () => {
        const { acceptGuard, vmPause, foreignWatchdog } = this.config.current;
        return [
          ...(acceptGuard ? ["--accept-guard"] : []),
          ...(vmPause === "never" ? ["--vm-pause-never"] : []),
          ...(foreignWatchdog ? ["--foreign-watchdog"] : []),
        ];
      },
      groupUp: () => this.groups.isAnyUp || this.bindings.count > 0,
      onHello: (hello, how) => {
        this.#met(hello, how);
      },
      onBeat: this.#onBeat,
      onLost: (why) => {
        this.lose(why);
      },
      onEvent: this.#onEvent,
    });
  }

  #makeLeases(): LeaseManager {
    const { timings, geometry, maxHosts } = this.region;
    const outboxes: ReadOp = {
      kind: "read",
      offset: outboxOffset(geometry, 1),
      length: outboxesReadLength(geometry, maxHosts),
    };
    return new LeaseManager({
      ...this.#common(),
      disk: this.disk,
      intervalMs: timings.intervalMs,
      deadlineMs: timings.deadlineMs,
      holdBackMs: holdBackMs(timings),
      hindrance: () => this.hindrance(),
      lookup: async (name) => await this.directory.lookup(name),
      forget: (name) => {
        this.directory.forget(name);
      },
      isLive: (hostId, generation) => this.members.isLive(hostId, generation),
      outboxes: () => outboxes,
      waiters: (area) => this.members.waitersFor(area),
      hasTicket: (area) => this.#outbox.has("ticket", area),
      dropTicket: async (area) => {
        const change = { remove: [{ kind: "ticket" as const, area, targetHostId: 0 }], add: [] };
        await this.#pulseAccess().post(change);
      },
      watch: async (leases) => {
        await this.keeper.client.watch(leases);
      },
      disarm: async () => await this.keeper.disarm(),
      persist: this.#persist,
      onEvent: this.#onEvent,
    });
  }

  #makeGroups(): GroupManager {
    return new GroupManager({
      edges: GROUP_EDGES,
      clock: this.clock,
      nodeName: () => this.settings.node,
      specs: () => this.config.current.groups,
      placeOfLun: () => this.placeOfLun(),
      leases: this.leases,
      createLease: async (name) => {
        if ((await this.directory.lookup(name)) !== undefined) {
          return;
        }
        try {
          await this.directory.create(name);
        } catch (error) {
          // Two nodes may reserve a new group at the same time.
          if (!(error instanceof ShareHaError) || error.code !== "ERR_LEASE_EXISTS") {
            throw error;
          }
        }
      },
      hasRight: () => this.disk.hasRight(),
      protect: this.#protect,
      persist: this.#persist,
      onEvent: this.#onEvent,
    });
  }

  #met(hello: Hello, how: HowJoined): void {
    if (this.#state === "lost" && how === "resumed") {
      // The teardown is under way and lets this pulse end.
      return;
    }
    const { hostId, generation } = hello;
    this.#self = { hostId, generation };
    const own = hello.beat.outboxes.find(
      (outbox) => outbox.hostId === hostId && outbox.generation === generation,
    );
    this.#outbox = new OutboxKeeper(own?.entries ?? []);
    this.members.note(hello.beat, hostId);
    const id = `host ${hostId}, generation ${generation}`;
    this.#onEvent(
      how,
      `pulse: ${id}, watchdog ${hello.watchdog.kind}, evidence ${hello.joinEvidence}`,
      {
        hostId,
        generation: String(generation),
      },
    );
    const self = this.#self;
    this.#settleIn(how, self).catch((error: unknown) => {
      this.#options.log.error({ err: error }, "pulse could not be told what is held");
      if (this.#self === self) {
        this.lose(error instanceof Error ? error.message : String(error));
      }
    });
  }

  /** Pulse has been met: tells it everything it has to know before anything is granted. */
  async #settleIn(how: HowJoined, self: Self): Promise<void> {
    // Lost meanwhile: then it is somebody else's turn to say what this node is.
    const isCurrent = (): boolean => this.#self === self;
    if (how === "adopted" && !(await this.#adopt(self, isCurrent))) {
      return;
    }
    this.disk.tellAgain();
    const { client } = this.keeper;
    await client.watch(this.leases.watched());
    if (isCurrent()) {
      await this.#protect();
    }
    if (isCurrent()) {
      this.#persist();
      this.leases.reopen();
      this.#state = "joined";
      this.#why = undefined;
      this.leases.settleDown();
    }
  }

  /** @returns whether the generation can go on */
  async #adopt(self: Self, isCurrent: () => boolean): Promise<boolean> {
    this.#isAdopting = true;
    try {
      const adopted = await adoptHolds(this, this.#inherited, self, isCurrent);
      if (isCurrent() && adopted.kind === "lost") {
        this.lose(adopted.why);
      }
      return isCurrent();
    } finally {
      this.#isAdopting = false;
    }
  }

  readonly #onBeat = (beat: Beat): void => {
    const self = this.#self;
    if (self === undefined) {
      return;
    }
    this.members.note(beat, self.hostId);
    if (beat.lost !== undefined) {
      this.lose(beat.lost);
      return;
    }
    this.#watchTtl(beat.renewedAtMs);
    this.#reprobeWhenDue();
  };

  /** Pulse may be stopped and say nothing: the daemon sees T pass by itself. */
  #watchTtl(renewedAtMs: number | undefined): void {
    clearTimeout(this.#ttlTimer);
    if (renewedAtMs === undefined || this.#isClosed) {
      return;
    }
    const restMs = renewedAtMs + this.region.timings.ttlMs - this.clock.bootMs();
    this.#ttlTimer = setTimeout(
      () => {
        const ageMs = this.clock.bootMs() - renewedAtMs;
        if (ageMs < this.region.timings.ttlMs) {
          this.#watchTtl(renewedAtMs);
        } else if (this.#state === "joined") {
          this.lose(`no renewal was heard of for ${Math.round(ageMs)} ms`);
        }
      },
      Math.max(1, Math.ceil(restMs)),
    );
  }

  /** The right to write is gone: once per generation, whoever notices first. */
  lose(why: string): void {
    const self = this.#self;
    if (self === undefined || this.#isClosed) {
      return;
    }
    this.#state = "lost";
    this.#why = why;
    this.#self = undefined;
    clearTimeout(this.#ttlTimer);
    const holds = this.leases.lose();
    const mounts = this.groups.lose();
    this.bindings.lose(this.#termMs());
    this.#onEvent("lost", `the right to write is lost: ${why}`, { held: holds.length });
    this.#afterLoss(self, mounts).catch((error: unknown) => {
      this.#options.log.error({ err: error }, "the teardown failed");
      this.#why = `${why}; and the teardown failed: ${error instanceof Error ? error.message : String(error)}`;
    });
  }

  /** Half of the time from T to W is for TERM (DESIGN section 8); one who notices late has less. */
  #termMs(): number {
    const { watchdogMs, ttlMs } = this.region.timings;
    const untilMs = this.keeper.standing.renewedAtMs + (ttlMs + watchdogMs) / 2;
    return Math.max(0, Math.min((watchdogMs - ttlMs) / 2, untilMs - this.clock.bootMs()));
  }

  async #afterLoss(self: Self, mounts: Parameters<LossHandler["tearDownAll"]>[0]): Promise<void> {
    const { watchdogMs, ttlMs, intervalMs } = this.region.timings;
    const isClosed = (): boolean => this.#isClosed;
    const isWorking = (): boolean => this.groups.isWorking || this.#isAdopting;
    const wasWorking = isWorking();
    await this.loss.tearDownAll(mounts, watchdogMs - ttlMs, isClosed);
    // Until the last process has ended, and the last I/O that may yet land has returned, this node is not silent.
    const isQuiet = (): boolean =>
      this.bindings.count === 0 && !isWorking() && !this.disk.stuck && this.disk.inFlight === 0;
    while (!isClosed() && !isQuiet()) {
      await new Promise((resolve) => setTimeout(resolve, intervalMs));
    }
    if (wasWorking) {
      // A mount(8) that was under way may have come to its end since.
      await this.loss.tearDownAll(mounts, watchdogMs - ttlMs, isClosed);
    }
    if (isClosed()) {
      return;
    }
    await this.keeper.endLost();
    await this.keeper.join(self);
  }

  readonly #onEvent = (
    event: string,
    text: string,
    fields: Readonly<Record<string, string | number>> = {},
  ): void => {
    this.events.add(event, text, fields);
  };

  readonly #persist = (): void => {
    const self = this.#self;
    if (self !== undefined) {
      this.file.write({
        ...self,
        bootId: this.#bootId,
        daemon: ownProcessId(),
        held: this.leases.notes(),
        mounts: this.groups.notes(),
        processes: this.bindings.leaders,
      });
    }
  };

  readonly #protect = async (): Promise<void> => {
    if (this.#self === undefined) {
      // Lost: pulse and guard keep what they know, until the teardown is over.
      return;
    }
    const protect = this.#protected();
    // Threads that stand ready only make a teardown quicker; nobody waits for them.
    void this.loss.prepare(protect.mounts.length);
    await this.keeper.client.protect(protect);
  };

  #protected(): Protected {
    const mounts = this.groups.targets;
    const processes = this.bindings.processes;
    if (mounts.length === 0 && processes.length === 0) {
      return { mounts, processes };
    }
    // A daemon that is stopped while the guard acts must not go on with the group when it is continued.
    return { mounts, processes: [...processes, ownProcessId()] };
  }

  #memberSettings(): MemberSettings {
    const { acceptGuard, vmPause, foreignUnprotected, foreignWatchdog } = this.config.current;
    return {
      lunCount: this.region.lunSet.total,
      timings: this.region.timings,
      machineIdHash: this.#machineIdHash,
      vmPauseNever: vmPause === "never",
      acceptGuard,
      foreignUnprotected,
      foreignWatchdog,
      dataIsLocal: this.#dataIsLocal,
    };
  }

  /** All data lies in regular files or loop devices of this machine: a guard's word can then be checked (DESIGN 8). */
  #isDataLocal(): boolean {
    const paths = this.config.current.groups.map((group) =>
      group.device === "lun" ? (this.region.data?.path ?? "") : group.device,
    );
    const all = [...paths, ...this.region.luns.map((lun) => lun.path)];
    try {
      return all.every((path) => {
        const facts = probeLun(path);
        return !facts.isBlock || facts.loopBacking !== undefined;
      });
    } catch (error) {
      if (error instanceof ShareHaError) {
        return false;
      }
      throw error;
    }
  }

  #armConfigTimer(): void {
    this.#configTimer = setTimeout(() => {
      void this.config.refresh().finally(() => {
        if (!this.#isClosed) {
          this.#armConfigTimer();
        }
      });
    }, REFRESH_EVERY_MS);
  }

  #reprobeWhenDue(): void {
    const nowMs = this.clock.bootMs();
    const isDue = nowMs - this.#reprobedAtMs > REPROBE_EVERY_MS;
    if (isDue && this.region.luns.some((lun) => !lun.counts || lun.state !== "ok")) {
      this.#reprobedAtMs = nowMs;
      this.region.reprobe().then(
        (result) => {
          if (result.changed) {
            this.#onEvent(
              "luns-changed",
              result.notes.length === 0 ? "every LUN counts" : result.notes.join(" "),
            );
          }
        },
        (error: unknown) => {
          this.#options.log.error({ err: error }, "looking at the LUNs again failed");
        },
      );
    }
  }
}

function ownProcessId(): ProcessId {
  const { pid, startTime } = ownIdentity();
  return { pid, startTime: String(startTime) };
}
