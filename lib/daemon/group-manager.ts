/**
 * Groups: the lease first, then the data (DESIGN sections 8 and 10). The order of a start is
 *
 *     lease -> cut what this machine still has mounted of it -> attach -> protect (notes, pulse, guard)
 *           -> write, flush, read back -> drop caches -> check -> mount
 *
 * and of a stop the reverse: unmount, then release. A loss in between aborts it, and is over only when it has ended.
 */
import { setTimeout } from "node:timers/promises";

import { ShareHaError } from "../errors.js";
import { type Group, leaseNameOf, LUN_DEVICE, mayRunOn } from "../group/group.js";
import { type ReservedBody } from "../net/api.js";
import { type Clock } from "../port/clock.js";
import { type FileIdentity } from "../system/loop.js";
import { type MountTarget } from "../system/mounted-filesystem.js";
import { type Mount } from "../system/mounts.js";
import {
  type DataDevice,
  type DataPlace,
  describeMount,
  type GroupEdges,
  stillMounted,
} from "./data-device.js";
import { type MountNote } from "./lease-file.js";
import {
  type AcquireRequest,
  type Hold,
  type LeaseManager,
  type LocalOutcome,
} from "./lease-manager.js";

/** Killed programs need a moment to end; 2 s. */
const CLAIM_LOOKS = 40;
const CLAIM_PAUSE_MS = 50;

const UNFINISHED = "a daemon that has ended was about to start or to stop it";

export type GroupState = "up" | "down" | "starting" | "stopping" | "failed";

export interface GroupManagerOptions {
  readonly edges: GroupEdges;
  readonly clock: Clock;
  readonly nodeName: () => string;
  readonly specs: () => readonly Group[];
  /** Where "lun" is. @throws ERR_NO_DATA */
  readonly placeOfLun: () => DataPlace;
  readonly leases: Pick<LeaseManager, "acquire" | "release" | "hold">;
  readonly createLease: (name: string) => Promise<void>;
  readonly hasRight: () => boolean;
  /** Tells pulse, and so the guard, what must not outlive the right to write. */
  readonly protect: () => Promise<void>;
  readonly persist: () => void;
  readonly onEvent: (event: string, text: string, fields: Record<string, string | number>) => void;
}

interface Running {
  state: GroupState;
  why: string | undefined;
  /** Announced to pulse before the first write. */
  target: MountTarget | undefined;
  data: DataDevice | undefined;
  /** Something of this group may have the device: a write, fsck, mount(8). It is down when nothing has it any more. */
  isTouched: boolean;
}

export type ReserveOutcome =
  | Exclude<LocalOutcome, { kind: "granted" }>
  | { readonly kind: "reserved"; readonly body: ReservedBody };

interface Step {
  readonly step: string;
  readonly ms: number;
}

export class GroupManager {
  readonly #options: GroupManagerOptions;
  readonly #groups = new Map<string, Running>();
  #aborting = new AbortController();
  #working = 0;

  constructor(options: GroupManagerOptions) {
    this.#options = options;
  }

  state(name: string): { readonly state: GroupState; readonly why: string | undefined } {
    const { state, why } = this.#groups.get(name) ?? { state: "down" as const, why: undefined };
    return { state, why };
  }

  /** What must be cut when the right to write is lost: also what is just being mounted, and what an unmount has not ended. */
  get targets(): readonly MountTarget[] {
    return this.#all().flatMap((group) => group.target ?? []);
  }

  get isAnyUp(): boolean {
    return this.#all().some((group) => group.state !== "down" && group.state !== "failed");
  }

  notes(): readonly MountNote[] {
    return [...this.#groups].flatMap(([name, group]) =>
      group.target === undefined
        ? []
        : [
            {
              group: name,
              path: group.target.path,
              device: group.data?.device ?? "",
              deviceId: group.target.device,
              attached: group.data?.attached,
            },
          ],
    );
  }

  /** "-" is the only group there is. @throws ERR_NO_SUCH_GROUP, ERR_WHICH_GROUP */
  find(name: string): Group {
    const specs = this.#options.specs();
    const only = specs[0];
    if (name === "-") {
      if (only === undefined || specs.length > 1) {
        const names = specs.map((spec) => spec.name).join(", ");
        throw new ShareHaError(
          "ERR_WHICH_GROUP",
          only === undefined ? "no group is configured" : `there are several groups: ${names}`,
          {
            hint:
              only === undefined
                ? "Write one into the configuration: sharedha config edit"
                : "Name the one that is meant.",
          },
        );
      }
      return only;
    }
    const spec = specs.find((each) => each.name === name);
    if (spec === undefined) {
      throw new ShareHaError("ERR_NO_SUCH_GROUP", `there is no group ${name}`, {
        hint:
          specs.length === 0
            ? "No group is configured; write one into the configuration: sharedha config edit"
            : `Configured: ${specs.map((each) => each.name).join(", ")}`,
        fields: { group: name },
      });
    }
    return spec;
  }

