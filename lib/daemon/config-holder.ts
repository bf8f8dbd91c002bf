/**
 * The cluster's configuration as this node last read it. Every use that matters reads it again first; in between it is
 * read every now and then, so that a change made on another node is seen here.
 */
import { ShareHaError } from "../errors.js";
import { type ConfigBody } from "../net/api.js";
import { type Timings } from "../lease/timings.js";
import { type ClusterConfig, requireClusterConfig, timerKey } from "../region/cluster-config.js";

export const REFRESH_EVERY_MS = 15_000;

/** The configuration slots of the region. */
export interface ConfigStore {
  /** @throws ERR_NO_QUORUM, ERR_CONFIG_DOCUMENT, ERR_CONFIG_STALE */
  read(): Promise<StoredConfig>;
  /** @throws ERR_CONFIG_CONFLICT when `stamp` is not the newest any more, ERR_CONFIG_TOO_LARGE, ERR_NO_QUORUM */
  write(toml: string, stamp: string): Promise<StoredConfig>;
  /** @throws ERR_CONFIG_CONFLICT, ERR_NOTHING_TO_UNDO */
  undo(stamp: string): Promise<StoredConfig>;
}

export interface StoredConfig {
  readonly toml: string;
  readonly stamp: string;
}

export class ConfigHolder {
  readonly #store: ConfigStore;
  readonly #timings: Timings;
  readonly #onChange: (config: ClusterConfig) => void;
  #stored: StoredConfig | undefined;
  #config: ClusterConfig = requireClusterConfig("");
  #trouble: ShareHaError | undefined;

  /** @param timings of the region, as all members live by them */
  constructor(store: ConfigStore, timings: Timings, onChange: (config: ClusterConfig) => void) {
    this.#store = store;
    this.#timings = timings;
    this.#onChange = onChange;
  }

  /** As last read; before the first reading, or when the text on the LUN is not understood, nothing is configured. */
  get current(): ClusterConfig {
    return this.#config;
  }

  /** Why the configuration is not known. */
  get trouble(): ShareHaError | undefined {
    return this.#trouble;
  }

  /** Reads it again; keeps what it has, and says so in `trouble`, when that fails. */
  async refresh(): Promise<void> {
    try {
      this.#take(await this.#store.read());
    } catch (error) {
      this.#trouble = troubleOf(error);
    }
  }

  /** @throws why it cannot be read */
  async read(): Promise<ConfigBody> {
    const stored = await this.#store.read();
    this.#take(stored);
    return stored;
  }

  /** @throws ERR_CONFIG (every problem of the text), ERR_TIMERS_FIXED, and those of the store */
  async apply(body: ConfigBody): Promise<ConfigBody> {
    refuseOtherTimers(requireClusterConfig(body.toml), this.#timings);
    const stored = await this.#store.write(body.toml, body.stamp);
    this.#take(stored);
    return stored;
  }

  async undo(stamp: string): Promise<ConfigBody> {
    const stored = await this.#store.undo(stamp);
    this.#take(stored);
    return stored;
  }

  #take(stored: StoredConfig): void {
    if (stored.stamp === this.#stored?.stamp && this.#trouble === undefined) {
      return;
    }
    try {
      this.#config = requireClusterConfig(stored.toml);
      this.#trouble = undefined;
    } catch (error) {
      // Written by hand or by a newer version. What it allowed before is not known to hold any more.
      this.#config = requireClusterConfig("");
      this.#trouble = troubleOf(error);
    }
    this.#stored = stored;
    this.#onChange(this.#config);
  }
}

/**
 * Members publish and judge by the timers that `init` wrote into the region. A text may go on saying them, as the one that
 * `init` took does; one that leaves them out says nothing about them.
 */
function refuseOtherTimers({ timers }: ClusterConfig, inForce: Timings): void {
  const names = Object.keys(inForce) as (keyof Timings)[];
  const name = names.find((each) => timers[each] !== undefined && timers[each] !== inForce[each]);
  if (name !== undefined) {
    const key = timerKey(name);
    throw new ShareHaError(
      "ERR_TIMERS_FIXED",
      `timers.${key}: the cluster was made with ${inForce[name]} ms, and that cannot be changed to ${timers[name] ?? 0} ms`,
      {
        hint: `Write ${key} = ${inForce[name]}, or leave [timers] out: it is read by sharedha init only.`,
        fields: { timer: key, inForceMs: inForce[name] },
      },
    );
  }
}

function troubleOf(error: unknown): ShareHaError {
  if (error instanceof ShareHaError) {
    return error;
  }
  throw error;
}
