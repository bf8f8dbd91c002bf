/**
 * The resource index of the region as the daemon uses it: one change of this node at a time, short waits while another
 * node changes it, and what a change that did not end leaves held is given back before the next one.
 */
import { ShareHaError } from "../errors.js";
import { type Evidence } from "../fence/evidence.js";
import { AREA } from "../format/geometry.js";
import { RINDEX_LEASE_NAME } from "../format/rindex.js";
import { type Self } from "../lease/ballot.js";
import {
  createLease,
  deleteLease,
  type IndexBusy,
  type IndexPlace,
  type IndexTerms,
  listLeases,
  lookupLease,
} from "../lease/lease-index.js";
import { type LeaseAddress } from "../lease/lease-view.js";
import { type DiskProcedure } from "../lease/procedure.js";
import { type Clock, type Random } from "../port/clock.js";
import { type Region } from "../region/open-region.js";
import { type DiskAccess } from "./disk-access.js";
import { settleBallot } from "./lease-adoption.js";
import { type LeaseIndex } from "./lease-directory.js";
import { noSuchLease, notMember } from "./lease-manager.js";

/** How long to wait for another node that changes the index; a change takes a few milliseconds. */
const BUSY_MS_MAX = 5_000;
const BUSY_PAUSE_MS = 20;

export interface RegionIndexOptions {
  readonly region: Region;
  readonly disk: DiskAccess;
  readonly clock: Clock;
  readonly random: Random;
  readonly self: () => Self | undefined;
  readonly evidenceFor: (hostId: number, generation: bigint) => Evidence | undefined;
  readonly nameOf: (hostId: number) => string;
  readonly wallSeconds: () => bigint;
}

export class RegionIndex implements LeaseIndex {
  readonly #options: RegionIndexOptions;
  #changing: Promise<unknown> = Promise.resolve();
  #isUnsettled = false;

  constructor(options: RegionIndexOptions) {
    this.#options = options;
  }

  async lookup(name: string): Promise<LeaseAddress | undefined> {
    const outcome = await this.#options.disk.run(lookupLease(this.#place(), name));
    switch (outcome.kind) {
      case "found":
        return outcome.lease.address;
      case "missing":
        return undefined;
      default:
        throw troubleOf(outcome);
    }
  }

  async list(): Promise<readonly LeaseAddress[]> {
    const outcome = await this.#options.disk.run(listLeases(this.#place()));
    if (outcome.kind !== "list") {
      throw troubleOf(outcome);
    }
    return outcome.leases.map((lease) => lease.address);
  }

  async create(name: string): Promise<LeaseAddress> {
    const outcome = await this.#change((terms) => createLease(terms, name));
    switch (outcome.kind) {
      case "created":
        return outcome.lease.address;
      case "exists":
        throw new ShareHaError("ERR_LEASE_EXISTS", `there is a lease ${name} already`, {
          hint: `Use it, or choose another name: sharedha lease show ${name}`,
          fields: { lease: name },
        });
      case "full":
        throw new ShareHaError(
          "ERR_REGION_FULL",
          `the region has room for ${outcome.leases} leases, and has them`,
          {
            hint: "Delete one that is not needed: sharedha lease list",
            fields: { leases: outcome.leases },
          },
        );
      case "bad-name":
        throw badName(name, outcome.why);
      default:
        throw this.#busyError(outcome);
    }
  }

  async remove(name: string): Promise<void> {
    const outcome = await this.#change((terms) => deleteLease(terms, name));
    switch (outcome.kind) {
      case "deleted":
        return;
      case "missing":
        throw noSuchLease(name);
      case "held": {
        const holders = outcome.holders.map((holder) => this.#options.nameOf(holder.hostId));
        throw new ShareHaError(
          "ERR_LEASE_HELD",
          `lease ${name} is held by ${holders.join(" and ")}`,
          {
            hint: "A lease can be deleted when nobody holds it.",
            fields: { lease: name, holder: holders[0] ?? "" },
          },
        );
      }
      case "bad-name":
        throw badName(name, outcome.why);
      default:
        throw this.#busyError(outcome);
    }
  }

  #place(): IndexPlace {
    const { region } = this.#options;
    return {
      geometry: region.geometry,
      luns: region.lunSet,
      spaceName: region.spaceName,
      areaCount: region.superblock.areaCount,
      maxHosts: region.maxHosts,
    };
  }

