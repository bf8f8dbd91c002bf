/**
 * The initiator of this machine: open-iscsi's iscsiadm for what changes something, sysfs for what is. Plain promises, no
 * state of its own, so that any number of processes may use it at once. Needs root and open-iscsi 2.1.
 *
 * Every error is a ShareHaError with a stable `code` (ERR_ISCSI_...), a message that names target and portal, and a remedy
 * in `hint`; docs/iscsi.md lists them. Times are milliseconds, timers of sessions whole seconds. Every call ends by itself,
 * and by an AbortSignal with ERR_ISCSI_CANCELLED.
 */
import { isIP } from "node:net";

import { run } from "../system/process.js";
import { parsePortal, parseTargetName, type Portal } from "./address.js";
import { type ChapCredentials } from "./chap.js";
import { discover, type DiscoverOptions } from "./discovery.js";
import { type DiskRoots } from "./disk.js";
import { type Edges, type OperationOptions, readVersion, requireKnown, TIMEOUTS } from "./edges.js";
import { type FindDiskOptions, type FoundDisk, requireDisk, waitForDisk } from "./find-disk.js";
import { type Runner } from "./iscsiadm.js";
import { knownPortal } from "./known-portal.js";
import { login, type LoginOptions, type PortalLogin } from "./login.js";
import { logout, type LogoutResult } from "./logout.js";
import {
  deleteNode,
  listNodes,
  type NodeKey,
  readNode,
  setNodeChap,
  updateNode,
} from "./node-record.js";
import { type RecordValues, type TargetPortal } from "./parse.js";
import { type Network, NETWORK } from "./reach.js";
import { DATABASE_DIRS } from "./record-file.js";
import { rescanSessions, type RescanOptions, type RescanResult } from "./rescan.js";
import { readSessions, type Session } from "./session.js";
import { type SessionTimers } from "./session-timers.js";
import {
  readTimers,
  setTimers,
  type TargetTimers,
  type TimerChange,
  type TimerOptions,
} from "./set-timers.js";

export interface InitiatorOptions {
  /** Starts iscsiadm; default: execa, without a shell. */
  readonly run?: Runner;
  readonly network?: Network;
  /** Default `/sys` and `/dev`. */
  readonly roots?: DiskRoots;
  /** Where open-iscsi keeps its records; default /etc/iscsi and /var/lib/iscsi. */
  readonly databaseDirs?: readonly string[];
}

/** A portal may be given as text wherever one is taken: `10.0.0.9`, `[fd00::9]:3260`, `san.example:3261`. */
export type PortalText = Portal | string;

type WithPortalText<T extends { readonly portal?: Portal | undefined }> = Omit<T, "portal"> & {
  readonly portal?: PortalText | undefined;
};

export class Initiator {
  readonly #edges: Edges;

