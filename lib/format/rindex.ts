import { fieldError, getU32, getU64, isZero, putU32, putU64, viewOf } from "./bytes.js";
import { corrupt, type Decoded, decodedOk, EMPTY, foreign } from "./decoded.js";
import { AREA, findGeometryOfLeaderFlags, type Geometry, requireWhole } from "./geometry.js";
import { NAME_SIZE } from "./leader-record.js";
import { decodeName, encodeName } from "./name-field.js";

/**
 * sanlock's resource index: an area that maps lease names to their offsets (sanlock fact sheet, section 1.5). Sector 0 is
 * a header, then come entries of 64 bytes. Neither has a checksum, so a reader checks the leader record it is sent to.
 * Updates are done under the internal lease in the next area, one sector at a time.
 */

export const RINDEX_LEASE_NAME = "rindex_lease";
export const RINDEX_MAGIC = 0x01042018;
export const RINDEX_VERSION = 0x00010002;
/** What sanlock's format command uses unless told otherwise. */
export const RINDEX_DEFAULT_MAX_RESOURCES = 4096;

const HEADER_SIZE = 80;
const ENTRY_SIZE = 64;
/** sanlock's limit for the smallest area; larger areas have as many times more. */
const MAX_RESOURCES_OF_1_MIB = 16000;
const MIB = 1024 * 1024;

export interface RindexHeader {
  readonly version: number;
  readonly geometry: Geometry;
  readonly maxResources: number;
  /** bytes from the start of the device or file to this header */
  readonly offset: bigint;
  readonly spaceName: string;
}

export interface RindexEntry {
  /** position in the index; lease n lies at index + 2 areas + n areas */
  readonly index: number;
  readonly name: string;
  /** bytes from the start of the device or file. As found: check it with `areaOfRindexEntry` before use */
  readonly offset: bigint;
}

/** The most resources an index in this geometry can name. */
export function rindexCapacity(g: Geometry): number {
  return (MAX_RESOURCES_OF_1_MIB * g.areaSize) / MIB;
}

/** @returns sector 0 of the index. @throws ERR_RECORD_FIELD, ERR_NAME */
export function encodeRindexHeader(header: RindexHeader): Uint8Array {
  const g = header.geometry;
  if (header.maxResources > rindexCapacity(g)) {
    throw fieldError("maxResources", `${header.maxResources} is above ${rindexCapacity(g)}`);
  }
  const bytes = new Uint8Array(g.sectorSize);
  const view = viewOf(bytes);
  putU32(view, 0, RINDEX_MAGIC, "magic");
  putU32(view, 4, header.version, "version");
  putU32(view, 8, g.rhfFlag, "flags");
  putU32(view, 12, g.sectorSize, "sectorSize");
  putU32(view, 16, header.maxResources, "maxResources");
  putU64(view, 24, header.offset, "offset");
  encodeName(bytes, 32, NAME_SIZE, header.spaceName, "lockspace name");
  return bytes;
}

/** @param bytes at least the 80 bytes of the header; more are ignored */
export function decodeRindexHeader(bytes: Uint8Array): Decoded<RindexHeader> {
  if (bytes.length < HEADER_SIZE) {
    return corrupt(`an index header has ${HEADER_SIZE} bytes, here are ${bytes.length}`);
  }
  if (isZero(bytes, 0, HEADER_SIZE)) {
    return EMPTY;
  }
  const view = viewOf(bytes);
  const version = getU32(view, 4);
  if (getU32(view, 0) !== RINDEX_MAGIC || version >>> 16 !== RINDEX_VERSION >>> 16) {
    return foreign("the sector is not a resource index header of a known version");
  }
  // The index's align flags are the leader record's, shifted right by 4 bits (0x1 and 0x10, ... 0x8 and 0x80).
  const geometry = findGeometryOfLeaderFlags((getU32(view, 8) & 0xf) << 4, getU32(view, 12));
  if (geometry === undefined) {
    return corrupt("the resource index header has no valid align flag for its sector size");
  }
  const maxResources = getU32(view, 16);
  if (maxResources > rindexCapacity(geometry)) {
    return corrupt(`the resource index says it has room for ${maxResources} resources`);
  }
  return decodedOk({
    version,
    geometry,
    maxResources,
    offset: getU64(view, 24),
    spaceName: decodeName(bytes, 32, NAME_SIZE),
  });
}

