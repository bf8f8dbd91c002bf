/**
 * What a LUN that takes the place of a lost one must hold before it counts: of every record the highest that a majority of
 * the others has (DESIGN section 6). Works area by area on the bytes as read from those others.
 *
 * A host's block of a lease is the promise that host made on that LUN; the merged one carries the highest ballot and the
 * accepted value with the highest bal, as `lease-view` reads them, so the new LUN has promised whatever any majority with
 * the lost one had promised.
 */
import { configSlotOffset, configSubslotSize, decodeConfigSlot } from "../format/config-slot.js";
import { decodeHostBlock, encodeHostBlock } from "../format/dblock.js";
import { decodeDeltaSector } from "../format/delta-sector.js";
import { AREA, areaOffset, type Geometry } from "../format/geometry.js";
import { decodeLeaderRecord, type LeaderRecord } from "../format/leader-record.js";
import { decodeOutbox } from "../format/outbox.js";
import { decodeReservationTable, reservationSubslotSize } from "../format/reservation-table.js";
import { decodeRindexHeader } from "../format/rindex.js";
import { compareStamps } from "../format/stamp.js";
import { isLaterLeader, mergeBlock } from "./lease-view.js";
import { isLater } from "./record-choice.js";

/** One piece of a region that is merged as a whole. */
export interface MergeUnit {
  /** Bytes from the start of the region. */
  readonly offset: number;
  readonly length: number;
  /** @param copies this piece as read from each of the others, at least one */
  readonly merge: (copies: readonly Uint8Array[]) => Uint8Array;
}

/** Every piece of a region but the superblocks, in order. */
export function* mergeUnits(
  g: Geometry,
  maxHosts: number,
  areaCount: number,
): Generator<MergeUnit> {
  const hostIds = Array.from({ length: maxHosts }, (_, index) => index + 1);
  for (const hostId of hostIds) {
    for (const sub of [0, 1] as const) {
      const offset = configSlotOffset(g, hostId, sub);
      yield {
        offset,
        length: configSubslotSize(g),
        merge: newest((bytes) => configOf(g, bytes), laterStamp),
      };
    }
  }
  yield perSector(
    g,
    AREA.outboxes,
    maxHosts,
    newest((bytes) => outboxOf(g, bytes), laterOutbox),
  );
  const table = reservationSubslotSize(g);
  for (let slot = 0; slot < 2 * maxHosts; slot++) {
    const offset = areaOffset(g, AREA.reservations) + slot * table;
    yield { offset, length: table, merge: newest((bytes) => tableOf(g, bytes), laterStamp) };
  }
  yield perSector(
    g,
    AREA.lockspace,
    maxHosts,
    newest((bytes) => deltaOf(g, bytes), isLater),
  );
  yield {
    offset: areaOffset(g, AREA.rindex),
    length: g.areaSize,
    merge: (copies) => mergeIndex(g, copies),
  };
  for (let area = AREA.rindexLease; area < areaCount; area++) {
    yield leaseUnit(g, area, maxHosts);
  }
}

/** The copy whose record is later than all others; one that is no record loses against any that is. */
function newest<T>(
  decode: (bytes: Uint8Array) => T | undefined,
  isNewer: (one: T, other: T) => boolean,
): (copies: readonly Uint8Array[]) => Uint8Array {
  return (copies) => {
    let best: { readonly bytes: Uint8Array; readonly value: T } | undefined;
    for (const bytes of copies) {
      const value = decode(bytes);
      if (value !== undefined && (best === undefined || isNewer(value, best.value))) {
        best = { bytes, value };
      }
    }
    // No LUN has a whole record: what the first has is as good, and is seen as damage there too.
    return best?.bytes ?? copies[0] ?? new Uint8Array(0);
  };
}

function perSector(
  g: Geometry,
  area: number,
  count: number,
  merge: (copies: readonly Uint8Array[]) => Uint8Array,
): MergeUnit {
  const size = g.sectorSize;
  return {
    offset: areaOffset(g, area),
    length: count * size,
    merge: (copies) => {
      const merged = new Uint8Array(count * size);
      for (let index = 0; index < count; index++) {
        const sectors = copies.map((bytes) => bytes.subarray(index * size, (index + 1) * size));
        merged.set(merge(sectors), index * size);
      }
      return merged;
    },
  };
}

