import { ShareHaError } from "../errors.js";
import {
  fieldError,
  getU16,
  getU32,
  getU64,
  isZero,
  putU16,
  putU32,
  putU64,
  putU8,
  viewOf,
} from "./bytes.js";
import { crc32cOfRanges } from "./crc32c.js";
import { corrupt, type Decoded, decodedOk, EMPTY, foreign } from "./decoded.js";
import {
  AREA,
  allGeometries,
  type Geometry,
  geometryOf,
  MAX_HOSTS_LIMIT,
  type SectorSize,
} from "./geometry.js";
import { NAME_SIZE } from "./leader-record.js";
import { decodeName, encodeName, nameByteLength } from "./name-field.js";
import { decodeUuid, encodeUuid, UUID_SIZE } from "./uuid-field.js";

/**
 * What a LUN is: cluster, geometry, timings, and the set of LUNs it is one of. 512 bytes in the first and again in the
 * last sector of area 0. Names are packed with a length byte, so that five LUNs with their wwids fit one sector.
 */

export const SUPERBLOCK_SIZE = 512;
export const SUPERBLOCK_VERSION = 1;
export const MAX_LUNS = 5;
export const MAX_WWID_BYTES = 64;
export const MAX_PROFILE_BYTES = 16;

/** "SHAREDHA" as a little-endian number */
const MAGIC = 0x4148444552414853n;
const CRC_OFFSET = 20;
const PACKED_OFFSET = 112;
/** A program that does not know a set bit must not use the region at all. None is defined yet. */
const KNOWN_INCOMPATIBLE = 0;

export interface LunIdentity {
  /** lower case with dashes */
  readonly uuid: string;
  /** as the device reports it, at most 64 bytes of UTF-8; "" for a file */
  readonly wwid: string;
  /** +1 each time the LUN is formatted or replaced */
  readonly incarnation: bigint;
}

export interface Superblock {
  readonly incompatible: number;
  /** Bits a program may ignore but must keep. */
  readonly compatible: number;
  readonly clusterName: string;
  readonly clusterUuid: string;
  /** 32 bits, not 0: the high half of reservation keys */
  readonly clusterId: number;
  readonly sectorSize: SectorSize;
  readonly areaSize: number;
  /** 1..64 */
  readonly maxHosts: number;
  /** areas of the region, resource leases included */
  readonly areaCount: number;
  readonly lunIndex: number;
  readonly lunCount: 1 | 3 | 5;
  /** the same as `luns[lunIndex]` */
  readonly lunUuid: string;
  /** the same as `luns[lunIndex]` */
  readonly wwid: string;
  /** the same as `luns[lunIndex]` */
  readonly incarnation: bigint;
  /** of the set of LUNs */
  readonly epoch: bigint;
  readonly luns: readonly LunIdentity[];
  readonly intervalMs: number;
  readonly deadlineMs: number;
  readonly ttlMs: number;
  readonly watchdogMs: number;
  /** name of the profile the timings come from */
  readonly profile: string;
  /** seconds since 1970 by the clock of the host that ran init; for people only */
  readonly createdAtUnix: number;
  /** bytes from the start of the device to the data; 0 with `dataLength` 0 when the LUN holds none */
  readonly dataStart: number;
  readonly dataLength: number;
}

/** Byte offsets of the two copies. Write them one after the other, so that never both are torn. */
export function superblockOffsets(g: Geometry): readonly [first: number, last: number] {
  const start = AREA.superblock * g.areaSize;
  return [start, start + g.areaSize - g.sectorSize];
}

export function geometryOfSuperblock(superblock: Superblock): Geometry {
  return geometryOf(superblock.sectorSize, superblock.areaSize);
}

/** @returns one sector. @throws ERR_RECORD_FIELD, ERR_NAME, ERR_SUPERBLOCK_FULL */
export function encodeSuperblock(superblock: Superblock): Uint8Array {
  const problem = findProblem(superblock);
  if (problem !== undefined) {
    throw fieldError("superblock", problem);
  }
  const bytes = new Uint8Array(superblock.sectorSize);
  const view = viewOf(bytes);
  writeFixedPart(bytes, view, superblock);
  writePackedPart(bytes, view, superblock);
  putU32(view, CRC_OFFSET, superblockCrc(bytes), "crc");
  return bytes;
}

