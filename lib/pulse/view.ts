/**
 * What this node sees of the others: which bytes a beat reads, the records and outboxes found, and for how long they have
 * not changed. The bytes of a beat grow with the members, not with the room for them: up to the highest host id that was
 * ever used, and everything every tenth beat.
 */
import {
  areaOffset,
  AREA,
  type Geometry,
  lockspaceReadLength,
  MAX_HOSTS_LIMIT,
  outboxesReadLength,
} from "../format/geometry.js";
import { decodeOutbox, type Outbox } from "../format/outbox.js";
import { isSame } from "../lease/delta-lease.js";
import { type HostObservation, Observer } from "../lease/observer.js";
import { type LunSet } from "../lease/procedure.js";
import { type BatchResult, type ReadOp } from "../port/disk.js";

export const FULL_SCAN_EVERY = 10;

interface OutboxCell {
  readonly bytes: Uint8Array;
  readonly outbox: Outbox | undefined;
}

export class View {
  readonly #geometry: Geometry;
  readonly #maxHosts: number;
  readonly #luns: LunSet;
  readonly #observer: Observer;
  readonly #outboxes: (OutboxCell | undefined)[][];
  #used: number;

  /** @param atLeast host ids up to this one are read in every beat (the own one) */
  constructor(geometry: Geometry, maxHosts: number, luns: LunSet, atLeast: number) {
    this.#geometry = geometry;
    this.#maxHosts = maxHosts;
    this.#luns = luns;
    this.#observer = new Observer(geometry, maxHosts, luns.total);
    this.#outboxes = luns.counts.map(() => []);
    this.#used = Math.max(1, atLeast);
  }

  /** The two reads of a beat: lockspace, outboxes. */
  readOps(full: boolean): readonly [ReadOp, ReadOp] {
    const hosts = full ? this.#maxHosts : this.#used;
    const withOutbox = Math.min(hosts, MAX_HOSTS_LIMIT);
    const geometry = this.#geometry;
    return [
      {
        kind: "read",
        offset: areaOffset(geometry, AREA.lockspace),
        length: lockspaceReadLength(geometry, hosts),
      },
      {
        kind: "read",
        offset: areaOffset(geometry, AREA.outboxes),
        length: outboxesReadLength(geometry, withOutbox),
      },
    ];
  }

  /** Takes in a batch that began with the two reads of `readOps`. */
  note(lun: number, result: Extract<BatchResult, { kind: "done" }>): void {
    const [lockspace, outboxes] = result.reads;
    const timing = result.timings[0];
    if (lockspace !== undefined && timing !== undefined) {
      this.#observer.note(lun, lockspace, timing);
      this.#grow(lun);
    }
    if (outboxes !== undefined) {
      this.#noteOutboxes(lun, outboxes);
    }
  }

  host(hostId: number): HostObservation {
    return this.#observer.host(hostId, this.#luns.counts);
  }

  /** Every host id that was ever used, as far as the LUNs have shown. */
  hosts(): readonly HostObservation[] {
    return Array.from({ length: this.#used }, (_, index) => this.host(index + 1)).filter(
      (host) => host.record === undefined || host.record.leader.ownerGeneration > 0n,
    );
  }

  /** One per host: of the copies on the LUNs that count, the newest (generation, then sequence). */
  outboxes(): readonly Outbox[] {
    const newest: Outbox[] = [];
    for (let index = 0; index < Math.min(this.#used, MAX_HOSTS_LIMIT); index++) {
      const outbox = this.outbox(index + 1);
      if (outbox !== undefined) {
        newest.push(outbox);
      }
    }
    return newest;
  }

  outbox(hostId: number): Outbox | undefined {
    let best: Outbox | undefined;
    this.#outboxes.forEach((cells, lun) => {
      const outbox = this.#luns.counts[lun] === true ? cells[hostId - 1]?.outbox : undefined;
      if (outbox?.hostId === hostId && (best === undefined || isNewer(outbox, best))) {
        best = outbox;
      }
    });
    return best;
  }

  #grow(lun: number): void {
    for (let hostId = this.#maxHosts; hostId > this.#used; hostId--) {
      const sighting = this.#observer.sighting(lun, hostId);
      // An unreadable record may be somebody's: it is looked at in every beat from now on.
      const isUsed =
        sighting !== undefined &&
        (sighting.record === undefined || sighting.record.leader.ownerGeneration > 0n);
      if (isUsed) {
        this.#used = hostId;
      }
    }
  }

  #noteOutboxes(lun: number, bytes: Uint8Array): void {
    const cells = this.#outboxes[lun];
    const size = this.#geometry.sectorSize;
    if (cells === undefined) {
      return;
    }
    for (let index = 0; (index + 1) * size <= bytes.length; index++) {
      const sector = bytes.subarray(index * size, (index + 1) * size);
      if (isSame(cells[index]?.bytes, sector)) {
        continue;
      }
      const decoded = decodeOutbox(this.#geometry, sector);
      cells[index] = {
        bytes: sector.slice(),
        outbox: decoded.kind === "ok" ? decoded.value : undefined,
      };
    }
  }
}

function isNewer(one: Outbox, other: Outbox): boolean {
  return one.generation === other.generation
    ? one.sequence > other.sequence
    : one.generation > other.generation;
}
