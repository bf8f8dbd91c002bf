/** Leases as people see them: who holds, since when, which version, who waits. */
import { holdersOf } from "../lease/acquire.js";
import { type LeaseAddress, type LeaseView } from "../lease/lease-view.js";
import { viewQueue } from "../lease/queue.js";
import { type HolderBody, type LeaseBody } from "../net/api.js";
import { type DiskAccess } from "./disk-access.js";
import { type LeaseLook, lookAtLease } from "./lease-adoption.js";
import { type Members } from "./members.js";
import { isoOf } from "./refusals.js";

export interface LeaseViewsOptions {
  readonly disk: Pick<DiskAccess, "run" | "luns">;
  readonly members: Pick<Members, "outboxes" | "isLive" | "nameOf">;
  readonly isHeldHere: (name: string) => boolean;
}

export interface ListedLeases {
  readonly leases: readonly LeaseBody[];
  /** Leases that could not be read, with the reason. */
  readonly unread: readonly { readonly name: string; readonly why: string }[];
}

export class LeaseViews {
  readonly #options: LeaseViewsOptions;

  constructor(options: LeaseViewsOptions) {
    this.#options = options;
  }

  async look(address: LeaseAddress): Promise<LeaseLook> {
    return await this.#options.disk.run(lookAtLease(address, this.#options.disk.luns));
  }

  /** One after the other, as a LUN does them: all at once, the last ones would be late on a slow one. */
  async all(addresses: readonly LeaseAddress[]): Promise<ListedLeases> {
    const leases: LeaseBody[] = [];
    const unread: { readonly name: string; readonly why: string }[] = [];
    for (const address of addresses) {
      const look = await this.look(address);
      if (look.kind === "view") {
        leases.push(this.bodyOf(address, look.view));
      } else if (look.kind !== "missing") {
        unread.push({ name: address.resourceName, why: whyOf(look) });
      }
      // Without a majority the rest would only wait for the same deadline again.
      if (look.kind === "no-quorum") {
        break;
      }
    }
    return { leases, unread };
  }

  bodyOf(address: LeaseAddress, view: LeaseView): LeaseBody {
    const { members, isHeldHere } = this.#options;
    const queue = viewQueue(address.area, members.outboxes, view, (hostId, generation) =>
      members.isLive(hostId, generation),
    );
    return {
      name: address.resourceName,
      area: address.area,
      version: String(view.leader.lver),
      holders: this.holders(view),
      heldHere: isHeldHere(address.resourceName),
      queue: queue.tickets.map((ticket) => members.nameOf(ticket.hostId)),
    };
  }

  holders(view: LeaseView): readonly HolderBody[] {
    return holdersOf(view, false).map((holder) => ({
      hostId: holder.hostId,
      name: this.#options.members.nameOf(holder.hostId),
      generation: String(holder.generation),
      shared: holder.shared,
      since: isoOf(holder.sinceWallSeconds) ?? null,
    }));
  }
}

export function whyOf(look: Exclude<LeaseLook, { kind: "view" }>): string {
  switch (look.kind) {
    case "missing":
      return "it was deleted";
    case "damaged":
      return look.reason;
    case "no-quorum":
      return look.why;
  }
}