  #terms(self: Self): IndexTerms {
    const { clock, random, evidenceFor, wallSeconds } = this.#options;
    return {
      ...this.#place(),
      self,
      timestamp: BigInt(Math.max(1, Math.floor(clock.bootMs() / 1_000))),
      wallSeconds: wallSeconds(),
      random,
      evidenceFor,
    };
  }

  async #change<T extends { readonly kind: string }>(
    procedure: (terms: IndexTerms) => DiskProcedure<T | IndexBusy>,
  ): Promise<T | IndexBusy> {
    const turn = this.#changing.then(async () => await this.#changeNow(procedure));
    // The next one goes on whatever came of this one; its own caller hears of it.
    this.#changing = turn.catch(() => undefined);
    return await turn;
  }

  async #changeNow<T extends { readonly kind: string }>(
    procedure: (terms: IndexTerms) => DiskProcedure<T | IndexBusy>,
  ): Promise<T | IndexBusy> {
    const { clock, disk, random } = this.#options;
    const self = this.#options.self();
    if (self === undefined) {
      throw notMember();
    }
    const untilMs = clock.bootMs() + BUSY_MS_MAX;
    for (;;) {
      await this.#settle(self);
      const outcome = await disk.run(procedure(this.#terms(self)));
      const isBusy = outcome.kind === "index-held" || outcome.kind === "contended";
      this.#isUnsettled = outcome.kind === "unfinished" || isHeldBySelf(outcome, self);
      if (!(isBusy || this.#isUnsettled) || clock.bootMs() >= untilMs) {
        return outcome;
      }
      if (outcome.kind === "unfinished") {
        return outcome;
      }
      await new Promise((resolve) => setTimeout(resolve, 1 + random.below(BUSY_PAUSE_MS)));
    }
  }

  /** A change that did not end may have left the index's lease with this node. */
  async #settle(self: Self): Promise<void> {
    if (!this.#isUnsettled) {
      return;
    }
    const { disk, region } = this.#options;
    const address: LeaseAddress = {
      geometry: region.geometry,
      area: AREA.rindexLease,
      spaceName: region.spaceName,
      resourceName: RINDEX_LEASE_NAME,
      numHosts: region.maxHosts,
    };
    const terms = { ...this.#terms(self), address, shared: false };
    const settled = await disk.run(settleBallot(terms, 0n));
    this.#isUnsettled = settled.kind !== "settled";
  }

  #busyError(outcome: IndexBusy): ShareHaError {
    if (outcome.kind === "index-held") {
      const names = outcome.holders
        .map((holder) => this.#options.nameOf(holder.hostId))
        .join(" and ");
      return new ShareHaError("ERR_BUSY", `the list of leases is being changed by ${names}`, {
        hint: "Try again in a moment. A node that died in the middle of it has to be proven silent first: sharedha status",
      });
    }
    return troubleOf(outcome);
  }
}

function isHeldBySelf(outcome: { readonly kind: string }, self: Self): boolean {
  const busy = outcome as IndexBusy;
  return (
    busy.kind === "index-held" &&
    busy.holders.some(
      (holder) => holder.hostId === self.hostId && holder.generation === self.generation,
    )
  );
}

function troubleOf(outcome: Exclude<IndexBusy, { kind: "index-held" }>): ShareHaError {
  const { why } = outcome;
  switch (outcome.kind) {
    case "no-quorum":
      return new ShareHaError("ERR_NO_QUORUM", `a majority of the LUNs did not answer: ${why}`, {
        hint: "Check the paths to the LUNs.",
      });
    case "damaged":
      return new ShareHaError("ERR_INDEX_DAMAGED", `the list of leases cannot be read: ${why}`, {
        hint: "sharedha dump PATH --area rindex shows it.",
      });
    case "not-armed":
      return new ShareHaError("ERR_NOT_ARMED", `nothing was changed: ${why}`, {
        hint: "sharedha status shows the watchdog and the heartbeat.",
      });
    case "contended":
      return new ShareHaError("ERR_CONTENDED", `nothing was changed: ${why}`, {
        hint: "Try again in a moment.",
      });
    case "unfinished":
      return new ShareHaError("ERR_UNDECIDED", `it may or may not have been done: ${why}`, {
        hint: "Look with: sharedha lease list",
      });
  }
}

function badName(name: string, why: string): ShareHaError {
  return new ShareHaError("ERR_LEASE_NAME", `${JSON.stringify(name)}: ${why}`, {
    hint: "For example: sharedha lease create backup",
  });
}