/**
 * Every entry that is not all zero, in order.
 * @param bytes the area from its start, or as much of it as was read
 * @param maxResources of the header; by default all that fit
 */
export function decodeRindexEntries(
  g: Geometry,
  bytes: Uint8Array,
  maxResources = rindexCapacity(g),
): RindexEntry[] {
  const entries: RindexEntry[] = [];
  const view = viewOf(bytes);
  const fitting = Math.floor((bytes.length - g.sectorSize) / ENTRY_SIZE);
  const count = Math.min(fitting, maxResources, rindexCapacity(g));
  for (let index = 0; index < count; index++) {
    const at = g.sectorSize + index * ENTRY_SIZE;
    if (!isZero(bytes, at, at + ENTRY_SIZE)) {
      entries.push({
        index,
        name: decodeName(bytes, at + 16, NAME_SIZE),
        offset: getU64(view, at),
      });
    }
  }
  return entries;
}

/** Byte offset, inside the index area, of the sector that holds entry `index`. */
export function rindexEntrySectorOffset(g: Geometry, index: number): number {
  requireWhole("resource index", index, 0, rindexCapacity(g) - 1);
  const at = g.sectorSize + index * ENTRY_SIZE;
  return at - (at % g.sectorSize);
}

/**
 * The sector with one entry changed, ready to be written at `rindexEntrySectorOffset`.
 * @param sector the sector as just read, under the index's lease
 * @param entry undefined to free the entry
 */
export function rindexEntrySector(
  g: Geometry,
  sector: Uint8Array,
  index: number,
  entry: { readonly name: string; readonly offset: bigint } | undefined,
): Uint8Array {
  if (sector.length !== g.sectorSize) {
    throw fieldError("sector", `${sector.length} bytes instead of ${g.sectorSize}`);
  }
  const at = g.sectorSize + index * ENTRY_SIZE - rindexEntrySectorOffset(g, index);
  const bytes = Uint8Array.from(sector);
  bytes.fill(0, at, at + ENTRY_SIZE);
  if (entry !== undefined) {
    if (entry.name === "") {
      throw fieldError("name", "an entry without name and offset would be a free one");
    }
    putU64(viewOf(bytes), at, entry.offset, "offset");
    encodeName(bytes, at + 16, NAME_SIZE, entry.name, "resource name");
  }
  return bytes;
}

/** The lowest position no entry uses, undefined when the index is full. */
export function freeRindexIndex(
  entries: readonly RindexEntry[],
  maxResources: number,
): number | undefined {
  const used = new Set(entries.map((entry) => entry.index));
  for (let index = 0; index < maxResources; index++) {
    if (!used.has(index)) {
      return index;
    }
  }
  return undefined;
}

/** Offset in our region of the lease with position `index`. */
export function rindexResourceOffset(g: Geometry, index: number): bigint {
  requireWhole("resource index", index, 0, rindexCapacity(g) - 1);
  return BigInt(AREA.firstResource + index) * BigInt(g.areaSize);
}

/**
 * Area index in our region of the lease an entry points to.
 * @param areaCount number of areas of the region
 * @returns undefined when the offset is no resource area of this region: the entry is damaged or another program's
 */
export function areaOfRindexEntry(
  g: Geometry,
  entry: { readonly offset: bigint },
  areaCount: number,
): number | undefined {
  const size = BigInt(g.areaSize);
  const area = entry.offset / size;
  const inside = area >= BigInt(AREA.firstResource) && area < BigInt(areaCount);
  return inside && entry.offset % size === 0n ? Number(area) : undefined;
}
