import { ShareHaError } from "../errors.js";

/**
 * Where things lie. sanlock's rule: every lockspace, resource lease and index occupies one area, and the area size
 * decides how many host ids it has room for (sanlock fact sheet, section 1.1). All offsets are bytes from the start of
 * the region. Host ids start at 1.
 */

export type SectorSize = 512 | 4096;

export interface Geometry {
  readonly sectorSize: SectorSize;
  /** bytes of one area */
  readonly areaSize: number;
  /** what sanlock writes as max_hosts of a lease in such an area */
  readonly maxHostsFormat: 250 | 500 | 1000 | 2000;
  /** align flag of leader records */
  readonly lflFlag: number;
  /** align flag of a resource index header */
  readonly rhfFlag: number;
}

/** Host ids of our own records (outbox, configuration, reservation table): 1..64. */
export const MAX_HOSTS_LIMIT = 64;

/** Index of each area of the region; resource leases fill areas from `firstResource` on. */
export const AREA = {
  superblock: 0,
  outboxes: 1,
  reservations: 2,
  lockspace: 3,
  rindex: 4,
  rindexLease: 5,
  firstResource: 6,
} as const;

/** Sectors of a lease before the first host's dblock: leader and request record. */
const LEASE_HEAD_SECTORS = 2;
const ALIGN_FLAGS_MASK = 0xf0;
const MIB = 1024 * 1024;

const GEOMETRIES: readonly Geometry[] = [
  { sectorSize: 512, areaSize: MIB, maxHostsFormat: 2000, lflFlag: 0x10, rhfFlag: 0x1 },
  { sectorSize: 4096, areaSize: MIB, maxHostsFormat: 250, lflFlag: 0x10, rhfFlag: 0x1 },
  { sectorSize: 4096, areaSize: 2 * MIB, maxHostsFormat: 500, lflFlag: 0x20, rhfFlag: 0x2 },
  { sectorSize: 4096, areaSize: 4 * MIB, maxHostsFormat: 1000, lflFlag: 0x40, rhfFlag: 0x4 },
  { sectorSize: 4096, areaSize: 8 * MIB, maxHostsFormat: 2000, lflFlag: 0x80, rhfFlag: 0x8 },
];

/** All pairs of sector and area size that exist. */
export function allGeometries(): readonly Geometry[] {
  return GEOMETRIES;
}

/**
 * @param areaSize bytes; by default sanlock's: 1 MiB with 512-byte sectors, 8 MiB with 4096
 * @throws ERR_GEOMETRY for any pair sanlock does not know
 */
export function geometryOf(sectorSize: number, areaSize?: number): Geometry {
  const wanted = areaSize ?? (sectorSize === 4096 ? 8 * MIB : MIB);
  const found = GEOMETRIES.find((g) => g.sectorSize === sectorSize && g.areaSize === wanted);
  if (found === undefined) {
    throw new ShareHaError(
      "ERR_GEOMETRY",
      `There are no areas of ${wanted} bytes with sectors of ${sectorSize} bytes.`,
      {
        hint: "Use 512-byte sectors with 1 MiB areas, or 4096-byte sectors with 1, 2, 4 or 8 MiB.",
        fields: { sectorSize, areaSize: wanted },
      },
    );
  }
  return found;
}

/** The geometry named by a leader record, undefined when there is none such. For parsers, which must not throw. */
export function findGeometryOfLeaderFlags(flags: number, sectorSize: number): Geometry | undefined {
  const align = flags & ALIGN_FLAGS_MASK;
  // Records made before sanlock 3.7 have no align flag and mean the default area size.
  const wanted = align === 0 ? (sectorSize === 4096 ? 0x80 : 0x10) : align;
  return GEOMETRIES.find((g) => g.sectorSize === sectorSize && g.lflFlag === wanted);
}

/** @throws ERR_GEOMETRY when flags and sector size name no geometry */
export function geometryOfLeaderFlags(flags: number, sectorSize: number): Geometry {
  const found = findGeometryOfLeaderFlags(flags, sectorSize);
  if (found === undefined) {
    throw new ShareHaError(
      "ERR_GEOMETRY",
      `A leader record has align flags 0x${flags.toString(16)} with ${sectorSize}-byte sectors.`,
      {
        hint: "The record is not one that sanlock or sharedha writes; inspect it with `sharedha dump`.",
        fields: { flags, sectorSize },
      },
    );
  }
  return found;
}

/** Byte offset of area `index` in the region. */
export function areaOffset(g: Geometry, index: number): number {
  requireWhole("area index", index, 0, 0xffffffff);
  return index * g.areaSize;
}

/** Byte offset of the delta lease of a host id, 1..maxHostsFormat. */
export function deltaOffset(g: Geometry, hostId: number): number {
  requireWhole("host id", hostId, 1, g.maxHostsFormat);
  return areaOffset(g, AREA.lockspace) + (hostId - 1) * g.sectorSize;
}

/** Byte offset of the outbox of a host id, 1..64: sector hostId - 1 of its area, as in the lockspace. */
export function outboxOffset(g: Geometry, hostId: number): number {
  requireWhole("host id", hostId, 1, MAX_HOSTS_LIMIT);
  return areaOffset(g, AREA.outboxes) + (hostId - 1) * g.sectorSize;
}

/** Byte offset of the leader record (sector 0) of the lease in area `areaIndex`. */
export function leaderOffset(g: Geometry, areaIndex: number): number {
  return areaOffset(g, areaIndex);
}

/** Byte offset of the request record (sector 1) of the lease in area `areaIndex`. */
export function requestOffset(g: Geometry, areaIndex: number): number {
  return areaOffset(g, areaIndex) + g.sectorSize;
}

/** Byte offset of a host's block (sector 2 + hostId - 1) of the lease in area `areaIndex`. */
export function dblockOffset(g: Geometry, areaIndex: number, hostId: number): number {
  requireWhole("host id", hostId, 1, g.maxHostsFormat);
  return areaOffset(g, areaIndex) + (LEASE_HEAD_SECTORS + hostId - 1) * g.sectorSize;
}

/** Bytes from the start of a lease to the end of the last host's block. */
export function leaseReadLength(g: Geometry, maxHosts: number): number {
  requireWhole("number of hosts", maxHosts, 1, g.maxHostsFormat);
  return (LEASE_HEAD_SECTORS + maxHosts) * g.sectorSize;
}

/** Bytes from the start of the lockspace to the end of the last host's delta lease. */
export function lockspaceReadLength(g: Geometry, maxHosts: number): number {
  requireWhole("number of hosts", maxHosts, 1, g.maxHostsFormat);
  return maxHosts * g.sectorSize;
}

/** Bytes from the start of the outbox area to the end of the last host's outbox. */
export function outboxesReadLength(g: Geometry, maxHosts: number): number {
  requireWhole("number of hosts", maxHosts, 1, MAX_HOSTS_LIMIT);
  return maxHosts * g.sectorSize;
}

/** Bytes of a whole region that has `resources` resource leases. */
export function regionLength(g: Geometry, resources: number): number {
  return areaOffset(g, AREA.firstResource + resources);
}

/** @throws ERR_GEOMETRY: an offset outside its area would be another record's. */
export function requireWhole(what: string, value: number, low: number, high: number): void {
  if (!Number.isInteger(value) || value < low || value > high) {
    throw new ShareHaError("ERR_GEOMETRY", `The ${what} ${value} is outside ${low} to ${high}.`, {
      hint: "Nothing was read or written. Use a value inside the region's limits.",
      fields: { value, low, high },
    });
  }
}
