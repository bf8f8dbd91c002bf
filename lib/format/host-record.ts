import {
  codeOf,
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
import { crc32cUpdate } from "./crc32c.js";
import { corrupt, type Decoded, decodedOk, EMPTY, foreign } from "./decoded.js";

/**
 * What a member publishes about itself with every renewal: bytes 200..255 of its delta sector, which sanlock leaves zero
 * and does not check (DESIGN section 3). Others judge its silence by these numbers, so the CRC also covers owner id and
 * generation of the leader record in front of it: a host record never travels to another host or generation.
 */

export const HOST_RECORD_OFFSET = 200;
export const HOST_RECORD_SIZE = 56;

/** "SHHR" */
const MAGIC = 0x52484853;
const VERSION = 1;
const CRC_OFFSET = 52;
const FLAG_ARMED = 0x1;
const FLAG_VIRTUAL = 0x2;
const KNOWN_FLAGS = FLAG_ARMED | FLAG_VIRTUAL;

/** Codes on disk are positions in this list: only ever append. */
export const WATCHDOG_KINDS = ["vacant", "hardware", "guard", "none"] as const;
/** `vacant`: written by init, nobody has joined with this host id yet. */
export type WatchdogKind = (typeof WATCHDOG_KINDS)[number];

/** Codes on disk are positions in this list: only ever append. */
export const JOIN_EVIDENCES = [
  "none",
  "free",
  "expired",
  "expired-guard",
  "confirmed",
  "reboot",
  "released",
  "rejoined",
] as const;
/** What allowed this generation to take the host id. */
export type JoinEvidence = (typeof JOIN_EVIDENCES)[number];

export interface HostRecord {
  readonly watchdog: WatchdogKind;
  readonly armed: boolean;
  /** the host is a virtual machine, whose clocks and watchdog may stand still */
  readonly virtual: boolean;
  /** W as read back from the driver, ms */
  readonly watchdogMs: number;
  /** T, ms */
  readonly ttlMs: number;
  /** d, ms */
  readonly deadlineMs: number;
  /** h, ms */
  readonly intervalMs: number;
  /** 64-bit hash of the kernel's boot id */
  readonly bootIdHash: bigint;
  /** 64-bit hash of the machine id */
  readonly machineIdHash: bigint;
  /** 32-bit hash of the identity of the state directory: two nodes on one machine differ in it */
  readonly stateIdHash: number;
  readonly joinEvidence: JoinEvidence;
  /**
   * So many generations directly before this one were only claimed by this node's own joins that failed. `joinEvidence` is
   * about the one before them, and nothing is known of these: somebody else may have won them. 0 to 255
   */
  readonly unproven: number;
}

/**
 * @param ownerId owner id of the leader record in the same sector
 * @param ownerGeneration its generation
 * @returns 56 bytes. @throws ERR_RECORD_FIELD
 */
export function encodeHostRecord(
  record: HostRecord,
  ownerId: bigint,
  ownerGeneration: bigint,
): Uint8Array {
  const bytes = new Uint8Array(HOST_RECORD_SIZE);
  const view = viewOf(bytes);
  putU32(view, 0, MAGIC, "magic");
  putU16(view, 4, VERSION, "version");
  putU8(view, 6, codeOf(WATCHDOG_KINDS, record.watchdog, "watchdog"), "watchdog");
  putU8(view, 7, (record.armed ? FLAG_ARMED : 0) | (record.virtual ? FLAG_VIRTUAL : 0), "flags");
  putU32(view, 8, record.watchdogMs, "watchdogMs");
  putU32(view, 12, record.ttlMs, "ttlMs");
  putU32(view, 16, record.deadlineMs, "deadlineMs");
  putU32(view, 20, record.intervalMs, "intervalMs");
  putU64(view, 24, record.bootIdHash, "bootIdHash");
  putU64(view, 32, record.machineIdHash, "machineIdHash");
  putU32(view, 40, record.stateIdHash, "stateIdHash");
  putU8(view, 44, codeOf(JOIN_EVIDENCES, record.joinEvidence, "joinEvidence"), "joinEvidence");
  putU8(view, 45, record.unproven, "unproven");
  putU32(view, CRC_OFFSET, hostRecordCrc(bytes, ownerId, ownerGeneration), "crc");
  return bytes;
}

/**
 * @param bytes the 56 bytes of the record
 * @param ownerId owner id of the leader record in the same sector
 * @param ownerGeneration its generation
 */
export function decodeHostRecord(
  bytes: Uint8Array,
  ownerId: bigint,
  ownerGeneration: bigint,
): Decoded<HostRecord> {
  if (bytes.length < HOST_RECORD_SIZE) {
    return corrupt(`a host record has ${HOST_RECORD_SIZE} bytes, here are ${bytes.length}`);
  }
  if (isZero(bytes, 0, HOST_RECORD_SIZE)) {
    return EMPTY;
  }
  const view = viewOf(bytes);
  if (getU32(view, 0) !== MAGIC) {
    return foreign("the bytes after the leader record are not a host record");
  }
  if (getU16(view, 4) !== VERSION) {
    return foreign(`host record version ${getU16(view, 4)} is not ${VERSION}`);
  }
  if (hostRecordCrc(bytes, ownerId, ownerGeneration) !== getU32(view, CRC_OFFSET)) {
    return corrupt("the checksum of the host record does not match this owner and generation");
  }
  const watchdog = WATCHDOG_KINDS[view.getUint8(6)];
  const joinEvidence = JOIN_EVIDENCES[view.getUint8(44)];
  const flags = view.getUint8(7);
  if (watchdog === undefined || joinEvidence === undefined || (flags & ~KNOWN_FLAGS) !== 0) {
    return corrupt("the host record has an unknown watchdog kind, join evidence or flag");
  }
  return decodedOk({
    watchdog,
    armed: (flags & FLAG_ARMED) !== 0,
    virtual: (flags & FLAG_VIRTUAL) !== 0,
    watchdogMs: getU32(view, 8),
    ttlMs: getU32(view, 12),
    deadlineMs: getU32(view, 16),
    intervalMs: getU32(view, 20),
    bootIdHash: getU64(view, 24),
    machineIdHash: getU64(view, 32),
    stateIdHash: getU32(view, 40),
    joinEvidence,
    unproven: view.getUint8(45),
  });
}

/** CRC-32C over bytes 0..51 of the record, then owner id and generation as they lie in the leader record. */
function hostRecordCrc(bytes: Uint8Array, ownerId: bigint, ownerGeneration: bigint): number {
  const owner = new Uint8Array(16);
  const view = viewOf(owner);
  putU64(view, 0, ownerId, "ownerId");
  putU64(view, 8, ownerGeneration, "ownerGeneration");
  return ~crc32cUpdate(crc32cUpdate(-1, bytes, 0, CRC_OFFSET), owner) >>> 0;
}
