/**
 * The timers of a session: what they are called in a node record and in sysfs, and what they are now. All in whole seconds.
 *
 * After the last byte from the target, a dead path is noticed within `noopOutInterval + noopOutTimeout` (a ping is sent
 * when nothing came for the interval, and waits for the timeout); a connection that is closed or reset is noticed at once.
 * From then on I/O waits for `replacementTimeout` for the session to come back, and then fails. So an I/O on a path that
 * went dead silently fails after the sum of the three (measured: 14.4 s with 5 + 5 + 5).
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { iscsiError } from "./iscsi-error.js";
import { type RecordValues } from "./parse.js";
import { readAttribute } from "./sysfs.js";

export interface SessionTimers {
  /** How long I/O waits for a lost session; 0: fails at once, -1: waits until the logout. `recovery_tmo` in sysfs. */
  readonly replacementTimeout: number;
  /** A ping is sent after this long without a byte from the target; 0: never. `recv_tmo`. */
  readonly noopOutInterval: number;
  /** How long a ping may be unanswered before the connection is given up. `ping_tmo`. */
  readonly noopOutTimeout: number;
  /** For the answer to ABORT TASK, which is sent when a command is overdue (30 s by default). `abort_tmo`. */
  readonly abortTimeout: number;
  /** For the answer to LOGICAL UNIT RESET, the next step. `lu_reset_tmo`. */
  readonly luResetTimeout: number;
  /** For the answer to TARGET WARM RESET, the last step before the session is dropped. `tgt_reset_tmo`. */
  readonly targetResetTimeout: number;
}

export type TimerName = keyof SessionTimers;

/** As they are in the kernel; undefined where it does not say. */
export type LiveTimers = Readonly<Record<TimerName, number | undefined>>;

interface TimerPlace {
  /** In a node record. */
  readonly parameter: string;
  /** In sysfs, of the session or of its connection. */
  readonly attribute: string;
  readonly of: "session" | "connection";
  readonly min: number;
}

export const TIMERS: Readonly<Record<TimerName, TimerPlace>> = {
  replacementTimeout: {
    parameter: "node.session.timeo.replacement_timeout",
    attribute: "recovery_tmo",
    of: "session",
    min: -1,
  },
  noopOutInterval: {
    parameter: "node.conn[0].timeo.noop_out_interval",
    attribute: "recv_tmo",
    of: "connection",
    min: 0,
  },
  noopOutTimeout: {
    parameter: "node.conn[0].timeo.noop_out_timeout",
    attribute: "ping_tmo",
    of: "connection",
    min: 0,
  },
  abortTimeout: {
    parameter: "node.session.err_timeo.abort_timeout",
    attribute: "abort_tmo",
    of: "session",
    min: 1,
  },
  luResetTimeout: {
    parameter: "node.session.err_timeo.lu_reset_timeout",
    attribute: "lu_reset_tmo",
    of: "session",
    min: 1,
  },
  targetResetTimeout: {
    parameter: "node.session.err_timeo.tgt_reset_timeout",
    attribute: "tgt_reset_tmo",
    of: "session",
    min: 1,
  },
};

export const TIMER_NAMES = Object.keys(TIMERS) as readonly TimerName[];

/** A day: longer than anybody waits, and far from where the kernel's arithmetic ends. */
const TIMER_MAX = 86_400;

/** @throws ERR_ISCSI_TIMERS; iscsiadm would take `abc` for 0 and say that all is well (seen with 2.1.8) */
export function checkTimers(timers: Partial<SessionTimers>): void {
  for (const name of TIMER_NAMES) {
    const value = timers[name];
    const { min } = TIMERS[name];
    if (value !== undefined && (!Number.isInteger(value) || value < min || value > TIMER_MAX)) {
      throw iscsiError("ERR_ISCSI_TIMERS", `${name} cannot be ${value}`, {
        hint: `It is a whole number of seconds from ${min} to ${TIMER_MAX}.`,
        fields: { timer: name, value },
      });
    }
  }
}

export function readLiveTimers(session: string, connection: string): LiveTimers {
  const read = (name: TimerName): number | undefined => {
    const { attribute, of } = TIMERS[name];
    const text = readAttribute(join(of === "session" ? session : connection, attribute));
    // The kernel's word for -1.
    return text === "off" ? -1 : toNumber(text);
  };
  return mapTimers(read);
}

/** What a node record says, for the next login. */
export function recordTimers(record: RecordValues): LiveTimers {
  return mapTimers((name) => toNumber(record.get(TIMERS[name].parameter)));
}

function toNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^-?\d{1,9}$/.test(text) ? Number(text) : undefined;
}

function mapTimers(value: (name: TimerName) => number | undefined): LiveTimers {
  return {
    replacementTimeout: value("replacementTimeout"),
    noopOutInterval: value("noopOutInterval"),
    noopOutTimeout: value("noopOutTimeout"),
    abortTimeout: value("abortTimeout"),
    luResetTimeout: value("luResetTimeout"),
    targetResetTimeout: value("targetResetTimeout"),
  };
}

/**
 * Sets the one timer that the kernel lets be set in a running session. Afterwards iscsid's value for it is ignored until the
 * session ends (Linux, scsi_transport_iscsi: recovery_tmo_sysfs_override).
 * @returns false when the session is not logged in: the kernel refuses with EBUSY then
 */
export function writeReplacementTimeout(sysfs: string, sid: number, seconds: number): boolean {
  const path = join(sysfs, "class/iscsi_session", `session${sid}`, "recovery_tmo");
  try {
    writeFileSync(path, seconds === -1 ? "off" : String(seconds));
    return true;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EBUSY" || code === "ENOENT") {
      return false;
    }
    throw error;
  }
}
