import { isZero } from "./bytes.js";
import { configSlotOffset, configSubslotSize, decodeConfigSlot } from "./config-slot.js";
import { decodeHostBlock } from "./dblock.js";
import { type Decoded, EMPTY } from "./decoded.js";
import { decodeDeltaSector } from "./delta-sector.js";
import { AREA, findGeometryOfLeaderFlags, type Geometry, MAX_HOSTS_LIMIT } from "./geometry.js";
import { decodeLeaderRecord } from "./leader-record.js";
import { decodeOutbox } from "./outbox.js";
import { decodeRequestRecord } from "./request-record.js";
import { decodeReservationTable, reservationSubslotSize } from "./reservation-table.js";
import { decodeRindexEntries, decodeRindexHeader } from "./rindex.js";
import { decodeSuperblock, geometryOfSuperblock, type Superblock } from "./superblock.js";

/**
 * For `dump`: what a file or device is, from its first bytes, and what each record in it says. Works without knowing
 * anything before: our region, or a plain sanlock lockspace, resource lease or index, with either sector size.
 */

export type Layout =
  | { readonly kind: "sharedha"; readonly g: Geometry; readonly superblock: Superblock }
  | { readonly kind: "sanlock-lockspace"; readonly g: Geometry }
  | { readonly kind: "sanlock-resource"; readonly g: Geometry }
  | { readonly kind: "sanlock-rindex"; readonly g: Geometry }
  | { readonly kind: "unknown"; readonly why: string };

/** What an area is used for; `lease` is a resource lease or the index's internal one. */
export type AreaUse = "superblock" | "outboxes" | "reservations" | "lockspace" | "rindex" | "lease";

export type FieldValue = string | number | boolean | readonly FieldValue[] | FieldTable;
export interface FieldTable {
  readonly [field: string]: FieldValue;
}

/** One record: where it is, whether it is whole, and its fields with 64-bit numbers as decimal strings. */
export interface RecordDescription {
  /** such as "delta lease of host 3" */
  readonly name: string;
  readonly state: Decoded<unknown>["kind"];
  /** why the record is foreign or corrupt */
  readonly reason: string | undefined;
  readonly fields: FieldTable;
}

/** Where a record of an area lies, to be read in one piece. */
export interface RecordPlace {
  readonly name: string;
  /** bytes from the start of the area */
  readonly offset: number;
  readonly length: number;
  readonly decode: (bytes: Uint8Array) => Decoded<unknown>;
}

/**
 * Says what begins at `bytes`. Also usable on the start of each area of a file that holds several.
 * @param bytes the first bytes, 512 at least; 16 KiB are more than enough
 */
export function detectLayout(bytes: Uint8Array): Layout {
  const superblock = decodeSuperblock(bytes);
  if (superblock.kind === "ok") {
    return {
      kind: "sharedha",
      g: geometryOfSuperblock(superblock.value),
      superblock: superblock.value,
    };
  }
  if (superblock.kind === "empty" && isZero(bytes)) {
    return { kind: "unknown", why: "the first bytes are all zero" };
  }
  const leader = decodeLeaderRecord(bytes);
  if (leader.kind === "ok") {
    const g = findGeometryOfLeaderFlags(leader.value.flags, leader.value.sectorSize);
    const kind = leader.value.kind === "delta" ? "sanlock-lockspace" : "sanlock-resource";
    return g === undefined ? { kind: "unknown", why: "no valid align flag" } : { kind, g };
  }
  const rindex = decodeRindexHeader(bytes);
  if (rindex.kind === "ok") {
    return { kind: "sanlock-rindex", g: rindex.value.geometry };
  }
  return { kind: "unknown", why: whyUnknown([superblock, leader, rindex]) };
}

/** The damage or the newer version, if one of the parsers knew the magic; else that nothing is known. */
function whyUnknown(results: readonly Decoded<unknown>[]): string {
  const [superblock] = results;
  const damaged = results.find((result) => result.kind === "corrupt");
  if (damaged?.kind === "corrupt") {
    return damaged.reason;
  }
  if (superblock?.kind === "foreign" && superblock.reason.includes("newer")) {
    return superblock.reason;
  }
  return "neither a sharedha region nor a sanlock lockspace, resource or index begins here";
}

/** What area `index` of our region is used for. */
export function areaUseOf(index: number): AreaUse {
  switch (index) {
    case AREA.superblock:
      return "superblock";
    case AREA.outboxes:
      return "outboxes";
    case AREA.reservations:
      return "reservations";
    case AREA.lockspace:
      return "lockspace";
    case AREA.rindex:
      return "rindex";
    default:
      return "lease";
  }
}

/** What the one area of a plain sanlock file is used for. */
export function areaUseOfLayout(
  layout: Exclude<Layout, { readonly kind: "sharedha" | "unknown" }>,
): AreaUse {
  switch (layout.kind) {
    case "sanlock-lockspace":
      return "lockspace";
    case "sanlock-resource":
      return "lease";
    case "sanlock-rindex":
      return "rindex";
  }
}

/**
 * Every place of an area that can hold a record, in order of offset.
 * @param hosts host ids to list; at most 64 in our own areas, at most the format's in sanlock's
 */
