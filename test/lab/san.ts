/**
 * The storage: a VM with LIO, configured through configfs as targetcli would, and its faults. Each LUN is a device-mapper
 * device over a virtio disk, so that errors, hangs and delays can be put under it while it is in use.
 */
import { type Step } from "./frames.js";
import { guestDisk, LUNS, type LunName, NODES, SPECS } from "./settings.js";
import { type Vm } from "./vm.js";

export const PORTAL = `${SPECS.san.address}:3260`;
const IQN = "iqn.2026-11.lab";
/** Who may log in: the nodes, and the clone of one. */
const INITIATORS = [...NODES, "c1"] as const;
const CORE = "/sys/kernel/config/target/core";
const FABRIC = "/sys/kernel/config/target/iscsi";
/** LIO builds the NAA id from the hexadecimal digits of this. */
const SERIALS: Readonly<Record<LunName, string>> = {
  lun0: "1ab00000-7e57-4000-8000-0a1b2c3d4e50",
  lun1: "1ab00001-7e57-4000-8000-1b2c3d4e5f61",
  lun2: "1ab00002-7e57-4000-8000-2c3d4e5f6a72",
};

interface Chap {
  readonly user: string;
  readonly secret: string;
}

export interface TargetSpec {
  readonly iqn: string;
  readonly luns: readonly LunName[];
  readonly chap?: Chap;
  /** What the target says of itself. */
  readonly mutual?: Chap;
}

const USER: Chap = { user: "labuser", secret: "labsecret1234" };
export const TARGETS = {
  data: { iqn: `${IQN}:data`, luns: ["lun0", "lun1", "lun2"] },
  chap: { iqn: `${IQN}:chap`, luns: ["lun1"], chap: USER },
  mutual: {
    iqn: `${IQN}:mutual`,
    luns: ["lun1"],
    chap: USER,
    mutual: { user: "labtarget", secret: "targetsecret1" },
  },
} as const satisfies Readonly<Record<string, TargetSpec>>;

/** udev's stable name: NAA 6, LIO's company id 001405, then 25 digits of the serial number. */
export function diskOf(lun: LunName): string {
  const digits = SERIALS[lun].replaceAll("-", "").slice(0, 25);
  return `/dev/disk/by-id/wwn-0x6001405${digits}`;
}

/** A LUN by the address that `join` takes. */
export function lunUrl(lun: LunName): string {
  const target: TargetSpec = TARGETS.data;
  return `iscsi://${PORTAL}/${target.iqn}/${target.luns.indexOf(lun)}`;
}

export class San {
  readonly #vm: Vm;
  #targets: readonly TargetSpec[] = Object.values(TARGETS);

  constructor(vm: Vm) {
    this.#vm = vm;
  }

  get vm(): Vm {
    return this.#vm;
  }

  /** The disks under the LUNs, then the target. */
  async configure(): Promise<void> {
    for (const lun of LUNS) {
      await this.#dmsetup("create", lun, "--table", linear(lun));
    }
    await this.startTarget();
  }

  // --- the target ---