/** @param bytes at least 512 bytes; the sector size need not be known yet */
export function decodeSuperblock(bytes: Uint8Array): Decoded<Superblock> {
  if (bytes.length < SUPERBLOCK_SIZE) {
    return corrupt(`a superblock has ${SUPERBLOCK_SIZE} bytes, here are ${bytes.length}`);
  }
  const view = viewOf(bytes);
  if (getU64(view, 0) !== MAGIC) {
    return isZero(bytes, 0, SUPERBLOCK_SIZE) ? EMPTY : foreign("there is no sharedha superblock");
  }
  // Before the checksum: a newer version may cover its bytes in another way. Magic and version stay where they are.
  const version = getU16(view, 8);
  if (version > SUPERBLOCK_VERSION) {
    return foreign(
      `the superblock has the newer version ${version}; this program knows ${SUPERBLOCK_VERSION}`,
    );
  }
  if (getU32(view, CRC_OFFSET) !== superblockCrc(bytes)) {
    return corrupt("the checksum of the superblock does not match");
  }
  const incompatible = getU32(view, 12);
  if ((incompatible & ~KNOWN_INCOMPATIBLE) !== 0) {
    return foreign(
      `the superblock needs features of a newer version (flags 0x${incompatible.toString(16)})`,
    );
  }
  const packed = readPackedPart(bytes, view);
  if (packed === undefined || version === 0) {
    return corrupt(
      "the names of the superblock are too long for their fields, or its version is 0",
    );
  }
  return judge(readFixedPart(bytes, view, packed));
}

/**
 * Of the two copies, the one to believe: `foreign` if either is (a newer program has begun an upgrade), else the valid one
 * with the highest epoch, else `corrupt` if either is, else `empty`.
 */
export function currentSuperblock(copies: readonly Decoded<Superblock>[]): Decoded<Superblock> {
  let best: Decoded<Superblock> = EMPTY;
  for (const copy of copies) {
    if (copy.kind === "foreign" || best.kind === "foreign") {
      best = best.kind === "foreign" ? best : copy;
    } else if (copy.kind === "ok") {
      best = best.kind === "ok" && best.value.epoch >= copy.value.epoch ? best : copy;
    } else if (copy.kind === "corrupt" && best.kind === "empty") {
      best = copy;
    }
  }
  return best;
}

interface PackedPart {
  readonly profile: string;
  readonly clusterName: string;
  readonly luns: readonly LunIdentity[];
}

function writeFixedPart(bytes: Uint8Array, view: DataView, s: Superblock): void {
  putU64(view, 0, MAGIC, "magic");
  putU16(view, 8, SUPERBLOCK_VERSION, "version");
  putU16(view, 10, s.sectorSize, "sectorSize");
  putU32(view, 12, s.incompatible, "incompatible");
  putU32(view, 16, s.compatible, "compatible");
  putU32(view, 24, s.areaSize, "areaSize");
  putU16(view, 28, s.maxHosts, "maxHosts");
  putU8(view, 30, s.lunIndex, "lunIndex");
  putU8(view, 31, s.lunCount, "lunCount");
  putU32(view, 32, s.areaCount, "areaCount");
  putU32(view, 36, s.clusterId, "clusterId");
  encodeUuid(bytes, 40, s.clusterUuid, "clusterUuid");
  // Bytes 56..63 are reserved.
  putU64(view, 64, s.epoch, "epoch");
  putU64(view, 72, BigInt(s.createdAtUnix), "createdAtUnix");
  putU64(view, 80, BigInt(s.dataStart), "dataStart");
  putU64(view, 88, BigInt(s.dataLength), "dataLength");
  putU32(view, 96, s.intervalMs, "intervalMs");
  putU32(view, 100, s.deadlineMs, "deadlineMs");
  putU32(view, 104, s.ttlMs, "ttlMs");
  putU32(view, 108, s.watchdogMs, "watchdogMs");
}

function writePackedPart(bytes: Uint8Array, view: DataView, s: Superblock): void {
  let at = PACKED_OFFSET;
  const reserve = (size: number): number => {
    const start = at;
    at += size;
    if (at > SUPERBLOCK_SIZE) {
      throw new ShareHaError(
        "ERR_SUPERBLOCK_FULL",
        `The names and wwids of ${s.luns.length} LUNs do not fit into the superblock.`,
        {
          hint: "Choose a shorter cluster name, or fewer LUNs.",
          fields: { luns: s.luns.length, wwidBytes: total(s.luns) },
        },
      );
    }
    return start;
  };
  const putText = (text: string, limit: number, field: string): void => {
    const length = nameByteLength(text);
    if (length > limit) {
      throw fieldError(field, `${length} bytes; ${limit} fit`);
    }
    putU8(view, reserve(1), length, field);
    encodeName(bytes, reserve(length), length, text, field);
  };
  putText(s.profile, MAX_PROFILE_BYTES, "profile");
  putText(s.clusterName, NAME_SIZE, "cluster name");
  for (const lun of s.luns) {
    encodeUuid(bytes, reserve(UUID_SIZE), lun.uuid, "LUN uuid");
    putU64(view, reserve(8), lun.incarnation, "LUN incarnation");
    putText(lun.wwid, MAX_WWID_BYTES, "wwid");
  }
}

function total(luns: readonly LunIdentity[]): number {
  return luns.reduce((sum, lun) => sum + nameByteLength(lun.wwid), 0);
}

