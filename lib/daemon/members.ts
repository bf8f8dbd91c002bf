/**
 * Who is there, as the newest beat shows it, and what proof there is against whom. Judging is `fence`'s; this keeps the
 * newest observations, a human's confirmations, and the time at which the next look pays off: a host that is silent is
 * looked at again exactly when its bound has passed, not a beat later.
 */
import { ShareHaError } from "../errors.js";
import {
  type Confirmation,
  type Evidence,
  type EvidencePolicy,
  judgeHost,
  timingsOf,
  type Verdict,
} from "../fence/evidence.js";
import { type Outbox } from "../format/outbox.js";
import { type HostObservation } from "../lease/observer.js";
import { CONFIRMATION_VALID_MS, sanlockHostDeadMs, type Timings } from "../lease/timings.js";
import { type MemberBody, type MemberState } from "../net/api.js";
import { type Clock } from "../port/clock.js";
import { type Beat, type BeatHost } from "../pulse/messages.js";

/** A look right at the bound could start a rounding error too early. */
const LOOK_LATER_MS = 1;

export interface MemberSettings {
  readonly lunCount: number;
  readonly timings: Timings;
  readonly machineIdHash: bigint;
  readonly vmPauseNever: boolean;
  readonly acceptGuard: boolean;
  readonly foreignWatchdog: boolean;
  readonly foreignUnprotected: boolean;
  /** Every data device is a regular file or a loop device on this very machine. */
  readonly dataIsLocal: boolean;
}

export interface MembersOptions {
  readonly clock: Clock;
  /** May change with the configuration. */
  readonly settings: () => MemberSettings;
  /** Asks for a beat out of turn; its beat comes through `note`. */
  readonly observe: () => Promise<void>;
}

