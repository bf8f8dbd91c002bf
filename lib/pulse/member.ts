/**
 * A member of the cluster: the heartbeat, the outbox and the watchdog of one generation, and what the daemon may ask of
 * them. How it ends is decided here and nowhere else:
 *
 * - `leave`, nothing held, nothing in flight: armed = 0 on a majority, watchdog stopped, left record, exit `left`.
 * - lost: never renews, pets or writes again. It stays so that the daemon can tear down; when the daemon reports that
 *   with `leave`, and nothing is in flight, the watchdog is stopped, exit `lost`. Otherwise the watchdog finishes.
 * - no daemon for restart_grace: with a lease or a group up the heartbeat stops renewing and petting by itself, so that
 *   the node is lost and then reset; with nothing held it leaves as above.
 */
import { ShareHaError } from "../errors.js";
import { Heartbeat, type WatchedLease } from "../lease/heartbeat.js";
import { type Membership } from "../lease/delta-lease.js";
import { type OutboxChange } from "../lease/procedure.js";
import { RESTART_GRACE_MS } from "../lease/timings.js";
import { type Clock } from "../port/clock.js";
import { type Region } from "../region/open-region.js";
import { Beater } from "./beater.js";
import { Board } from "./board.js";
import { type PulseExit } from "./exit-report.js";
import { GuardPetter } from "./guard-petter.js";
import { type Beat, type Hello, type ProcessId, type Protected } from "./messages.js";
import { type Petter } from "./petter.js";
import { type PulseActions } from "./service.js";
import { View } from "./view.js";

export interface MemberTerms {
  readonly region: Region;
  readonly membership: Membership;
  readonly joinEvidence: string;
  /** The own outbox as found on disk. */
  readonly found: ReturnType<View["outbox"]>;
  /** Of a pulse that carries a generation on. */
  readonly resumedAtMs: number | undefined;
  /**
   * A resumed, armed pulse does not know yet which leases are held: it renews and pets only after the daemon has said so,
   * because their leaders have to be read again before the next pet.
   */
  readonly waitForWatch: boolean;
  readonly petter: Petter;
  readonly self: ProcessId;
  readonly clock: Clock;
  readonly log: (message: string) => void;
  readonly onBeat: () => void;
  readonly onEnd: (exit: PulseExit) => void;
  readonly onDefect: (error: unknown) => void;
  readonly saveProtected: (protect: Protected) => void;
}

export class Member implements PulseActions {
  readonly #terms: MemberTerms;
  readonly #heartbeat: Heartbeat;
  readonly #view: View;
  readonly #board: Board;
  readonly #beater: Beater;
  #watchKnown: boolean;
  #groupUp: boolean;
  #daemonStuck = false;
  #heardMs: number;
  /** Arming, disarming and leaving take their turns. */
  #turn: Promise<void> = Promise.resolve();
  #arming: Promise<void> | undefined;
  #ended = false;
  /** Left, but an I/O has not come back: the process, and so its locks, stay until it has. */
  #ending: Omit<PulseExit, "hostId" | "generation"> | undefined;

