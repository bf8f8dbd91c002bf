/**
 * How the daemon performs protocols: on its own LUN devices, with pulse for the outbox and for arming. Two things are
 * guarded here for every protocol at once:
 *
 * - a node that has lost its right to write writes nothing more to the region (DESIGN section 4, "Loss is for ever");
 * - pulse is told as long as an I/O of the daemon is out past its deadline, because it may still land: until it has
 *   returned there is no disarming and no leaving.
 */
import {
  type DiskProcedure,
  type LunSet,
  type OutboxChange,
  type Standing,
} from "../lease/procedure.js";
import { type Clock } from "../port/clock.js";
import { type BatchResult, type DiskOp, type LunDevice } from "../port/disk.js";
import { type ProcedureHost, runProcedure } from "../region/run-procedure.js";

const STUCK_POLL_MS = 250;

/** What this needs of pulse, whichever connection it has at the moment. */
export interface PulseAccess {
  readonly standing: Standing;
  arm(): Promise<boolean>;
  post(change: OutboxChange): Promise<boolean>;
  stuck(stuck: boolean): Promise<void>;
}

export interface DiskAccessOptions {
  /** Always the same objects; the region changes in place what is behind them, and which of them count. */
  readonly devices: readonly LunDevice[];
  readonly luns: LunSet;
  readonly deadlineMs: number;
  readonly clock: Clock;
  readonly pulse: PulseAccess;
  /** The daemon has seen a loss itself (pulse may be stopped and say nothing). */
  readonly isLost: () => boolean;
}

export class DiskAccess {
  readonly #options: DiskAccessOptions;
  readonly #host: ProcedureHost;
  #inFlight = 0;
  #toldStuck = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: DiskAccessOptions) {
    this.#options = options;
    const { pulse, clock, deadlineMs } = options;
    this.#host = {
      devices: options.devices.map((device) => this.#guarded(device)),
      luns: options.luns,
      deadlineMs,
      clock,
      standing: () => this.standing(),
      post: async (change) => await pulse.post(change),
      arm: async () => await pulse.arm(),
    };
  }

  /** Protocols that are being carried out now. */
  get inFlight(): number {
    return this.#inFlight;
  }

  get stuck(): boolean {
    return this.#options.devices.some((device) => device.stuck);
  }

  get luns(): LunSet {
    return this.#options.luns;
  }

  standing(): Standing {
    const { standing } = this.#options.pulse;
    return this.#options.isLost() ? { ...standing, lost: true, armed: false } : standing;
  }

  /** This node may act as a holder now. */
  hasRight(): boolean {
    const standing = this.standing();
    return !standing.lost && this.#options.clock.bootMs() - standing.renewedAtMs < standing.ttlMs;
  }

  /** @param signal wakes its sleeps early */
  async run<T>(procedure: DiskProcedure<T>, signal?: AbortSignal): Promise<T> {
    this.#inFlight++;
    try {
      return await runProcedure(
        procedure,
        signal === undefined ? this.#host : { ...this.#host, signal },
      );
    } finally {
      this.#inFlight--;
    }
  }

  /** For those who run procedures themselves. */
  get host(): ProcedureHost {
    return this.#host;
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  #guarded(device: LunDevice): LunDevice {
    return {
      submit: async (ops: readonly DiskOp[], deadlineMs: number): Promise<BatchResult> => {
        if (ops.some((op) => op.kind === "write") && !this.hasRight()) {
          return {
            kind: "failed",
            code: "ELOST",
            message: "this node has no right to write at the moment",
          };
        }
        const result = await device.submit(ops, deadlineMs);
        if (result.kind === "late") {
          this.#noteStuck();
        }
        return result;
      },
      get stuck() {
        return device.stuck;
      },
      close: async () => {
        await device.close();
      },
    };
  }

  #noteStuck(): void {
    if (!this.#toldStuck && this.stuck) {
      this.#toldStuck = true;
      this.#tell(true);
    }
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.stuck) {
        this.#noteStuck();
      } else if (this.#toldStuck) {
        this.#toldStuck = false;
        this.#tell(false);
      }
    }, STUCK_POLL_MS);
  }

  /** After a new connection to pulse, which knows nothing of it. */
  tellAgain(): void {
    if (this.#toldStuck) {
      this.#tell(true);
    }
  }

  #tell(stuck: boolean): void {
    this.#options.pulse.stuck(stuck).catch(() => {
      // The connection is gone; `tellAgain` says it on the next one. Until then there is nobody who could disarm.
      this.#toldStuck = stuck;
    });
  }
}
