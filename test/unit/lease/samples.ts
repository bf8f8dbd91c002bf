/** A small cluster for the tests of the protocols: 512-byte sectors, three host ids, one lease in area 6. */
import { type Evidence } from "../../../lib/fence/evidence.js";
import { type DeltaSector, encodeDeltaSector } from "../../../lib/format/delta-sector.js";
import { deltaOffset, geometryOf, leaderOffset } from "../../../lib/format/geometry.js";
import { encodePaxosLeaderSector, type LeaderRecord } from "../../../lib/format/leader-record.js";
import { type AcquireTerms } from "../../../lib/lease/acquire.js";
import { vacantRecord } from "../../../lib/lease/delta-lease.js";
import { type LeaseAddress } from "../../../lib/lease/lease-view.js";
import { type LunSet } from "../../../lib/lease/procedure.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { type Random } from "../../../lib/port/clock.js";
import { MemoryLuns } from "../../helpers/memory-luns.js";

export const geometry = geometryOf(512);
export const SPACE = "demo";
export const MAX_HOSTS = 4;

export const address: LeaseAddress = {
  geometry,
  area: 6,
  spaceName: SPACE,
  resourceName: "web",
  numHosts: MAX_HOSTS,
};

export function lunSetOf(total: 1 | 3 | 5, notCounting: readonly number[] = []): LunSet {
  return {
    total,
    counts: Array.from({ length: total }, (_, lun) => !notCounting.includes(lun)),
  };
}

export const noRandom: Random = { below: () => 0, u64: () => 0n };

export function freeLeader(changes: Partial<LeaderRecord> = {}): LeaderRecord {
  return {
    kind: "paxos",
    version: 0x00060004,
    flags: geometry.lflFlag,
    sectorSize: 512,
    numHosts: BigInt(MAX_HOSTS),
    maxHosts: 2000n,
    ownerId: 0n,
    ownerGeneration: 0n,
    lver: 0n,
    spaceName: SPACE,
    resourceName: "web",
    timestamp: 0n,
    ioTimeout: 0,
    writeId: 0n,
    writeGeneration: 0n,
    writeTimestamp: 0n,
    ...changes,
  };
}

/** LUNs as `init` leaves them: vacant host ids and one free lease. */
export function freshLuns(count: 1 | 3 | 5): MemoryLuns {
  const luns = new MemoryLuns(geometry, count);
  writeLeader(luns, freeLeader());
  const vacant = vacantRecord(geometry, SPACE, PROFILES.default, count);
  for (let hostId = 1; hostId <= MAX_HOSTS; hostId++) {
    writeDelta(luns, hostId, vacant);
  }
  return luns;
}

export function writeLeader(luns: MemoryLuns, leader: LeaderRecord): void {
  luns.writeAll({
    kind: "write",
    offset: leaderOffset(geometry, address.area),
    data: encodePaxosLeaderSector(geometry, leader),
  });
}

export function writeDelta(luns: MemoryLuns, hostId: number, record: DeltaSector): void {
  luns.writeAll({
    kind: "write",
    offset: deltaOffset(geometry, hostId),
    data: encodeDeltaSector(geometry, record),
  });
}

export function acquireTerms(hostId: number, changes: Partial<AcquireTerms> = {}): AcquireTerms {
  return {
    address,
    luns: lunSetOf(1),
    self: { hostId, generation: 1n },
    shared: false,
    timestamp: 100n + BigInt(hostId),
    wallSeconds: 0n,
    random: noRandom,
    evidenceFor: () => undefined,
    ...changes,
  };
}

/** Evidence against exactly these generations, whatever is asked. */
export function proofOf(
  ...proofs: readonly (readonly [number, bigint])[]
): AcquireTerms["evidenceFor"] {
  return (hostId, generation): Evidence | undefined =>
    proofs.some(([host, gen]) => host === hostId && gen === generation)
      ? { kind: "expired", hostId, generation, detail: "test" }
      : undefined;
}
