/**
 * `sharedha doctor`: looks at the machine and at LUNs before they are trusted, and only reads. Whatever touches a device
 * runs in a process of its own with a time limit; whatever cannot be looked at is a finding.
 */
import { type ProfileName, PROFILES } from "../lease/timings.js";
import { type DiskFacts, lookAtDisk } from "../system/disk-look.js";
import {
  canLockMemory,
  kernelFacts,
  lookAtStateDir,
  type MachineFacts,
  memlockFacts,
  missingPrograms,
  tryRealtime,
} from "../system/machine-look.js";
import { detectVirtuality } from "../system/machine.js";
import { lookAtMultipath } from "../system/multipath-look.js";
import { type ScsiLook } from "../system/scsi-look.js";
import { SystemTree } from "../system/system-tree.js";
import { lookAtSystemd, type SystemdFacts } from "../system/systemd-look.js";
import { watchChild } from "../system/watched-child.js";
import { lookAtWatchdogs } from "../system/watchdog-look.js";
import {
  type DoctorCheck,
  type DoctorFinding,
  type DoctorReport,
  levelOf,
  unlooked,
  type Yardstick,
} from "./doctor-finding.js";
import { type Looked, type LunLook, type LunMessage, type ScsiMessage } from "./lun-facts.js";
import { judgeDevice } from "./rules/device-rules.js";
import { judgeLatency, summaryOf } from "./rules/latency-rules.js";
import {
  judgeMachine,
  judgeStateDir,
  judgeTools,
  judgeVirtuality,
  programsFor,
  type ToolNeeds,
} from "./rules/machine-rules.js";
import { judgePaths } from "./rules/path-rules.js";
import { judgeIdentity, judgeRegion, judgeTogether } from "./rules/region-rules.js";
import { judgeReservations } from "./rules/reservation-rules.js";
import { judgeSystemd, judgeWatchdogs } from "./rules/watchdog-rules.js";

/** A process per path, and one per SCSI disk below; a cluster has at most five quorum LUNs. */
export const PATHS_MAX = 8;
/** Opening may take 10 s and the measurement 5 s until they are given up. */
const LUN_LOOK_MS = 22_000;
const SCSI_LOOK_MS = 12_000;
const SCSI_COMMAND_MS = 3_000;
/** Paths of one LUN; more than any SAN of ours has. */
const SCSI_LOOKS_MAX = 16;

export interface ExamineOptions {
  /** Absolute; at most PATHS_MAX. */
  readonly paths: readonly string[];
  readonly profile: ProfileName | undefined;
  readonly stateDir: string;
  /** Where the kernel and the distribution show themselves; tests give another one. */
  readonly tree?: SystemTree;
}

export async function examine(options: ExamineOptions): Promise<DoctorReport> {
  const tree = options.tree ?? new SystemTree();
  const systemd = settled(lookAtSystemd(tree));
  const looks = await Promise.all(options.paths.map(async (path) => await lookAtLun(tree, path)));
  const yardstick = yardstickOf(options.profile, looks);
  const findings = [
    ...machineFindings(options, tree, looks, yardstick, await systemd),
    ...looks.flatMap((look) => lunFindings(look, yardstick)),
    ...judgeTogether(looks),
  ];
  return {
    level: levelOf(findings),
    profile: yardstick,
    paths: options.paths,
    findings,
    latency: looks.flatMap(({ path, latency }) =>
      latency === undefined || latency.samples.length === 0
        ? []
        : [summaryOf(path, latency.samples)],
    ),
  };
}

function yardstickOf(profile: ProfileName | undefined, looks: readonly LunLook[]): Yardstick {
  if (profile !== undefined) {
    return { profile, timings: PROFILES[profile], source: "option" };
  }
  const superblock = looks.flatMap(({ region }) =>
    region?.content.kind === "superblock" ? [region.content.superblock] : [],
  )[0];
  if (superblock === undefined) {
    return { profile: "default", timings: PROFILES.default, source: "default" };
  }
  const { intervalMs, deadlineMs, ttlMs, watchdogMs } = superblock;
  const timings = { intervalMs, deadlineMs, ttlMs, watchdogMs };
  return { profile: superblock.profile, timings, source: "region" };
}

function machineFindings(
  options: ExamineOptions,
  tree: SystemTree,
  looks: readonly LunLook[],
  yardstick: Yardstick,
  systemd: Looked<SystemdFacts>,
): readonly DoctorFinding[] {
  const vmPause = looks.flatMap((look) => (look.vmPause === undefined ? [] : [look.vmPause]))[0];
  const needs = needsOf(looks);
  return [
    ...attempt("kernel", "the kernel", () => judgeMachine(machineFacts(tree))),
    ...attempt("virtual", "the machine", () => [
      judgeVirtuality(detectVirtuality(tree.at("/")), vmPause),
    ]),
    ...attempt("watchdog", "the watchdogs", () => {
      const seconds = Math.ceil(yardstick.timings.watchdogMs / 1_000);
      const watchdogs = lookAtWatchdogs(tree, seconds);
      const own = judgeWatchdogs(watchdogs, yardstick);
      return systemd.kind === "ok"
        ? [...own, ...judgeSystemd(systemd.value, watchdogs)]
        : [...own, unlooked("systemd", "its settings", systemd.why)];
    }),
    ...attempt("tools", "the programs", () =>
      judgeTools(missingPrograms(tree, programsFor(needs)), needs),
    ),
    ...attempt("state-dir", options.stateDir, () =>
      judgeStateDir(lookAtStateDir(options.stateDir)),
    ),
  ];
}

