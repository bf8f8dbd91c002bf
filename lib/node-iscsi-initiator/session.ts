/**
 * The sessions of this machine as the kernel has them. iscsiadm's own words are not enough: exit code 15 ("session
 * exists") is also said of a session that has never been logged in.
 */
import { basename, join } from "node:path";

import { isSamePortal, plainAddress, type Portal } from "./address.js";
import { type Disk, type DiskRoots, readDisks } from "./disk.js";
import { listNames, readAttribute, readNumber, resolveLink } from "./sysfs.js";
import { readLiveTimers, type LiveTimers } from "./session-timers.js";

/**
 * `LOGGED_IN`: usable. `FAILED`: the connection is lost, I/O waits for it to come back. `FREE`: not logged in yet, or the
 * recovery timeout has passed and I/O fails; iscsid still tries. (Names as in the kernel's scsi_transport_iscsi.)
 */
export type SessionState = "LOGGED_IN" | "FAILED" | "FREE" | "UNKNOWN";

export interface Session {
  /** The kernel's number of the session, N of `sessionN`; never used twice until the next boot. */
  readonly sid: number;
  readonly target: string;
  /** Where the record says that the target is; undefined while the session is being made. */
  readonly portal: Portal | undefined;
  /** Where the connection goes now: the target may have redirected it (RFC 7143, 11.13.5). */
  readonly currentPortal: Portal | undefined;
  readonly tpgt: number | undefined;
  readonly state: SessionState;
  /** `up`, `down`, `failed`; undefined before Linux 5.6. */
  readonly connectionState: string | undefined;
  /** N of `hostN`. */
  readonly host: number | undefined;
  readonly initiatorName: string | undefined;
  readonly timers: LiveTimers;
  readonly disks: readonly Disk[];
}

const STATES: readonly SessionState[] = ["LOGGED_IN", "FAILED", "FREE"];

/** Cheap enough to ask several times a second: some dozens of small reads, no program, no network. */
export function readSessions(roots: DiskRoots): readonly Session[] {
  const dir = join(roots.sysfs, "class/iscsi_session");
  return listNames(dir).flatMap((name) => {
    const session = readSession(roots, join(dir, name), name);
    return session === undefined ? [] : [session];
  });
}

function readSession(roots: DiskRoots, dir: string, name: string): Session | undefined {
  const sid = Number(/^session(\d{1,9})$/.exec(name)?.[1] ?? NaN);
  const target = readAttribute(join(dir, "targetname"));
  if (Number.isNaN(sid) || target === undefined) {
    return undefined;
  }
  const connection = join(roots.sysfs, "class/iscsi_connection", `connection${sid}:0`);
  const device = resolveLink(join(dir, "device"));
  const host = /^host(\d+)$/.exec(basename(join(device ?? "", "..")))?.[1];
  const state = readAttribute(join(dir, "state"));
  return {
    sid,
    target,
    portal: readPortal(connection, "persistent_address", "persistent_port"),
    currentPortal: readPortal(connection, "address", "port"),
    tpgt: readNumber(join(dir, "tpgt")),
    state: STATES.find((known) => known === state) ?? "UNKNOWN",
    connectionState: readAttribute(join(connection, "state")),
    host: host === undefined ? undefined : Number(host),
    initiatorName: readAttribute(join(dir, "initiatorname")),
    timers: readLiveTimers(dir, connection),
    disks: device === undefined ? [] : readDisks(roots, device),
  };
}

function readPortal(connection: string, address: string, port: string): Portal | undefined {
  const host = readAttribute(join(connection, address));
  const number = readNumber(join(connection, port));
  return host === undefined || number === undefined
    ? undefined
    : { address: plainAddress(host), port: number };
}

/** Of this target, and of this portal when one is given. One without a portal yet counts: it is being made. */
export function sessionsOf(
  sessions: readonly Session[],
  target: string,
  portal?: Portal,
): readonly Session[] {
  return sessions.filter(
    (session) =>
      session.target === target &&
      (portal === undefined ||
        session.portal === undefined ||
        isSamePortal(session.portal, portal)),
  );
}