export class Members {
  readonly #options: MembersOptions;
  readonly #confirmations = new Map<number, Confirmation>();
  #beat: Beat | undefined;
  #selfId: number | undefined;
  #hosts = new Map<number, BeatHost>();
  #lookAtMs: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: MembersOptions) {
    this.#options = options;
  }

  note(beat: Beat, selfId: number): void {
    this.#beat = beat;
    this.#selfId = selfId;
    this.#hosts = new Map(beat.hosts.map((host) => [host.hostId, host]));
  }

  get outboxes(): readonly Outbox[] {
    return this.#beat?.outboxes ?? [];
  }

  /** How many other hosts had a ticket for the lease in this area when pulse last looked. */
  waitersFor(area: number): number {
    const others = this.outboxes.filter((outbox) => outbox.hostId !== this.#selfId);
    const isTicket = (entry: Outbox["entries"][number]): boolean =>
      entry.kind === "ticket" && entry.area === area;
    return others.filter((outbox) => outbox.entries.some(isTicket)).length;
  }

  host(hostId: number): BeatHost | undefined {
    return this.#hosts.get(hostId);
  }

  /** "n2", or "host 2" for one whose record cannot be read. */
  nameOf(hostId: number): string {
    const name = this.#hosts.get(hostId)?.record?.leader.resourceName ?? "";
    return name === "" ? `host ${hostId}` : name;
  }

  /** The proof in hand that this generation of this host is silent. When only time is missing, looks again right then. */
  evidenceFor(hostId: number, generation: bigint): Evidence | undefined {
    const verdict = this.verdict(hostId, generation);
    if (verdict?.kind === "evidence") {
      return verdict.evidence;
    }
    const host = this.#hosts.get(hostId);
    if (verdict?.kind === "wait" && host !== undefined && !this.#isLiveHost(host)) {
      this.#lookAt(host.lastSeenMs + verdict.remainingMs + LOOK_LATER_MS);
    }
    return undefined;
  }

  /** Undefined for a host that nobody has seen yet. */
  verdict(hostId: number, generation: bigint): Verdict | undefined {
    const host = this.#hosts.get(hostId);
    if (host === undefined) {
      return undefined;
    }
    const confirmation = this.#confirmations.get(hostId);
    const nowMs = this.#options.clock.bootMs();
    return judgeHost(observationOf(host), generation, this.#policyFor(host), confirmation, nowMs);
  }

  /** A host whose tickets count: it renews, under this generation. */
  isLive(hostId: number, generation: bigint): boolean {
    const host = this.#hosts.get(hostId);
    return host?.record?.leader.ownerGeneration === generation && this.#isLiveHost(host);
  }

  /**
   * Takes a human's word that a node is off.
   * @throws ERR_NO_SUCH_HOST, ERR_HOST_ALIVE, ERR_HOST_LEFT
   */
  confirmOff(name: string): Confirmation & { readonly validSeconds: number } {
    const host = [...this.#hosts.values()].find((each) => isNamed(each, name));
    const record = host?.record;
    if (host === undefined || record === undefined) {
      throw new ShareHaError("ERR_NO_SUCH_HOST", `no node is called ${name}`, {
        hint: "sharedha status lists the nodes.",
        fields: { host: name },
      });
    }
    if (host.hostId === this.#selfId || this.#isLiveHost(host)) {
      throw new ShareHaError(
        "ERR_HOST_ALIVE",
        `${name} is not off: its heartbeat was renewed ${Math.floor(host.unchangedMs)} ms before the newest look`,
        {
          hint: "Only a node that has stopped renewing can be confirmed as off. Switch it off first.",
          fields: { host: name, hostId: host.hostId, unchangedMs: Math.floor(host.unchangedMs) },
        },
      );
    }
    if (record.leader.timestamp === 0n) {
      throw new ShareHaError("ERR_HOST_LEFT", `${name} has left the cluster properly`, {
        hint: "Nothing has to be confirmed: whatever it held can be taken.",
        fields: { host: name, hostId: host.hostId },
      });
    }
    const confirmation: Confirmation = {
      hostId: host.hostId,
      generation: record.leader.ownerGeneration,
      confirmedAtMs: this.#options.clock.bootMs(),
    };
    this.#confirmations.set(host.hostId, confirmation);
    return { ...confirmation, validSeconds: CONFIRMATION_VALID_MS / 1_000 };
  }

  /** Hosts that sanlock daemons run, of the present. */
  foreignHosts(): readonly BeatHost[] {
    return [...this.#hosts.values()].filter(
      (host) => isForeign(host) && host.record?.leader.timestamp !== 0n,
    );
  }

  /** Why no lease may be granted beside the sanlock daemons that are there (DESIGN 4, hazard H22); undefined if it may. */
  foreignProblem(): string | undefined {
    const foreign = this.foreignHosts();
    if (foreign.length === 0) {
      return undefined;
    }
    const names = foreign.map((host) => this.nameOf(host.hostId)).join(", ");
    const settings = this.#options.settings();
    if (settings.lunCount > 1) {
      return `sanlock daemons (${names}) lock one LUN only, and this cluster decides on ${settings.lunCount}`;
    }
    const weak = [...this.#hosts.values()].filter(
      (host) => !isForeign(host) && isPresent(host) && host.record?.host?.watchdog !== "hardware",
    );
    if (weak.length > 0 && !settings.foreignUnprotected) {
      const weakNames = weak.map((host) => this.nameOf(host.hostId)).join(", ");
      return `sanlock daemons (${names}) take over without asking for a watchdog, and ${weakNames} has no hardware one`;
    }
    return undefined;
  }

  bodies(): readonly MemberBody[] {
    return [...this.#hosts.values()]
      .filter((host) => host.record === undefined || host.record.leader.ownerGeneration > 0n)
      .sort((one, other) => one.hostId - other.hostId)
      .map((host) => this.#bodyOf(host));
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#lookAtMs = undefined;
  }

  #isLiveHost(host: BeatHost): boolean {
    if (host.hostId === this.#selfId) {
      return true;
    }
    return isPresent(host) && host.unchangedMs < quietMs(host, this.#options.settings().timings);
  }

  #policyFor(host: BeatHost): EvidencePolicy {
    const settings = this.#options.settings();
    const isSameMachine = host.record?.host?.machineIdHash === settings.machineIdHash;
    return {
      lunCount: settings.lunCount,
      vmPauseNever: settings.vmPauseNever,
      guardAccepted: settings.acceptGuard || (settings.dataIsLocal && isSameMachine),
      foreignWatchdog: settings.foreignWatchdog,
    };
  }

  #lookAt(atMs: number): void {
    if (this.#lookAtMs !== undefined && this.#lookAtMs <= atMs) {
      return;
    }
    clearTimeout(this.#timer);
    this.#lookAtMs = atMs;
    this.#armTimer();
  }

  /** Node's timers may fire a millisecond early; the clock has the last word. */
  #armTimer(): void {
    const restMs = (this.#lookAtMs ?? 0) - this.#options.clock.bootMs();
    this.#timer = setTimeout(
      () => {
        if (this.#options.clock.bootMs() < (this.#lookAtMs ?? 0)) {
          this.#armTimer();
          return;
        }
        this.#lookAtMs = undefined;
        // A look that fails is made up for by the next beat.
        this.#options.observe().catch(() => undefined);
      },
      Math.max(1, Math.ceil(restMs)),
    );
  }

  #bodyOf(host: BeatHost): MemberBody {
    const { record } = host;
    const generation = record?.leader.ownerGeneration ?? 0n;
    const isSelf = host.hostId === this.#selfId;
    const verdict = this.verdict(host.hostId, generation);
    // For a live one: what would be needed if it fell silent while it holds something.
    const outlook = this.#isLiveHost(host) ? this.#outlookFor(host) : verdict;
    return {
      hostId: host.hostId,
      name: this.nameOf(host.hostId),
      generation: String(generation),
      state: this.#stateOf(host, verdict),
      isSelf,
      unchangedMs: Math.floor(host.unchangedMs),
      expiresAfterMs: boundOf(outlook, host),
      whyNoExpiry: outlook?.kind === "impossible" ? outlook.why : null,
      ...watchdogOf(host),
      latencyMs: isSelf ? this.#latencyMs() : null,
    };
  }

  #outlookFor(host: BeatHost): Verdict {
    const { record } = host;
    const armed =
      record?.host === undefined ? record : { ...record, host: { ...record.host, armed: true } };
    const observation = { ...observationOf(host), record: armed, unchangedMs: 0 };
    const generation = record?.leader.ownerGeneration ?? 0n;
    return judgeHost(observation, generation, this.#policyFor(host), undefined, 0);
  }

  #latencyMs(): number | null {
    const known = this.#beat?.luns.map((lun) => lun.latencyMs).filter((ms) => ms !== undefined);
    return known === undefined || known.length === 0 ? null : Math.max(...known);
  }

  #stateOf(host: BeatHost, verdict: Verdict | undefined): MemberState {
    if (host.record === undefined) {
      return "unreadable";
    }
    if (host.record.leader.timestamp === 0n) {
      return "left";
    }
    if (this.#isLiveHost(host)) {
      return isForeign(host) ? "foreign" : "live";
    }
    return verdict?.kind === "evidence" ? "expired" : "silent";
  }
}