  constructor(options: InitiatorOptions = {}) {
    this.#edges = {
      run: options.run ?? run,
      network: options.network ?? NETWORK,
      roots: options.roots ?? { sysfs: "/sys", dev: "/dev" },
      databaseDirs: options.databaseDirs ?? DATABASE_DIRS,
    };
  }

  /** Of open-iscsi, such as `2.1.8`. @throws ERR_ISCSI_NOT_INSTALLED, ERR_ISCSI_OUTPUT */
  async version(options: OperationOptions = {}): Promise<string> {
    const { timeoutMs = TIMEOUTS.record, signal } = options;
    const parsed = await readVersion(this.#edges, { timeoutMs, signal });
    return await requireKnown(this.#edges, { verb: "asking for the version" }, parsed);
  }

  /**
   * SendTargets at a portal (RFC 7143, appendix C). Makes a node record for every target and portal that is new; records
   * that exist keep their parameters and secrets.
   * @returns what the portal offers to this initiator, possibly nothing
   * @throws ERR_ISCSI_PORTAL, ERR_ISCSI_NAME_UNRESOLVED, ERR_ISCSI_UNREACHABLE, ERR_ISCSI_CHAP_WRONG,
   *   ERR_ISCSI_CHAP_MISSING, ERR_ISCSI_SECRET, ERR_ISCSI_NO_ISCSID ...
   */
  discover(portal: PortalText, options: DiscoverOptions = {}): Promise<readonly TargetPortal[]> {
    return promise(() => discover(this.#edges, asPortal(portal), options));
  }

  /** The node records: what `discover` has found so far. */
  nodes(options: OperationOptions = {}): Promise<readonly TargetPortal[]> {
    return listNodes(this.#edges, options);
  }

  /** All parameters of a record; secrets are `********`. @throws ERR_ISCSI_NO_RECORD */
  node(target: string, portal: PortalText, options: OperationOptions = {}): Promise<RecordValues> {
    return this.#onRecord(target, portal, options, (key) => readNode(this.#edges, key, options));
  }

  /**
   * Sets parameters of a record (`node.startup`: `automatic` ...) and reads them back. Not for secrets.
   * @returns the former values of those that were changed
   */
  updateNode(
    target: string,
    portal: PortalText,
    values: Readonly<Record<string, string>>,
    options: OperationOptions = {},
  ): Promise<ReadonlyMap<string, string | undefined>> {
    return this.#onRecord(target, portal, options, (key) =>
      updateNode(this.#edges, key, values, options),
    );
  }

  /**
   * CHAP for the logins by this record; null: none. The secrets go to the record's file (mode 0600) and nowhere else.
   * @throws ERR_ISCSI_SECRET, ERR_ISCSI_NO_RECORD, ERR_ISCSI_DATABASE
   */
  setChap(
    target: string,
    portal: PortalText,
    chap: ChapCredentials | null,
    options: OperationOptions = {},
  ): Promise<void> {
    return this.#onRecord(target, portal, options, (key) => setNodeChap(this.#edges, key, chap));
  }

  /** Idempotent. A session by the record is left alone only if there is none: log out first. */
  deleteNode(
    target: string,
    portal: PortalText,
    options: OperationOptions = {},
  ): Promise<"deleted" | "absent"> {
    return this.#onRecord(target, portal, options, (key) => deleteNode(this.#edges, key, options));
  }

  /**
   * Logs in to all portals of a target, or to one; a session that is logged in already is a success. One that was cancelled
   * or timed out is logged out again before this returns.
   * @throws ERR_ISCSI_NO_RECORD, ERR_ISCSI_UNREACHABLE, ERR_ISCSI_CHAP_WRONG, ERR_ISCSI_CHAP_MISSING,
   *   ERR_ISCSI_TARGET_GONE, ERR_ISCSI_SESSION_STALE, ERR_ISCSI_TIMEOUT, ERR_ISCSI_CANCELLED ...
   */
  login(
    target: string,
    options: WithPortalText<LoginOptions> = {},
  ): Promise<readonly PortalLogin[]> {
    return promise(() => login(this.#edges, parseTargetName(target), withPortal(options)));
  }

  /** Idempotent. @returns the sessions that were ended */
  logout(
    target: string,
    options: WithPortalText<TimerOptions> = {},
  ): Promise<readonly LogoutResult[]> {
    return promise(async () => {
      const name = parseTargetName(target);
      const { portal, ...rest } = await this.#bySession(name, options);
      return await logout(this.#edges, name, portal, rest);
    });
  }

  /** All sessions with their disks, from sysfs: no program, no network, no waiting. */
  sessions(): readonly Session[] {
    return readSessions(this.#edges.roots);
  }

  /** @param target undefined: all sessions */
  rescan(
    target?: string,
    options: WithPortalText<RescanOptions> = {},
  ): Promise<readonly RescanResult[]> {
    return promise(async () => {
      const name = target === undefined ? undefined : parseTargetName(target);
      return await rescanSessions(this.#edges, name, await this.#bySession(name, options));
    });
  }

  /**
   * Waits for the disk of a LUN, rescans once if it does not come, and checks that it is the one that is expected.
   * @throws ERR_ISCSI_LUN_MISSING, ERR_ISCSI_LUN_MOVED, ERR_ISCSI_WWID_CHANGED, ERR_ISCSI_NO_SESSION,
   *   ERR_ISCSI_SESSION_STALE
   */
  waitForDisk(
    target: string,
    lun: number,
    options: WithPortalText<FindDiskOptions> = {},
  ): Promise<FoundDisk> {
    return promise(async () => {
      const name = parseTargetName(target);
      return await waitForDisk(this.#edges, name, lun, await this.#bySession(name, options));
    });
  }

  /** The same without waiting, from sysfs alone: here a portal is an address, because a name would have to be resolved. */
  requireDisk(
    target: string,
    lun: number,
    options: { readonly portal?: PortalText | undefined; readonly wwid?: string | undefined } = {},
  ): FoundDisk {
    return requireDisk(this.#edges, parseTargetName(target), lun, withPortal(options));
  }

  /** Of the records and of the running sessions. Seconds. */
  timers(
    target: string,
    options: WithPortalText<TimerOptions> = {},
  ): Promise<readonly TargetTimers[]> {
    return promise(() => readTimers(this.#edges, parseTargetName(target), withPortal(options)));
  }

  /** Sets the timers that are given. @returns what was changed from what to what, and when it takes effect */
  setTimers(
    target: string,
    timers: Partial<SessionTimers>,
    options: WithPortalText<TimerOptions> = {},
  ): Promise<readonly TimerChange[]> {
    return promise(() =>
      setTimers(this.#edges, parseTargetName(target), timers, withPortal(options)),
    );
  }

  /** With the portal as the records have it, also when it was given by a host name. */
  #onRecord<T>(
    target: string,
    portal: PortalText,
    options: OperationOptions,
    work: (key: NodeKey) => Promise<T>,
  ): Promise<T> {
    return promise(async () => {
      const name = parseTargetName(target);
      const wanted = asPortal(portal);
      // The records are listed for a name only.
      const nodes = isIP(wanted.address) === 0 ? await listNodes(this.#edges, options) : [];
      const known = nodes.filter((node) => node.target === name).map((node) => node.portal);
      return await work({ target: name, portal: await knownPortal(this.#edges, known, wanted) });
    });
  }

  /** With the portal as the sessions have it, also when it was given by a host name. */
  async #bySession<T extends { readonly portal?: PortalText | undefined }>(
    target: string | undefined,
    options: T,
  ): Promise<Omit<T, "portal"> & { readonly portal?: Portal | undefined }> {
    const given = withPortal(options);
    const { portal } = given;
    if (portal === undefined) {
      return given;
    }
    const sessions = readSessions(this.#edges.roots).filter(
      (session) => target === undefined || session.target === target,
    );
    const known = sessions.flatMap((session) => session.portal ?? []);
    return { ...given, portal: await knownPortal(this.#edges, known, portal) };
  }
}

/** Bad arguments reject like every other failure. */
async function promise<T>(start: () => Promise<T>): Promise<T> {
  return await start();
}

function asPortal(portal: PortalText): Portal {
  return typeof portal === "string" ? parsePortal(portal) : portal;
}

function withPortal<T extends { readonly portal?: PortalText | undefined }>(
  options: T,
): Omit<T, "portal"> & { readonly portal?: Portal | undefined } {
  const { portal, ...rest } = options;
  return portal === undefined ? rest : { ...rest, portal: asPortal(portal) };
}
