/** What one SCSI disk says of itself by its own commands, for `sharedha doctor`. Changes nothing; may hang as long as the disk. */
import { closeSync, constants, openSync } from "node:fs";

import { type Decoded } from "../format/decoded.js";
import {
  decodeReservationCapabilities,
  REPORT_CAPABILITIES_ALLOCATION,
  reportCapabilities,
  type ReservationCapabilities,
  synchronizeCacheOfOneBlock,
  testUnitReady,
} from "../format/scsi-commands.js";
import { decodeSense, type Sense, senseText } from "../format/scsi-sense.js";
import { deviceError } from "./device-error.js";
import { scsiCommand, type ScsiResult, type ScsiTransfer } from "./scsi-command.js";

export type ScsiAnswer<T> =
  | { readonly kind: "ok"; readonly value: T }
  /** The kernel passes no SCSI commands to it. */
  | { readonly kind: "not-scsi"; readonly code: string }
  /** The disk does not know the command. */
  | { readonly kind: "unsupported"; readonly why: string }
  /** Another initiator has reserved the disk in the way of SPC-2. */
  | { readonly kind: "conflict" }
  | { readonly kind: "failed"; readonly why: string };

export interface ScsiLook {
  /** Unit attentions that were waiting, and that this look has taken. */
  readonly attentions: readonly string[];
  readonly reservations: ScsiAnswer<ReservationCapabilities>;
  /** Whether SYNCHRONIZE CACHE is carried out. */
  readonly flush: ScsiAnswer<undefined>;
}

/** Each condition of the target gives one; a target that goes on for ever is not asked for ever. */
const ATTENTIONS_MAX = 8;

const GOOD = 0x00;
const CHECK_CONDITION = 0x02;
const RESERVATION_CONFLICT = 0x18;

export type SendScsi = (cdb: Uint8Array, transfer: ScsiTransfer) => ScsiResult;

/** @throws the errors of opening a device */
export function lookAtScsiDisk(device: string, timeoutMs: number): ScsiLook {
  let fd: number;
  try {
    fd = openSync(device, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw deviceError(device, error);
  }
  try {
    return askScsiDisk((cdb, transfer) => scsiCommand(fd, cdb, transfer, timeoutMs));
  } finally {
    closeSync(fd);
  }
}

/** Exported for tests. */
export function askScsiDisk(send: SendScsi): ScsiLook {
  const attentions: string[] = [];
  const none = { kind: "none" } as const;
  const ask = (cdb: Uint8Array, transfer: ScsiTransfer): ScsiAnswer<Uint8Array> =>
    askOnce(send, cdb, transfer, attentions);
  // Takes what waits to be reported. A standby path is not ready and answers the others all the same.
  const first = ask(testUnitReady(), none);
  if (first.kind === "not-scsi") {
    return { attentions, reservations: first, flush: first };
  }
  const room = { kind: "in", length: REPORT_CAPABILITIES_ALLOCATION } as const;
  const capabilities = ask(reportCapabilities(), room);
  const flush = ask(synchronizeCacheOfOneBlock(), none);
  return {
    attentions,
    reservations:
      capabilities.kind === "ok"
        ? answerOf(decodeReservationCapabilities(capabilities.value))
        : capabilities,
    flush: flush.kind === "ok" ? { kind: "ok", value: undefined } : flush,
  };
}

/** One command, sent again as long as a unit attention comes in its place (SAM-5: it was not carried out then). */
function askOnce(
  send: SendScsi,
  cdb: Uint8Array,
  transfer: ScsiTransfer,
  attentions: string[],
): ScsiAnswer<Uint8Array> {
  for (let tries = 0; tries <= ATTENTIONS_MAX; tries += 1) {
    const result = send(cdb, transfer);
    if (result.kind !== "answered") {
      return unanswered(result);
    }
    if (result.status === GOOD) {
      return { kind: "ok", value: result.data };
    }
    if (result.status === RESERVATION_CONFLICT) {
      return { kind: "conflict" };
    }
    const sense = decodeSense(result.sense);
    if (result.status !== CHECK_CONDITION || sense.kind !== "ok") {
      const why = sense.kind === "ok" || sense.kind === "empty" ? "" : `: ${sense.reason}`;
      return { kind: "failed", why: `SCSI status 0x${result.status.toString(16)}${why}` };
    }
    if (sense.value.key !== "unit attention") {
      return refusedBy(sense.value);
    }
    attentions.push(senseText(sense.value));
  }
  return {
    kind: "failed",
    why: `more than ${ATTENTIONS_MAX} unit attentions, one after the other`,
  };
}

function unanswered(result: Exclude<ScsiResult, { kind: "answered" }>): ScsiAnswer<never> {
  if (result.kind === "refused") {
    const isOther = result.code === "ENOTTY" || result.code === "EINVAL";
    return isOther
      ? { kind: "not-scsi", code: result.code }
      : { kind: "failed", why: `the kernel refuses the command (${result.code})` };
  }
  const { hostStatus, driverStatus } = result;
  return {
    kind: "failed",
    why: `no answer from the disk (${HOST_STATUS[hostStatus] ?? `host status ${hostStatus}`}, driver status ${driverStatus})`,
  };
}

/** The kernel's words for what ended a command on its way (scsi/scsi_status.h). */
const HOST_STATUS: Readonly<Record<number, string>> = {
  1: "DID_NO_CONNECT",
  2: "DID_BUS_BUSY",
  3: "DID_TIME_OUT",
  5: "DID_ABORT",
  7: "DID_ERROR",
  8: "DID_RESET",
  11: "DID_SOFT_ERROR",
  12: "DID_IMM_RETRY",
  13: "DID_REQUEUE",
  14: "DID_TRANSPORT_DISRUPTED",
  15: "DID_TRANSPORT_FAILFAST",
};

function refusedBy(sense: Sense): ScsiAnswer<never> {
  const why = senseText(sense);
  // Invalid operation code, or a service action that is not there.
  const isUnknown = sense.key === "illegal request" && (sense.asc === 0x20 || sense.asc === 0x24);
  return isUnknown ? { kind: "unsupported", why } : { kind: "failed", why };
}

function answerOf<T>(decoded: Decoded<T>): ScsiAnswer<T> {
  switch (decoded.kind) {
    case "ok":
      return decoded;
    case "empty":
      return { kind: "failed", why: "an empty answer" };
    case "foreign":
    case "corrupt":
      return { kind: "failed", why: decoded.reason };
  }
}
