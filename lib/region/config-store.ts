/**
 * The cluster configuration as the daemon uses it: reads and writes documents in the configuration slots.
 */
import { ShareHaError } from "../errors.js";
import { compareStamps, type Stamp, ZERO_STAMP } from "../format/stamp.js";
import { type HeldLease } from "../lease/ballot.js";
import {
  type ConfigPlace,
  readConfig,
  type ReadConfigOutcome,
  writeConfig,
  type WriteConfigOutcome,
} from "../lease/config-decision.js";
import { type ClusterConfig, requireClusterConfig } from "./cluster-config.js";
import {
  type ConfigDocument,
  decodeDocument,
  encodeDocument,
  stampText,
} from "./config-document.js";
import { type Region } from "./open-region.js";
import { type ProcedureHost, runProcedure } from "./run-procedure.js";

export interface StoredConfig {
  readonly stamp: Stamp;
  readonly document: ConfigDocument;
  readonly config: ClusterConfig;
}

export interface ConfigChange {
  /** The lease `sharedha:config`, held exclusively; the caller takes and releases it. */
  readonly held: HeldLease;
  readonly hostId: number;
  readonly node: string;
  readonly toml: string;
  /** The stamp the text was made from; undefined to take the place of whatever is there. */
  readonly basedOn: Stamp | undefined;
}

/** Remembers the highest stamp it has seen, and refuses anything older from then on. */
export class ConfigStore {
  readonly #region: Region;
  readonly #host: ProcedureHost;
  #seen: Stamp = ZERO_STAMP;

  constructor(region: Region, host: ProcedureHost) {
    this.#region = region;
    this.#host = host;
  }

  /**
   * The current configuration.
   * @throws ERR_NO_QUORUM, ERR_CONFIG_MISSING, ERR_CONFIG_ROLLED_BACK, ERR_CONFIG_DOCUMENT, ERR_CONFIG
   */
  async read(): Promise<StoredConfig> {
    const { current } = await this.#history();
    return storedOf(current.text, current.stamp);
  }

  /** The newest configurations, newest first: at most two of each host id that ever wrote one. */
  async history(): Promise<readonly StoredConfig[]> {
    const { history } = await this.#history();
    return history.map((slot) => storedOf(slot.text, slot.stamp));
  }

  /**
   * Checks the text and writes it.
   * @throws ERR_CONFIG (not valid), ERR_CONFIG_TOO_LARGE, ERR_CONFIG_CONFLICT (somebody else has changed it since),
   *   ERR_LEASE_LOST, ERR_NO_QUORUM, ERR_CONFIG_ROLLED_BACK
   */
  async write(change: ConfigChange): Promise<StoredConfig> {
    const config = requireClusterConfig(change.toml);
    const before = await this.#history();
    const { superblock } = this.#region;
    const document: ConfigDocument = {
      toml: change.toml,
      luns: superblock.luns.map(({ uuid }) => uuid),
      updatedBy: change.node,
      updatedAt: new Date().toISOString(),
      previous: stampText(before.current.stamp),
    };
    const { held, hostId } = change;
    const terms = {
      ...this.#place(),
      hostId,
      held,
      epoch: superblock.epoch,
      basedOn: change.basedOn ?? before.current.stamp,
      seen: this.#seen,
      text: encodeDocument(document),
    };
    const outcome = await runProcedure(writeConfig(terms), this.#host);
    if (outcome.kind !== "written") {
      throw writeError(outcome);
    }
    this.#seen = outcome.stamp;
    return { stamp: outcome.stamp, document, config };
  }

  /** Writes the configuration before the current one again, as a new one. @throws as `write`, ERR_NOTHING_TO_UNDO */
  async undo(change: Omit<ConfigChange, "toml" | "basedOn">): Promise<StoredConfig> {
    const [current, previous] = await this.history();
    if (current === undefined || previous === undefined) {
      throw new ShareHaError(
        "ERR_NOTHING_TO_UNDO",
        "There is no earlier configuration to go back to.",
        {
          hint: "Apply the text that you want: sharedha config apply FILE.",
        },
      );
    }
    return await this.write({ ...change, toml: previous.document.toml, basedOn: current.stamp });
  }

  #place(): ConfigPlace {
    const { geometry, lunSet, maxHosts } = this.#region;
    return { geometry, luns: lunSet, maxHosts };
  }

  async #history(): Promise<Extract<ReadConfigOutcome, { kind: "ok" }>> {
    const outcome = await runProcedure(readConfig(this.#place(), this.#seen), this.#host);
    if (outcome.kind !== "ok") {
      throw readError(outcome);
    }
    // A write that only reached a minority may never be seen again, and that is no step back.
    if (outcome.isSettled && compareStamps(outcome.current.stamp, this.#seen) > 0) {
      this.#seen = outcome.current.stamp;
    }
    return outcome;
  }
}

function storedOf(text: string, stamp: Stamp): StoredConfig {
  const document = decodeDocument(text);
  return { stamp, document, config: requireClusterConfig(document.toml) };
}

function readError(outcome: Exclude<ReadConfigOutcome, { kind: "ok" }>): ShareHaError {
  switch (outcome.kind) {
    case "no-quorum":
      return new ShareHaError(
        "ERR_NO_QUORUM",
        `The configuration cannot be read: ${outcome.why}.`,
        {
          hint: "A majority of the LUNs must answer; sharedha status shows which do not.",
        },
      );
    case "none":
      return new ShareHaError("ERR_CONFIG_MISSING", `There is no configuration: ${outcome.why}.`, {
        hint: "Apply one: sharedha config apply FILE.",
      });
    case "rolled-back":
      return new ShareHaError(
        "ERR_CONFIG_ROLLED_BACK",
        `The LUNs show configuration ${stampText(outcome.found)}, but ${stampText(outcome.seen)} was seen before.`,
        {
          hint: "The storage has gone back in time (a snapshot or a mirror's old half): stop and repair it first.",
        },
      );
  }
}

function writeError(outcome: Exclude<WriteConfigOutcome, { kind: "written" }>): ShareHaError {
  switch (outcome.kind) {
    case "conflict":
      return new ShareHaError(
        "ERR_CONFIG_CONFLICT",
        `The configuration was changed meanwhile: ${stampText(outcome.current)} is current.`,
        { hint: "Look at it (sharedha config show), make the change again, and apply it." },
      );
    case "lost":
      return new ShareHaError(
        "ERR_LEASE_LOST",
        `It is unknown whether the configuration was changed: ${outcome.why}.`,
        { hint: "Look at it (sharedha config show) before you apply the change again." },
      );
    case "no-quorum":
    case "rolled-back":
      return readError(outcome);
  }
}
