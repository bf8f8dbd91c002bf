/** What the control API asks of a node, in terms of its parts (control-api.ts has the transport). */
import { ShareHaError } from "../errors.js";
import { leaseNameOf } from "../group/group.js";
import {
  type AcquireBody,
  type AcquiredBody,
  type ConfigBody,
  type ConfirmedBody,
  type EventsBody,
  type LeaseBody,
  type LunReplacedBody,
  type ReplaceLunBody,
  type ReservedBody,
  type StatusBody,
} from "../net/api.js";
import { type ClientContext, type ControlNode } from "./control-api.js";
import { type Hold, type LocalOutcome, noSuchLease } from "./lease-manager.js";
import { type ListedLeases, whyOf } from "./lease-views.js";
import { type Node } from "./node.js";
import { refusalOf } from "./refusals.js";
import { type Hindrance, isInternal, statusBody } from "./status.js";

export class NodeApi implements ControlNode {
  readonly #node: Node;

  constructor(node: Node) {
    this.#node = node;
  }

  async status(): Promise<StatusBody> {
    const node = this.#node;
    const { listed, hindrances } = await this.#listed();
    await node.config.refresh();
    const hello = node.keeper.hello;
    return statusBody({
      region: node.region,
      nodeName: node.settings.node,
      state: node.state,
      why: node.state === "joined" ? undefined : node.why,
      hello: node.self === undefined ? undefined : hello,
      beat: node.keeper.beat,
      nowMs: node.clock.bootMs(),
      members: node.members.bodies(),
      groups: node.config.current.groups,
      groupManager: node.groups,
      listed,
      hindrances: [...hindrances, ...this.#ownHindrances()],
    });
  }

  async events(after: number, waitMs: number, signal: AbortSignal): Promise<EventsBody> {
    return await this.#node.events.waitAfter(after, waitMs, signal);
  }

  async leases(): Promise<{ readonly leases: readonly LeaseBody[] }> {
    const addresses = await this.#node.directory.list();
    const { leases, unread } = await this.#node.views.all(addresses);
    const first = unread[0];
    if (first !== undefined) {
      throw new ShareHaError("ERR_NO_QUORUM", `lease ${first.name} cannot be read: ${first.why}`, {
        hint: "Check the paths to the LUNs: sharedha status",
      });
    }
    return { leases: leases.filter((lease) => !isInternal(lease.name)) };
  }

  async lease(name: string): Promise<LeaseBody> {
    const { directory, views } = this.#node;
    for (let attempt = 1; attempt <= 2; attempt++) {
      const address = await directory.lookup(name);
      if (address === undefined) {
        break;
      }
      const look = await views.look(address);
      if (look.kind === "view") {
        return views.bodyOf(address, look.view);
      }
      directory.forget(name);
      if (look.kind === "no-quorum") {
        throw new ShareHaError("ERR_NO_QUORUM", `lease ${name} cannot be read: ${whyOf(look)}`, {
          hint: "Check the paths to the LUNs: sharedha status",
        });
      }
    }
    throw noSuchLease(name);
  }

  async createLease(name: string): Promise<LeaseBody> {
    this.#requireChangeable(name);
    this.#requireMember();
    await this.#node.directory.create(name);
    this.#node.leases.settleDown();
    this.#node.events.add("lease-created", `lease ${name}`, { lease: name });
    return await this.lease(name);
  }

  async deleteLease(name: string): Promise<LeaseBody> {
    this.#requireChangeable(name);
    this.#requireMember();
    const before = await this.lease(name);
    await this.#node.directory.remove(name);
    this.#node.leases.settleDown();
    this.#node.events.add("lease-deleted", `lease ${name}`, { lease: name });
    return { ...before, holders: [], heldHere: false, queue: [] };
  }

  async acquire(name: string, body: AcquireBody, client: ClientContext): Promise<AcquiredBody> {
    this.#requireChangeable(name);
    const { bindings, leases } = this.#node;
    const binding = body.bindToConnection ? bindings.bind(client.socket) : undefined;
    let outcome: LocalOutcome | undefined;
    try {
      outcome = await leases.acquire({
        name,
        shared: body.shared,
        waitMs: body.waitMs,
        signal: client.signal,
        ...(binding === undefined ? {} : { binding }),
      });
    } finally {
      if (binding !== undefined && outcome?.kind !== "granted") {
        bindings.unbind(client.socket);
      }
    }
    if (outcome.kind !== "granted") {
      throw refusalOf(name, outcome, this.#node.refusalContext());
    }
    return acquiredBody(outcome.hold, outcome.waitedMs);
  }

  async release(name: string, client: ClientContext): Promise<void> {
    const { bindings, leases } = this.#node;
    const hold = leases.hold(name);
    if (hold?.group !== undefined) {
      throw leaseOfGroup(name, hold.group);
    }
    if (hold?.binding !== undefined && !bindings.owns(client.socket, hold.binding)) {
      throw new ShareHaError(
        "ERR_LEASE_BOUND",
        `lease ${name} is held by a client that is still at work on this node`,
        {
          hint: "End that client (sharedha run): its processes are ended first, then the lease is released.",
          fields: { lease: name },
        },
      );
    }
    const outcome = await leases.release(name);
    if (hold?.binding !== undefined) {
      bindings.unbind(client.socket);
    }
    if (outcome.kind === "not-held") {
      throw new ShareHaError("ERR_NOT_HELD", `this node does not hold lease ${name}`, {
        hint: `sharedha lease show ${name} tells who does; only the holder releases.`,
        fields: { lease: name },
      });
    }
    if (outcome.kind === "unfinished") {
      throw new ShareHaError(
        "ERR_UNDECIDED",
        `lease ${name} is not released on a majority yet: ${outcome.why}`,
        {
          hint: "It is tried again in the background until it is.",
          fields: { lease: name },
        },
      );
    }
  }

  async reserve(name: string, waitMs: number | null, client: ClientContext): Promise<ReservedBody> {
    const node = this.#node;
    this.#requireMember();
    await node.config.read();
    const spec = node.groups.find(name);
    const outcome = await node.groups.reserve(spec, { waitMs, signal: client.signal });
    if (outcome.kind !== "reserved") {
      throw refusalOf(leaseNameOf(spec.name), outcome, node.refusalContext());
    }
    return outcome.body;
  }

  async releaseGroup(name: string): Promise<void> {
    const { groups } = this.#node;
    const spec = groups.find(name);
    if (!(await groups.release(spec))) {
      throw new ShareHaError("ERR_NOT_UP", `group ${spec.name} is not up on this node`, {
        hint: "sharedha status tells where it is.",
        fields: { group: spec.name },
      });
    }
  }

  confirmOff(name: string): ConfirmedBody {
    const { members, events } = this.#node;
    const { hostId, generation, validSeconds } = members.confirmOff(name);
    events.add("confirmed-off", `a human confirmed that ${name} is off`, {
      hostId,
      generation: String(generation),
    });
    return { hostId, generation: String(generation), validSeconds };
  }

  async protect(pid: number, client: ClientContext): Promise<void> {
    await this.#node.bindings.protect(client.socket, pid);
  }

  async config(): Promise<ConfigBody> {
    return await this.#node.config.read();
  }

  async applyConfig(body: ConfigBody): Promise<ConfigBody> {
    const stored = await this.#node.config.apply(body);
    this.#node.events.add("config-changed", `configuration ${stored.stamp}`, {
      stamp: stored.stamp,
    });
    return stored;
  }

