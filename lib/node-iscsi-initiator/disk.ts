/** The disks of a session, as the kernel shows them below the session's device directory. */
import { basename, join } from "node:path";

import { listNames, readAttribute, readNumber, resolveLink } from "./sysfs.js";

export interface Disk {
  /** The number by which the target calls it (SAM-5, 4.7): it can be given to another disk at any time. */
  readonly lun: number;
  /** `sda`: changes from boot to boot. */
  readonly name: string;
  /** `/dev/sda` */
  readonly path: string;
  /**
   * What to open: the multipath map when the disk is a path of one, else the link in /dev/disk/by-id that leads to this very
   * disk, else undefined (no udev; then `path`, checked by `wwid` at each use).
   */
  readonly stablePath: string | undefined;
  /** What the disk calls itself, as in sysfs: `naa.6001405...`, `eui...`, `t10...`; undefined for one without a name. */
  readonly wwid: string | undefined;
  readonly sizeBytes: number;
  /** `running`, `blocked` (path lost, I/O waits), `transport-offline` (given up: I/O fails), `offline`, `created` ... */
  readonly state: string;
  /** HOST:CHANNEL:TARGET:LUN of the kernel. */
  readonly hctl: string;
}

/** `/sys` and `/dev`, or trees that a test has made. */
export interface DiskRoots {
  readonly sysfs: string;
  readonly dev: string;
}

/** @param deviceDir `/sys/devices/platform/hostN/sessionM` */
export function readDisks(roots: DiskRoots, deviceDir: string): readonly Disk[] {
  return listNames(deviceDir)
    .filter((name) => /^target\d+:\d+:\d+$/.test(name))
    .flatMap((target) => {
      const targetDir = join(deviceDir, target);
      return listNames(targetDir).flatMap((hctl) => {
        const lun = /^\d+:\d+:\d+:(\d+)$/.exec(hctl)?.[1];
        const disk = lun === undefined ? undefined : readDisk(roots, targetDir, hctl, Number(lun));
        return disk === undefined ? [] : [disk];
      });
    });
}

/** @returns undefined for what is no disk (an enclosure, a LUN without a block device) */
function readDisk(
  roots: DiskRoots,
  targetDir: string,
  hctl: string,
  lun: number,
): Disk | undefined {
  const device = join(targetDir, hctl);
  const [name] = listNames(join(device, "block"));
  if (name === undefined) {
    return undefined;
  }
  const wwid = readAttribute(join(device, "wwid"));
  return {
    lun,
    name,
    path: join(roots.dev, name),
    stablePath: mapPath(roots, name) ?? linkPath(roots, name, wwid),
    wwid,
    // The kernel counts in 512 bytes here, whatever the sectors of the disk are.
    sizeBytes: (readNumber(join(device, "block", name, "size")) ?? 0) * 512,
    state: readAttribute(join(device, "state")) ?? "gone",
    hctl,
  };
}

function mapPath(roots: DiskRoots, name: string): string | undefined {
  const holders = join(roots.sysfs, "block", name, "holders");
  for (const holder of listNames(holders)) {
    const dm = join(roots.sysfs, "block", holder, "dm");
    if (readAttribute(join(dm, "uuid"))?.startsWith("mpath-") === true) {
      return join(roots.dev, "mapper", readAttribute(join(dm, "name")) ?? holder);
    }
  }
  return undefined;
}

/** Two paths to one LUN share the wwid, and a link leads to one of them only. */
function linkPath(roots: DiskRoots, name: string, wwid: string | undefined): string | undefined {
  return linkNames(wwid)
    .map((link) => join(roots.dev, "disk/by-id", link))
    .find((link) => {
      const end = resolveLink(link);
      return end !== undefined && basename(end) === name;
    });
}

/** As udev's rules name the links of SCSI disks. */
export function linkNames(wwid: string | undefined): readonly string[] {
  const match = /^(naa|eui|t10)\.(.+)$/.exec(wwid ?? "");
  const [, kind, id = ""] = match ?? [];
  switch (kind) {
    case "naa":
      return [`wwn-0x${id}`, `scsi-3${id}`];
    case "eui":
      return [`wwn-0x${id}`, `scsi-2${id}`];
    case "t10":
      return [`scsi-1${id.trim().replaceAll(/\s+/g, "_")}`];
    default:
      return [];
  }
}
