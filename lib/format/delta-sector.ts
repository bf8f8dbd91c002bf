import { fieldError, isZero } from "./bytes.js";
import { corrupt, type Decoded, decodedOk, EMPTY } from "./decoded.js";
import { type Geometry, requireWhole } from "./geometry.js";
import {
  decodeHostRecord,
  encodeHostRecord,
  HOST_RECORD_OFFSET,
  HOST_RECORD_SIZE,
  type HostRecord,
} from "./host-record.js";
import {
  decodeLeaderRecord,
  encodeLeaderRecord,
  LEADER_RECORD_SIZE,
  type LeaderRecord,
} from "./leader-record.js";

/**
 * One sector of the lockspace: sanlock's delta lease of one host id (bytes 0..199), our host record (200..255) and
 * sanlock's bitmap of hosts that should look here (256..511, also in sectors of 4096 bytes).
 */

export const BITMAP_OFFSET = 256;
export const BITMAP_SIZE = 256;
const MAX_BITMAP_HOST = BITMAP_SIZE * 8;

/**
 * - `ok`: `host` is our host record.
 * - `absent`: all zero, as a sanlock daemon writes it.
 * - `corrupt`: anything else, also a newer version: neither our numbers nor sanlock's arithmetic may be used.
 */
export type HostRecordState = "ok" | "absent" | "corrupt";

export interface DeltaSector {
  readonly leader: LeaderRecord;
  /** undefined unless `hostState` is `ok` */
  readonly host: HostRecord | undefined;
  readonly hostState: HostRecordState;
  /** 256 bytes: bit (H-1) is for host id H. Not covered by any checksum: a hint to look, never a proof */
  readonly bitmap: Uint8Array;
}

/** @returns one sector. @throws ERR_RECORD_FIELD, ERR_NAME */
export function encodeDeltaSector(g: Geometry, sector: DeltaSector): Uint8Array {
  const { leader, host, hostState, bitmap } = sector;
  if (leader.kind !== "delta" || leader.sectorSize !== g.sectorSize) {
    throw fieldError("leader", `a ${leader.kind} record of ${leader.sectorSize}-byte sectors`);
  }
  if (bitmap.length !== BITMAP_SIZE) {
    throw fieldError("bitmap", `${bitmap.length} bytes instead of ${BITMAP_SIZE}`);
  }
  if ((host === undefined) === (hostState === "ok") || hostState === "corrupt") {
    throw fieldError("host", `a host record in state "${hostState}" cannot be written`);
  }
  const bytes = new Uint8Array(g.sectorSize);
  bytes.set(encodeLeaderRecord(leader));
  if (host !== undefined) {
    bytes.set(encodeHostRecord(host, leader.ownerId, leader.ownerGeneration), HOST_RECORD_OFFSET);
  }
  bytes.set(bitmap, BITMAP_OFFSET);
  return bytes;
}

/** @param bytes the sector; `bitmap` of the result is a copy */
export function decodeDeltaSector(g: Geometry, bytes: Uint8Array): Decoded<DeltaSector> {
  if (bytes.length !== g.sectorSize) {
    return corrupt(`a delta lease has ${g.sectorSize} bytes, here are ${bytes.length}`);
  }
  const leader = decodeLeaderRecord(bytes, "delta");
  if (leader.kind === "empty") {
    return isZero(bytes, LEADER_RECORD_SIZE)
      ? EMPTY
      : corrupt("the delta lease is zero but the rest of its sector is not");
  }
  if (leader.kind !== "ok") {
    return leader;
  }
  if (leader.value.sectorSize !== g.sectorSize) {
    return corrupt(
      `the delta lease was made for sectors of ${leader.value.sectorSize} bytes, not ${g.sectorSize}`,
    );
  }
  const { ownerId, ownerGeneration } = leader.value;
  const hostEnd = HOST_RECORD_OFFSET + HOST_RECORD_SIZE;
  const host = decodeHostRecord(
    bytes.subarray(HOST_RECORD_OFFSET, hostEnd),
    ownerId,
    ownerGeneration,
  );
  return decodedOk({
    leader: leader.value,
    host: host.kind === "ok" ? host.value : undefined,
    hostState: host.kind === "ok" ? "ok" : host.kind === "empty" ? "absent" : "corrupt",
    bitmap: bytes.slice(BITMAP_OFFSET, BITMAP_OFFSET + BITMAP_SIZE),
  });
}

/** True when host id 1..2048 is asked to look at the sector's owner. */
export function bitmapHas(bitmap: Uint8Array, hostId: number): boolean {
  requireWhole("host id", hostId, 1, MAX_BITMAP_HOST);
  return ((bitmap[(hostId - 1) >>> 3] ?? 0) & (1 << ((hostId - 1) & 7))) !== 0;
}

/** A copy of the bitmap with the bit of host id 1..2048 set or cleared. */
export function bitmapWith(bitmap: Uint8Array, hostId: number, on = true): Uint8Array {
  requireWhole("host id", hostId, 1, MAX_BITMAP_HOST);
  const copy = Uint8Array.from(bitmap);
  const index = (hostId - 1) >>> 3;
  const mask = 1 << ((hostId - 1) & 7);
  const byte = copy[index];
  if (byte === undefined) {
    throw fieldError("bitmap", `${copy.length} bytes instead of ${BITMAP_SIZE}`);
  }
  copy[index] = on ? byte | mask : byte & ~mask;
  return copy;
}

/** An empty bitmap. */
export function emptyBitmap(): Uint8Array {
  return new Uint8Array(BITMAP_SIZE);
}
