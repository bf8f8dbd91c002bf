/**
 * SCSI command descriptor blocks that change nothing on the medium, and the parameter data of PERSISTENT RESERVE IN with
 * service action REPORT CAPABILITIES (SPC-4, 6.15.4). SCSI is big-endian, unlike everything of ours.
 */
import { viewOf } from "./bytes.js";
import { corrupt, type Decoded, decodedOk } from "./decoded.js";

/** SPC-4, 6.47 */
export function testUnitReady(): Uint8Array {
  return new Uint8Array(6);
}

/**
 * SYNCHRONIZE CACHE (10) of one block (SBC-3, 5.23). It moves what is cached to the medium and changes no byte; most
 * targets flush all of their cache, as they do for every fsync.
 */
export function synchronizeCacheOfOneBlock(): Uint8Array {
  const cdb = new Uint8Array(10);
  cdb[0] = 0x35;
  cdb[8] = 1;
  return cdb;
}

export const PERSISTENT_RESERVE_IN = 0x5e;
const PRIN_REPORT_CAPABILITIES = 0x02;
export const REPORT_CAPABILITIES_SIZE = 8;

/** Room for what later versions of the standard may add. */
export const REPORT_CAPABILITIES_ALLOCATION = 32;

export function reportCapabilities(): Uint8Array {
  const cdb = new Uint8Array(10);
  cdb[0] = PERSISTENT_RESERVE_IN;
  cdb[1] = PRIN_REPORT_CAPABILITIES;
  viewOf(cdb).setUint16(7, REPORT_CAPABILITIES_ALLOCATION);
  return cdb;
}

/** Reservation types by the standard's short names and numbers (SPC-4, table 66 and 211). */
export const RESERVATION_TYPES = {
  WE: 1,
  EA: 3,
  WERO: 5,
  EARO: 6,
  WEAR: 7,
  EAAR: 8,
} as const;

export type ReservationType = keyof typeof RESERVATION_TYPES;

/** The bit of each type in the 16 bits of the persistent reservation type mask. */
const TYPE_MASK: readonly (readonly [ReservationType, number])[] = [
  ["WE", 0x0200],
  ["EA", 0x0800],
  ["WERO", 0x2000],
  ["EARO", 0x4000],
  ["WEAR", 0x8000],
  ["EAAR", 0x0001],
];

export interface ReservationCapabilities {
  /** RLR_C: a reservation that a power loss took can be taken again. */
  readonly replaceLostReservation: boolean;
  /** CRH: RESERVE and RELEASE of SPC-2 do not clash with it. */
  readonly compatibleHandling: boolean;
  /** SIP_C: other initiator ports can be registered too. */
  readonly specifyInitiatorPorts: boolean;
  /** ATP_C: one registration for all target ports. */
  readonly allTargetPorts: boolean;
  /** PTPL_C: registrations can survive a power loss of the target (APTPL). */
  readonly persistThroughPowerLossCapable: boolean;
  /** PTPL_A: they do, now. */
  readonly persistThroughPowerLossActive: boolean;
  /** Undefined: the device does not tell which types it has (TMV = 0). */
  readonly types: readonly ReservationType[] | undefined;
}

/** @param bytes as many as the device sent */
export function decodeReservationCapabilities(bytes: Uint8Array): Decoded<ReservationCapabilities> {
  if (bytes.length < REPORT_CAPABILITIES_SIZE) {
    return corrupt(`REPORT CAPABILITIES answered with ${bytes.length} bytes, not 8`);
  }
  const view = viewOf(bytes);
  // The length counts itself, against the custom of the other parameter data.
  const length = view.getUint16(0);
  if (length < REPORT_CAPABILITIES_SIZE) {
    return corrupt(`REPORT CAPABILITIES says that it has ${length} bytes, not 8`);
  }
  const flags = view.getUint8(2);
  const more = view.getUint8(3);
  const mask = view.getUint16(4);
  return decodedOk({
    replaceLostReservation: (flags & 0x80) !== 0,
    compatibleHandling: (flags & 0x10) !== 0,
    specifyInitiatorPorts: (flags & 0x08) !== 0,
    allTargetPorts: (flags & 0x04) !== 0,
    persistThroughPowerLossCapable: (flags & 0x01) !== 0,
    persistThroughPowerLossActive: (more & 0x01) !== 0,
    types:
      (more & 0x80) === 0
        ? undefined
        : TYPE_MASK.filter(([, bit]) => (mask & bit) !== 0).map(([type]) => type),
  });
}
