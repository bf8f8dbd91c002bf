/** A region as sharedha formats it, made of the encoders alone, for sanlock to look at. */
import { closeSync, ftruncateSync, fsyncSync, openSync, writeSync } from "node:fs";
import { encodeDeltaSector } from "../../lib/format/delta-sector.js";
import {
  AREA,
  areaOffset,
  deltaOffset,
  type Geometry,
  regionLength,
} from "../../lib/format/geometry.js";
import {
  encodePaxosLeaderSector,
  type LeaderRecord,
  PAXOS_VERSION,
} from "../../lib/format/leader-record.js";
import { encodeRequestSector, REQUEST_VERSION } from "../../lib/format/request-record.js";
import {
  encodeRindexHeader,
  RINDEX_LEASE_NAME,
  RINDEX_VERSION,
  rindexEntrySector,
  rindexEntrySectorOffset,
  rindexResourceOffset,
} from "../../lib/format/rindex.js";
import { vacantRecord } from "../../lib/lease/delta-lease.js";
import { PROFILES } from "../../lib/lease/timings.js";

export const SPACE = "interop";
export const MAX_HOSTS = 16;
export const RESOURCES = ["web", "db", "mail"] as const;

export function offsetOf(geometry: Geometry, area: number): number {
  return areaOffset(geometry, area);
}

export function freeLeader(geometry: Geometry, name: string): LeaderRecord {
  return {
    kind: "paxos",
    version: PAXOS_VERSION,
    flags: geometry.lflFlag,
    sectorSize: geometry.sectorSize,
    numHosts: BigInt(MAX_HOSTS),
    maxHosts: BigInt(geometry.maxHostsFormat),
    ownerId: 0n,
    ownerGeneration: 0n,
    lver: 0n,
    spaceName: SPACE,
    resourceName: name,
    timestamp: 0n,
    ioTimeout: 0,
    writeId: 0n,
    writeGeneration: 0n,
    writeTimestamp: 0n,
  };
}

/** Writes the sanlock part of a region; the areas of our own stay zero. Returns the region's size. */
export function writeRegion(path: string, geometry: Geometry): number {
  const size = regionLength(geometry, RESOURCES.length);
  const fd = openSync(path, "w");
  try {
    ftruncateSync(fd, size);
    const vacant = encodeDeltaSector(geometry, vacantRecord(geometry, SPACE, PROFILES.default, 1));
    for (let hostId = 1; hostId <= MAX_HOSTS; hostId++) {
      writeSync(fd, vacant, 0, vacant.length, deltaOffset(geometry, hostId));
    }
    writeIndex(fd, geometry);
    [RINDEX_LEASE_NAME, ...RESOURCES].forEach((name, index) => {
      const at = areaOffset(geometry, AREA.rindexLease + index);
      const leader = encodePaxosLeaderSector(geometry, freeLeader(geometry, name));
      writeSync(fd, leader, 0, leader.length, at);
      const request = encodeRequestSector(geometry, {
        version: REQUEST_VERSION,
        lver: 0n,
        forceMode: "none",
      });
      writeSync(fd, request, 0, request.length, at + geometry.sectorSize);
    });
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
  return size;
}

function writeIndex(fd: number, geometry: Geometry): void {
  const index = areaOffset(geometry, AREA.rindex);
  const header = encodeRindexHeader({
    version: RINDEX_VERSION,
    geometry,
    maxResources: 100,
    offset: BigInt(index),
    spaceName: SPACE,
  });
  writeSync(fd, header, 0, header.length, index);
  let sector: Uint8Array = new Uint8Array(geometry.sectorSize);
  RESOURCES.forEach((name, n) => {
    sector = rindexEntrySector(geometry, sector, n, {
      name,
      offset: rindexResourceOffset(geometry, n),
    });
  });
  writeSync(fd, sector, 0, sector.length, index + rindexEntrySectorOffset(geometry, 0));
}