export function recordPlaces(g: Geometry, use: AreaUse, hosts: number): RecordPlace[] {
  const own = Math.min(hosts, MAX_HOSTS_LIMIT);
  const sector = g.sectorSize;
  const perHost = (
    count: number,
    place: (hostId: number) => Omit<RecordPlace, "length">,
  ): RecordPlace[] =>
    Array.from({ length: count }, (_, index) => ({ length: sector, ...place(index + 1) }));
  switch (use) {
    case "superblock":
      return superblockAreaPlaces(g, own);
    case "outboxes":
      return perHost(own, (hostId) => ({
        name: `outbox of host ${hostId}`,
        offset: (hostId - 1) * sector,
        decode: (bytes) => decodeOutbox(g, bytes),
      }));
    case "reservations":
      return reservationAreaPlaces(g, own);
    case "lockspace":
      return perHost(Math.min(hosts, g.maxHostsFormat), (hostId) => ({
        name: `delta lease of host ${hostId}`,
        offset: (hostId - 1) * sector,
        decode: (bytes) => decodeDeltaSector(g, bytes),
      }));
    case "rindex":
      return rindexAreaPlaces(g);
    case "lease":
      return [
        {
          name: "leader",
          offset: 0,
          length: sector,
          decode: (bytes) => decodeLeaderRecord(bytes, "paxos"),
        },
        { name: "request", offset: sector, length: sector, decode: decodeRequestRecord },
        ...perHost(Math.min(hosts, g.maxHostsFormat), (hostId) => ({
          name: `block of host ${hostId}`,
          offset: (hostId + 1) * sector,
          decode: (bytes) => decodeUsedBlock(g, bytes),
        })),
      ];
  }
}

/** Reads one place. @param bytes exactly `place.length` bytes from `place.offset` of the area */
export function describeRecord(place: RecordPlace, bytes: Uint8Array): RecordDescription {
  const decoded = place.decode(bytes);
  return {
    name: place.name,
    state: decoded.kind,
    reason: decoded.kind === "foreign" || decoded.kind === "corrupt" ? decoded.reason : undefined,
    fields: decoded.kind === "ok" ? fieldsOf(decoded.value) : {},
  };
}

/** A block of zeros is valid, but in a listing it is an empty place. */
function decodeUsedBlock(g: Geometry, bytes: Uint8Array): Decoded<unknown> {
  return isZero(bytes) ? EMPTY : decodeHostBlock(g, bytes);
}

function superblockAreaPlaces(g: Geometry, hosts: number): RecordPlace[] {
  const sector = g.sectorSize;
  const slots = twoPerHost(hosts, (hostId, sub) => ({
    name: `configuration ${sub === 0 ? "A" : "B"} of host ${hostId}`,
    offset: configSlotOffset(g, hostId, sub),
    length: configSubslotSize(g),
    decode: (bytes) => decodeConfigSlot(g, bytes),
  }));
  const copy = (name: string, offset: number): RecordPlace => ({
    name,
    offset,
    length: sector,
    decode: decodeSuperblock,
  });
  return [
    copy("superblock, first copy", 0),
    ...slots,
    copy("superblock, last copy", g.areaSize - sector),
  ];
}

function reservationAreaPlaces(g: Geometry, hosts: number): RecordPlace[] {
  const length = reservationSubslotSize(g);
  return twoPerHost(hosts, (hostId, sub) => ({
    name: `reservation table ${sub === 0 ? "A" : "B"} of host ${hostId}`,
    offset: ((hostId - 1) * 2 + sub) * length,
    length,
    decode: (bytes) => decodeReservationTable(g, bytes),
  }));
}

function rindexAreaPlaces(g: Geometry): RecordPlace[] {
  const decodeEntries = (bytes: Uint8Array): Decoded<unknown> => {
    const entries = decodeRindexEntries(g, bytes);
    return entries.length === 0 ? EMPTY : { kind: "ok", value: { entries } };
  };
  return [
    { name: "index header", offset: 0, length: g.sectorSize, decode: decodeRindexHeader },
    { name: "index entries", offset: 0, length: g.areaSize, decode: decodeEntries },
  ];
}

function twoPerHost(
  hosts: number,
  place: (hostId: number, sub: 0 | 1) => RecordPlace,
): RecordPlace[] {
  return Array.from({ length: hosts }, (_, index) => [
    place(index + 1, 0),
    place(index + 1, 1),
  ]).flat();
}

function fieldsOf(value: unknown): FieldTable {
  const table: Record<string, FieldValue> = {};
  if (typeof value === "object" && value !== null) {
    for (const [name, field] of Object.entries(value)) {
      if (field !== undefined) {
        table[name] = fieldValueOf(field);
      }
    }
  }
  return table;
}

function fieldValueOf(value: unknown): FieldValue {
  if (value instanceof Uint8Array) {
    return hostIdsOf(value);
  }
  if (Array.isArray(value)) {
    return value.map(fieldValueOf);
  }
  switch (typeof value) {
    case "string":
    case "number":
    case "boolean":
      return value;
    case "object":
      return fieldsOf(value);
    default:
      return String(value);
  }
}

/** The one byte array among the records is the bitmap of host ids. */
function hostIdsOf(bitmap: Uint8Array): number[] {
  const hostIds: number[] = [];
  bitmap.forEach((byte, index) => {
    for (let bit = 0; bit < 8; bit++) {
      if ((byte & (1 << bit)) !== 0) {
        hostIds.push(index * 8 + bit + 1);
      }
    }
  });
  return hostIds;
}
