import fc from "fast-check";

import type { HostBlock } from "../../../lib/format/dblock.js";
import { type DeltaSector, emptyBitmap } from "../../../lib/format/delta-sector.js";
import { type Geometry, allGeometries } from "../../../lib/format/geometry.js";
import {
  type HostRecord,
  JOIN_EVIDENCES,
  WATCHDOG_KINDS,
} from "../../../lib/format/host-record.js";
import {
  DELTA_VERSION,
  type LeaderRecord,
  PAXOS_VERSION,
} from "../../../lib/format/leader-record.js";
import { type Outbox, type OutboxEntry, OUTBOX_KINDS } from "../../../lib/format/outbox.js";
import type { Superblock } from "../../../lib/format/superblock.js";

/** Records with every field different from its default, and generators of any. */

/** fc.record, of plain objects only: a strict deepEqual tells an object without prototype from a parsed record. */
export function recordOf<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record<T>(model, { noNullPrototype: true });
}

export const u64 = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });
export const u32 = fc.integer({ min: 0, max: 0xffffffff });
export const u16 = fc.integer({ min: 0, max: 0xffff });
export const hostId = fc.integer({ min: 1, max: 64 });
export const anyGeometry = fc.constantFrom(...allGeometries());

/** Names of at most `max` bytes that a field can hold: printable, no backslash, any script. */
export function nameOf(max: number): fc.Arbitrary<string> {
  return fc
    .string({ unit: "grapheme", maxLength: max })
    .filter((name) => !/[\p{Cc}\\]/u.test(name) && Buffer.byteLength(name) <= max);
}

export function paxosLeader(g: Geometry, changes: Partial<LeaderRecord> = {}): LeaderRecord {
  return {
    kind: "paxos",
    version: PAXOS_VERSION,
    flags: g.lflFlag,
    sectorSize: g.sectorSize,
    numHosts: 64n,
    maxHosts: BigInt(g.maxHostsFormat),
    ownerId: 3n,
    ownerGeneration: 7n,
    lver: 12n,
    spaceName: "cluster",
    resourceName: "web",
    timestamp: 99n,
    ioTimeout: 0,
    writeId: 3n,
    writeGeneration: 7n,
    writeTimestamp: 99n,
    ...changes,
  };
}

export function deltaLeader(g: Geometry, changes: Partial<LeaderRecord> = {}): LeaderRecord {
  return paxosLeader(g, {
    kind: "delta",
    version: DELTA_VERSION,
    numHosts: 0n,
    maxHosts: 1n,
    lver: 0n,
    resourceName: "node-3",
    ioTimeout: 1,
    ...changes,
  });
}

export const sampleHostRecord: HostRecord = {
  watchdog: "hardware",
  armed: true,
  virtual: true,
  watchdogMs: 5000,
  ttlMs: 3000,
  deadlineMs: 1000,
  intervalMs: 500,
  bootIdHash: 0x1122334455667788n,
  machineIdHash: 0x99aabbccddeeff00n,
  stateIdHash: 0xdeadbeef,
  joinEvidence: "reboot",
  unproven: 0,
};

export function deltaSector(g: Geometry, changes: Partial<DeltaSector> = {}): DeltaSector {
  return {
    leader: deltaLeader(g),
    host: sampleHostRecord,
    hostState: "ok",
    bitmap: emptyBitmap(),
    ...changes,
  };
}

export const sampleHostBlock: HostBlock = {
  dblock: { mbal: 2003n, bal: 2003n, inp: 3n, inp2: 7n, inp3: 99n, lver: 12n, released: true },
  mode: { shared: true, generation: 7n },
  sequence: 41n,
};

export const sampleOutbox: Outbox = {
  hostId: 3,
  generation: 7n,
  sequence: 41n,
  tableGeneration: 5n,
  entries: OUTBOX_KINDS.map((kind, index): OutboxEntry => ({
    kind,
    shared: index % 2 === 1,
    targetHostId: index,
    area: 6 + index,
    targetGeneration: 7n + BigInt(index),
    value: 1n << BigInt(40 + index),
    nonce: 0xabcdef0123456789n + BigInt(index),
  })),
};

export function superblock(g: Geometry, changes: Partial<Superblock> = {}): Superblock {
  const luns = [1, 2, 3].map((n) => ({
    uuid: `0123456${n}-89ab-4cde-8f01-23456789abcd`,
    wwid: `naa.6001405aaaabbbbccccddddeeeeffff${n}`,
    incarnation: BigInt(n),
  }));
  return {
    incompatible: 0,
    compatible: 0,
    clusterName: "gold",
    clusterUuid: "fedcba98-7654-4321-8fed-cba987654321",
    clusterId: 0xcafe0001,
    sectorSize: g.sectorSize,
    areaSize: g.areaSize,
    maxHosts: 16,
    areaCount: 32,
    lunIndex: 1,
    lunCount: 3,
    lunUuid: luns[1]!.uuid,
    wwid: luns[1]!.wwid,
    incarnation: 2n,
    epoch: 9n,
    luns,
    intervalMs: 500,
    deadlineMs: 1000,
    ttlMs: 3000,
    watchdogMs: 5000,
    profile: "default",
    createdAtUnix: 1_800_000_000,
    dataStart: 64 * 1024 * 1024,
    dataLength: 2 ** 41,
    ...changes,
  };
}

export const anyHostRecord: fc.Arbitrary<HostRecord> = recordOf({
  watchdog: fc.constantFrom(...WATCHDOG_KINDS),
  armed: fc.boolean(),
  virtual: fc.boolean(),
  watchdogMs: u32,
  ttlMs: u32,
  deadlineMs: u32,
  intervalMs: u32,
  bootIdHash: u64,
  machineIdHash: u64,
  stateIdHash: u32,
  joinEvidence: fc.constantFrom(...JOIN_EVIDENCES),
  unproven: fc.nat({ max: 255 }),
});

export const anyOutboxEntry: fc.Arbitrary<OutboxEntry> = recordOf({
  kind: fc.constantFrom(...OUTBOX_KINDS),
  shared: fc.boolean(),
  targetHostId: u16,
  area: u32,
  targetGeneration: u64,
  value: u64,
  nonce: u64,
});
