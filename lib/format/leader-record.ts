import {
  fieldError,
  getU16,
  getU32,
  getU64,
  isZero,
  putU16,
  putU32,
  putU64,
  viewOf,
} from "./bytes.js";
import { sanlockChecksum } from "./crc32c.js";
import { corrupt, type Decoded, decodedOk, EMPTY, foreign, type Undecoded } from "./decoded.js";
import { findGeometryOfLeaderFlags, type Geometry, type SectorSize } from "./geometry.js";
import { decodeName, encodeName } from "./name-field.js";

/**
 * The leader record: 200 bytes that sanlock uses both as a host's delta lease and as the head of a resource (Paxos) lease
 * (sanlock fact sheet, section 1.2). Byte-compatible with sanlock 3.8.
 */

export const LEADER_RECORD_SIZE = 200;
export const NAME_SIZE = 48;

export const DELTA_MAGIC = 0x12212010;
export const PAXOS_MAGIC = 0x06152010;
/** A deleted lease: same layout, reading it is an answer, not an error. */
export const CLEARED_MAGIC = 0x11282016;

export const DELTA_VERSION = 0x00030004;
export const PAXOS_VERSION = 0x00060004;

/** Leader flag: the owner holds the lease exclusively only to get it shared. */
export const SHORT_HOLD = 0x1;

/** Bytes 0..167 are covered by the checksum at 168; io_timeout, write_id, _generation and _timestamp are not. */
const CHECKSUM_OFFSET = 168;
/** Paxos records of more hosts than this do not exist in any geometry. */
const MAX_HOSTS_OF_ANY_GEOMETRY = 2000n;

export type LeaderKind = "delta" | "paxos" | "cleared";

export interface LeaderRecord {
  readonly kind: LeaderKind;
  /** major in the high 16 bits, minor in the low 16 */
  readonly version: number;
  /** align flag, and SHORT_HOLD on a Paxos lease */
  readonly flags: number;
  readonly sectorSize: SectorSize;
  /** Paxos: readers look at so many dblocks. Delta: 0 */
  readonly numHosts: bigint;
  /** Paxos: room in the area. Delta: 1 */
  readonly maxHosts: bigint;
  readonly ownerId: bigint;
  readonly ownerGeneration: bigint;
  /** lease version, +1 with every decided ballot. Delta: 0 */
  readonly lver: bigint;
  readonly spaceName: string;
  /** Paxos: name of the resource. Delta: name of the host */
  readonly resourceName: string;
  /** 0 = free. Paxos: the winner's clock at acquire. Delta: changes with every renewal */
  readonly timestamp: bigint;
  /** seconds, sanlock's T of the owner of a delta lease. Not covered by the checksum */
  readonly ioTimeout: number;
  /** Paxos: host id that wrote the record. Delta: generation a host event is meant for. Not covered */
  readonly writeId: bigint;
  /** Paxos: generation of the writer. Delta: value of the host event, 0 = none. Not covered */
  readonly writeGeneration: bigint;
  /** Paxos: the writer's clock. Delta: data of the host event. Not covered */
  readonly writeTimestamp: bigint;
}

/** The lease is free: nobody holds it exclusively. A record that never had an owner counts too. */
export function isFree(record: LeaderRecord): boolean {
  return record.timestamp === 0n;
}

/** @returns 200 bytes. @throws ERR_RECORD_FIELD, ERR_NAME for values that do not fit */
export function encodeLeaderRecord(record: LeaderRecord): Uint8Array {
  const bytes = new Uint8Array(LEADER_RECORD_SIZE);
  const view = viewOf(bytes);
  putU32(view, 0, magicOf(record.kind), "magic");
  putU32(view, 4, record.version, "version");
  putU32(view, 8, record.flags, "flags");
  putU32(view, 12, record.sectorSize, "sectorSize");
  putU64(view, 16, record.numHosts, "numHosts");
  putU64(view, 24, record.maxHosts, "maxHosts");
  putU64(view, 32, record.ownerId, "ownerId");
  putU64(view, 40, record.ownerGeneration, "ownerGeneration");
  putU64(view, 48, record.lver, "lver");
  encodeName(bytes, 56, NAME_SIZE, record.spaceName, "lockspace name");
  encodeName(bytes, 104, NAME_SIZE, record.resourceName, "resource or host name");
  putU64(view, 152, record.timestamp, "timestamp");
  putU32(view, CHECKSUM_OFFSET, sanlockChecksum(bytes.subarray(0, CHECKSUM_OFFSET)), "checksum");
  putU16(view, 174, record.ioTimeout, "ioTimeout");
  putU64(view, 176, record.writeId, "writeId");
  putU64(view, 184, record.writeGeneration, "writeGeneration");
  putU64(view, 192, record.writeTimestamp, "writeTimestamp");
  return bytes;
}

