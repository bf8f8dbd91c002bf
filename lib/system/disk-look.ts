/** What sysfs says of the disk behind a block device number: its queue, its paths, and who else leads to the same LUN. */
import { basename, dirname } from "node:path";

import { type IscsiSession, iscsiSessionOf } from "./iscsi-look.js";
import { normalizeWwid } from "./lun-probe.js";
import { type SystemTree } from "./system-tree.js";

export type Transport = "iscsi" | "fc" | "sas" | "ata" | "usb" | "virtio" | "unknown";

/** One SCSI disk (sdX): the LUN itself, or one path of a multipath map. */
export interface DiskPath {
  /** "sda" */
  readonly name: string;
  /** "8:0" */
  readonly number: string;
  /** "running", "offline", "transport-offline", "blocked" ... */
  readonly state: string;
  readonly wwid: string | undefined;
  readonly vendor: string;
  readonly model: string;
  /** Of the caching mode page: "write back", "write through", "none" ...; undefined when the kernel does not tell. */
  readonly cacheType: string | undefined;
  readonly transport: Transport;
  readonly iscsi: IscsiSession | undefined;
  /** Fibre Channel: how long the kernel keeps I/O of a lost port; null when off. */
  readonly fastIoFailSeconds: number | null;
  readonly devLossSeconds: number | null;
}

export interface DiskFacts {
  /** Kernel name of the whole disk: "sda", "dm-0", "vda", "loop3". */
  readonly name: string;
  /** Kernel name of the partition that was given, if it was one. */
  readonly partition: string | undefined;
  /** "write back" or "write through"; undefined when the kernel does not tell. */
  readonly writeCache: string | undefined;
  /** Whether the device takes single writes past its cache (FUA); else the kernel sends a flush after each. */
  readonly fua: boolean | undefined;
  /** How far the first byte is off the physical sectors; 0 is aligned. */
  readonly alignmentOffset: number;
  /** The device-mapper multipath map, when it is one or lies on one. */
  readonly multipath: { readonly name: string; readonly map: string } | undefined;
  /** Empty when no SCSI disk is below. */
  readonly paths: readonly DiskPath[];
  /** Other SCSI disks with the same wwid, on no multipath map. */
  readonly strayPaths: readonly string[];
  /** Multipath maps that have this plain disk as a path. */
  readonly maps: readonly string[];
}

/** Device-mapper devices on device-mapper devices; more layers than this is a circle. */
const LAYERS_MAX = 8;

/** @returns undefined when sysfs does not know the device */
export function lookAtDisk(tree: SystemTree, major: bigint, minor: bigint): DiskFacts | undefined {
  const own = tree.real(`/sys/dev/block/${major}:${minor}`);
  if (own === undefined) {
    return undefined;
  }
  const isPartition = tree.has(`${own}/partition`);
  const disk = isPartition ? dirname(own) : own;
  const name = basename(disk);
  const { scsi, maps } = below(tree, name, LAYERS_MAX);
  const paths = [...new Set(scsi)].map((path) => pathFacts(tree, path));
  const map = maps[0];
  const above = mapsOn(tree, name);
  const fua = tree.text(`${disk}/queue/fua`);
  return {
    name,
    partition: isPartition ? basename(own) : undefined,
    writeCache: tree.text(`${disk}/queue/write_cache`),
    fua: fua === undefined ? undefined : fua === "1",
    alignmentOffset: tree.number(`${own}/alignment_offset`) ?? 0,
    multipath: map === undefined ? undefined : { name: map, map: mapName(tree, map) },
    paths,
    strayPaths: above.length > 0 ? [] : strays(tree, paths),
    maps: above.map((one) => mapName(tree, one)),
  };
}

interface Below {
  readonly scsi: readonly string[];
  /** Multipath maps, the uppermost first. */
  readonly maps: readonly string[];
}

function below(tree: SystemTree, name: string, layers: number): Below {
  if (tree.has(`/sys/class/block/${name}/device/scsi_disk`)) {
    return { scsi: [name], maps: [] };
  }
  const slaves = layers === 0 ? [] : tree.list(`/sys/class/block/${name}/slaves`);
  const found = slaves.map((slave) => below(tree, wholeDisk(tree, slave), layers - 1));
  const own = isMultipath(tree, name) ? [name] : [];
  return {
    scsi: found.flatMap(({ scsi }) => scsi),
    maps: [...own, ...found.flatMap(({ maps }) => maps)],
  };
}

function wholeDisk(tree: SystemTree, name: string): string {
  const real = tree.real(`/sys/class/block/${name}`);
  return real !== undefined && tree.has(`${real}/partition`) ? basename(dirname(real)) : name;
}

function isMultipath(tree: SystemTree, name: string): boolean {
  return tree.text(`/sys/class/block/${name}/dm/uuid`)?.startsWith("mpath-") === true;
}

function mapName(tree: SystemTree, name: string): string {
  return tree.text(`/sys/class/block/${name}/dm/name`) ?? name;
}

function mapsOn(tree: SystemTree, name: string): readonly string[] {
  const holders = tree.list(`/sys/class/block/${name}/holders`);
  return holders.filter((holder) => isMultipath(tree, holder));
}

/** A second path that no map has joined to the first: whoever uses both has two devices for one LUN. */
function strays(tree: SystemTree, paths: readonly DiskPath[]): readonly string[] {
  const wwids = new Set(paths.flatMap(({ wwid }) => (wwid === undefined ? [] : [wwid])));
  const known = new Set(paths.map(({ name }) => name));
  return tree
    .list("/sys/class/block")
    .filter((name) => !known.has(name) && tree.has(`/sys/class/block/${name}/device/scsi_disk`))
    .filter((name) => wwids.has(wwidOf(tree, name) ?? ""));
}

function wwidOf(tree: SystemTree, name: string): string | undefined {
  const wwid = tree.text(`/sys/class/block/${name}/device/wwid`);
  return wwid === undefined || wwid === "" ? undefined : normalizeWwid(wwid);
}

const TRANSPORTS: readonly (readonly [RegExp, Transport])[] = [
  [/\/session\d+\//, "iscsi"],
  [/\/rport-/, "fc"],
  [/\/end_device-/, "sas"],
  [/\/ata\d+\//, "ata"],
  [/\/usb\d+\//, "usb"],
  [/\/virtio\d+\//, "virtio"],
];

function pathFacts(tree: SystemTree, name: string): DiskPath {
  const device = `/sys/class/block/${name}/device`;
  const real = tree.real(`/sys/class/block/${name}`) ?? "";
  const [address = ""] = tree.list(`${device}/scsi_disk`);
  const rport = /\/(rport-[^/]+)\//.exec(real)?.[1];
  const port = `/sys/class/fc_remote_ports/${rport ?? "none"}`;
  return {
    name,
    number: tree.text(`/sys/class/block/${name}/dev`) ?? "",
    state: tree.text(`${device}/state`) ?? "unknown",
    wwid: wwidOf(tree, name),
    vendor: tree.text(`${device}/vendor`) ?? "",
    model: tree.text(`${device}/model`) ?? "",
    cacheType: tree.text(`${device}/scsi_disk/${address}/cache_type`),
    transport: TRANSPORTS.find(([pattern]) => pattern.test(real))?.[1] ?? "unknown",
    iscsi: iscsiSessionOf(tree, real),
    fastIoFailSeconds: tree.number(`${port}/fast_io_fail_tmo`) ?? null,
    devLossSeconds: tree.number(`${port}/dev_loss_tmo`) ?? null,
  };
}
