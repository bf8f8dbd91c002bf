/**
 * Keeps the own outbox short. An outbox has room for eight entries of a kind (DESIGN section 3), and the protocols only
 * take out what they put in for the same lease and host; notices of leases that have moved on since would fill it up.
 * This knows what was put in, and adds to each change the removals that are due.
 */
import { MAX_OUTBOX_ENTRIES_OF_A_KIND, type OutboxEntry } from "../format/outbox.js";
import { type OutboxChange } from "../lease/procedure.js";

type Key = Pick<OutboxEntry, "kind" | "area" | "targetHostId">;

/** Hand-over notices kept: one per lease, and room is left for the next one. A lost notice costs a poll, nothing else. */
const HANDOVERS_MAX = MAX_OUTBOX_ENTRIES_OF_A_KIND - 4;

export class OutboxKeeper {
  #entries: readonly Key[];

  /** @param found the own entries as they stand on disk */
  constructor(found: readonly Key[] = []) {
    this.#entries = found;
  }

  has(kind: OutboxEntry["kind"], area: number): boolean {
    return this.#entries.some((entry) => entry.kind === kind && entry.area === area);
  }

  /** The change, and what has to go with it. */
  complete(change: OutboxChange): OutboxChange {
    const handovers = change.add.filter((entry) => entry.kind === "handover");
    if (handovers.length === 0) {
      return change;
    }
    const known = this.#entries.filter((entry) => entry.kind === "handover");
    // A new notice of a lease makes its earlier ones void: they name an lver that is over.
    const isVoid = (entry: Key): boolean => handovers.some((added) => added.area === entry.area);
    const others = known.filter((entry) => !isVoid(entry));
    const excess = others.slice(0, Math.max(0, others.length + handovers.length - HANDOVERS_MAX));
    return { ...change, remove: [...change.remove, ...known.filter(isVoid), ...excess] };
  }

  /** The change is on a majority. */
  accepted(change: OutboxChange): void {
    const kept = this.#entries.filter(
      (entry) => !change.remove.some((gone) => isSameKey(gone, entry)),
    );
    this.#entries = [...kept, ...change.add];
  }
}

function isSameKey(one: Key, other: Key): boolean {
  return (
    one.kind === other.kind && one.area === other.area && one.targetHostId === other.targetHostId
  );
}