/** Sector 0 of a resource lease: the record, then zeros. @throws ERR_RECORD_FIELD when it is of another sector size */
export function encodePaxosLeaderSector(g: Geometry, record: LeaderRecord): Uint8Array {
  if (record.kind === "delta") {
    throw fieldError("kind", "a delta lease is not the head of a resource lease");
  }
  if (record.sectorSize !== g.sectorSize) {
    throw fieldError(
      "sectorSize",
      `the record says ${record.sectorSize}, the area ${g.sectorSize}`,
    );
  }
  const sector = new Uint8Array(g.sectorSize);
  sector.set(encodeLeaderRecord(record));
  return sector;
}

/**
 * @param bytes at least the 200 bytes of the record; more are ignored
 * @param expect `paxos` also accepts a cleared record; without it, any of the three is accepted
 */
export function decodeLeaderRecord(
  bytes: Uint8Array,
  expect?: "delta" | "paxos",
): Decoded<LeaderRecord> {
  if (bytes.length < LEADER_RECORD_SIZE) {
    return corrupt(`a leader record has ${LEADER_RECORD_SIZE} bytes, here are ${bytes.length}`);
  }
  const view = viewOf(bytes);
  const kind = identify(bytes, view, expect);
  if (typeof kind !== "string") {
    return kind;
  }
  if (sanlockChecksum(bytes.subarray(0, CHECKSUM_OFFSET)) !== getU32(view, CHECKSUM_OFFSET)) {
    return corrupt("the checksum of the leader record does not match");
  }
  const sectorSize = getU32(view, 12);
  const geometry = findGeometryOfLeaderFlags(getU32(view, 8), sectorSize);
  if (geometry === undefined) {
    return corrupt(`the leader record has no valid align flag for sectors of ${sectorSize} bytes`);
  }
  const record = readFields(bytes, view, kind, geometry.sectorSize);
  if (
    kind !== "delta" &&
    (record.numHosts > record.maxHosts || record.maxHosts > MAX_HOSTS_OF_ANY_GEOMETRY)
  ) {
    return corrupt(`the leader record has ${record.numHosts} of ${record.maxHosts} hosts`);
  }
  return decodedOk(record);
}

function identify(
  bytes: Uint8Array,
  view: DataView,
  expect: "delta" | "paxos" | undefined,
): LeaderKind | Undecoded {
  const magic = getU32(view, 0);
  const kind = kindOf(magic);
  if (kind === undefined) {
    return isZero(bytes, 0, LEADER_RECORD_SIZE)
      ? EMPTY
      : foreign(`magic 0x${hex32(magic)} is not a leader record's`);
  }
  if (expect !== undefined && (kind === "delta") !== (expect === "delta")) {
    return foreign(`this is a ${kind} leader record, not a ${expect} one`);
  }
  const version = getU32(view, 4);
  const own = kind === "delta" ? DELTA_VERSION : PAXOS_VERSION;
  if (version >>> 16 !== own >>> 16) {
    return foreign(`version 0x${hex32(version)} of a ${kind} leader record is not known`);
  }
  return kind;
}

function readFields(
  bytes: Uint8Array,
  view: DataView,
  kind: LeaderKind,
  sectorSize: SectorSize,
): LeaderRecord {
  return {
    kind,
    version: getU32(view, 4),
    flags: getU32(view, 8),
    sectorSize,
    numHosts: getU64(view, 16),
    maxHosts: getU64(view, 24),
    ownerId: getU64(view, 32),
    ownerGeneration: getU64(view, 40),
    lver: getU64(view, 48),
    spaceName: decodeName(bytes, 56, NAME_SIZE),
    resourceName: decodeName(bytes, 104, NAME_SIZE),
    timestamp: getU64(view, 152),
    ioTimeout: getU16(view, 174),
    writeId: getU64(view, 176),
    writeGeneration: getU64(view, 184),
    writeTimestamp: getU64(view, 192),
  };
}

function magicOf(kind: LeaderKind): number {
  switch (kind) {
    case "delta":
      return DELTA_MAGIC;
    case "paxos":
      return PAXOS_MAGIC;
    case "cleared":
      return CLEARED_MAGIC;
  }
}

function kindOf(magic: number): LeaderKind | undefined {
  switch (magic) {
    case DELTA_MAGIC:
      return "delta";
    case PAXOS_MAGIC:
      return "paxos";
    case CLEARED_MAGIC:
      return "cleared";
    default:
      return undefined;
  }
}

function hex32(value: number): string {
  return value.toString(16).padStart(8, "0");
}
