/** Errors of the control API: one body for all, and the status that says who can do something about it (net/api.ts). */
import { ShareHaError } from "../errors.js";
import { type ErrorBody } from "../net/api.js";

/**
 * 400: the request or the configuration must be changed. 404: no such thing. 409: refused now. 503: this node or the LUNs
 * cannot now. Everything else is unexpected and 500. The exit code of a command follows from it (cli/exit-code.ts); a code
 * that both sides throw has one exit code (test/unit/daemon/http-error.test.ts).
 */
const STATUS: Readonly<Record<string, number>> = {
  ERR_BAD_REQUEST: 400,
  ERR_CONFIG: 400,
  ERR_CONFIG_TOO_LARGE: 400,
  ERR_TIMINGS: 400,
  ERR_TIMERS_FIXED: 400,
  ERR_LEASE_NAME: 400,
  ERR_WHICH_GROUP: 400,
  ERR_NOT_A_SESSION: 400,
  ERR_NO_DATA: 400,
  ERR_NOT_A_DEVICE: 400,
  ERR_READ_ONLY_DEVICE: 400,
  ERR_DIRECT_IO: 400,
  ERR_SECTOR_SIZE: 400,
  ERR_TRUNCATED: 400,
  ERR_LUN_TOO_SMALL: 400,
  ERR_SAME_LUN_TWICE: 400,
  ERR_NEWER_VERSION: 400,
  ERR_TOO_LARGE: 413,
  ERR_NO_SUCH_PATH: 404,
  ERR_NO_SUCH_LEASE: 404,
  ERR_NO_SUCH_GROUP: 404,
  ERR_NO_SUCH_HOST: 404,
  ERR_NO_SUCH_PROCESS: 404,
  ERR_NO_SUCH_DEVICE: 404,
  ERR_LEASE_HELD: 409,
  ERR_HELD_HERE: 409,
  ERR_LEASE_EXISTS: 409,
  ERR_LEASE_QUEUED: 409,
  ERR_LEASE_OF_GROUP: 409,
  ERR_LEASE_BOUND: 409,
  ERR_LEASE_INTERNAL: 409,
  ERR_LEASE_LOST: 409,
  ERR_TOO_MANY_LEASES: 409,
  ERR_REGION_FULL: 409,
  ERR_TIMED_OUT: 409,
  ERR_CONTENDED: 409,
  ERR_CANCELLED: 409,
  ERR_NOT_ARMED: 409,
  ERR_NOT_HELD: 409,
  ERR_NOT_UP: 409,
  ERR_BUSY: 409,
  ERR_HOST_ALIVE: 409,
  ERR_HOST_LEFT: 409,
  ERR_FOREIGN_HOSTS: 409,
  ERR_NOT_A_CANDIDATE: 409,
  ERR_GROUP_STUCK: 409,
  ERR_MOUNT_BUSY: 409,
  ERR_MOUNT_POINT: 409,
  ERR_STILL_MOUNTED: 409,
  ERR_DEVICE_BUSY: 409,
  ERR_DEVICE_HAS_DATA: 409,
  ERR_LIVE_HEARTBEATS: 409,
  ERR_REPLACE_NOT_POSSIBLE: 409,
  ERR_NOTHING_BOUND: 409,
  ERR_CONFIG_CONFLICT: 409,
  ERR_NOTHING_TO_UNDO: 409,
  ERR_NO_QUORUM: 503,
  ERR_UNDECIDED: 503,
  ERR_NOT_JOINED: 503,
  ERR_NODE_LOST: 503,
  ERR_PULSE: 503,
  ERR_STATE_DIR: 503,
  ERR_LUN_OPEN: 503,
  ERR_LUN_READ: 503,
  ERR_LUN_WRITE: 503,
  ERR_LUN_TIMEOUT: 503,
};

export function statusOf(error: ShareHaError): number {
  return STATUS[error.code] ?? 500;
}

export function errorBody(error: ShareHaError): ErrorBody {
  const { code, message, hint, fields } = error;
  return { error: { code, message, hint, fields } };
}

export function badRequest(message: string, hint: string, cause?: unknown): ShareHaError {
  return new ShareHaError("ERR_BAD_REQUEST", message, { hint, cause });
}

/** Whatever was thrown, as what the client gets; `isDefect` goes to the log with its stack. */
export function toShareHaError(error: unknown): {
  readonly error: ShareHaError;
  readonly isDefect: boolean;
} {
  if (error instanceof ShareHaError) {
    return { error, isDefect: false };
  }
  if (isClientError(error)) {
    return { error: clientError(error), isDefect: false };
  }
  const why = error instanceof Error ? error.message : String(error);
  return {
    error: new ShareHaError("ERR_INTERNAL", `the daemon failed: ${why}`, {
      hint: "A defect; daemon.log in the state directory has the details. Please report it.",
      cause: error,
    }),
    isDefect: true,
  };
}

interface ClientError extends Error {
  readonly code: string;
  readonly statusCode: number;
}

/** What the HTTP server says of a request that it could not take. */
function isClientError(error: unknown): error is ClientError {
  return (
    error instanceof Error &&
    "statusCode" in error &&
    typeof error.statusCode === "number" &&
    error.statusCode >= 400 &&
    error.statusCode < 500
  );
}

function clientError(error: ClientError): ShareHaError {
  return error.statusCode === 413
    ? new ShareHaError("ERR_TOO_LARGE", "the request is too large", {
        hint: "The limit of a request is 64 KiB.",
        cause: error,
      })
    : badRequest(error.message, "See docs/api.md for the requests that there are.", error);
}