  async undoConfig(stamp: string): Promise<ConfigBody> {
    const stored = await this.#node.config.undo(stamp);
    this.#node.events.add("config-changed", `configuration ${stored.stamp}, undone`, {
      stamp: stored.stamp,
    });
    return stored;
  }

  async replaceLun(body: ReplaceLunBody): Promise<LunReplacedBody> {
    return await this.#node.replaceLun(body);
  }

  async leave(): Promise<void> {
    await this.#node.leave();
  }

  async #listed(): Promise<{
    readonly listed: ListedLeases;
    readonly hindrances: readonly Hindrance[];
  }> {
    try {
      const addresses = await this.#node.directory.list();
      return { listed: await this.#node.views.all(addresses), hindrances: [] };
    } catch (error) {
      if (!(error instanceof ShareHaError)) {
        throw error;
      }
      const { message, hint } = error;
      return {
        listed: { leases: [], unread: [] },
        hindrances: [{ what: "the leases cannot be listed", why: message, remedy: hint }],
      };
    }
  }

  #ownHindrances(): readonly Hindrance[] {
    const { config, events, members, state } = this.#node;
    const found: Hindrance[] = [];
    const foreign = state === "joined" ? this.#node.hindrance() : undefined;
    if (foreign !== undefined) {
      found.push({ what: "no lease can be taken", why: foreign.message, remedy: foreign.hint });
    }
    if (config.trouble !== undefined) {
      const { message, hint } = config.trouble;
      found.push({ what: "the configuration is not known", why: message, remedy: hint });
    }
    if (events.fileTrouble !== undefined) {
      found.push({
        what: "events are not written down",
        why: events.fileTrouble,
        remedy: "Make room on the state directory's file system.",
      });
    }
    for (const host of members.foreignHosts()) {
      found.push({
        what: `host ${host.hostId} is a sanlock daemon`,
        why: "its watchdog cannot be seen on disk, and it does not wait in our queue",
        remedy: "Nothing, if that is meant; see docs/interop.md.",
      });
    }
    return found;
  }

  #requireMember(): void {
    const hindrance = this.#node.hindrance();
    if (hindrance !== undefined) {
      throw hindrance;
    }
  }

  /** Leases of groups and those of sharedha itself are not for direct use. */
  #requireChangeable(name: string): void {
    if (isInternal(name)) {
      throw new ShareHaError("ERR_LEASE_INTERNAL", `${name} is a lease that sharedha uses itself`, {
        hint: "Make one of your own: sharedha lease create NAME",
        fields: { lease: name },
      });
    }
    const group = this.#node.config.current.groups.find((each) => leaseNameOf(each.name) === name);
    if (group !== undefined) {
      throw leaseOfGroup(name, group.name);
    }
  }
}

function leaseOfGroup(name: string, group: string): ShareHaError {
  return new ShareHaError("ERR_LEASE_OF_GROUP", `lease ${name} belongs to group ${group}`, {
    hint: `Its data goes with it: sharedha reserve ${group}, sharedha release ${group}`,
    fields: { lease: name, group },
  });
}

function acquiredBody(hold: Hold, waitedMs: number): AcquiredBody {
  return {
    name: hold.name,
    version: String(hold.held.leader.lver),
    shared: hold.held.shared,
    evidence: hold.evidence.map(({ kind, hostId, detail }) => ({ kind, hostId, detail })),
    waitedMs: Math.round(10 * waitedMs) / 10,
  };
}
