/**
 * What a pulse is started with: node.json of the state directory, written by `join`, and the flags of the daemon.
 *
 *     sharedha-pulse --state-dir DIR
 *       --resume-at MS         carry the generation of pulse.json on; MS (CLOCK_BOOTTIME) is the start of the newest counted
 *                              renewal that the daemon knows of
 *       --resume-armed         the daemon believes that armed = 1 is published; something may be held and mounted
 *       --torn-down ID/GEN     the daemon has made sure, in this boot, that nothing of this earlier generation of this very
 *                              node is mounted, running or in flight: evidence `released` for the own record
 *       --confirm-off          a human has made sure that the node which had this name or host id is off (evidence, while
 *                              its record does not change)
 *       --accept-guard, --vm-pause-never, --foreign-watchdog   as in the cluster's configuration (evidence policy)
 */
import { ShareHaError } from "../errors.js";
import { type IscsiLun, misfitOfIscsi } from "../san/iscsi-lun.js";
import { readJsonFile } from "./state-file.js";

export interface NodeSettings {
  readonly paths: readonly string[];
  /** Those of `paths` that are reached by iSCSI. */
  readonly iscsi?: readonly IscsiLun[];
  readonly node: string;
  readonly hostId: number | undefined;
  readonly watchdog: "auto" | "hardware" | "guard" | "none";
}

export interface HostGeneration {
  readonly hostId: number;
  readonly generation: bigint;
}

export interface PulseOptions {
  readonly stateDir: string;
  readonly resumeAtMs: number | undefined;
  readonly resumeArmed: boolean;
  readonly tornDown: HostGeneration | undefined;
  readonly confirmOff: boolean;
  readonly acceptGuard: boolean;
  readonly vmPauseNever: boolean;
  readonly foreignWatchdog: boolean;
}

const SWITCHES = [
  ...["--resume-armed", "--confirm-off"],
  ...["--accept-guard", "--vm-pause-never", "--foreign-watchdog"],
];
const VALUES = ["--state-dir", "--resume-at", "--torn-down"];

/** @throws ERR_USAGE */
export function parsePulseOptions(args: readonly string[]): PulseOptions {
  const values = new Map<string, string>();
  for (let index = 0; index < args.length; index++) {
    const flag = args[index] ?? "";
    const value = args[index + 1];
    if (SWITCHES.includes(flag)) {
      values.set(flag, "");
    } else if (VALUES.includes(flag) && value !== undefined) {
      values.set(flag, value);
      index++;
    } else {
      throw usage(`unknown or incomplete option ${flag}`);
    }
  }
  const stateDir = values.get("--state-dir");
  if (stateDir?.startsWith("/") !== true) {
    throw usage("--state-dir needs an absolute path");
  }
  return {
    stateDir,
    resumeAtMs: numberOf(values.get("--resume-at")),
    resumeArmed: values.has("--resume-armed"),
    tornDown: hostGenerationOf(values.get("--torn-down")),
    confirmOff: values.has("--confirm-off"),
    acceptGuard: values.has("--accept-guard"),
    vmPauseNever: values.has("--vm-pause-never"),
    foreignWatchdog: values.has("--foreign-watchdog"),
  };
}

function numberOf(text: string | undefined): number | undefined {
  if (text === undefined) {
    return undefined;
  }
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || !Number.isFinite(value)) {
    throw usage(`--resume-at ${text} is not a time in milliseconds`);
  }
  return value;
}

function hostGenerationOf(text: string | undefined): HostGeneration | undefined {
  if (text === undefined) {
    return undefined;
  }
  const match = /^(\d{1,4})\/(\d{1,20})$/.exec(text);
  if (match === null) {
    throw usage(`${text} is not HOSTID/GENERATION`);
  }
  return { hostId: Number(match[1]), generation: BigInt(match[2] ?? "") };
}

function usage(why: string): ShareHaError {
  return new ShareHaError("ERR_USAGE", `sharedha-pulse: ${why}`, {
    hint: "The daemon starts pulse; see lib/pulse/options.ts.",
  });
}

/** @throws ERR_NODE_SETTINGS: no node.json, or not a valid one */
export function readNodeSettings(stateDir: string): NodeSettings {
  let found: unknown;
  try {
    found = readJsonFile(stateDir, "node.json");
  } catch (error) {
    throw badSettings(stateDir, error instanceof Error ? error.message : String(error), error);
  }
  if (found === undefined) {
    throw badSettings(stateDir, "it does not exist", undefined);
  }
  return settingsOf(stateDir, found);
}

const WATCHDOGS = ["auto", "hardware", "guard", "none"] as const;

function settingsOf(stateDir: string, found: unknown): NodeSettings {
  if (typeof found !== "object" || found === null) {
    throw badSettings(stateDir, "it is not an object", undefined);
  }
  const settings = found as Record<string, unknown>;
  const { paths, node, watchdog = "auto" } = settings;
  if (!isListOfTexts(paths) || paths.length === 0) {
    throw badSettings(stateDir, "`paths` is not a list of LUNs", undefined);
  }
  if (typeof node !== "string" || node === "") {
    throw badSettings(stateDir, "`node` is not a name", undefined);
  }
  const hostId = settings["hostId"] ?? undefined;
  if (hostId !== undefined && !isHostId(hostId)) {
    throw badSettings(stateDir, "`hostId` is not a host id", undefined);
  }
  const kind = WATCHDOGS.find((known) => known === watchdog);
  if (kind === undefined) {
    throw badSettings(stateDir, `\`watchdog\` is none of ${WATCHDOGS.join(", ")}`, undefined);
  }
  const iscsiTrouble = misfitOfIscsi(settings["iscsi"]);
  if (iscsiTrouble !== undefined) {
    throw badSettings(stateDir, iscsiTrouble, undefined);
  }
  const iscsi = settings["iscsi"] as readonly IscsiLun[] | undefined;
  const base = { paths, node, hostId, watchdog: kind };
  return iscsi === undefined ? base : { ...base, iscsi };
}

function isListOfTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}

function isHostId(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 1;
}

function badSettings(stateDir: string, why: string, cause: unknown): ShareHaError {
  return new ShareHaError("ERR_NODE_SETTINGS", `${stateDir}/node.json cannot be used: ${why}`, {
    hint: "Run `sharedha join PATH...` on this node again.",
    fields: { stateDir },
    cause,
  });
}
