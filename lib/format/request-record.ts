import { codeOf, fieldError, getU32, getU64, isZero, putU32, putU64, viewOf } from "./bytes.js";
import { corrupt, type Decoded, decodedOk, EMPTY, foreign } from "./decoded.js";
import type { Geometry } from "./geometry.js";

/**
 * The request record in sector 1 of a resource lease: somebody asks the owner to let go (sanlock fact sheet, sections 1.4
 * and 2.8). It has no checksum and any host may write it, so it is a wish, never evidence.
 */

export const REQUEST_RECORD_SIZE = 20;
export const REQUEST_MAGIC = 0x08292011;
export const REQUEST_VERSION = 0x00010001;

/** Codes on disk are positions in this list. `force`: kill the holder; `graceful`: ask it. */
export const FORCE_MODES = ["none", "force", "graceful"] as const;
export type ForceMode = (typeof FORCE_MODES)[number];

export interface RequestRecord {
  readonly version: number;
  /** wanted lease version, 0 = nothing asked */
  readonly lver: bigint;
  readonly forceMode: ForceMode;
}

/** @returns one sector. @throws ERR_RECORD_FIELD */
export function encodeRequestSector(g: Geometry, record: RequestRecord): Uint8Array {
  if (record.version >>> 16 !== REQUEST_VERSION >>> 16) {
    throw fieldError("version", `0x${record.version.toString(16)} is not a known version`);
  }
  const bytes = new Uint8Array(g.sectorSize);
  const view = viewOf(bytes);
  putU32(view, 0, REQUEST_MAGIC, "magic");
  putU32(view, 4, record.version, "version");
  putU64(view, 8, record.lver, "lver");
  putU32(view, 16, codeOf(FORCE_MODES, record.forceMode, "forceMode"), "forceMode");
  return bytes;
}

/** @param bytes at least the 20 bytes of the record; more are ignored */
export function decodeRequestRecord(bytes: Uint8Array): Decoded<RequestRecord> {
  if (bytes.length < REQUEST_RECORD_SIZE) {
    return corrupt(`a request record has ${REQUEST_RECORD_SIZE} bytes, here are ${bytes.length}`);
  }
  if (isZero(bytes, 0, REQUEST_RECORD_SIZE)) {
    return EMPTY;
  }
  const view = viewOf(bytes);
  const version = getU32(view, 4);
  if (getU32(view, 0) !== REQUEST_MAGIC || version >>> 16 !== REQUEST_VERSION >>> 16) {
    return foreign("the sector is not a request record of a known version");
  }
  const forceMode = FORCE_MODES[getU32(view, 16)];
  if (forceMode === undefined) {
    return corrupt(`force mode ${getU32(view, 16)} of the request record is unknown`);
  }
  return decodedOk({ version, lver: getU64(view, 8), forceMode });
}
