/** Asks the targets of the sessions again which LUNs there are, and how large. */
import { type Portal } from "./address.js";
import { type Disk } from "./disk.js";
import { type Edges, type OperationOptions, TIMEOUTS } from "./edges.js";
import { type Place } from "./exit-code.js";
import { callIscsiadm } from "./iscsiadm.js";
import { readSessions, type Session, sessionsOf } from "./session.js";

export interface RescanOptions extends OperationOptions {
  readonly portal?: Portal | undefined;
}

/** A LUN number behind which there is another disk now, or the same with another size. */
export interface ChangedDisk {
  readonly before: Disk;
  readonly after: Disk;
}

export interface RescanResult {
  /** As it is now. */
  readonly session: Session;
  readonly added: readonly Disk[];
  /** The kernel keeps a disk that the target has unmapped until it is told to delete it, so this is rare. */
  readonly removed: readonly Disk[];
  readonly changed: readonly ChangedDisk[];
}

/** @param target undefined: all sessions. @returns one result per session that is logged in */
export async function rescanSessions(
  edges: Edges,
  target: string | undefined,
  options: RescanOptions,
): Promise<readonly RescanResult[]> {
  const { portal, signal, timeoutMs = TIMEOUTS.rescan } = options;
  const all = readSessions(edges.roots);
  const before = (target === undefined ? all : sessionsOf(all, target, portal)).filter(
    ({ state }) => state === "LOGGED_IN",
  );
  for (const session of before) {
    const place: Place = {
      verb: "rescan of",
      target: session.target,
      ...(session.portal === undefined ? {} : { portal: session.portal }),
    };
    const args = ["-m", "session", "-r", String(session.sid), "--rescan"];
    await callIscsiadm(edges.run, place, args, { timeoutMs, signal });
  }
  const after = readSessions(edges.roots);
  return before.flatMap((old) => {
    const session = after.find(({ sid }) => sid === old.sid);
    return session === undefined ? [] : [compare(old, session)];
  });
}

function compare(old: Session, session: Session): RescanResult {
  const find = (disks: readonly Disk[], { hctl }: Disk): Disk | undefined =>
    disks.find((disk) => disk.hctl === hctl);
  return {
    session,
    added: session.disks.filter((disk) => find(old.disks, disk) === undefined),
    removed: old.disks.filter((disk) => find(session.disks, disk) === undefined),
    changed: old.disks.flatMap((before) => {
      const after = find(session.disks, before);
      const isSame =
        after === undefined || (after.wwid === before.wwid && after.sizeBytes === before.sizeBytes);
      return isSame ? [] : [{ before, after }];
    }),
  };
}