function observationOf(host: BeatHost): HostObservation {
  const { hostId, record, trouble, unchangedMs, lastSeenMs } = host;
  return { hostId, record, trouble, unchangedMs, lastSeenMs };
}

function isNamed(host: BeatHost, name: string): boolean {
  return (
    host.record !== undefined &&
    host.record.leader.ownerGeneration > 0n &&
    (host.record.leader.resourceName === name || String(host.hostId) === name)
  );
}

function isForeign(host: BeatHost): boolean {
  return host.record?.hostState === "absent" && host.record.leader.ownerGeneration > 0n;
}

function isPresent(host: BeatHost): boolean {
  return host.record !== undefined && host.record.leader.timestamp !== 0n;
}

/** After this long without a change a host does not count as renewing any more. */
function quietMs(host: BeatHost, own: Timings): number {
  const record = host.record?.host;
  if (record !== undefined) {
    return timingsOf(record).ttlMs;
  }
  return isForeign(host) ? 8_000 * Math.max(1, host.record?.leader.ioTimeout ?? 1) : own.ttlMs;
}

function boundOf(verdict: Verdict | undefined, host: BeatHost): number | null {
  if (verdict?.kind === "wait") {
    return verdict.boundMs;
  }
  if (verdict?.kind === "evidence" && isForeign(host)) {
    return sanlockHostDeadMs(Math.max(1, host.record?.leader.ioTimeout ?? 1));
  }
  return null;
}

function watchdogOf(host: BeatHost): Pick<MemberBody, "watchdog" | "armed" | "virtual"> {
  const record = host.record?.host;
  const kind = record?.watchdog;
  return {
    watchdog: kind === undefined || kind === "vacant" ? "unknown" : kind,
    armed: record?.armed ?? false,
    virtual: record?.virtual ?? false,
  };
}