  /** @throws ERR_NOT_A_CANDIDATE, what acquire throws, and what keeps the group from starting once the lease is held */
  async reserve(
    spec: Group,
    request: Pick<AcquireRequest, "waitMs" | "signal">,
  ): Promise<ReserveOutcome> {
    this.#requireCandidate(spec);
    const steps: Step[] = [];
    const name = leaseNameOf(spec.name);
    const known = this.#groups.get(spec.name);
    const isHeld = this.#options.leases.hold(name) !== undefined;
    if (known?.state === "failed" && (known.target !== undefined || isHeld)) {
      throw new ShareHaError(
        "ERR_GROUP_STUCK",
        `group ${spec.name} has not ended here: ${known.why ?? ""}`,
        {
          hint: "Release it first; if that fails, only a restart of this machine clears it.",
          fields: { group: spec.name },
        },
      );
    }
    await this.#options.createLease(name);
    const outcome = await this.#timed(steps, "lease", async () =>
      this.#options.leases.acquire({
        name,
        shared: false,
        ...request,
        group: spec.name,
      }),
    );
    if (outcome.kind !== "granted") {
      return outcome;
    }
    const group: Running = {
      state: "starting",
      why: undefined,
      target: undefined,
      data: undefined,
      isTouched: false,
    };
    this.#groups.set(spec.name, group);
    await this.#work(async () => {
      try {
        await this.#start(spec, group, outcome.hold, steps);
      } catch (error) {
        await this.#undo(spec, group, error);
        throw error;
      }
    });
    group.state = "up";
    return { kind: "reserved", body: bodyOf(spec, outcome.hold, outcome.waitedMs, steps) };
  }

  /** @returns false when the group is not up here. @throws ERR_MOUNT_BUSY: it stays up */
  async release(spec: Group): Promise<boolean> {
    const group = this.#groups.get(spec.name);
    const isHeld = this.#options.leases.hold(leaseNameOf(spec.name)) !== undefined;
    if (group === undefined || (group.state === "down" && !isHeld)) {
      return false;
    }
    if (group.state === "starting" || group.state === "stopping") {
      throw new ShareHaError("ERR_BUSY", `group ${spec.name} is ${group.state} at this moment`, {
        hint: "Try again when that is over; sharedha status tells.",
        fields: { group: spec.name },
      });
    }
    const before = group.state;
    group.state = "stopping";
    try {
      await this.#work(async () => {
        await this.#stop(spec.name, group);
      });
    } catch (error) {
      const { target } = group;
      const isUp =
        target !== undefined && isMounted(this.#options.edges.findMount(target.path), target);
      group.state = isUp ? before : "failed";
      group.why = isUp || !(error instanceof Error) ? undefined : error.message;
      throw error;
    }
    const released = await this.#options.leases.release(leaseNameOf(spec.name));
    this.#groups.delete(spec.name);
    if (released.kind === "unfinished") {
      throw new ShareHaError(
        "ERR_NO_QUORUM",
        `group ${spec.name} is down, its lease is not released yet: ${released.why}`,
        {
          hint: "It is tried again until a majority of the LUNs has it; others can take it then.",
          fields: { group: spec.name },
        },
      );
    }
    return true;
  }

  /** What the daemon before this one mounted, under a lease that is still held. */
  adopt(name: string, target: MountTarget, data: DataDevice): void {
    this.#groups.set(name, { state: "up", why: undefined, target, data, isTouched: true });
  }

  /** What the daemon before this one had not finished to start or to stop, under a lease that is still held. */
  adoptUnfinished(name: string, target: MountTarget, data: DataDevice): void {
    this.#groups.set(name, { state: "failed", why: UNFINISHED, target, data, isTouched: true });
  }

  /** Of an earlier generation or without its lease, and nothing is left of it. */
  drop(name: string): void {
    this.#groups.delete(name);
  }

  /** Of which nothing is mounted, and whose lease is still held: up if it has no mount, else not finished. */
  adoptBare(name: string): void {
    const hasMount = this.#options.specs().find((spec) => spec.name === name)?.mount !== undefined;
    this.#groups.set(name, {
      state: hasMount ? "failed" : "up",
      why: hasMount ? UNFINISHED : undefined,
      target: undefined,
      data: undefined,
      isTouched: false,
    });
  }

  /** A start or a stop is under way, which may write: also after a loss, until it has come to its end. */
  get isWorking(): boolean {
    return this.#working > 0;
  }

  /** The right to write is gone; what is mounted is torn down by teardown.ts. Returns what has to go. */
  lose(): readonly {
    readonly name: string;
    readonly target: MountTarget;
    readonly data: DataDevice;
  }[] {
    const lost = [...this.#groups].flatMap(([name, { target, data }]) =>
      target === undefined || data === undefined ? [] : [{ name, target, data }],
    );
    this.#groups.clear();
    this.#aborting.abort();
    this.#aborting = new AbortController();
    return lost;
  }

  async #work(task: () => Promise<void>): Promise<void> {
    this.#working++;
    try {
      await task();
    } finally {
      this.#working--;
    }
  }

  #all(): readonly Running[] {
    return [...this.#groups.values()];
  }

  #requireCandidate(spec: Group): void {
    const own = this.#options.nodeName();
    if (!mayRunOn(spec, own)) {
      throw new ShareHaError("ERR_NOT_A_CANDIDATE", `group ${spec.name} does not run on ${own}`, {
        hint: `Its nodes are ${spec.nodes.join(", ")}; see sharedha config show.`,
        fields: { group: spec.name, node: own },
      });
    }
  }

  async #start(spec: Group, group: Running, hold: Hold, steps: Step[]): Promise<void> {
    const { edges, onEvent } = this.#options;
    const { mount } = spec;
    if (mount === undefined) {
      return;
    }
    const occupied = edges.findMount(mount.path);
    if (occupied !== undefined) {
      throw new ShareHaError(
        "ERR_MOUNT_POINT",
        `${mount.path} already has ${occupied.source} mounted`,
        {
          hint: "Unmount it, or give the group another path.",
          fields: { group: spec.name, path: mount.path },
        },
      );
    }
    const place = this.#placeOf(spec);
    await this.#timed(steps, "cut", async () => {
      await this.#cut(spec, place, hold.evidence.length > 0);
    });
    const data = await this.#timed(steps, "attach", async () => edges.attach(place));
    group.data = data;
    this.#requireRight(spec);
    // From here on a crash of the daemon leaves something that writes: everybody who has to know is told first.
    group.target = { path: mount.path, device: data.id };
    this.#options.persist();
    await this.#timed(steps, "protect", this.#options.protect);
    this.#requireRight(spec);
    const { signal } = this.#aborting;
    group.isTouched = true;
    // After a release too: who gave the lease back may have taken it over and never come as far as this.
    await this.#timed(steps, "settle", async () => edges.settle(data.device));
    edges.flush(data.device);
    this.#requireRight(spec);
    const checked = await this.#timed(steps, "check", async () =>
      edges.check(data.device, mount.type, signal),
    );
    this.#requireRight(spec);
    if (checked.kind === "damaged" || checked.kind === "failed") {
      throw new ShareHaError(
        "ERR_FSCK",
        `the file system of group ${spec.name} is not fit to be mounted: ${checked.detail}`,
        {
          hint: checked.kind === "damaged" ? checked.remedy : "See dmesg and the checker's output.",
          fields: { group: spec.name, device: data.device },
        },
      );
    }
    await this.#timed(steps, "mount", async () =>
      edges.mount({ device: data.device, ...mount, signal }),
    );
    this.#requireRight(spec);
    // A loop device goes with its mount from now on, whoever unmounts it (the kernel's autoclear).
    await edges.detach(data);
    group.data = { ...data, attached: undefined };
    this.#options.persist();
    onEvent("mounted", `group ${spec.name}: ${data.device} on ${mount.path}, ${checked.kind}`, {
      group: spec.name,
      device: data.device,
      path: mount.path,
    });
  }

  /** @throws ERR_NODE_LOST */
  #requireRight(spec: Group): void {
    if (!this.#options.hasRight()) {
      throw new ShareHaError(
        "ERR_NODE_LOST",
        "this node lost its right to write while the group was started",
        {
          hint: "It joins again by itself; sharedha status tells when.",
          fields: { group: spec.name },
        },
      );
    }
  }

  /**
   * Mounts of the same file in other namespaces of this machine: after a take-over they belong to a node that is proven
   * silent and are cut, so that it stays silent also when it was only frozen. Without one nobody says whose they are: the
   * group is not started while there is one.
   */
  async #cut(spec: Group, place: DataPlace, isTakeOver: boolean): Promise<void> {
    const { edges, onEvent } = this.#options;
    const backing = edges.backingOf(place);
    if (backing === undefined) {
      return;
    }
    if (!isTakeOver) {
      const [mount] = edges.findForeign(backing);
      if (mount !== undefined) {
        throw stillMounted(`the data of group ${spec.name}`, mount);
      }
    }
    for (const each of isTakeOver ? edges.cutForeign(backing) : []) {
      if (each.kind !== "cut") {
        throw stillMounted(`the data of group ${spec.name}`, each.mount, each.error);
      }
      onEvent("cut", `group ${spec.name}: ${describeMount(each.mount)} was shut down`, {
        group: spec.name,
      });
    }
    await this.#requireUnclaimed(spec, backing, isTakeOver);
  }

  /** What a node on this machine was doing with the file without a mount ends too: its last close flushes, so it is waited for. */
  async #requireUnclaimed(spec: Group, backing: FileIdentity, isTakeOver: boolean): Promise<void> {
    const { edges } = this.#options;
    for (let look = 1; ; look++) {
      const [claimed] = edges.findClaimed(backing);
      if (claimed === undefined) {
        return;
      }
      const { device, holders } = claimed;
      if (!isTakeOver || look >= CLAIM_LOOKS) {
        const pids = holders.map(({ pid }) => pid).join(", ");
        throw new ShareHaError(
          "ERR_DEVICE_BUSY",
          `the data of group ${spec.name} is in use on this machine: ${device}, by ${pids === "" ? "the kernel" : `process ${pids}`}`,
          {
            hint: "A file system check, a mount or an unmount is under way there: wait for it, or end that process.",
            fields: { group: spec.name, device },
          },
        );
      }
      for (const holder of holders) {
        edges.kill(holder);
      }
      await setTimeout(CLAIM_PAUSE_MS);
    }
  }

  #placeOf(spec: Group): DataPlace {
    return spec.device === LUN_DEVICE
      ? this.#options.placeOfLun()
      : { path: spec.device, offset: 0, length: undefined };
  }

  /** After a start that failed half way: what was done is taken back, and the lease is given back if all of it was. */
  async #undo(spec: Group, group: Running, cause: unknown): Promise<void> {
    const why = cause instanceof Error ? cause.message : String(cause);
    this.#options.onEvent("group-failed", `group ${spec.name}: ${why}`, { group: spec.name });
    // Lost: what is mounted is the teardown's, now or in a moment. An unmount would write.
    const isLost = this.#groups.get(spec.name) !== group || !this.#options.hasRight();
    try {
      if (!isLost) {
        await this.#stop(spec.name, group);
        await this.#options.leases.release(leaseNameOf(spec.name));
      } else if (group.data !== undefined) {
        await this.#options.edges.detach(group.data);
      }
      group.state = "failed";
      group.why = why;
    } catch (error) {
      const left = error instanceof Error ? error.message : String(error);
      group.state = "failed";
      group.why = `${why}; and it could not be taken back: ${left}`;
    }
  }

  async #stop(name: string, group: Running): Promise<void> {
    const { edges } = this.#options;
    const startedMs = this.#options.clock.bootMs();
    const { target, data } = group;
    if (target !== undefined && isMounted(edges.findMount(target.path), target)) {
      await edges.unmount(target.path);
    }
    if (data !== undefined) {
      if (group.isTouched) {
        await edges.requireUnused(data);
      }
      await edges.detach(data);
      group.data = undefined;
    }
    const path = group.target?.path;
    group.target = undefined;
    if (path !== undefined) {
      const ms = Math.round(this.#options.clock.bootMs() - startedMs);
      this.#options.onEvent("unmounted", `group ${name}: ${path}`, { group: name, path, ms });
      await this.#options.protect();
      this.#options.persist();
    }
  }

  async #timed<T>(steps: Step[], step: string, work: () => Promise<T>): Promise<T> {
    const startedMs = this.#options.clock.bootMs();
    const result = await work();
    steps.push({ step, ms: Math.round(10 * (this.#options.clock.bootMs() - startedMs)) / 10 });
    return result;
  }
}

/** Not when something else is mounted at its path. */
function isMounted(mount: Mount | undefined, target: MountTarget): boolean {
  return mount?.devMajorMinor === target.device.majorMinor;
}

function bodyOf(spec: Group, hold: Hold, waitedMs: number, steps: readonly Step[]): ReservedBody {
  return {
    group: spec.name,
    name: hold.name,
    version: String(hold.held.leader.lver),
    shared: false,
    evidence: hold.evidence.map(({ kind, hostId, detail }) => ({ kind, hostId, detail })),
    waitedMs: Math.round(10 * waitedMs) / 10,
    mountPath: spec.mount?.path ?? null,
    steps,
  };
}