function laterStamp(
  one: { readonly stamp: Parameters<typeof compareStamps>[0] },
  other: { readonly stamp: Parameters<typeof compareStamps>[0] },
): boolean {
  return compareStamps(one.stamp, other.stamp) > 0;
}

function laterOutbox(
  one: { readonly generation: bigint; readonly sequence: bigint },
  other: { readonly generation: bigint; readonly sequence: bigint },
): boolean {
  return one.generation === other.generation
    ? one.sequence > other.sequence
    : one.generation > other.generation;
}

function configOf(
  g: Geometry,
  bytes: Uint8Array,
): { readonly stamp: Parameters<typeof compareStamps>[0] } | undefined {
  const decoded = decodeConfigSlot(g, bytes);
  return decoded.kind === "ok" ? decoded.value : undefined;
}

function tableOf(
  g: Geometry,
  bytes: Uint8Array,
): { readonly stamp: Parameters<typeof compareStamps>[0] } | undefined {
  const decoded = decodeReservationTable(g, bytes);
  return decoded.kind === "ok" ? decoded.value : undefined;
}

function outboxOf(
  g: Geometry,
  bytes: Uint8Array,
): { readonly generation: bigint; readonly sequence: bigint } | undefined {
  const decoded = decodeOutbox(g, bytes);
  return decoded.kind === "ok" ? decoded.value : undefined;
}

function deltaOf(g: Geometry, bytes: Uint8Array): Parameters<typeof isLater>[0] | undefined {
  const decoded = decodeDeltaSector(g, bytes);
  return decoded.kind === "ok" ? decoded.value : undefined;
}

/** Entries are hints that the leaders prove or disprove (`lease-index`): the union of all is right. */
function mergeIndex(g: Geometry, copies: readonly Uint8Array[]): Uint8Array {
  const whole = copies.find((bytes) => decodeRindexHeader(bytes).kind === "ok");
  const merged = Uint8Array.from(whole ?? copies[0] ?? new Uint8Array(g.areaSize));
  const entrySize = 64;
  for (const bytes of copies) {
    for (let at = g.sectorSize; at + entrySize <= merged.length; at += entrySize) {
      const isFree = merged.subarray(at, at + entrySize).every((byte) => byte === 0);
      if (isFree) {
        merged.set(bytes.subarray(at, at + entrySize), at);
      }
    }
  }
  return merged;
}

function leaseUnit(g: Geometry, area: number, maxHosts: number): MergeUnit {
  const size = g.sectorSize;
  return {
    offset: areaOffset(g, area),
    length: (2 + maxHosts) * size,
    merge: (copies) => {
      const at = (bytes: Uint8Array, sector: number): Uint8Array =>
        bytes.subarray(sector * size, (sector + 1) * size);
      const merged = new Uint8Array((2 + maxHosts) * size);
      const chosen = newest(leaderOf, isLaterLeader)(copies.map((bytes) => at(bytes, 0)));
      merged.set(chosen);
      // The request record has neither version nor checksum: the one beside the chosen leader.
      const beside = copies.find((bytes) =>
        at(bytes, 0).every((byte, index) => byte === chosen[index]),
      );
      merged.set(at(beside ?? merged, 1), size);
      for (let sector = 2; sector < 2 + maxHosts; sector++) {
        merged.set(
          mergeBlocks(
            g,
            copies.map((bytes) => at(bytes, sector)),
          ),
          sector * size,
        );
      }
      return merged;
    },
  };
}

function leaderOf(bytes: Uint8Array): LeaderRecord | undefined {
  const decoded = decodeLeaderRecord(bytes, "paxos");
  return decoded.kind === "ok" ? decoded.value : undefined;
}

function mergeBlocks(g: Geometry, copies: readonly Uint8Array[]): Uint8Array {
  const blocks = copies.flatMap((bytes) => {
    const decoded = decodeHostBlock(g, bytes);
    return decoded.kind === "ok" ? [decoded.value] : [];
  });
  const [first, ...rest] = blocks;
  return first === undefined
    ? (copies[0] ?? new Uint8Array(g.sectorSize))
    : encodeHostBlock(g, rest.reduce(mergeBlock, first));
}
