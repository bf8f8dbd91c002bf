/** Where the disks of iSCSI LUNs are now. Looked up at every use: `sda` may be another disk after a reboot. */
import { Initiator, parseIscsiUrl, type Session } from "../node-iscsi-initiator/index.js";
import { type IscsiLun, type LunPaths } from "./iscsi-lun.js";

/**
 * The paths of now, from sysfs alone: no program, no network, no waiting. A disk that is not there has a path that leads
 * nowhere until udev makes it, never one that may lead to another disk.
 */
export function currentPaths(node: LunPaths, initiator = new Initiator()): readonly string[] {
  const { iscsi = [] } = node;
  if (iscsi.length === 0) {
    return node.paths;
  }
  const sessions = initiator.sessions();
  return node.paths.map((path) => {
    const lun = iscsi.find((one) => one.path === path);
    return lun === undefined ? path : (pathOfLun(sessions, lun) ?? absentPath(lun.wwid));
  });
}

/** By any session of the target: several portals lead to the same disk. */
export function pathOfLun(sessions: readonly Session[], lun: IscsiLun): string | undefined {
  const { target, lun: number } = parseIscsiUrl(lun.url);
  const disks = sessions
    .filter((session) => session.target === target)
    .flatMap(({ state, disks: all }) => all.map((disk) => ({ state, disk })))
    .filter(({ disk }) => disk.lun === number && disk.wwid === lun.wwid);
  // A session that is lost for the moment keeps its disk, and I/O on it waits or fails as its timers say.
  const best = disks.find(({ state }) => state === "LOGGED_IN") ?? disks[0];
  return best === undefined ? undefined : (best.disk.stablePath ?? best.disk.path);
}

/** Where udev puts the disk when it comes. */
export function absentPath(wwid: string): string {
  const id = wwid.replace(/^(naa|eui)\./, "").replaceAll(/[^\w.-]/g, "_");
  return `/dev/disk/by-id/wwn-0x${id}`;
}