  /** @param targets others than now: a target or a LUN that has gone, or is another one */
  async startTarget(targets: readonly TargetSpec[] = this.#targets): Promise<void> {
    this.#targets = targets;
    const reservations = await this.#keptReservations();
    await this.#vm.steps([
      ...LUNS.flatMap((lun, index) => backstoreSteps(lun, index, reservations.get(lun) ?? [])),
      { do: "mkdir", path: FABRIC },
      ...targets.flatMap(targetSteps),
    ]);
  }

  /** As a stop of the target's service: sessions are dropped, the portal is closed, registrations without APTPL are gone. */
  async stopTarget(): Promise<void> {
    await this.#vm.steps([
      ...this.#targets.flatMap(removeTargetSteps),
      ...LUNS.flatMap((lun, index) => [
        { do: "rmdir", path: `${CORE}/iblock_${index}/${lun}` } as const,
        { do: "rmdir", path: `${CORE}/iblock_${index}` } as const,
      ]),
    ]);
  }

  /** @param downMs how long the portal stays closed */
  async restartTarget(downMs = 0): Promise<void> {
    await this.stopTarget();
    await new Promise((resolve) => setTimeout(resolve, downMs));
    await this.startTarget();
  }

  /** Whether discovery asks for CHAP. */
  async demandDiscoveryChap(chap: Chap | undefined): Promise<void> {
    const path = `${FABRIC}/discovery_auth`;
    await this.#vm.steps([
      { do: "write", path: `${path}/userid`, text: chap?.user ?? "NULL" },
      { do: "write", path: `${path}/password`, text: chap?.secret ?? "NULL" },
      {
        do: "write",
        path: `${path}/enforce_discovery_auth`,
        text: chap === undefined ? "0" : "1",
      },
    ]);
  }

  // --- faults of a LUN ---

  /** Every command to the medium fails at once. */
  async fail(lun: LunName): Promise<void> {
    await this.#swap(lun, `0 ${sectors(lun)} error`);
  }

  /** No command to the medium is answered, until `heal`. What is under way stays under way. */
  async hang(lun: LunName): Promise<void> {
    await this.#dmsetup("suspend", "--noflush", "--nolockfs", lun);
  }

  async slow(lun: LunName, delayMs: number): Promise<void> {
    await this.#swap(lun, `0 ${sectors(lun)} delay ${guestDisk("san", lun)} 0 ${delayMs}`);
  }

  /** Writes of every initiator are refused (DATA PROTECT, write protected), reads go on. */
  async setReadOnly(lun: LunName, isReadOnly: boolean): Promise<void> {
    const index = (TARGETS.data.luns as readonly string[]).indexOf(lun);
    await this.#vm.steps(
      INITIATORS.map((node) => ({
        do: "write",
        path: `${FABRIC}/${TARGETS.data.iqn}/tpgt_1/acls/${initiatorOf(node)}/lun_${index}/write_protect`,
        text: isReadOnly ? "1" : "0",
      })),
    );
  }

  async heal(lun: LunName): Promise<void> {
    await this.#swap(lun, linear(lun));
  }

  // --- inside ---

  async #swap(lun: LunName, table: string): Promise<void> {
    await this.#dmsetup("suspend", "--noflush", "--nolockfs", lun);
    await this.#dmsetup("load", lun, "--table", table);
    await this.#dmsetup("resume", lun);
  }

  async #dmsetup(...args: readonly string[]): Promise<void> {
    await this.#vm.must(["dmsetup", "--noudevsync", ...args]);
  }

  /** LIO writes what is to outlive a power loss (APTPL) to files, and leaves the reading to whoever starts the target. */
  async #keptReservations(): Promise<ReadonlyMap<LunName, readonly string[]>> {
    const kept = new Map<LunName, readonly string[]>();
    for (const lun of LUNS) {
      const { exitCode, stdout } = await this.#vm.run([
        "cat",
        `/etc/target/pr/aptpl_${SERIALS[lun]}`,
      ]);
      if (exitCode === 0) {
        kept.set(lun, registrationsIn(stdout));
      }
    }
    return kept;
  }
}

/** One line for each PR_REG_START ... PR_REG_END, as `res_aptpl_metadata` takes them. */
function registrationsIn(file: string): readonly string[] {
  const registrations: string[] = [];
  let current: string[] = [];
  for (const line of file.split("\n").map((one) => one.trim())) {
    if (line.startsWith("PR_REG_START:")) {
      current = [];
    } else if (line.startsWith("PR_REG_END:")) {
      registrations.push(current.join(","));
    } else if (line !== "") {
      current.push(line);
    }
  }
  return registrations;
}

function sectors(lun: LunName): number {
  const disk = SPECS.san.disks.find((one) => one.name === lun);
  return ((disk?.sizeMiB ?? 0) * 1024 * 1024) / 512;
}