/** @returns undefined when a length leads over the end of the record */
function readPackedPart(bytes: Uint8Array, view: DataView): PackedPart | undefined {
  const profile = readText(bytes, PACKED_OFFSET, MAX_PROFILE_BYTES);
  if (profile === undefined) {
    return undefined;
  }
  const clusterName = readText(bytes, profile.next, NAME_SIZE);
  if (clusterName === undefined) {
    return undefined;
  }
  const luns: LunIdentity[] = [];
  let at = clusterName.next;
  const lunCount = Math.min(view.getUint8(31), MAX_LUNS);
  for (let index = 0; index < lunCount; index++) {
    const wwid = readText(bytes, at + UUID_SIZE + 8, MAX_WWID_BYTES);
    if (wwid === undefined) {
      return undefined;
    }
    luns.push({
      uuid: decodeUuid(bytes, at),
      incarnation: getU64(view, at + UUID_SIZE),
      wwid: wwid.text,
    });
    at = wwid.next;
  }
  return { profile: profile.text, clusterName: clusterName.text, luns };
}

/** A length byte and so many bytes of text; undefined when they are too many or do not lie inside the record. */
function readText(
  bytes: Uint8Array,
  at: number,
  limit: number,
): { readonly text: string; readonly next: number } | undefined {
  if (at >= SUPERBLOCK_SIZE) {
    return undefined;
  }
  const length = bytes[at] ?? 0;
  const next = at + 1 + length;
  return length > limit || next > SUPERBLOCK_SIZE
    ? undefined
    : { text: decodeName(bytes, at + 1, length), next };
}

type Candidate = Omit<Superblock, "sectorSize" | "lunCount"> & {
  readonly sectorSize: number;
  readonly lunCount: number;
};

function readFixedPart(bytes: Uint8Array, view: DataView, packed: PackedPart): Candidate {
  const lunIndex = view.getUint8(30);
  const own = packed.luns[lunIndex];
  return {
    incompatible: getU32(view, 12),
    compatible: getU32(view, 16),
    clusterName: packed.clusterName,
    clusterUuid: decodeUuid(bytes, 40),
    clusterId: getU32(view, 36),
    sectorSize: getU16(view, 10),
    areaSize: getU32(view, 24),
    maxHosts: getU16(view, 28),
    areaCount: getU32(view, 32),
    lunIndex,
    lunCount: view.getUint8(31),
    lunUuid: own?.uuid ?? "",
    wwid: own?.wwid ?? "",
    incarnation: own?.incarnation ?? 0n,
    epoch: getU64(view, 64),
    luns: packed.luns,
    intervalMs: getU32(view, 96),
    deadlineMs: getU32(view, 100),
    ttlMs: getU32(view, 104),
    watchdogMs: getU32(view, 108),
    profile: packed.profile,
    createdAtUnix: Number(getU64(view, 72)),
    dataStart: Number(getU64(view, 80)),
    dataLength: Number(getU64(view, 88)),
  };
}

function judge(candidate: Candidate): Decoded<Superblock> {
  const problem = findProblem(candidate);
  return problem === undefined ? decodedOk(candidate as Superblock) : corrupt(problem);
}

/** The same rules for what is written and what is read. */
function findProblem(s: Candidate): string | undefined {
  const own = s.luns[s.lunIndex];
  const geometry = allGeometries().find(
    (g) => g.sectorSize === s.sectorSize && g.areaSize === s.areaSize,
  );
  if (geometry === undefined) {
    return `areas of ${s.areaSize} bytes with sectors of ${s.sectorSize} bytes do not exist`;
  }
  if (s.maxHosts < 1 || s.maxHosts > MAX_HOSTS_LIMIT) {
    return `${s.maxHosts} hosts are outside 1 to ${MAX_HOSTS_LIMIT}`;
  }
  if (![1, 3, 5].includes(s.lunCount) || s.luns.length !== s.lunCount || own === undefined) {
    return `LUN ${s.lunIndex} of ${s.lunCount} with ${s.luns.length} identities`;
  }
  if (own.uuid !== s.lunUuid || own.wwid !== s.wwid || own.incarnation !== s.incarnation) {
    return "the LUN's own identity is not the one in its set";
  }
  if (s.clusterId === 0 || s.areaCount < AREA.firstResource) {
    return `cluster id ${s.clusterId} with ${s.areaCount} areas`;
  }
  if (![s.createdAtUnix, s.dataStart, s.dataLength].every(Number.isSafeInteger)) {
    return "a time or a size is beyond 2^53";
  }
  return undefined;
}

/** CRC-32C over the 512 bytes of the record but the CRC field. */
function superblockCrc(bytes: Uint8Array): number {
  return crc32cOfRanges(bytes, [
    [0, CRC_OFFSET],
    [CRC_OFFSET + 4, SUPERBLOCK_SIZE],
  ]);
}
