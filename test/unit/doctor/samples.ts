import { type DoctorFinding, type Yardstick } from "../../../lib/doctor/doctor-finding.js";
import { type Looked, type LunLook } from "../../../lib/doctor/lun-facts.js";
import { type Superblock } from "../../../lib/format/superblock.js";
import { type ProfileName, PROFILES } from "../../../lib/lease/timings.js";
import { type DiskFacts, type DiskPath } from "../../../lib/system/disk-look.js";
import { type IscsiSession } from "../../../lib/system/iscsi-look.js";
import { type LunFacts } from "../../../lib/system/lun-probe.js";
import { type ScsiLook } from "../../../lib/system/scsi-look.js";

export function yardstick(profile: ProfileName): Yardstick {
  return { profile, timings: PROFILES[profile], source: "option" };
}

export const WWID = "36001405ab00000000000000000000000";

export function probe(change: Partial<LunFacts> = {}): LunFacts {
  return {
    sizeBytes: 268_435_456,
    sectorSize: 512,
    physicalSectorSize: 4_096,
    isBlock: true,
    isLoop: false,
    readOnly: false,
    wwid: WWID,
    ...change,
  };
}

/** Timers that fit the default profile. */
export function session(change: Partial<IscsiSession> = {}): IscsiSession {
  return {
    session: "session1",
    target: "iqn.2026-01.lab:san",
    portal: "10.77.0.9:3260",
    state: "LOGGED_IN",
    recoverySeconds: 1,
    pingIntervalSeconds: 1,
    pingTimeoutSeconds: 1,
    ...change,
  };
}

export function diskPath(change: Partial<DiskPath> = {}): DiskPath {
  return {
    name: "sda",
    number: "8:0",
    state: "running",
    wwid: WWID,
    vendor: "LIO-ORG",
    model: "IBLOCK",
    cacheType: "write back",
    transport: "iscsi",
    iscsi: session(),
    fastIoFailSeconds: null,
    devLossSeconds: null,
    ...change,
  };
}

export function disk(change: Partial<DiskFacts> = {}): DiskFacts {
  return {
    name: "sda",
    partition: undefined,
    writeCache: "write back",
    fua: true,
    alignmentOffset: 0,
    multipath: undefined,
    paths: [diskPath()],
    strayPaths: [],
    maps: [],
    ...change,
  };
}

export const CAPABLE = {
  replaceLostReservation: false,
  compatibleHandling: true,
  specifyInitiatorPorts: true,
  allTargetPorts: true,
  persistThroughPowerLossCapable: true,
  persistThroughPowerLossActive: false,
  types: ["WE", "EA", "WERO", "EARO", "WEAR", "EAAR"],
} as const;

export function scsi(change: Partial<ScsiLook> = {}): Looked<ScsiLook> {
  return {
    kind: "ok",
    value: {
      attentions: [],
      reservations: { kind: "ok", value: CAPABLE },
      flush: { kind: "ok", value: undefined },
      ...change,
    },
  };
}

export function superblock(change: Partial<Superblock> = {}): Superblock {
  const lun = { uuid: "11111111-1111-4111-8111-111111111111", wwid: WWID, incarnation: 1n };
  return {
    incompatible: 0,
    compatible: 0,
    clusterName: "office",
    clusterUuid: "22222222-2222-4222-8222-222222222222",
    clusterId: 7,
    sectorSize: 512,
    areaSize: 1_048_576,
    maxHosts: 16,
    areaCount: 32,
    lunIndex: 0,
    lunCount: 1,
    lunUuid: lun.uuid,
    wwid: lun.wwid,
    incarnation: lun.incarnation,
    epoch: 1n,
    luns: [lun],
    ...PROFILES.default,
    profile: "default",
    createdAtUnix: 1_700_000_000,
    dataStart: 0,
    dataLength: 0,
    ...change,
  };
}

/** A healthy LUN with a region, behind iSCSI, with reservations. */
export function lun(change: Partial<LunLook> = {}): LunLook {
  return {
    path: "/dev/sda",
    end: { kind: "ended" },
    trouble: undefined,
    probe: probe(),
    region: {
      content: { kind: "superblock", superblock: superblock() },
      window: { offset: 1_048_576, length: 33_554_432 },
      isOpen: true,
    },
    vmPause: "possible",
    latency: { samples: [0.2, 0.3, 0.4], end: undefined, readBytes: 8_192 },
    hosts: { hosts: [], windowMs: 2_000, failure: null },
    disk: { kind: "ok", value: disk() },
    multipath: undefined,
    scsi: { sda: scsi() },
    ...change,
  };
}

/** `critical paths, warning iscsi`: what is not fine, in short. */
export function troubles(findings: readonly DoctorFinding[]): readonly string[] {
  return findings
    .filter(({ level }) => level !== "ok")
    .map(({ level, check }) => `${level} ${check}`);
}

/** The one that is wanted, with everything that a problem has to have. */
export function the(findings: readonly DoctorFinding[], what: string): DoctorFinding {
  const found = findings.filter(({ level, check }) => `${level} ${check}` === what);
  const [one] = found;
  if (one === undefined || found.length > 1) {
    throw new Error(
      `${found.length} findings "${what}" in ${JSON.stringify(findings, bigints, 1)}`,
    );
  }
  const isProblem = one.level === "warning" || one.level === "critical";
  if (one.why === "" || one.text === "" || (isProblem && (one.remedy ?? "") === "")) {
    throw new Error(`not complete: ${JSON.stringify(one, bigints)}`);
  }
  return one;
}

function bigints(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}
