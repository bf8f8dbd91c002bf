/**
 * What a reader knows about the other hosts: for each host id and LUN, how long its record has been seen unchanged.
 *
 * The age of a record is the start of the newest read that showed the value minus the completion of the first read that
 * showed it. "Now" is never used, a failed read adds nothing, and neither does a time in which nobody read (DESIGN
 * section 4; sanlock's bug 1d8cda20 was to use "now").
 */
import { decodeDeltaSector, type DeltaSector } from "../format/delta-sector.js";
import { type Geometry } from "../format/geometry.js";
import { type OpTiming } from "../port/disk.js";
import { chooseRecord } from "./record-choice.js";

/** One host's record as last read from one LUN. */
export interface Sighting {
  /** `undefined`: the sector is all zero or cannot be read as a record; `trouble` says which. */
  readonly record: DeltaSector | undefined;
  readonly trouble: string | undefined;
  /** Completion of the first read that showed this value. */
  readonly firstSeenMs: number;
  /** Start of the newest read that showed this value. */
  readonly lastSeenMs: number;
}

/** One host, over all LUNs that count. */
export interface HostObservation {
  readonly hostId: number;
  /** The newest record (record-choice.ts); `undefined` when no LUN has a readable one, or they disagree whose it is. */
  readonly record: DeltaSector | undefined;
  readonly trouble: string | undefined;
  /**
   * For how long a majority of the LUNs showed their values unchanged *at once*; 0 when no majority was read.
   */
  readonly unchangedMs: number;
  /** Start of the newest read of any LUN that is part of that majority. */
  readonly lastSeenMs: number;
}

/** Every renewal changes the timestamp, which lies here; the host record ends here too. */
const COMPARED_BYTES = 256;

interface Cell {
  readonly bytes: Uint8Array;
  readonly sighting: Sighting;
}

export class Observer {
  readonly #geometry: Geometry;
  readonly #maxHosts: number;
  readonly #lunCount: number;
  readonly #cells: (Cell | undefined)[][];

  constructor(geometry: Geometry, maxHosts: number, lunCount: number) {
    this.#geometry = geometry;
    this.#maxHosts = maxHosts;
    this.#lunCount = lunCount;
    this.#cells = Array.from({ length: lunCount }, () => new Array<Cell | undefined>(maxHosts));
  }

  /** Takes in one read of the used part of the lockspace, begun and completed at `timing`. */
  note(lun: number, lockspace: Uint8Array, timing: OpTiming): void {
    const cells = this.#cells[lun];
    if (cells === undefined) {
      return;
    }
    const size = this.#geometry.sectorSize;
    for (let index = 0; index < this.#maxHosts && (index + 1) * size <= lockspace.length; index++) {
      const sector = lockspace.subarray(index * size, (index + 1) * size);
      const known = cells[index];
      if (known !== undefined && isSame(known.bytes, sector)) {
        const lastSeenMs = Math.max(known.sighting.lastSeenMs, timing.startedMs);
        cells[index] = { bytes: known.bytes, sighting: { ...known.sighting, lastSeenMs } };
        continue;
      }
      const decoded = decodeDeltaSector(this.#geometry, sector);
      cells[index] = {
        bytes: sector.slice(0, COMPARED_BYTES),
        sighting: {
          record: decoded.kind === "ok" ? decoded.value : undefined,
          trouble: troubleOf(decoded),
          firstSeenMs: timing.completedMs,
          lastSeenMs: timing.completedMs,
        },
      };
    }
  }

  sighting(lun: number, hostId: number): Sighting | undefined {
    return this.#cells[lun]?.[hostId - 1]?.sighting;
  }

  /** @param counts which LUNs count, one entry per LUN */
  host(hostId: number, counts: readonly boolean[]): HostObservation {
    const seen: Sighting[] = [];
    for (let lun = 0; lun < this.#lunCount; lun++) {
      const sighting = counts[lun] === true ? this.sighting(lun, hostId) : undefined;
      if (sighting !== undefined) {
        seen.push(sighting);
      }
    }
    const together = unchangedTogether(seen, Math.floor(this.#lunCount / 2) + 1);
    return {
      hostId,
      ...recordOf(seen, this.#lunCount),
      ...together,
    };
  }

  hosts(counts: readonly boolean[]): readonly HostObservation[] {
    return Array.from({ length: this.#maxHosts }, (_, index) => this.host(index + 1, counts));
  }
}

/** For how long this very record has been in place; 0 when another one was seen last. */
export function unchangedMsOf(host: HostObservation, { leader }: DeltaSector): number {
  const seen = host.record?.leader;
  return seen?.ownerGeneration === leader.ownerGeneration && seen.timestamp === leader.timestamp
    ? host.unchangedMs
    : 0;
}

function isSame(known: Uint8Array, sector: Uint8Array): boolean {
  for (let at = 0; at < COMPARED_BYTES; at++) {
    if (known[at] !== sector[at]) {
      return false;
    }
  }
  return true;
}

function troubleOf(decoded: ReturnType<typeof decodeDeltaSector>): string | undefined {
  switch (decoded.kind) {
    case "ok":
      return undefined;
    case "empty":
      return "the sector is all zero, which no formatted lockspace has";
    case "foreign":
    case "corrupt":
      return decoded.reason;
  }
}

/** What a host's record is, or why that cannot be said. */
function recordOf(
  seen: readonly Sighting[],
  lunCount: number,
): { readonly record: DeltaSector | undefined; readonly trouble: string | undefined } {
  const records = seen.flatMap(({ record }) => (record === undefined ? [] : [record]));
  const { newest, contested } = chooseRecord(records, lunCount);
  if (contested) {
    return { record: undefined, trouble: "the LUNs disagree about who has this host id" };
  }
  return newest === undefined
    ? { record: undefined, trouble: seen[0]?.trouble ?? "never read" }
    : { record: newest, trouble: undefined };
}

/**
 * The longest time in which some majority of the LUNs showed unchanged values all at once. `expired` on one LUN only
 * says that the path to that LUN is gone.
 */
function unchangedTogether(
  seen: readonly Sighting[],
  majority: number,
): { readonly unchangedMs: number; readonly lastSeenMs: number } {
  const [only] = seen;
  if (majority === 1 && seen.length === 1 && only !== undefined) {
    const unchangedMs = Math.max(0, only.lastSeenMs - only.firstSeenMs);
    return { unchangedMs, lastSeenMs: only.lastSeenMs };
  }
  let best = { unchangedMs: 0, lastSeenMs: 0 };
  for (const group of choose(seen, majority)) {
    let from = -Infinity;
    let to = Infinity;
    let lastSeenMs = -Infinity;
    for (const sighting of group) {
      from = Math.max(from, sighting.firstSeenMs);
      to = Math.min(to, sighting.lastSeenMs);
      lastSeenMs = Math.max(lastSeenMs, sighting.lastSeenMs);
    }
    if (to - from > best.unchangedMs || best.lastSeenMs === 0) {
      best = { unchangedMs: Math.max(0, to - from), lastSeenMs };
    }
  }
  return best;
}

function* choose<T>(items: readonly T[], count: number, from = 0): Generator<readonly T[]> {
  if (count === 0) {
    yield [];
    return;
  }
  for (let index = from; index <= items.length - count; index++) {
    const item = items[index];
    if (item !== undefined) {
      for (const rest of choose(items, count - 1, index + 1)) {
        yield [item, ...rest];
      }
    }
  }
}
