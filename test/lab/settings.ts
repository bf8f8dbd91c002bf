/** What the lab is made of: its network, its machines and their disks. Everything else follows from here. */

/** The network namespace; its name is also the lab's: there is one on a machine. */
export const NAMESPACE = "sharedha-lab";
export const BRIDGE = "br0";
const SUBNET = "10.77.0";
export const HOST_ADDRESS = `${SUBNET}.254`;
export const HOST_MAC = "52:54:00:77:00:fe";

export const NODES = ["n1", "n2", "n3"] as const;
/** `c1` is booted only as a clone of another node. */
export const VMS = ["san", ...NODES, "c1"] as const;
export type VmName = (typeof VMS)[number];

export interface DiskSpec {
  readonly name: string;
  readonly sizeMiB: number;
  /** Made with an empty ext4 on it. */
  readonly hasFilesystem?: boolean;
}

export interface VmSpec {
  readonly name: VmName;
  readonly address: string;
  readonly mac: string;
  /** What its firmware says it is (SMBIOS product uuid). */
  readonly uuid: string;
  readonly memoryMiB: number;
  readonly modules: readonly string[];
  /** From vdc on; vda is the root image and vdb the build under test. */
  readonly disks: readonly DiskSpec[];
}

const STATE: DiskSpec = { name: "state", sizeMiB: 64, hasFilesystem: true };
/** LUN 0 carries region and data, LUN 1 is large enough for xfs, LUN 2 is a small one. */
export const LUNS = ["lun0", "lun1", "lun2"] as const;
export type LunName = (typeof LUNS)[number];

const NODE_MODULES = ["iscsi_tcp", "sd_mod", "sg", "dm_mod", "dm_multipath", "xfs"];
const SAN_MODULES = [
  "configfs",
  "target_core_mod",
  "target_core_iblock",
  "iscsi_target_mod",
  "dm_mod",
  "dm_delay",
];

function node(name: VmName, octet: number): VmSpec {
  const hex = octet.toString(16).padStart(2, "0");
  return {
    name,
    address: `${SUBNET}.${octet}`,
    mac: `52:54:00:77:00:${hex}`,
    uuid: `5ada5ada-0077-4000-8000-5254007700${hex}`,
    memoryMiB: 512,
    modules: NODE_MODULES,
    disks: [STATE, { name: "local", sizeMiB: 64 }],
  };
}

export const SPECS: Readonly<Record<VmName, VmSpec>> = {
  san: {
    ...node("san", 9),
    modules: SAN_MODULES,
    disks: [
      STATE,
      { name: "lun0", sizeMiB: 1024 },
      { name: "lun1", sizeMiB: 400 },
      { name: "lun2", sizeMiB: 64 },
    ],
  },
  n1: node("n1", 1),
  n2: node("n2", 2),
  n3: node("n3", 3),
  c1: node("c1", 4),
};

/** Bit for bit the guest's `/dev/vdc` and on. */
export function guestDisk(vm: VmName, disk: string): string {
  const index = SPECS[vm].disks.findIndex((one) => one.name === disk);
  if (index < 0) {
    throw new Error(`${vm} has no disk ${disk}`);
  }
  return `/dev/vd${String.fromCharCode("c".charCodeAt(0) + index)}`;
}

/** Debian's packages in the guests: the real parts that sharedha drives or is compared with. */
export const GUEST_PACKAGES = [
  "open-iscsi",
  "multipath-tools",
  "sg3-utils",
  "lsscsi",
  "drbd-utils",
  "nbd-client",
  "sanlock",
  "udev",
  "kmod",
  "dmsetup",
  "e2fsprogs",
  "xfsprogs",
  "fdisk",
  "iproute2",
  "procps",
  "strace",
  "busybox-static",
  // for the host's node binary
  "libstdc++6",
  "libatomic1",
];

/** Kernel modules that the image carries, with all they need. */
export const GUEST_MODULES = [
  ...["virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4", "overlay", "xfs"],
  ...["iscsi_tcp", "sd_mod", "sg", "softdog", "drbd", "nbd", "loop"],
  ...["target_core_mod", "target_core_iblock", "target_core_file", "iscsi_target_mod"],
  ...["dm_mod", "dm_delay", "dm_flakey", "dm_multipath", "dm_round_robin", "dm_service_time"],
  ...["scsi_dh_alua", "sch_netem", "nf_tables"],
];
