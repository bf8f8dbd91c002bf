/**
 * What a SCSI device says about a command that it did not simply carry out (SPC-4, 4.5): fixed and descriptor format, both
 * current and deferred. The bytes come from a device, so nothing of them is trusted.
 */
import { type Decoded, corrupt, decodedOk, EMPTY, foreign } from "./decoded.js";
import { isZero } from "./bytes.js";

/** SPC-4, table 48; the position is the sense key. */
const SENSE_KEYS = [
  "no sense",
  "recovered error",
  "not ready",
  "medium error",
  "hardware error",
  "illegal request",
  "unit attention",
  "data protect",
  "blank check",
  "vendor specific",
  "copy aborted",
  "aborted command",
  "reserved",
  "volume overflow",
  "miscompare",
  "completed",
] as const;

export type SenseKey = (typeof SENSE_KEYS)[number];

export interface Sense {
  readonly key: SenseKey;
  /** Additional sense code and its qualifier. */
  readonly asc: number;
  readonly ascq: number;
  /** It is about an earlier command, not about the one that it came with. */
  readonly deferred: boolean;
}

/** The codes (SPC-4, annex E) that say something about paths, reservations and caches; `*` stands for any qualifier. */
const MEANINGS: Readonly<Record<string, string>> = {
  "04/*": "logical unit not ready",
  "08/*": "logical unit communication failure",
  "20/00": "invalid command operation code",
  "24/00": "invalid field in CDB",
  "25/00": "logical unit not supported",
  "26/00": "invalid field in parameter list",
  "27/*": "write protected",
  "29/*": "power on, reset, or bus device reset occurred",
  "2a/01": "mode parameters changed",
  "2a/03": "reservations preempted",
  "2a/04": "reservations released",
  "2a/05": "registrations preempted",
  "2a/06": "asymmetric access state changed",
  "2a/09": "capacity data has changed",
  "3f/0e": "reported LUNs data has changed",
  "3f/*": "target operating conditions have changed",
  "55/04": "insufficient registration resources",
};

const FIXED = 0x70;
const FIXED_DEFERRED = 0x71;
const DESCRIPTOR = 0x72;
const DESCRIPTOR_DEFERRED = 0x73;

/** @param bytes as many as the device wrote */
export function decodeSense(bytes: Uint8Array): Decoded<Sense> {
  if (isZero(bytes)) {
    return EMPTY;
  }
  // The highest bit of the first byte says that the information field is valid (fixed format), which is not read here.
  const responseCode = (bytes[0] ?? 0) & 0x7f;
  switch (responseCode) {
    case FIXED:
    case FIXED_DEFERRED:
      // Bytes after the additional sense length are not the device's; the code lies at 12 and 13.
      return bytes.length < 3
        ? corrupt(`sense data of ${bytes.length} bytes`)
        : decodedOk({
            key: keyOf(bytes[2]),
            asc: hasAdditional(bytes, 12) ? (bytes[12] ?? 0) : 0,
            ascq: hasAdditional(bytes, 13) ? (bytes[13] ?? 0) : 0,
            deferred: responseCode === FIXED_DEFERRED,
          });
    case DESCRIPTOR:
    case DESCRIPTOR_DEFERRED:
      return bytes.length < 4
        ? corrupt(`sense data of ${bytes.length} bytes`)
        : decodedOk({
            key: keyOf(bytes[1]),
            asc: bytes[2] ?? 0,
            ascq: bytes[3] ?? 0,
            deferred: responseCode === DESCRIPTOR_DEFERRED,
          });
    default:
      return foreign(`sense data with response code 0x${responseCode.toString(16)}`);
  }
}

/** Fixed format: byte 7 is the number of bytes after it. */
function hasAdditional(bytes: Uint8Array, at: number): boolean {
  return bytes.length > at && (bytes[7] ?? 0) + 8 > at;
}

function keyOf(byte: number | undefined): SenseKey {
  return SENSE_KEYS[(byte ?? 0) & 0x0f] ?? "reserved";
}

/** `unit attention (2a/03, reservations preempted)` */
export function senseText(sense: Sense): string {
  const code = `${hex(sense.asc)}/${hex(sense.ascq)}`;
  const meaning = MEANINGS[code] ?? MEANINGS[`${hex(sense.asc)}/*`];
  const deferred = sense.deferred ? "deferred " : "";
  return `${deferred}${sense.key} (${code}${meaning === undefined ? "" : `, ${meaning}`})`;
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}