function machineFacts(tree: SystemTree): MachineFacts {
  return {
    ...kernelFacts(tree),
    nodeVersion: process.version,
    isRoot: process.geteuid?.() === 0,
    memlock: { ...memlockFacts(tree), works: canLockMemory() },
    realtime: tryRealtime(),
  };
}

function needsOf(looks: readonly LunLook[]): ToolNeeds {
  const disks = looks.flatMap(({ disk }) => (disk?.kind === "ok" ? [disk.value] : []));
  return {
    iscsi: disks.some(({ paths }) => paths.some(({ iscsi }) => iscsi !== undefined)),
    multipath: disks.some(({ multipath }) => multipath !== undefined),
  };
}

function lunFindings(look: LunLook, yardstick: Yardstick): readonly DoctorFinding[] {
  return [
    ...judgeDevice(look),
    ...judgeIdentity(look),
    ...(look.latency === undefined ? [] : judgeLatency(look.path, look.latency, yardstick)),
    ...judgePaths(look, yardstick),
    ...judgeReservations(look),
    ...judgeRegion(look),
  ];
}

/** What goes wrong in a look is what it has found out. */
function attempt(
  check: DoctorCheck,
  what: string,
  judge: () => readonly DoctorFinding[],
): readonly DoctorFinding[] {
  try {
    return judge();
  } catch (error) {
    return [unlooked(check, what, reasonOf(error))];
  }
}

async function settled<T>(look: Promise<T>): Promise<Looked<T>> {
  try {
    return { kind: "ok", value: await look };
  } catch (error) {
    return { kind: "failed", why: reasonOf(error) };
  }
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What is below a path is looked at as soon as the path has said what it is, also when it hangs afterwards. */
async function lookAtLun(tree: SystemTree, path: string): Promise<LunLook> {
  const seen: { -readonly [K in keyof LunLook]?: LunLook[K] } = {};
  let below: Promise<Below> | undefined;
  const onMessage = (raw: unknown): void => {
    const message = raw as LunMessage;
    switch (message.kind) {
      case "probe":
        seen.probe = message.facts;
        below = message.facts.isBlock ? lookBelow(tree, message.major, message.minor) : undefined;
        break;
      case "region":
        seen.region = message;
        break;
      case "configuration":
        seen.vmPause = message.vmPause;
        break;
      case "latency":
        seen.latency = message.latency;
        break;
      case "hosts":
        seen.hosts = message.hosts;
        break;
      case "trouble":
        seen.trouble = message.trouble;
        break;
    }
  };
  const script = new URL("./lun-look-main.js", import.meta.url);
  const end = await watchChild(script, [path], { timeoutMs: LUN_LOOK_MS, onMessage });
  const nothing: Below = { disk: undefined, multipath: undefined, scsi: {} };
  return {
    path,
    end,
    trouble: seen.trouble,
    probe: seen.probe,
    region: seen.region,
    vmPause: seen.vmPause,
    latency: seen.latency,
    hosts: seen.hosts,
    ...((await below) ?? nothing),
  };
}

type Below = Pick<LunLook, "disk" | "multipath" | "scsi">;

async function lookBelow(tree: SystemTree, major: bigint, minor: bigint): Promise<Below> {
  const disk = diskOf(tree, major, minor);
  if (disk.kind === "failed") {
    return { disk, multipath: undefined, scsi: {} };
  }
  const { multipath, paths } = disk.value;
  const names = paths.slice(0, SCSI_LOOKS_MAX).map(({ name }) => name);
  const [map, scsi] = await Promise.all([
    multipath === undefined ? undefined : settled(lookAtMultipath(multipath.map)),
    Promise.all(names.map(async (name) => [name, await lookAtScsi(name)] as const)),
  ]);
  return { disk, multipath: map, scsi: Object.fromEntries(scsi) };
}

function diskOf(tree: SystemTree, major: bigint, minor: bigint): Looked<DiskFacts> {
  try {
    const value = lookAtDisk(tree, major, minor);
    return value === undefined
      ? { kind: "failed", why: `there is no /sys/dev/block/${major}:${minor}` }
      : { kind: "ok", value };
  } catch (error) {
    return { kind: "failed", why: reasonOf(error) };
  }
}

async function lookAtScsi(name: string): Promise<Looked<ScsiLook>> {
  let result: Looked<ScsiLook> | undefined;
  const script = new URL("./scsi-look-main.js", import.meta.url);
  // The kernel writes "!" in sysfs for the slash of a device's name.
  const device = `/dev/${name.replaceAll("!", "/")}`;
  const end = await watchChild(script, [device, String(SCSI_COMMAND_MS)], {
    timeoutMs: SCSI_LOOK_MS,
    onMessage: (raw) => {
      const message = raw as ScsiMessage;
      result =
        message.kind === "scsi"
          ? { kind: "ok", value: message.look }
          : { kind: "failed", why: message.trouble.message };
    },
  });
  if (result !== undefined) {
    return result;
  }
  const why =
    end.kind === "late"
      ? `no answer within ${end.timeoutMs} ms`
      : end.kind === "failed"
        ? end.why
        : "it said nothing";
  return { kind: "failed", why };
}
