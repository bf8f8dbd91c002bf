/**
 * A resource lease as it is made: sanlock's layout (sanlock fact sheet, section 1.4), nobody holds it.
 */
import { EMPTY_HOST_BLOCK, encodeHostBlock } from "../format/dblock.js";
import { dblockOffset, type Geometry, leaderOffset, requestOffset } from "../format/geometry.js";
import {
  encodePaxosLeaderSector,
  type LeaderRecord,
  PAXOS_VERSION,
} from "../format/leader-record.js";
import { encodeRequestSector, REQUEST_VERSION } from "../format/request-record.js";
import { type WriteOp } from "../port/disk.js";

/** A lease that nobody has, at the given version. */
export function freeLeader(
  g: Geometry,
  spaceName: string,
  resourceName: string,
  numHosts: number,
  lver: bigint,
): LeaderRecord {
  return {
    kind: "paxos",
    version: PAXOS_VERSION,
    flags: g.lflFlag,
    sectorSize: g.sectorSize,
    numHosts: BigInt(numHosts),
    maxHosts: BigInt(g.maxHostsFormat),
    ownerId: 0n,
    ownerGeneration: 0n,
    lver,
    spaceName,
    resourceName,
    timestamp: 0n,
    ioTimeout: 0,
    writeId: 0n,
    writeGeneration: 0n,
    writeTimestamp: 0n,
  };
}

/** A new lease: blocks and request record first, the leader makes it one. */
export function leaseWrites(g: Geometry, area: number, leader: LeaderRecord): readonly WriteOp[] {
  const blocks = new Uint8Array(Number(leader.numHosts) * g.sectorSize);
  const block = encodeHostBlock(g, EMPTY_HOST_BLOCK);
  for (let at = 0; at < blocks.length; at += block.length) {
    blocks.set(block, at);
  }
  const request = { version: REQUEST_VERSION, lver: 0n, forceMode: "none" } as const;
  return [
    { kind: "write", offset: dblockOffset(g, area, 1), data: blocks },
    { kind: "write", offset: requestOffset(g, area), data: encodeRequestSector(g, request) },
    {
      kind: "write",
      offset: leaderOffset(g, area),
      data: encodePaxosLeaderSector(g, leader),
    },
  ];
}
