/**
 * What a fresh region looks like: every write that `init` does, but for the superblocks, which come last.
 */
import { encodeConfigSlot, configSlotOffset } from "../format/config-slot.js";
import {
  AREA,
  areaOffset,
  dblockOffset,
  deltaOffset,
  type Geometry,
  leaderOffset,
  MAX_HOSTS_LIMIT,
  outboxOffset,
} from "../format/geometry.js";
import { encodeDeltaSector } from "../format/delta-sector.js";
import { encodeOutbox } from "../format/outbox.js";
import {
  encodeRindexHeader,
  RINDEX_LEASE_NAME,
  RINDEX_VERSION,
  rindexEntrySector,
  rindexEntrySectorOffset,
  rindexResourceOffset,
} from "../format/rindex.js";
import { ZERO_STAMP } from "../format/stamp.js";
import {
  encodeSuperblock,
  geometryOfSuperblock,
  type Superblock,
  superblockOffsets,
} from "../format/superblock.js";
import { vacantRecord } from "../lease/delta-lease.js";
import { freeLeader, leaseWrites } from "../lease/fresh-lease.js";
import { type WriteOp } from "../port/disk.js";

/** The lease under which the configuration and the set of LUNs are changed. */
export const CONFIG_LEASE_NAME = "sharedha:config";
/** It is the first resource of every region. */
export const CONFIG_LEASE_AREA = AREA.firstResource;

/** One write is at most this long. */
const CHUNK_BYTES = 1024 * 1024;

/**
 * Zeros, so that no record of an earlier life is left where one of ours is looked for.
 * @param everything the whole region (a file whose blocks are to be real), else only where records can be
 */
export function* zeroWrites(superblock: Superblock, everything: boolean): Generator<WriteOp> {
  const g = geometryOfSuperblock(superblock);
  const full = everything ? superblock.areaCount : AREA.firstResource;
  yield* zeros(0, areaOffset(g, full));
  for (let area = full; area < superblock.areaCount; area++) {
    // Leader, request record and the blocks of every host id there can ever be.
    const start = leaderOffset(g, area);
    yield* zeros(start, dblockOffset(g, area, MAX_HOSTS_LIMIT) + g.sectorSize - start);
  }
}

function* zeros(offset: number, length: number): Generator<WriteOp> {
  for (let done = 0; done < length; done += CHUNK_BYTES) {
    const data = new Uint8Array(Math.min(CHUNK_BYTES, length - done));
    yield { kind: "write", offset: offset + done, data };
  }
}

/** Host records, outboxes, index, the two internal leases and the first configuration. */
export function recordWrites(superblock: Superblock, configText: string): readonly WriteOp[] {
  const g = geometryOfSuperblock(superblock);
  const { clusterName, maxHosts, lunCount, areaCount, epoch } = superblock;
  const { intervalMs, deadlineMs, ttlMs, watchdogMs } = superblock;
  const timings = { intervalMs, deadlineMs, ttlMs, watchdogMs };
  const vacant = encodeDeltaSector(g, vacantRecord(g, clusterName, timings, lunCount));
  const hostIds = Array.from({ length: maxHosts }, (_, index) => index + 1);
  const entry = rindexEntrySector(g, new Uint8Array(g.sectorSize), 0, {
    name: CONFIG_LEASE_NAME,
    offset: rindexResourceOffset(g, 0),
  });
  return [
    joined(hostIds.map((hostId) => write(deltaOffset(g, hostId), vacant))),
    joined(hostIds.map((hostId) => emptyOutbox(g, hostId))),
    write(
      areaOffset(g, AREA.rindex),
      encodeRindexHeader({
        version: RINDEX_VERSION,
        geometry: g,
        maxResources: areaCount - AREA.firstResource,
        offset: BigInt(areaOffset(g, AREA.rindex)),
        spaceName: clusterName,
      }),
    ),
    write(areaOffset(g, AREA.rindex) + rindexEntrySectorOffset(g, 0), entry),
    ...leaseWrites(
      g,
      AREA.rindexLease,
      freeLeader(g, clusterName, RINDEX_LEASE_NAME, maxHosts, 0n),
    ),
    ...leaseWrites(
      g,
      CONFIG_LEASE_AREA,
      freeLeader(g, clusterName, CONFIG_LEASE_NAME, maxHosts, 0n),
    ),
    // Nobody has joined yet: the first configuration stands in the slot of host id 1, older than anything written later.
    write(
      configSlotOffset(g, 1, 0),
      encodeConfigSlot(g, { hostId: 1, stamp: ZERO_STAMP, epoch, text: configText }),
    ),
  ];
}

/** Last copy first: the first copy is what makes the region one, and a torn update leaves one of the two whole. */
export function superblockWrites(superblock: Superblock): readonly WriteOp[] {
  const [first, last] = superblockOffsets(geometryOfSuperblock(superblock));
  const bytes = encodeSuperblock(superblock);
  return [write(last, bytes), write(first, bytes)];
}

function emptyOutbox(g: Geometry, hostId: number): WriteOp {
  return write(
    outboxOffset(g, hostId),
    encodeOutbox(g, { hostId, generation: 0n, sequence: 0n, tableGeneration: 0n, entries: [] }),
  );
}

function write(offset: number, data: Uint8Array): WriteOp {
  return { kind: "write", offset, data };
}

/** Writes that follow each other on the medium, as one. */
function joined(writes: readonly WriteOp[]): WriteOp {
  const length = writes.reduce((sum, op) => sum + op.data.length, 0);
  const data = new Uint8Array(length);
  let at = 0;
  for (const op of writes) {
    data.set(op.data, at);
    at += op.data.length;
  }
  return write(writes[0]?.offset ?? 0, data);
}
