/**
 * The leases of this node: one local holder per lease, local requests in the order in which they came, and what has to be
 * true around a grant. A grant is reported only after the hold is noted for the next daemon and pulse watches its leader;
 * the watchdog stays armed as long as anything is held or undecided.
 */
import { ShareHaError } from "../errors.js";
import { type Evidence } from "../fence/evidence.js";
import { type HeldLease, type ReleaseOutcome, type Self } from "../lease/ballot.js";
import { type WatchedLease } from "../lease/heartbeat.js";
import { type LeaseAddress } from "../lease/lease-view.js";
import { type DiskProcedure, type LunSet } from "../lease/procedure.js";
import { type IsLive } from "../lease/queue.js";
import {
  acquireOrWait,
  nameSuccessor,
  type QueueTerms,
  releaseLease,
  type WaitOutcome,
  type WaitTerms,
} from "../lease/wait.js";
import { type Clock, type Random } from "../port/clock.js";
import { type ReadOp } from "../port/disk.js";
import { settleBallot, type Settled } from "./lease-adoption.js";
import { type HeldNote } from "./lease-file.js";
import { LocalQueue } from "./local-queue.js";

/** How long a used-up ticket may stay in the outbox; whoever reads it sees that it is used up. */
const TICKET_KEPT_MS = 500;

/** Leases in use at one time on this node; pulse reads all their leaders again after a gap. */
export const HELD_MAX = 500;

export interface LeaseDisk {
  run<T>(procedure: DiskProcedure<T>, signal?: AbortSignal): Promise<T>;
  hasRight(): boolean;
  readonly luns: LunSet;
  readonly inFlight: number;
}

export interface LeaseManagerOptions {
  readonly disk: LeaseDisk;
  readonly clock: Clock;
  readonly random: Random;
  /** Seconds since 1970, for people. */
  readonly wallSeconds: () => bigint;
  readonly intervalMs: number;
  readonly deadlineMs: number;
  readonly holdBackMs: number;
  /** Undefined while this node is no member. */
  readonly self: () => Self | undefined;
  /** Why nothing may be granted at all now. */
  readonly hindrance: () => ShareHaError | undefined;
  readonly lookup: (name: string) => Promise<LeaseAddress | undefined>;
  /** What is known of where this lease lies has proved wrong. */
  readonly forget: (name: string) => void;
  readonly evidenceFor: (hostId: number, generation: bigint) => Evidence | undefined;
  readonly isLive: IsLive;
  readonly outboxes: () => ReadOp;
  /** How many other hosts had a ticket for the lease in this area when pulse last looked. */
  readonly waiters: (area: number) => number;
  /** The own outbox still has a ticket for the lease in this area. */
  readonly hasTicket: (area: number) => boolean;
  readonly dropTicket: (area: number) => Promise<void>;
  readonly watch: (leases: readonly WatchedLease[]) => Promise<void>;
  readonly disarm: () => Promise<boolean>;
  /** Notes what is held for the next daemon. Throws when that fails. */
  readonly persist: () => void;
  readonly onEvent: (event: string, text: string, fields: Record<string, string | number>) => void;
}

export interface AcquireRequest {
  readonly name: string;
  readonly shared: boolean;
  /** 0: one try; null: for ever. */
  readonly waitMs: number | null;
  /** The one who waits has gone. */
  readonly signal?: AbortSignal;
  /** Told when the hold is lost with the node's right to write. */
  readonly binding?: LeaseBinding;
  readonly group?: string;
}

/** Whose hold it is, when it lasts only as long as a client's connection. */
export interface LeaseBinding {
  readonly id: number;
}

export interface Hold {
  readonly name: string;
  readonly held: HeldLease;
  readonly binding: LeaseBinding | undefined;
  readonly group: string | undefined;
  readonly evidence: readonly Evidence[];
}

export type LocalOutcome =
  | Exclude<WaitOutcome, { kind: "granted" }>
  | { readonly kind: "granted"; readonly hold: Hold; readonly waitedMs: number }
  /** Another request of this very node has it, or is taking or releasing it. */
  | { readonly kind: "held-here"; readonly hold: Hold | undefined }
  /** The one who waited has gone. */
  | { readonly kind: "cancelled" };

export type LocalRelease =
  | { readonly kind: "released" }
  | { readonly kind: "not-held" }
  /** Not on a majority yet; it is tried again until it is. */
  | { readonly kind: "unfinished"; readonly why: string };

