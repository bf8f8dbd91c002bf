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
import { AREA, areaOffset, type Geometry, MAX_HOSTS_LIMIT, requireWhole } from "./geometry.js";
import type { Stamp } from "./stamp.js";

/**
 * The reservation table of the `region` backend as one host last wrote it: registrants and the reservation in SPC-4's
 * words. Two sub-slots per host id in area 2, written in turn; the highest stamp over all hosts is current.
 */

/** "SHRT" */
const MAGIC = 0x54524853;
const VERSION = 1;
const HEADER_SIZE = 64;
const CRC_OFFSET = 60;
const REGISTRANT_SIZE = 16;
const FLAG_APTPL = 0x1;
export const MAX_REGISTRANTS = 64;
const RECORD_SIZE = HEADER_SIZE + MAX_REGISTRANTS * REGISTRANT_SIZE;

/** SPC-4, PERSISTENT RESERVE type codes. */
const TYPE_CODES = {
  "write-exclusive": 1,
  "exclusive-access": 3,
  "write-exclusive-registrants-only": 5,
  "exclusive-access-registrants-only": 6,
  "write-exclusive-all-registrants": 7,
  "exclusive-access-all-registrants": 8,
} as const;
export type ReservationType = keyof typeof TYPE_CODES;
const TYPES = Object.keys(TYPE_CODES) as readonly ReservationType[];

export interface Registrant {
  /** reservation key, not 0 */
  readonly key: bigint;
  readonly hostId: number;
  /** the registration survives a power loss of the target */
  readonly aptpl: boolean;
}

export interface Reservation {
  readonly type: ReservationType;
  /** SPC-4: 0 is the logical unit, the only scope there is */
  readonly scope: 0;
  /** the holder's key; 0 with the all-registrants types */
  readonly key: bigint;
}

export interface ReservationTable {
  readonly hostId: number;
  readonly stamp: Stamp;
  /** SPC-4 PRgeneration */
  readonly prGeneration: number;
  readonly reservation: Reservation | undefined;
  readonly registrants: readonly Registrant[];
}

/** Bytes of one sub-slot, a multiple of the sector. */
export function reservationSubslotSize(g: Geometry): number {
  return Math.ceil(RECORD_SIZE / g.sectorSize) * g.sectorSize;
}

/** Byte offset in the region of one of the two sub-slots of host id 1..64. */
export function reservationSlotOffset(g: Geometry, hostId: number, sub: 0 | 1): number {
  requireWhole("host id", hostId, 1, MAX_HOSTS_LIMIT);
  const index = (hostId - 1) * 2 + sub;
  return areaOffset(g, AREA.reservations) + index * reservationSubslotSize(g);
}

/** @returns the whole sub-slot. @throws ERR_RECORD_FIELD */
export function encodeReservationTable(g: Geometry, table: ReservationTable): Uint8Array {
  requireWhole("host id", table.hostId, 1, MAX_HOSTS_LIMIT);
  if (table.registrants.length > MAX_REGISTRANTS) {
    throw fieldError("registrants", `${table.registrants.length} are more than ${MAX_REGISTRANTS}`);
  }
  const bytes = new Uint8Array(reservationSubslotSize(g));
  const view = viewOf(bytes);
  putU32(view, 0, MAGIC, "magic");
  putU16(view, 4, VERSION, "version");
  putU16(view, 6, table.hostId, "hostId");
  putU64(view, 8, table.stamp.lver, "lver");
  putU64(view, 16, table.stamp.generation, "generation");
  putU32(view, 24, table.prGeneration, "prGeneration");
  putU16(view, 28, table.registrants.length, "registrants");
  if (table.reservation !== undefined) {
    putU8(view, 30, TYPE_CODES[table.reservation.type], "type");
    putU8(view, 31, table.reservation.scope, "scope");
    putU64(view, 32, table.reservation.key, "reservation key");
  }
  table.registrants.forEach((registrant, index) => {
    const at = HEADER_SIZE + index * REGISTRANT_SIZE;
    if (registrant.key === 0n || registrant.hostId < 1 || registrant.hostId > MAX_HOSTS_LIMIT) {
      throw fieldError("registrant", `key ${registrant.key} of host ${registrant.hostId}`);
    }
    putU64(view, at, registrant.key, "key");
    putU16(view, at + 8, registrant.hostId, "hostId");
    putU8(view, at + 10, registrant.aptpl ? FLAG_APTPL : 0, "flags");
  });
  putU32(view, CRC_OFFSET, tableCrc(bytes), "crc");
  return bytes;
}

/** @param bytes the whole sub-slot. The caller compares `hostId` with the slot's place */
export function decodeReservationTable(g: Geometry, bytes: Uint8Array): Decoded<ReservationTable> {
  if (bytes.length !== reservationSubslotSize(g)) {
    return corrupt(
      `a reservation table has ${reservationSubslotSize(g)} bytes, here are ${bytes.length}`,
    );
  }
  const view = viewOf(bytes);
  if (getU32(view, 0) !== MAGIC) {
    return isZero(bytes) ? EMPTY : foreign("the sector is not a reservation table");
  }
  if (getU16(view, 4) !== VERSION) {
    return foreign(`reservation table version ${getU16(view, 4)} is not ${VERSION}`);
  }
  if (getU32(view, CRC_OFFSET) !== tableCrc(bytes)) {
    return corrupt("the checksum of the reservation table does not match");
  }
  const hostId = getU16(view, 6);
  const reservation = readReservation(view);
  const registrants = readRegistrants(view);
  if (!isHostId(hostId) || reservation === "unknown" || registrants === undefined) {
    return corrupt(`the reservation table of host ${hostId} has a field outside its range`);
  }
  return decodedOk({
    hostId,
    stamp: { lver: getU64(view, 8), generation: getU64(view, 16) },
    prGeneration: getU32(view, 24),
    reservation,
    registrants,
  });
}

function readReservation(view: DataView): Reservation | undefined | "unknown" {
  const code = view.getUint8(30);
  if (code === 0) {
    return undefined;
  }
  const type = TYPES.find((name) => TYPE_CODES[name] === code);
  return type === undefined || view.getUint8(31) !== 0
    ? "unknown"
    : { type, scope: 0, key: getU64(view, 32) };
}

function readRegistrants(view: DataView): Registrant[] | undefined {
  const count = getU16(view, 28);
  if (count > MAX_REGISTRANTS) {
    return undefined;
  }
  const registrants: Registrant[] = [];
  for (let index = 0; index < count; index++) {
    const at = HEADER_SIZE + index * REGISTRANT_SIZE;
    const key = getU64(view, at);
    const hostId = getU16(view, at + 8);
    const flags = view.getUint8(at + 10);
    if (key === 0n || !isHostId(hostId) || (flags & ~FLAG_APTPL) !== 0) {
      return undefined;
    }
    registrants.push({ key, hostId, aptpl: (flags & FLAG_APTPL) !== 0 });
  }
  return registrants;
}

function isHostId(value: number): boolean {
  return value >= 1 && value <= MAX_HOSTS_LIMIT;
}

/** CRC-32C over the whole sub-slot but the CRC field. */
function tableCrc(bytes: Uint8Array): number {
  return crc32cOfRanges(bytes, [
    [0, CRC_OFFSET],
    [CRC_OFFSET + 4, bytes.length],
  ]);
}
