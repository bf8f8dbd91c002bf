/** The configuration slots and the set of LUNs, changed under the lease `sharedha:config` of this node. */
import { ShareHaError } from "../errors.js";
import { type HeldLease, type Self } from "../lease/ballot.js";
import { type LunReplacedBody, type ReplaceLunBody } from "../net/api.js";
import { parseStamp, stampText } from "../region/config-document.js";
import { ConfigStore as Slots, type StoredConfig as StoredSlot } from "../region/config-store.js";
import { replaceLun } from "../region/lun-replace.js";
import { type Region } from "../region/open-region.js";
import { CONFIG_LEASE_NAME } from "../region/region-image.js";
import { type ConfigStore, type StoredConfig } from "./config-holder.js";
import { type DiskAccess } from "./disk-access.js";
import { type LeaseManager, notMember } from "./lease-manager.js";
import { badRequest } from "./http-error.js";
import { type RefusalContext, refusalOf } from "./refusals.js";

/** How long to wait for another node that changes the configuration. */
const WAIT_MS = 10_000;

export interface RegionConfigOptions {
  readonly region: Region;
  readonly disk: DiskAccess;
  readonly leases: Pick<LeaseManager, "acquire" | "release">;
  readonly nodeName: string;
  readonly self: () => Self | undefined;
  readonly context: () => RefusalContext;
}

export class RegionConfig implements ConfigStore {
  readonly #options: RegionConfigOptions;
  readonly #slots: Slots;

  constructor(options: RegionConfigOptions) {
    this.#options = options;
    this.#slots = new Slots(options.region, options.disk.host);
  }

  async read(): Promise<StoredConfig> {
    return bodyOf(await this.#slots.read());
  }

  async write(toml: string, stamp: string): Promise<StoredConfig> {
    const basedOn = parseStamp(stamp);
    if (basedOn === undefined) {
      throw badRequest("stamp: not one that GET /v1/config gives", "Read the configuration first.");
    }
    return await this.#underLease(async (held, hostId) => {
      const node = this.#options.nodeName;
      return bodyOf(await this.#slots.write({ held, hostId, node, toml, basedOn }));
    });
  }

  async undo(stamp: string): Promise<StoredConfig> {
    return await this.#underLease(async (held, hostId) => {
      const current = await this.#slots.read();
      if (stampText(current.stamp) !== stamp) {
        throw new ShareHaError(
          "ERR_CONFIG_CONFLICT",
          `the configuration was changed meanwhile: ${stampText(current.stamp)} is current`,
          {
            hint: "Look at it before it is undone: sharedha config show",
          },
        );
      }
      return bodyOf(await this.#slots.undo({ held, hostId, node: this.#options.nodeName }));
    });
  }

  async replaceLun({ path, force }: ReplaceLunBody): Promise<LunReplacedBody> {
    const { region, disk } = this.#options;
    return await this.#underLease(async (held) => {
      const hasRight = (): boolean => disk.hasRight();
      const report = await replaceLun({ region, path, force, held, hasRight });
      return { lun: report.lunIndex + 1, epoch: String(report.epoch) };
    });
  }

  async #underLease<T>(work: (held: HeldLease, hostId: number) => Promise<T>): Promise<T> {
    const { leases } = this.#options;
    const outcome = await leases.acquire({
      name: CONFIG_LEASE_NAME,
      shared: false,
      waitMs: WAIT_MS,
    });
    if (outcome.kind !== "granted") {
      throw refusalOf(CONFIG_LEASE_NAME, outcome, this.#options.context());
    }
    try {
      const self = this.#options.self();
      if (self === undefined) {
        throw notMember();
      }
      return await work(outcome.hold.held, self.hostId);
    } finally {
      await leases.release(CONFIG_LEASE_NAME);
    }
  }
}

function bodyOf(stored: StoredSlot): StoredConfig {
  return { toml: stored.document.toml, stamp: stampText(stored.stamp) };
}