  constructor(terms: MemberTerms) {
    this.#terms = terms;
    const { region, membership, clock } = terms;
    const { geometry, lunSet, timings } = region;
    const device = (lun: number): Region["devices"][number] => deviceOf(region, lun);
    const { hostId, generation } = membership;
    this.#watchKnown = !terms.waitForWatch;
    this.#groupUp = terms.waitForWatch;
    this.#heardMs = clock.bootMs();
    this.#view = new View(geometry, region.maxHosts, lunSet, hostId);
    this.#board = new Board({
      geometry,
      luns: lunSet,
      deadlineMs: timings.deadlineMs,
      device,
      hostId,
      generation,
      found: terms.found,
    });
    this.#heartbeat = new Heartbeat({
      geometry,
      luns: lunSet,
      timings,
      membership,
      resumedAtMs: terms.resumedAtMs,
    });
    this.#heartbeat.hearDaemon(this.#heardMs, this.#isHeld);
    this.#beater = new Beater({
      luns: lunSet,
      timings,
      device,
      clock,
      heartbeat: this.#heartbeat,
      view: this.#view,
      board: this.#board,
      petter: terms.petter,
      log: terms.log,
      onBeat: terms.onBeat,
      onDefect: terms.onDefect,
    });
  }

  /** Begins to renew, and publishes an outbox without the entries of earlier generations. */
  start(): void {
    if (!this.#terms.waitForWatch) {
      this.#beater.start();
      this.#board.post({ remove: [], add: [] }).then((isPublished) => {
        if (!isPublished) {
          this.#terms.log("the outbox is not on a majority yet");
        }
      }, this.#terms.onDefect);
    }
  }

  /** To be called about every second. */
  keepHouse(): void {
    const { clock, log } = this.#terms;
    const nowMs = clock.bootMs();
    if (this.#ending !== undefined) {
      this.#endWhenReturned(this.#ending);
      return;
    }
    if (this.#terms.waitForWatch && !this.#beater.running && !this.#ended) {
      this.#noticeLossWhileWaiting(nowMs);
    }
    const isSilent = nowMs - this.#heardMs > RESTART_GRACE_MS;
    const mayGo = !this.#isHeld || (this.#heartbeat.loss !== undefined && !this.#heartbeat.armed);
    if (isSilent && mayGo && !this.#ended) {
      this.#heardMs = nowMs; // One attempt per grace.
      log("no daemon, and nothing is held: leaving");
      this.leave().catch((error: unknown) => {
        log(`cannot leave yet: ${error instanceof Error ? error.message : String(error)}`);
      });
    }
  }

  /** SIGTERM: as `leave` when nothing is held, otherwise nothing but a log line. */
  async terminate(): Promise<void> {
    if (this.#isHeld) {
      this.#terms.log("SIGTERM is ignored: leases or groups are up; use `sharedha leave`");
      return;
    }
    try {
      await this.leave();
    } catch (error) {
      this.#terms.log(
        `SIGTERM: cannot leave: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }

  hello(): Hello {
    const { membership, joinEvidence, petter, self } = this.#terms;
    return {
      hostId: membership.hostId,
      generation: membership.generation,
      joinEvidence,
      watchdog: { kind: petter.kind, device: petter.device },
      process: self,
      guard: petter instanceof GuardPetter ? petter.process : undefined,
      beat: this.beat(),
    };
  }

  beat(): Beat {
    return {
      renewedAtMs: this.#heartbeat.renewedAtMs,
      armed: this.#heartbeat.isPublished(true),
      lost: this.#heartbeat.loss,
      luns: this.#beater.conditions,
      hosts: this.#view.hosts(),
      outboxes: this.#view.outboxes(),
    };
  }

  async arm(): Promise<void> {
    if (this.#heartbeat.loss === undefined && this.#heartbeat.isPublished(true)) {
      return;
    }
    this.#arming ??= this.#inTurn(async () => {
      await this.#beater.arm();
    }).finally(() => {
      this.#arming = undefined;
    });
    await this.#arming;
  }

  async disarm(): Promise<void> {
    await this.#inTurn(async () => {
      this.#refuseHeld();
      this.#refuseStuck();
      await this.#beater.disarm();
    });
  }

  async post(change: OutboxChange): Promise<void> {
    const { loss } = this.#heartbeat;
    if (loss !== undefined) {
      throw new ShareHaError("ERR_LOST", `this generation writes nothing any more: ${loss}`, {
        hint: "The daemon tears down and joins again.",
      });
    }
    if (!(await this.#board.post(change))) {
      throw new ShareHaError("ERR_NO_QUORUM", "the outbox is not on a majority of the LUNs yet", {
        hint: "It is written again with every beat.",
      });
    }
  }

  watch(leases: readonly WatchedLease[]): void {
    this.#heartbeat.watch(leases);
    this.#watchKnown = true;
    this.pong(this.#groupUp);
    if (!this.#beater.running && !this.#ended) {
      this.#beater.start();
    }
  }

  async protect(protect: Protected): Promise<void> {
    const { petter, saveProtected } = this.#terms;
    saveProtected(protect);
    if (petter instanceof GuardPetter) {
      await petter.protect(this.#withSelf(protect));
    }
  }

  async observe(): Promise<Beat> {
    await this.#beater.observe();
    return this.beat();
  }

  pong(groupUp: boolean): void {
    this.#groupUp = groupUp;
    this.#heardMs = this.#terms.clock.bootMs();
    this.#heartbeat.hearDaemon(this.#heardMs, this.#isHeld);
  }

  stuck(stuck: boolean): void {
    this.#daemonStuck = stuck;
  }

  async leave(): Promise<void> {
    await this.#inTurn(async () => {
      this.#refuseStuck();
      if (this.#ending !== undefined) {
        this.#endWhenReturned(this.#ending);
      } else if (this.#heartbeat.loss === undefined) {
        await this.#leaveAsMember();
      } else {
        await this.#leaveLost(this.#heartbeat.loss);
      }
    });
  }

  async #leaveAsMember(): Promise<void> {
    const { petter, log } = this.#terms;
    this.#refuseHeld();
    if (this.#heartbeat.armed) {
      await this.#beater.disarm();
    }
    await this.#beater.stop();
    if (this.#heartbeat.loss !== undefined || this.#isStuck) {
      this.#beater.start();
      this.#refuseStuck();
      throw new ShareHaError("ERR_LOST", "the generation was lost while leaving", {
        hint: "Tear down, then leave again.",
      });
    }
    await this.#board.clear();
    const isWritten = await this.#beater.writeLeft();
    await petter.leave();
    log(isWritten ? "left" : "left, but the left record is not on a majority of the LUNs");
    this.#ending = {
      kind: "left",
      code: "",
      message: isWritten ? "left" : "the left record is not on a majority of the LUNs",
      hint: isWritten
        ? ""
        : "This node can join again; others see its host id as silent until then.",
      torndown: true,
    };
    this.#refuseStuck();
    this.#endWhenReturned(this.#ending);
  }

  #endWhenReturned(exit: Omit<PulseExit, "hostId" | "generation">): void {
    if (!this.#beater.stuck && !this.#ended) {
      this.#end(exit);
    }
  }

  /** The daemon says that everything of the lost generation is torn down. */
  async #leaveLost(why: string): Promise<void> {
    const { petter } = this.#terms;
    await this.#beater.stop();
    this.#refuseStuck();
    await petter.disarm();
    await petter.leave();
    this.#end({
      kind: "lost",
      code: "ERR_LOST",
      message: why,
      hint: "Everything of this generation is torn down; join again.",
      torndown: true,
    });
  }

  /** The watchdog's stand-in cannot be had, for instance. */
  lose(why: string): void {
    this.#heartbeat.lose(why);
  }

  #end(exit: Omit<PulseExit, "hostId" | "generation">): void {
    const { hostId, generation } = this.#terms.membership;
    this.#ended = true;
    this.#terms.onEnd({ ...exit, hostId, generation });
  }

  /** The daemon did not come back in time: beating begins only to find that T is over, and to say so. */
  #noticeLossWhileWaiting(nowMs: number): void {
    if (this.#heartbeat.mayRenew(nowMs).kind === "lost") {
      this.#beater.start();
    }
  }

  get #isHeld(): boolean {
    return this.#groupUp || !this.#watchKnown || this.#heartbeat.watched.length > 0;
  }

  get #isStuck(): boolean {
    return this.#daemonStuck || this.#beater.stuck;
  }

  #withSelf(protect: Protected): Protected {
    return { mounts: protect.mounts, processes: [...protect.processes, this.#terms.self] };
  }

  #refuseHeld(): void {
    if (this.#isHeld) {
      const names = this.#heartbeat.watched.map((lease) => lease.resourceName).join(", ");
      throw new ShareHaError(
        "ERR_HELD",
        `leases or groups are still up${names === "" ? "" : `: ${names}`}`,
        {
          hint: "Release them first.",
        },
      );
    }
  }

  #refuseStuck(): void {
    if (this.#isStuck) {
      throw new ShareHaError(
        "ERR_STUCK",
        "an I/O of this node is past its deadline and may still land on the LUN",
        { hint: "Repair the path to the LUN, or restart the machine; the watchdog stays armed." },
      );
    }
  }

  async #inTurn(work: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(work);
    // The next one does not care how this one ended; its caller does.
    this.#turn = turn.catch(() => undefined);
    await turn;
  }
}

function deviceOf(region: Region, lun: number): Region["devices"][number] {
  const device = region.devices[lun];
  if (device === undefined) {
    throw new ShareHaError("ERR_DEFECT", `LUN ${lun + 1} is not one of the region's`, {
      hint: "A defect of the program. Please report it.",
    });
  }
  return device;
}
