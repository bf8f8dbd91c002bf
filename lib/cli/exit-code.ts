/**
 * What the exit code says: 0 done, 1 refused (held, timed out ...: trying later may help), 2 bad usage or bad input (the
 * command must be changed), 3 fault (no daemon, no quorum, I/O). `health` has its own meaning: the worst level found.
 */
import { ShareHaError } from "../errors.js";

export type ExitCode = 0 | 1 | 2 | 3;

/** Raised on this side of the socket; everything that is in neither list is a fault. */
const REFUSED = new Set([
  "ERR_CANCELLED",
  "ERR_CLONED_MACHINE",
  "ERR_DEVICE_BUSY",
  "ERR_DEVICE_HAS_DATA",
  "ERR_HOST_ID_TAKEN",
  "ERR_ISCSI_AGAIN",
  "ERR_ISCSI_BUSY",
  "ERR_ISCSI_CANCELLED",
  "ERR_ISCSI_TIMEOUT",
  "ERR_JOIN_RACE",
  "ERR_LEASE_LOST",
  "ERR_LIVE_HEARTBEATS",
  "ERR_LUN_BUSY",
  "ERR_LUN_TOO_SLOW",
  "ERR_NAME_TAKEN",
  "ERR_NO_EVIDENCE",
  "ERR_NO_FREE_HOST_ID",
]);

const BAD_INPUT = new Set([
  "ERR_ALREADY_A_MEMBER",
  "ERR_CLONE",
  "ERR_CONFIG",
  "ERR_CONFIG_FILE",
  "ERR_DIRECT_IO",
  "ERR_INIT_OPTIONS",
  "ERR_ISCSI_ARGUMENT",
  "ERR_ISCSI_CHAP_MISSING",
  "ERR_ISCSI_CHAP_WRONG",
  "ERR_ISCSI_LUN_MISSING",
  "ERR_ISCSI_LUN_MOVED",
  "ERR_ISCSI_NAME_UNRESOLVED",
  "ERR_ISCSI_NO_RECORD",
  "ERR_ISCSI_NO_WWID",
  "ERR_ISCSI_PORTAL",
  "ERR_ISCSI_SECRET",
  "ERR_ISCSI_SECRET_FILE",
  "ERR_ISCSI_TARGET_GONE",
  "ERR_ISCSI_TARGET_NAME",
  "ERR_ISCSI_TIMERS",
  "ERR_ISCSI_URL",
  "ERR_ISCSI_WWID_CHANGED",
  "ERR_LUNS_SWAPPED",
  "ERR_LUN_COUNT",
  "ERR_LUN_REPLACED",
  "ERR_LUN_TOO_SMALL",
  "ERR_NEWER_VERSION",
  "ERR_NO_SUCH_AREA",
  "ERR_NO_SUCH_DEVICE",
  "ERR_NO_SUCH_HOST_ID",
  "ERR_NOT_A_DEVICE",
  "ERR_NOT_A_REGION",
  "ERR_OTHER_CLUSTER",
  "ERR_READ_ONLY_DEVICE",
  "ERR_REGION_DAMAGED",
  "ERR_SAME_LUN_TWICE",
  "ERR_SECTOR_SIZE",
  "ERR_STATE_DIR",
  "ERR_TIMINGS",
  "ERR_TRUNCATED",
  "ERR_USAGE",
]);

export function exitCodeOf(error: ShareHaError): ExitCode {
  const status = error.fields["httpStatus"];
  if (typeof status === "number") {
    if (status === 409) {
      return 1;
    }
    return status >= 400 && status < 500 ? 2 : 3;
  }
  if (REFUSED.has(error.code)) {
    return 1;
  }
  return BAD_INPUT.has(error.code) ? 2 : 3;
}

export function usageError(message: string, hint: string): ShareHaError {
  return new ShareHaError("ERR_USAGE", message, { hint });
}