interface Slot {
  readonly name: string;
  readonly queue: LocalQueue;
  /** Who is inside: changes with every request that enters. */
  visit: number;
  hold: Hold | undefined;
  /** What goes on when there is no hold: for status. */
  doing: "acquiring" | "releasing" | "settling" | undefined;
}

interface Running {
  readonly controller: AbortController;
}

export class LeaseManager {
  readonly #options: LeaseManagerOptions;
  readonly #slots = new Map<string, Slot>();
  readonly #running = new Set<Running>();
  /** Counts the times this node lost its right: what began before is not carried on. */
  #life = 0;
  /** Areas whose used-up ticket will be taken out of the outbox. */
  readonly #dropping = new Set<number>();
  #closed = false;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(options: LeaseManagerOptions) {
    this.#options = options;
  }

  hold(name: string): Hold | undefined {
    return this.#slots.get(name)?.hold;
  }

  get holds(): readonly Hold[] {
    return [...this.#slots.values()].flatMap((slot) =>
      slot.hold === undefined ? [] : [slot.hold],
    );
  }

  /** What keeps the watchdog armed: names of leases that are held, being taken or released, or undecided. */
  get busy(): readonly { readonly name: string; readonly doing: string }[] {
    return [...this.#slots.values()].map((slot) => ({
      name: slot.name,
      doing: slot.hold === undefined ? (slot.doing ?? "waiting") : "held",
    }));
  }

  notes(): readonly HeldNote[] {
    return this.holds.map((hold) => ({
      name: hold.name,
      area: hold.held.address.area,
      numHosts: hold.held.address.numHosts,
      lver: hold.held.leader.lver,
      shared: hold.held.shared,
      bound: hold.binding !== undefined,
      group: hold.group,
    }));
  }

  watched(): readonly WatchedLease[] {
    return this.holds.map((hold) => ({
      area: hold.held.address.area,
      lver: hold.held.leader.lver,
      resourceName: hold.name,
      shared: hold.held.shared,
    }));
  }

  /** @throws what `hindrance` says, ERR_NO_SUCH_LEASE, ERR_TOO_MANY_LEASES, ERR_STATE_DIR, ERR_PULSE */
  async acquire(request: AcquireRequest): Promise<LocalOutcome> {
    this.#requireMayGrant();
    const startedMs = this.#options.clock.bootMs();
    const slot = this.#slotOf(request.name);
    if (slot.hold !== undefined && request.waitMs === 0) {
      return { kind: "held-here", hold: slot.hold };
    }
    const entered = await this.#enter(slot, request);
    if (entered !== "entered") {
      return entered === "cancelled"
        ? { kind: "cancelled" }
        : { kind: "held-here", hold: slot.hold };
    }
    const life = this.#life;
    slot.visit++;
    slot.doing = "acquiring";
    const { visit } = slot;
    try {
      return await this.#take(slot, request, startedMs);
    } finally {
      // Granted, being released or being settled: then whoever does that lets the next one in.
      if (life === this.#life && slot.visit === visit && isNowhere(slot)) {
        this.#leave(slot);
      }
    }
  }

  async release(name: string): Promise<LocalRelease> {
    const slot = this.#slots.get(name);
    const hold = slot?.hold;
    const self = this.#options.self();
    if (slot === undefined || hold === undefined || self === undefined) {
      return { kind: "not-held" };
    }
    const life = this.#life;
    slot.hold = undefined;
    slot.doing = "releasing";
    // Before the release, so that pulse never takes the next holder for a thief. Sent first, heard first.
    this.#watchInBackground();
    const outcome = await this.#releaseOnDisk(hold, self);
    if (life !== this.#life) {
      return { kind: "unfinished", why: "this node lost its right to write meanwhile" };
    }
    if (outcome.kind === "released") {
      void this.#afterRelease(slot, hold, outcome.held, self);
      return { kind: "released" };
    }
    void this.#settleUntilDone(slot, hold.held.address, hold.held.leader.lver, self);
    return outcome;
  }

  async #releaseOnDisk(hold: Hold, self: Self): Promise<ReleaseOutcome> {
    try {
      return await this.#options.disk.run(releaseLease(this.#options.disk.luns, self, hold.held));
    } catch (error) {
      return { kind: "unfinished", why: wordsOf(error) };
    }
  }

  /** What a closed connection leaves behind. */
  async releaseBound(binding: LeaseBinding): Promise<void> {
    for (const hold of this.holds) {
      if (hold.binding?.id === binding.id) {
        await this.release(hold.name);
      }
    }
  }

  /** A hold of this generation that the disk still shows, after a restart of the daemon. */
  adopt(
    name: string,
    held: HeldLease,
    group: string | undefined,
    binding: LeaseBinding | undefined,
  ): void {
    const slot = this.#slotOf(name);
    slot.queue.enterNow();
    slot.hold = { name, held, binding, group, evidence: [] };
  }

  /** The right to write is gone: nothing is held any more, nothing is waited for. Returns what was held. */
  lose(): readonly Hold[] {
    const holds = this.holds;
    this.#life++;
    this.#closed = true;
    clearTimeout(this.#idleTimer);
    this.#idleTimer = undefined;
    for (const running of this.#running) {
      running.controller.abort();
    }
    for (const slot of this.#slots.values()) {
      slot.queue.close();
    }
    this.#slots.clear();
    return holds;
  }

  /** This node is a member again, with a new generation. */
  reopen(): void {
    this.#closed = false;
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#idleTimer);
    this.#idleTimer = undefined;
    for (const running of this.#running) {
      running.controller.abort();
    }
  }

  #requireMayGrant(): void {
    const hindrance = this.#options.hindrance();
    if (hindrance !== undefined) {
      throw hindrance;
    }
    if (this.#closed || this.#options.self() === undefined) {
      throw notMember();
    }
  }

  #slotOf(name: string): Slot {
    const known = this.#slots.get(name);
    if (known !== undefined) {
      return known;
    }
    if (this.#slots.size >= HELD_MAX) {
      throw new ShareHaError("ERR_TOO_MANY_LEASES", `${HELD_MAX} leases are in use on this node`, {
        hint: "Release some; one lease can protect more than one thing.",
      });
    }
    const slot: Slot = {
      name,
      queue: new LocalQueue(),
      visit: 0,
      hold: undefined,
      doing: undefined,
    };
    this.#slots.set(name, slot);
    return slot;
  }

  async #enter(
    slot: Slot,
    request: AcquireRequest,
  ): Promise<"entered" | "timed-out" | "cancelled"> {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = undefined;
    // A lease that is just being released here is as good as free: one try waits that long.
    const waitMs = request.waitMs === 0 ? this.#options.deadlineMs : (request.waitMs ?? undefined);
    const entered = await slot.queue.enter(waitMs, request.signal);
    if (entered === "closed") {
      throw notMember();
    }
    return entered;
  }

  #leave(slot: Slot): void {
    slot.doing = undefined;
    slot.hold = undefined;
    if (slot.queue.leave() === "empty") {
      this.#slots.delete(slot.name);
    }
    this.#considerDisarming();
  }

  async #take(slot: Slot, request: AcquireRequest, startedMs: number): Promise<LocalOutcome> {
    const self = this.#options.self();
    if (self === undefined) {
      throw notMember();
    }
    const running: Running = { controller: new AbortController() };
    const { signal } = running.controller;
    const cancel = (): void => {
      running.controller.abort();
    };
    request.signal?.addEventListener("abort", cancel, { once: true });
    if (isCancelled(request)) {
      cancel();
    }
    this.#running.add(running);
    const life = this.#life;
    try {
      const outcome = await this.#ballot(request, self, startedMs, signal);
      if (life !== this.#life) {
        return { kind: "not-armed", why: "this node lost its right to write meanwhile" };
      }
      if (outcome.kind === "undecided") {
        const address = await this.#options.lookup(request.name);
        if (address !== undefined) {
          void this.#settleUntilDone(slot, address, outcome.lver, self);
        }
        return outcome;
      }
      if (outcome.kind !== "granted") {
        return isCancelled(request) ? { kind: "cancelled" } : outcome;
      }
      return await this.#grant(slot, request, outcome, startedMs);
    } finally {
      this.#running.delete(running);
      request.signal?.removeEventListener("abort", cancel);
    }
  }

  async #ballot(
    request: AcquireRequest,
    self: Self,
    startedMs: number,
    signal: AbortSignal,
  ): Promise<WaitOutcome> {
    const { name } = request;
    let outcome: WaitOutcome = { kind: "missing" };
    // A second look when the first one went where the lease no longer is: it was deleted and made again elsewhere.
    for (let attempt = 1; attempt <= 2 && outcome.kind === "missing"; attempt++) {
      const address = await this.#options.lookup(name);
      if (address === undefined) {
        throw noSuchLease(name);
      }
      const terms = this.#terms(address, request, self, startedMs, signal);
      outcome = await this.#options.disk.run(acquireOrWait(terms), signal);
      if (outcome.kind === "missing" || outcome.kind === "damaged") {
        this.#options.forget(name);
      }
    }
    return outcome;
  }

  #terms(
    address: LeaseAddress,
    request: AcquireRequest,
    self: Self,
    startedMs: number,
    signal: AbortSignal,
  ): WaitTerms {
    const { waitMs } = request;
    const untilMs = waitMs === null ? Infinity : waitMs === 0 ? undefined : startedMs + waitMs;
    return {
      ...this.#queueTerms(),
      address,
      luns: this.#options.disk.luns,
      self,
      shared: request.shared,
      timestamp: this.#timestamp(),
      wallSeconds: this.#options.wallSeconds(),
      random: this.#options.random,
      evidenceFor: this.#options.evidenceFor,
      // One who has gone has waited long enough; the protocol then takes its ticket back.
      get untilMs() {
        return signal.aborted && untilMs !== undefined ? -Infinity : untilMs;
      },
    };
  }

  #queueTerms(): QueueTerms {
    const { isLive, holdBackMs } = this.#options;
    return { outboxes: this.#options.outboxes(), isLive, holdBackMs };
  }

  async #grant(
    slot: Slot,
    request: AcquireRequest,
    granted: Extract<WaitOutcome, { kind: "granted" }>,
    startedMs: number,
  ): Promise<LocalOutcome> {
    const { name, binding, group } = request;
    const hold: Hold = { name, held: granted.held, binding, group, evidence: granted.evidence };
    slot.hold = hold;
    const life = this.#life;
    // Sent before the grant is reported, which is enough: pulse has it even if this process dies now, and it needs it
    // only after a gap of h + d, long before anybody could have evidence against a node that renewed just now.
    this.#watchInBackground();
    try {
      this.#options.persist();
    } catch (error) {
      void this.release(name);
      throw error;
    }
    if (life !== this.#life || !this.#options.disk.hasRight()) {
      return { kind: "not-armed", why: "this node lost its right to write meanwhile" };
    }
    if (isCancelled(request)) {
      await this.release(name);
      return { kind: "cancelled" };
    }
    const waitedMs = this.#options.clock.bootMs() - startedMs;
    this.#tellOfGrant(hold, waitedMs);
    return { kind: "granted", hold, waitedMs };
  }

  #tellOfGrant(hold: Hold, waitedMs: number): void {
    const version = String(hold.held.leader.lver);
    const ms = Math.round(waitedMs);
    for (const proof of hold.evidence) {
      this.#options.onEvent(
        "take-over",
        `lease ${hold.name} was taken over from host ${proof.hostId} (${proof.kind}: ${proof.detail})`,
        {
          lease: hold.name,
          hostId: proof.hostId,
          generation: String(proof.generation),
          evidence: proof.kind,
        },
      );
    }
    const mode = hold.held.shared ? "shared" : "exclusive";
    this.#options.onEvent("lease-granted", `lease ${hold.name}, ${mode}, version ${version}`, {
      lease: hold.name,
      version,
      mode,
      waitedMs: ms,
    });
  }

  /** Nobody waits for this: the lease is free on disk. */
  async #afterRelease(slot: Slot, hold: Hold, held: HeldLease, self: Self): Promise<void> {
    const life = this.#life;
    const { disk } = this.#options;
    const { area } = held.address;
    try {
      // A single waiter sees for itself that it is next; a notice keeps several of them apart.
      if (this.#options.waiters(area) > 1) {
        await disk.run(nameSuccessor({ ...this.#queueTerms(), luns: disk.luns, self }, held));
      }
    } catch (error) {
      // A notice that is lost costs the next one a poll (DESIGN section 6).
      this.#options.onEvent("no-handover", `lease ${hold.name}: ${wordsOf(error)}`, {});
    }
    if (life === this.#life) {
      this.#dropTicketLater(slot.name, area);
      this.#leave(slot);
      this.#persistQuietly();
      const { lver } = held.leader;
      this.#options.onEvent("lease-released", `lease ${hold.name}, version ${lver}`, {
        lease: hold.name,
        version: String(lver),
      });
    }
  }

  /** The used-up ticket goes out with the next one, or after a while, so that a contended lease costs no extra write. */
  #dropTicketLater(name: string, area: number): void {
    if (!this.#options.hasTicket(area) || this.#dropping.has(area)) {
      return;
    }
    this.#dropping.add(area);
    setTimeout(() => {
      this.#dropping.delete(area);
      if (this.#closed || this.#slots.has(name)) {
        return;
      }
      this.#options.dropTicket(area).catch((error: unknown) => {
        this.#options.onEvent("no-handover", `lease ${name}: ${wordsOf(error)}`, {});
      });
    }, TICKET_KEPT_MS).unref();
  }

  /** A ballot or release whose end is not known stays here, and the node armed, until it is. */
  async #settleUntilDone(
    slot: Slot,
    address: LeaseAddress,
    lver: bigint,
    self: Self,
  ): Promise<void> {
    slot.doing = "settling";
    const life = this.#life;
    while (life === this.#life && !this.#closed) {
      if ((await this.#settleOnce(address, lver, self)).kind === "settled") {
        break;
      }
      await pause(this.#options.intervalMs);
    }
    if (life === this.#life) {
      this.#leave(slot);
      this.#persistQuietly();
    }
  }

  async #settleOnce(address: LeaseAddress, lver: bigint, self: Self): Promise<Settled> {
    const { disk, wallSeconds, random, evidenceFor } = this.#options;
    const terms = {
      address,
      luns: disk.luns,
      self,
      shared: false,
      timestamp: this.#timestamp(),
      wallSeconds: wallSeconds(),
      random,
      evidenceFor,
    };
    try {
      return await disk.run(settleBallot(terms, lver));
    } catch (error) {
      return { kind: "unsettled", why: wordsOf(error) };
    }
  }

  /** What a leader's timestamp is to be: not 0, and like sanlock's whole seconds since boot. */
  #timestamp(): bigint {
    return BigInt(Math.max(1, Math.floor(this.#options.clock.bootMs() / 1_000)));
  }

  #watchInBackground(): void {
    this.#options.watch(this.watched()).catch((error: unknown) => {
      // The list is sent again on the next connection to pulse.
      this.#options.onEvent(
        "pulse-silent",
        `pulse was not told what is held: ${wordsOf(error)}`,
        {},
      );
    });
  }

  /** A hold too many in the file does no harm: the next daemon looks on disk. */
  #persistQuietly(): void {
    try {
      this.#options.persist();
    } catch (error) {
      this.#options.onEvent("state-dir", wordsOf(error), {});
    }
  }

  /** Disarms when nothing was held, undecided or under way for one beat. */
  #considerDisarming(): void {
    if (this.#slots.size > 0 || this.#closed || this.#idleTimer !== undefined) {
      return;
    }
    this.#idleTimer = setTimeout(() => {
      this.#idleTimer = undefined;
      if (this.#slots.size > 0 || this.#closed) {
        return;
      }
      if (this.#options.disk.inFlight > 0) {
        this.#considerDisarming();
        return;
      }
      void this.#disarm();
    }, this.#options.intervalMs);
  }

  /** Pulse may refuse for the moment (an I/O is out): asked again, ever more seldom, as long as nothing is held. */
  async #disarm(attempt = 1): Promise<void> {
    const isDone = await this.#options.disarm();
    if (isDone || !this.#isIdle()) {
      return;
    }
    await pause(this.#options.intervalMs * Math.min(32, 2 ** attempt));
    if (this.#isIdle() && this.#options.disk.inFlight === 0) {
      await this.#disarm(attempt + 1);
    }
  }

  #isIdle(): boolean {
    return this.#slots.size === 0 && !this.#closed;
  }

  /** For what is armed without a lease being held: an adopted pulse, or a try that ended in nothing. */
  settleDown(): void {
    this.#considerDisarming();
  }
}

/** Neither held nor on its way out. */
function isNowhere(slot: Slot): boolean {
  return slot.hold === undefined && slot.doing === "acquiring";
}

function isCancelled(request: AcquireRequest): boolean {
  return request.signal?.aborted === true;
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

export function noSuchLease(name: string): ShareHaError {
  return new ShareHaError("ERR_NO_SUCH_LEASE", `there is no lease ${name}`, {
    hint: `Create it once: sharedha lease create ${name}`,
    fields: { lease: name },
  });
}

export function notMember(): ShareHaError {
  return new ShareHaError("ERR_NOT_JOINED", "this node is not a member at the moment", {
    hint: "sharedha status says why; it joins again by itself as soon as that is safe.",
  });
}