function linear(lun: LunName): string {
  return `0 ${sectors(lun)} linear ${guestDisk("san", lun)} 0`;
}

export function initiatorOf(node: string): string {
  return `${IQN}:${node}`;
}

function backstoreSteps(lun: LunName, index: number, reservations: readonly string[]): Step[] {
  const object = `${CORE}/iblock_${index}/${lun}`;
  const device = `/dev/mapper/${lun}`;
  return [
    { do: "mkdir", path: object },
    { do: "write", path: `${object}/control`, text: `udev_path=${device}\n` },
    { do: "write", path: `${object}/udev_path`, text: device },
    { do: "write", path: `${object}/wwn/vpd_unit_serial`, text: SERIALS[lun] },
    { do: "write", path: `${object}/enable`, text: "1" },
    ...reservations.map((text): Step => ({
      do: "write",
      path: `${object}/pr/res_aptpl_metadata`,
      text,
    })),
  ];
}

function targetSteps(target: TargetSpec): Step[] {
  const tpg = `${FABRIC}/${target.iqn}/tpgt_1`;
  const set = (name: string, text: string): Step => ({ do: "write", path: `${tpg}/${name}`, text });
  return [
    { do: "mkdir", path: `${tpg}/np/0.0.0.0:3260` },
    ...target.luns.flatMap((lun, index): Step[] => [
      { do: "mkdir", path: `${tpg}/lun/lun_${index}` },
      {
        do: "link",
        path: `${tpg}/lun/lun_${index}/port`,
        to: `${CORE}/iblock_${LUNS.indexOf(lun)}/${lun}`,
      },
    ]),
    set("attrib/authentication", target.chap === undefined ? "0" : "1"),
    set("attrib/generate_node_acls", "0"),
    ...INITIATORS.flatMap((node) => aclSteps(tpg, node, target)),
    set("enable", "1"),
  ];
}

function aclSteps(tpg: string, node: string, target: TargetSpec): Step[] {
  const acl = `${tpg}/acls/${initiatorOf(node)}`;
  const set = (name: string, text: string): Step => ({
    do: "write",
    path: `${acl}/auth/${name}`,
    text,
  });
  return [
    { do: "mkdir", path: acl },
    ...(target.chap === undefined
      ? []
      : [set("userid", target.chap.user), set("password", target.chap.secret)]),
    ...(target.mutual === undefined
      ? []
      : [set("userid_mutual", target.mutual.user), set("password_mutual", target.mutual.secret)]),
    ...target.luns.flatMap((_, index): Step[] => [
      { do: "mkdir", path: `${acl}/lun_${index}` },
      { do: "link", path: `${acl}/lun_${index}/lun`, to: `${tpg}/lun/lun_${index}` },
    ]),
  ];
}

function removeTargetSteps(target: TargetSpec): Step[] {
  const tpg = `${FABRIC}/${target.iqn}/tpgt_1`;
  const luns = target.luns.map((_, index) => `lun_${index}`);
  return [
    { do: "write", path: `${tpg}/enable`, text: "0" },
    ...INITIATORS.flatMap((node): Step[] => {
      const acl = `${tpg}/acls/${initiatorOf(node)}`;
      return [
        ...luns.flatMap((lun): Step[] => [
          { do: "remove", path: `${acl}/${lun}/lun` },
          { do: "rmdir", path: `${acl}/${lun}` },
        ]),
        { do: "rmdir", path: acl },
      ];
    }),
    ...luns.flatMap((lun): Step[] => [
      { do: "remove", path: `${tpg}/lun/${lun}/port` },
      { do: "rmdir", path: `${tpg}/lun/${lun}` },
    ]),
    { do: "rmdir", path: `${tpg}/np/0.0.0.0:3260` },
    { do: "rmdir", path: tpg },
    { do: "rmdir", path: `${FABRIC}/${target.iqn}` },
  ];
}
