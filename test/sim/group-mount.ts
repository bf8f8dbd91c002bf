/**
 * What a hold protects: a file system that the kernel writes to for as long as it is mounted and the machine runs,
 * whatever the processes do. Before the first write the commands of whoever had it before are waited for (DESIGN
 * section 8: "the target may still hold its commands").
 */
import { type Evidence } from "../../lib/fence/evidence.js";
import { type HeldLease } from "../../lib/lease/ballot.js";
import { type DaemonActor } from "./daemon-actor.js";
import { type Mount } from "./machine.js";
import { type HoldNote } from "./node.js";
import { type World } from "./world.js";

const WRITE_EVERY_MS = 60;

export class GroupMount {
  readonly held: HeldLease;
  readonly #daemon: DaemonActor;
  readonly #lease: number;
  readonly #note: HoldNote;
  readonly #world: World;

  constructor(daemon: DaemonActor, lease: number, held: HeldLease, note: HoldNote) {
    this.#daemon = daemon;
    this.#lease = lease;
    this.held = held;
    this.#note = note;
    this.#world = daemon.world;
  }

  begin(evidence: readonly Evidence[]): void {
    // With guards all nodes are on one machine, where a taker sees what the others have mounted.
    if (this.#world.options.kind === "guard") {
      const { machine } = this.#daemon.node;
      const foreign = this.#world.foreignMounts(this.held, this.#lease, machine);
      if (foreign.length > 0 && evidence.length === 0) {
        this.#daemon.release(this.#lease, this.held);
        return;
      }
      for (const mount of foreign) {
        mount.live = false;
      }
    }
    this.#drain();
  }

  /** After a restart of the daemon. */
  carryOn(): void {
    if (this.#note.mount === undefined) {
      this.begin([]);
    } else {
      this.#holdOn();
    }
  }

  get #isCurrent(): boolean {
    return this.#daemon.node.held.get(this.#lease) === this.#note && this.#daemon.process.alive;
  }

  /** Write, flush and read back through the same queue: done when everything before it is. */
  #drain(): void {
    if (!this.#isCurrent) {
      return;
    }
    if (this.#world.hasDataInFlight(this.#lease)) {
      this.#daemon.process.after(20, () => {
        this.#drain();
      });
      return;
    }
    this.#mount();
  }

  #mount(): void {
    const { node } = this.#daemon;
    const { self } = this.#daemon;
    if (!this.#isCurrent || self === undefined) {
      return;
    }
    if (!this.#daemon.hasRight()) {
      // Pulse may be starting again; a loss ends this hold anyway.
      this.#daemon.process.after(20, () => {
        this.#mount();
      });
      return;
    }
    const mount: Mount = {
      machine: node.machine,
      lease: this.#lease,
      lver: this.held.leader.lver,
      generation: self.generation,
      shared: this.held.shared,
      live: true,
      inFlight: 0,
    };
    this.#note.mount = mount;
    node.machine.mounts.add(mount);
    this.#world.checker.mounted(mount);
    this.#world.startWriting(mount, self.hostId, WRITE_EVERY_MS);
    this.#holdOn();
  }

  #holdOn(): void {
    const { options, random } = this.#world;
    this.#daemon.process.after(random.exponential(options.holdMs), () => {
      this.#unmount();
    });
  }

  /** A clean unmount ends when everything it has flushed has come back. */
  #unmount(): void {
    const { mount } = this.#note;
    if (!this.#isCurrent || mount === undefined) {
      return;
    }
    mount.live = false;
    if (mount.inFlight > 0) {
      this.#daemon.process.after(5, () => {
        this.#unmount();
      });
      return;
    }
    this.#daemon.node.machine.mounts.delete(mount);
    this.#daemon.release(this.#lease, this.held);
  }
}
