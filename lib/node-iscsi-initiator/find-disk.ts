/** The disk behind a LUN number, and whether it is still the one that was meant. */
import { existsSync } from "node:fs";
import { join } from "node:path";

import { type ShareHaError } from "../errors.js";
import { formatPortal, type Portal } from "./address.js";
import { type Disk } from "./disk.js";
import { type Edges, type OperationOptions, TIMEOUTS } from "./edges.js";
import { type Place, placeFields } from "./exit-code.js";
import { iscsiError } from "./iscsi-error.js";
import { rescanSessions } from "./rescan.js";
import { readSessions, type Session, sessionsOf } from "./session.js";
import { waitFor } from "./wait.js";

export interface FindDiskOptions extends OperationOptions {
  /** Only by this path; default: by any portal of the target. */
  readonly portal?: Portal | undefined;
  /** The disk that it must be, as in `Disk.wwid`. */
  readonly wwid?: string | undefined;
}

export interface FoundDisk {
  readonly session: Session;
  readonly disk: Disk;
}

/** A disk that was just made has its size and name after some milliseconds; afterwards a rescan is worth a try. */
const BEFORE_RESCAN_MS = 2_000;
/** Another disk behind the number after a rescan: it will not become the right one. */
const TAKEN_MS = 500;
/** What udev needs for the links of a new disk, on a slow machine. */
const LINK_MS = 3_000;

/**
 * @throws ERR_ISCSI_LUN_MISSING, ERR_ISCSI_LUN_MOVED, ERR_ISCSI_WWID_CHANGED, ERR_ISCSI_NO_SESSION
 */
export async function waitForDisk(
  edges: Edges,
  target: string,
  lun: number,
  options: FindDiskOptions,
): Promise<FoundDisk> {
  const { timeoutMs = TIMEOUTS.disk, portal, wwid, signal } = options;
  const place: Place = {
    verb: `LUN ${lun} of`,
    target,
    ...(portal === undefined ? {} : { portal }),
  };
  const look = (): FoundDisk | undefined => {
    const found = usableDisks(edges, target, portal).filter(({ disk }) => disk.lun === lun);
    return (
      found.find(({ disk }) => disk.wwid === wwid) ?? (wwid === undefined ? found[0] : undefined)
    );
  };
  const firstMs = Math.min(BEFORE_RESCAN_MS, timeoutMs);
  let found = await waitFor(place, look, firstMs, signal);
  if (found === undefined) {
    await rescanSessions(edges, target, { portal, signal });
    const isTaken = usableDisks(edges, target, portal).some(({ disk }) => disk.lun === lun);
    const restMs = timeoutMs - firstMs;
    found = await waitFor(place, look, isTaken ? Math.min(TAKEN_MS, restMs) : restMs, signal);
  }
  if (found === undefined) {
    throw missingError(edges, place, target, lun, options);
  }
  return withLink(edges, place, found, signal);
}

/** @throws like `waitForDisk`, at once: no network, no waiting */
export function requireDisk(
  edges: Edges,
  target: string,
  lun: number,
  options: { readonly portal?: Portal | undefined; readonly wwid?: string | undefined },
): FoundDisk {
  const { portal, wwid } = options;
  const place: Place = {
    verb: `LUN ${lun} of`,
    target,
    ...(portal === undefined ? {} : { portal }),
  };
  const found = usableDisks(edges, target, portal).find(
    ({ disk }) => disk.lun === lun && (wwid === undefined || disk.wwid === wwid),
  );
  if (found === undefined) {
    throw missingError(edges, place, target, lun, options);
  }
  return found;
}

function usableDisks(
  edges: Edges,
  target: string,
  portal: Portal | undefined,
): readonly FoundDisk[] {
  return sessionsOf(readSessions(edges.roots), target, portal)
    .filter(({ state }) => state === "LOGGED_IN")
    .flatMap((session) =>
      session.disks.filter(({ sizeBytes }) => sizeBytes > 0).map((disk) => ({ session, disk })),
    );
}

/** Where udev runs, its link is worth a moment: it is what survives a reboot. */
async function withLink(
  edges: Edges,
  place: Place,
  found: FoundDisk,
  signal: AbortSignal | undefined,
): Promise<FoundDisk> {
  const hasUdev = existsSync(join(edges.roots.dev, "disk/by-id"));
  if (found.disk.stablePath !== undefined || !hasUdev) {
    return found;
  }
  const look = (): FoundDisk | undefined => {
    const sessions = readSessions(edges.roots);
    const session = sessions.find(({ sid }) => sid === found.session.sid);
    const disk = session?.disks.find(({ name }) => name === found.disk.name);
    return session === undefined || disk?.stablePath === undefined ? undefined : { session, disk };
  };
  return (await waitFor(place, look, LINK_MS, signal)) ?? found;
}

function missingError(
  edges: Edges,
  place: Place,
  target: string,
  lun: number,
  options: { readonly portal?: Portal | undefined; readonly wwid?: string | undefined },
): ShareHaError {
  const { portal, wwid } = options;
  const at = portal === undefined ? "" : ` at ${formatPortal(portal)}`;
  const fields = { ...placeFields(place), lun };
  const sessions = sessionsOf(readSessions(edges.roots), target, portal);
  if (sessions.every(({ state }) => state !== "LOGGED_IN")) {
    const states = sessions.map(({ sid, state }) => `session ${sid} is ${state}`).join(", ");
    return iscsiError(
      sessions.length === 0 ? "ERR_ISCSI_NO_SESSION" : "ERR_ISCSI_SESSION_STALE",
      `${target}${at} is not logged in${states === "" ? "" : ` (${states})`}`,
      { hint: `Log in: \`sharedha iscsi login ${target}\`.`, fields },
    );
  }
  const disks = usableDisks(edges, target, portal).map(({ disk }) => disk);
  const there = disks.find((disk) => disk.lun === lun);
  const moved = wwid === undefined ? undefined : disks.find((disk) => disk.wwid === wwid);
  if (wwid !== undefined && moved !== undefined) {
    return iscsiError(
      "ERR_ISCSI_LUN_MOVED",
      `the disk ${wwid} is not LUN ${lun} of ${target}${at} any more: it is LUN ${moved.lun} now`,
      {
        hint: `If the target was changed on purpose, use LUN ${moved.lun} in the address.`,
        fields: { ...fields, wwid, lunNow: moved.lun },
      },
    );
  }
  if (wwid !== undefined && there !== undefined) {
    return iscsiError(
      "ERR_ISCSI_WWID_CHANGED",
      `LUN ${lun} of ${target}${at} is another disk now: it was ${wwid}, and is ${there.wwid ?? "one without a name"}`,
      {
        hint: "The target was changed. Give the former disk its number back; nothing is done with the other one.",
        fields: { ...fields, wwid, wwidNow: there.wwid ?? "" },
      },
    );
  }
  const luns = [...new Set(disks.map((disk) => disk.lun))].sort((one, other) => one - other);
  return iscsiError(
    "ERR_ISCSI_LUN_MISSING",
    `${target}${at} has no disk with LUN ${lun}; it has ${luns.length === 0 ? "none" : luns.join(", ")}`,
    {
      hint: "Correct the number, or map the LUN to this initiator at the target and run `sharedha iscsi rescan`.",
      fields,
    },
  );
}
