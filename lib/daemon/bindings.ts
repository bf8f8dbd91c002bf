/**
 * What belongs to a client's connection: leases acquired on it, and the processes that must not outlive them. When the
 * connection closes, for whatever reason, the processes are ended first and only then the leases are released: a client
 * that is killed must not leave a writer behind. That holds across a restart of the daemon too: what is bound is noted, and
 * the next daemon ends it.
 */
import { type Socket } from "node:net";

import { ShareHaError } from "../errors.js";
import { type ProcessId } from "../pulse/messages.js";
import { sessionMembers } from "../system/sessions.js";
import { type LeaseBinding } from "./lease-manager.js";
import { endSessions, identifySession } from "./session-processes.js";

/** How long one round of killing may take before it is said aloud and begun again. */
const END_ROUND_MS = 2_000;
/** While a client ends its processes itself. */
const LOOK_EVERY_MS = 20;

export interface BindingsOptions {
  /** Releases what is bound. */
  readonly release: (binding: LeaseBinding) => Promise<void>;
  /** Tells pulse, and so the guard, the new list of processes. */
  readonly protect: () => Promise<void>;
  readonly persist: () => void;
  readonly onEvent: (event: string, text: string, fields: Record<string, string | number>) => void;
}

interface Binding extends LeaseBinding {
  /** Undefined: the connection was to a daemon before this one. */
  readonly socket: Socket | undefined;
  readonly leaders: ProcessId[];
  holds: number;
  isEnding: boolean;
  /** How long the client itself has for ending its processes in an orderly way (TERM). */
  graceMs: number;
  /** What was left of its processes after a round of killing. */
  left: readonly ProcessId[];
}

export class Bindings {
  readonly #options: BindingsOptions;
  readonly #bySocket = new Map<Socket, Binding>();
  readonly #ending = new Set<Binding>();
  #nextId = 1;

  constructor(options: BindingsOptions) {
    this.#options = options;
  }

  /** Everything that runs under a bound lease now, leaders and members of their sessions. */
  get processes(): readonly ProcessId[] {
    const leaders = this.leaders;
    const members = sessionMembers(leaders);
    const known = new Set(members.map((member) => member.pid));
    return [...leaders.filter((leader) => !known.has(leader.pid)), ...members];
  }

  get leaders(): readonly ProcessId[] {
    return [...this.#bySocket.values(), ...this.#ending].flatMap((binding) => binding.leaders);
  }

  get count(): number {
    return this.#bySocket.size + this.#ending.size;
  }

  /** One sentence for each client whose processes do not end. */
  get left(): readonly string[] {
    return [...this.#ending].flatMap(({ left }) =>
      left.length === 0 ? [] : [`processes ${pidsOf(left)} of a client do not end`],
    );
  }

  /** Whether this is the connection to which a hold is bound. */
  owns(socket: Socket, binding: LeaseBinding): boolean {
    return this.#bySocket.get(socket)?.id === binding.id;
  }

  /**
   * What the clients of a former daemon left: their connections are gone. It counts from now on and is ended, and what is
   * bound to it released, when `endAdopted` is called.
   */
  adopt(leaders: readonly ProcessId[], graceMs: number): LeaseBinding {
    const binding = this.#make(undefined);
    binding.leaders.push(...leaders);
    binding.isEnding = true;
    binding.graceMs = graceMs;
    this.#ending.add(binding);
    return binding;
  }

  endAdopted(adopted: LeaseBinding): void {
    for (const binding of this.#ending) {
      if (binding.id === adopted.id) {
        this.#endInBackground(binding);
      }
    }
  }

  /** The binding of this connection, made with the first bound lease. */
  bind(socket: Socket): LeaseBinding {
    const known = this.#bySocket.get(socket);
    if (known !== undefined) {
      known.holds++;
      return known;
    }
    const binding = this.#make(socket);
    this.#bySocket.set(socket, binding);
    socket.once("close", () => {
      this.#closed(socket, binding);
    });
    return binding;
  }

  /** A bound lease was not granted, or was released by its client. */
  unbind(socket: Socket): void {
    const binding = this.#bySocket.get(socket);
    if (binding !== undefined && --binding.holds <= 0 && binding.leaders.length === 0) {
      this.#bySocket.delete(socket);
    }
  }

  /** @throws ERR_NOTHING_BOUND, ERR_NO_SUCH_PROCESS, ERR_NOT_A_SESSION, ERR_PULSE */
  async protect(socket: Socket, pid: number): Promise<void> {
    const binding = this.#bySocket.get(socket);
    if (binding === undefined || binding.isEnding) {
      throw new ShareHaError("ERR_NOTHING_BOUND", "no lease is bound to this connection", {
        hint: "Acquire one with bindToConnection on the same connection first.",
        fields: { pid },
      });
    }
    binding.leaders.push(identifySession(pid));
    this.#options.persist();
    await this.#options.protect();
  }

  /**
   * The right to write is gone: every client is told by the end of its connection, and what is left of its processes after
   * `graceMs` is killed. Until `count` is 0 something of them may still run.
   */
  lose(graceMs: number): void {
    for (const binding of this.#bySocket.values()) {
      binding.graceMs = graceMs;
      binding.socket?.destroy();
    }
    for (const binding of this.#ending) {
      binding.graceMs = Math.min(binding.graceMs, graceMs);
    }
  }

  #make(socket: Socket | undefined): Binding {
    return {
      id: this.#nextId++,
      socket,
      leaders: [],
      holds: 1,
      isEnding: false,
      graceMs: 0,
      left: [],
    };
  }

  #closed(socket: Socket, binding: Binding): void {
    this.#bySocket.delete(socket);
    binding.isEnding = true;
    this.#ending.add(binding);
    this.#endInBackground(binding);
  }

  #endInBackground(binding: Binding): void {
    this.#end(binding).catch((error: unknown) => {
      // The hold stays: better a lease that nobody can take than two writers.
      const why = error instanceof Error ? error.message : String(error);
      this.#options.onEvent("bound-not-ended", `a client's processes cannot be ended: ${why}`, {});
    });
  }

  async #end(binding: Binding): Promise<void> {
    // A loss may cut the grace short meanwhile.
    for (let waitedMs = 0; waitedMs < binding.graceMs; waitedMs += LOOK_EVERY_MS) {
      if (sessionMembers(binding.leaders).length === 0) {
        break;
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
    }
    for (;;) {
      binding.left = await endSessions(binding.leaders, END_ROUND_MS);
      if (binding.left.length === 0) {
        break;
      }
      this.#options.onEvent(
        "bound-not-ended",
        `processes ${pidsOf(binding.left)} do not end; their lease is kept until they have`,
        {},
      );
    }
    await this.#options.release(binding);
    this.#ending.delete(binding);
    if (binding.leaders.length > 0) {
      await this.#forget();
    }
  }

  /** The processes are gone: a list that still has them does no harm, and is sent again with the next change. */
  async #forget(): Promise<void> {
    try {
      this.#options.persist();
      await this.#options.protect();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#options.onEvent("still-protected", `a list still has processes that ended: ${why}`, {});
    }
  }
}

function pidsOf(processes: readonly ProcessId[]): string {
  return processes.map((process) => process.pid).join(", ");
}
