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
  viewOf,
} from "./bytes.js";
import { crc32cOfRanges } from "./crc32c.js";
import { corrupt, type Decoded, decodedOk, EMPTY, foreign } from "./decoded.js";
import { AREA, areaOffset, type Geometry, MAX_HOSTS_LIMIT, requireWhole } from "./geometry.js";
import type { Stamp } from "./stamp.js";

/**
 * The cluster configuration as one host last wrote it: each host id has two sub-slots in area 0 and writes them in turn,
 * so that a torn write never hits its current one. Which host's is current, the stamps tell (DESIGN section 3, hazard H14).
 */

/** "SHCF" */
const MAGIC = 0x46434853;
const VERSION = 1;
const HEADER_SIZE = 64;
const CRC_OFFSET = 60;
/** The superblock's first copy, and as much again for the last one, whatever the sector size. */
const SUPERBLOCK_ROOM = 4096;
const SUBSLOTS = MAX_HOSTS_LIMIT * 2;

export interface ConfigSlot {
  readonly hostId: number;
  readonly stamp: Stamp;
  /** epoch of the set of LUNs the configuration was written for */
  readonly epoch: bigint;
  /** TOML */
  readonly text: string;
}

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const utf8 = new TextEncoder();

/** Bytes of one sub-slot, a multiple of the sector: as large as 128 of them fit between the superblocks. */
export function configSubslotSize(g: Geometry): number {
  const room = (g.areaSize - 2 * SUPERBLOCK_ROOM) / SUBSLOTS;
  return room - (room % g.sectorSize);
}

/** The longest configuration, in bytes of UTF-8. */
export function maxConfigBytes(g: Geometry): number {
  return configSubslotSize(g) - HEADER_SIZE;
}

/** Byte offset in the region of one of the two sub-slots of host id 1..64. */
export function configSlotOffset(g: Geometry, hostId: number, sub: 0 | 1): number {
  requireWhole("host id", hostId, 1, MAX_HOSTS_LIMIT);
  const index = (hostId - 1) * 2 + sub;
  return areaOffset(g, AREA.superblock) + SUPERBLOCK_ROOM + index * configSubslotSize(g);
}

/** @returns the whole sub-slot. @throws ERR_CONFIG_TOO_LARGE, ERR_RECORD_FIELD */
export function encodeConfigSlot(g: Geometry, slot: ConfigSlot): Uint8Array {
  requireWhole("host id", slot.hostId, 1, MAX_HOSTS_LIMIT);
  const payload = utf8.encode(slot.text);
  if (payload.length > maxConfigBytes(g)) {
    throw new ShareHaError(
      "ERR_CONFIG_TOO_LARGE",
      `The configuration has ${payload.length} bytes; ${maxConfigBytes(g)} fit on this region.`,
      {
        hint: "Shorten comments and lists, or make the region with larger areas.",
        fields: { bytes: payload.length, limit: maxConfigBytes(g) },
      },
    );
  }
  if (strictUtf8.decode(payload) !== slot.text) {
    throw fieldError("text", "the configuration is not valid Unicode");
  }
  const bytes = new Uint8Array(configSubslotSize(g));
  const view = viewOf(bytes);
  putU32(view, 0, MAGIC, "magic");
  putU16(view, 4, VERSION, "version");
  putU16(view, 6, slot.hostId, "hostId");
  putU64(view, 8, slot.stamp.lver, "lver");
  putU64(view, 16, slot.stamp.generation, "generation");
  putU64(view, 24, slot.epoch, "epoch");
  putU32(view, 32, payload.length, "length");
  bytes.set(payload, HEADER_SIZE);
  putU32(view, CRC_OFFSET, slotCrc(bytes, payload.length), "crc");
  return bytes;
}

/** @param bytes the whole sub-slot. The caller compares `hostId` with the slot's place */
export function decodeConfigSlot(g: Geometry, bytes: Uint8Array): Decoded<ConfigSlot> {
  if (bytes.length !== configSubslotSize(g)) {
    return corrupt(`a configuration slot has ${configSubslotSize(g)} bytes, not ${bytes.length}`);
  }
  const view = viewOf(bytes);
  if (getU32(view, 0) !== MAGIC) {
    return isZero(bytes) ? EMPTY : foreign("the sector is not a configuration slot");
  }
  if (getU16(view, 4) !== VERSION) {
    return foreign(`configuration slot version ${getU16(view, 4)} is not ${VERSION}`);
  }
  const length = getU32(view, 32);
  if (length > maxConfigBytes(g)) {
    return corrupt(`the configuration slot says it holds ${length} bytes`);
  }
  if (getU32(view, CRC_OFFSET) !== slotCrc(bytes, length)) {
    return corrupt("the checksum of the configuration slot does not match");
  }
  const hostId = getU16(view, 6);
  const text = decodeText(bytes.subarray(HEADER_SIZE, HEADER_SIZE + length));
  if (hostId < 1 || hostId > MAX_HOSTS_LIMIT || text === undefined) {
    return corrupt(`the configuration slot of host ${hostId} is not valid`);
  }
  return decodedOk({
    hostId,
    stamp: { lver: getU64(view, 8), generation: getU64(view, 16) },
    epoch: getU64(view, 24),
    text,
  });
}

function decodeText(bytes: Uint8Array): string | undefined {
  try {
    return strictUtf8.decode(bytes);
  } catch {
    // The one way TextDecoder has to say "not UTF-8"; the caller reports the slot as corrupt.
    return undefined;
  }
}

/** CRC-32C over header and payload but the CRC field; the zeros behind the payload mean nothing. */
function slotCrc(bytes: Uint8Array, length: number): number {
  return crc32cOfRanges(bytes, [
    [0, CRC_OFFSET],
    [HEADER_SIZE, HEADER_SIZE + length],
  ]);
}
