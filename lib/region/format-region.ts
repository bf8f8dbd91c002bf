/**
 * `init`: makes a region on 1, 3 or 5 LUNs. Looks at everything first and refuses before it writes; writes the superblocks
 * last, so that a region is there as a whole or not at all.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { unlinkSync } from "node:fs";
import { setTimeout as sleepFor } from "node:timers/promises";

import { ShareHaError } from "../errors.js";
import {
  AREA,
  areaOffset,
  type Geometry,
  geometryOf,
  MAX_HOSTS_LIMIT,
} from "../format/geometry.js";
import { NAME_SIZE } from "../format/leader-record.js";
import { type LunIdentity, type Superblock } from "../format/superblock.js";
import { type ProfileName, PROFILES, type Timings } from "../lease/timings.js";
import { judgeLuns, recordedWwid } from "../lease/lun-set.js";
import { type DiskOp, type LunDevice } from "../port/disk.js";
import { type FilesystemType, makeFilesystem } from "../system/filesystem.js";
import { writeGpt } from "../system/gpt.js";
import { attachLoop, detachLoop } from "../system/loop.js";
import { partitionAt } from "../system/partition.js";
import { openLun } from "../system/lun-device.js";
import { requireClusterConfig, timingsOf } from "./cluster-config.js";
import { firstDocument } from "./config-document.js";
import { foundLunOf, openPort } from "./find-region.js";
import { type FormatTarget, openTarget, tooSmall } from "./format-target.js";
import { type LatencyFigures, measureLatency, requireFastEnough } from "./latency.js";
import { recordWrites, superblockWrites, zeroWrites } from "./region-image.js";

export interface InitOptions {
  /** 1, 3 or 5 devices or files; a file that does not exist is made. */
  readonly paths: readonly string[];
  readonly clusterName: string;
  /** Default: the device's own; 512 for files. */
  readonly sectorSize?: 512 | 4096;
  /** Default: sanlock's, 1 MiB with 512-byte sectors and 8 MiB with 4096. */
  readonly areaSize?: number;
  /** 1..64, default 16 */
  readonly maxHosts?: number;
  readonly profile: ProfileName;
  /** The whole device is the region: no partition table, no data on it. */
  readonly whole?: boolean;
  /** Length of files that do not exist yet. */
  readonly sizeBytes?: number;
  /** Makes this file system on the data part of the first LUN. */
  readonly mkfs?: FilesystemType;
  /** Destroys what is there; never a region with live heartbeats, never a device in use. */
  readonly force?: boolean;
  /** The first cluster configuration, TOML. */
  readonly groupToml?: string;
  /** Told before a wait that a person notices. */
  readonly onWait?: (text: string) => void;
}

export interface InitReport {
  readonly clusterName: string;
  readonly clusterUuid: string;
  readonly sectorSize: number;
  readonly areaSize: number;
  readonly maxHosts: number;
  /** How many leases fit, those of sharedha itself included. */
  readonly leases: number;
  readonly profile: ProfileName;
  readonly timings: Timings;
  readonly luns: readonly InitLunReport[];
  readonly filesystem: FilesystemType | undefined;
}

export interface InitLunReport {
  readonly path: string;
  readonly uuid: string;
  readonly wwid: string;
  /** `init` made this file. */
  readonly created: boolean;
  /** Bytes from the start of the device. */
  readonly region: { readonly offset: number; readonly length: number };
  readonly data: { readonly offset: number; readonly length: number } | undefined;
  readonly latency: LatencyFigures;
}

const MIB = 1024 * 1024;
const DEFAULT_AREAS = 32;
/** Leases beyond a thousand are no use for a cluster of 64, and every area costs time to make. */
const MAX_AREAS = 1024;
/** xfs needs 300 MiB. */
const DEFAULT_FILE_WITH_DATA = 512 * MIB;
/** The partition table's copies and alignment. */
const GPT_ROOM = 3 * MIB;
/** As a lockspace, host and lease name is written in commands and in sanlock's `NAME:...` arguments. */
const CLUSTER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*$/;

/** What `init` decided before it looked at any device. */
interface Plan {
  readonly options: InitOptions;
  readonly geometry: Geometry | undefined;
  readonly maxHosts: number;
  readonly timings: Timings;
  readonly configText: string;
}

/**
 * @throws ERR_INIT_OPTIONS, ERR_CONFIG, ERR_TIMINGS, ERR_GEOMETRY (options); ERR_DEVICE_HAS_DATA, ERR_DEVICE_BUSY,
 *   ERR_LIVE_HEARTBEATS, ERR_NEWER_VERSION, ERR_SAME_LUN_TWICE, ERR_SECTOR_SIZE, ERR_LUN_TOO_SMALL, ERR_LUN_TOO_SLOW,
 *   ERR_DISK_FULL (devices; nothing was written then); ERR_GPT, ERR_MKFS, ERR_LUN_WRITE (while writing)
 */
export async function initRegion(options: InitOptions): Promise<InitReport> {
  const plan = planOf(options);
  const targets: FormatTarget[] = [];
  try {
    for (const path of options.paths) {
      targets.push(await openOne(plan, path));
      refuseTwice(targets);
    }
    const geometry = plan.geometry ?? defaultGeometry(targets);
    requireSectors(targets, geometry);
    const areas = targets.map((target, index) => areasOf(plan, geometry, target, index));
    const latencies: LatencyFigures[] = [];
    for (const [index, target] of targets.entries()) {
      latencies.push(await measure(plan, geometry, target, index));
    }
    await closeAll(targets);
    return await writeAll(plan, geometry, targets, Math.min(...areas), latencies);
  } catch (error) {
    await closeAll(targets);
    for (const target of targets.filter(({ created }) => created)) {
      unlinkSync(target.path);
    }
    throw error;
  }
}

function planOf(options: InitOptions): Plan {
  const { maxHosts = 16, sectorSize, areaSize } = options;
  refuseOptions(options, maxHosts);
  const toml = options.groupToml ?? "";
  const timings = timingsOf(PROFILES[options.profile], requireClusterConfig(toml));
  const isChosen = sectorSize !== undefined || areaSize !== undefined;
  const geometry = isChosen ? geometryOf(sectorSize ?? 512, areaSize) : undefined;
  return { options, geometry, maxHosts, timings, configText: firstDocument(toml) };
}

function refuseOptions(options: InitOptions, maxHosts: number): void {
  const { paths, clusterName, sizeBytes } = options;
  if (![1, 3, 5].includes(paths.length)) {
    throw optionError(
      `a region lies on 1, 3 or 5 LUNs, ${paths.length} were given`,
      "An even number of LUNs has no more majority than one fewer.",
    );
  }
  if (!CLUSTER_NAME.test(clusterName) || Buffer.byteLength(clusterName) > NAME_SIZE) {
    throw optionError(
      `"${clusterName}" is no name for a cluster`,
      "Use 1 to 48 letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
    );
  }
  if (!Number.isInteger(maxHosts) || maxHosts < 1 || maxHosts > MAX_HOSTS_LIMIT) {
    throw optionError(`${maxHosts} hosts are not possible`, `Use 1 to ${MAX_HOSTS_LIMIT}.`);
  }
  if (sizeBytes !== undefined && (!Number.isSafeInteger(sizeBytes) || sizeBytes < MIB)) {
    throw optionError(`a size of ${sizeBytes} bytes is not possible`, "Give --size in bytes.");
  }
  if (options.mkfs !== undefined && options.whole === true) {
    throw optionError(
      "with --whole there is no data part to make a file system on",
      "Leave one out.",
    );
  }
}

function optionError(what: string, hint: string): ShareHaError {
  return new ShareHaError("ERR_INIT_OPTIONS", `Cannot make a region: ${what}.`, { hint });
}

async function openOne(plan: Plan, path: string): Promise<FormatTarget> {
  const { options, geometry } = plan;
  const regionBytes = DEFAULT_AREAS * (geometry ?? geometryOf(512)).areaSize;
  const withData = Math.max(DEFAULT_FILE_WITH_DATA, 2 * regionBytes);
  const defaultBytes =
    options.mkfs !== undefined && path === options.paths[0] ? withData : regionBytes;
  return await openTarget({
    path,
    newFileBytes: options.sizeBytes ?? defaultBytes,
    force: options.force ?? false,
    sleep: async (ms) => {
      await sleepFor(ms);
    },
    onWait: options.onWait,
  });
}

function refuseTwice(targets: readonly FormatTarget[]): void {
  const found = targets.map((target) => ({
    ...foundLunOf(target.port),
    content: { kind: "blank" } as const,
  }));
  const judgement = judgeLuns(found);
  if (judgement.kind === "refused" && judgement.code === "ERR_SAME_LUN_TWICE") {
    const { code, why, remedy, path } = judgement;
    throw new ShareHaError(code, why, { hint: remedy, fields: { path } });
  }
}

function defaultGeometry(targets: readonly FormatTarget[]): Geometry {
  return geometryOf(Math.max(...targets.map(({ sectorSize }) => sectorSize)));
}

function requireSectors(targets: readonly FormatTarget[], geometry: Geometry): void {
  const coarse = targets.find(({ sectorSize }) => sectorSize > geometry.sectorSize);
  if (coarse !== undefined) {
    throw new ShareHaError(
      "ERR_SECTOR_SIZE",
      `${coarse.path} has sectors of ${coarse.sectorSize} bytes; records of ${geometry.sectorSize} cannot be written to it`,
      { hint: "Use --sector-size 4096.", fields: { path: coarse.path } },
    );
  }
}

/** Only the first LUN carries data; a partition table also tells other programs that a device is in use. */
function hasPartitions(plan: Plan, target: FormatTarget, index: number): boolean {
  const isData = index === 0 && plan.options.mkfs !== undefined;
  return plan.options.whole !== true && (target.facts.isBlock || isData);
}

/** How many areas fit on this LUN. @throws ERR_LUN_TOO_SMALL */
function areasOf(plan: Plan, geometry: Geometry, target: FormatTarget, index: number): number {
  const { areaSize } = geometry;
  const partitioned = hasPartitions(plan, target, index);
  const areas = partitioned
    ? DEFAULT_AREAS
    : Math.min(MAX_AREAS, Math.floor(target.deviceBytes / areaSize));
  // One area for the lease of the configuration, one at least for a group.
  const needed = partitioned
    ? DEFAULT_AREAS * areaSize + GPT_ROOM + MIB
    : (AREA.firstResource + 2) * areaSize;
  if (target.deviceBytes < needed) {
    throw tooSmall(target.path, target.deviceBytes, needed);
  }
  return areas;
}

async function measure(
  plan: Plan,
  geometry: Geometry,
  target: FormatTarget,
  index: number,
): Promise<LatencyFigures> {
  const start = hasPartitions(plan, target, index) ? MIB : 0;
  const offset = start + areaOffset(geometry, AREA.lockspace);
  const figures = await measureLatency(target.path, target.device, offset, geometry.sectorSize);
  requireFastEnough(target.path, figures, plan.timings);
  return figures;
}

async function closeAll(targets: readonly FormatTarget[]): Promise<void> {
  await Promise.all(targets.map(async ({ device }) => device.close()));
}

/** Where on a LUN the region and the data lie. */
interface Placement {
  readonly target: FormatTarget;
  readonly region: { readonly offset: number; readonly length: number };
  readonly data: { readonly offset: number; readonly length: number } | undefined;
}

async function writeAll(
  plan: Plan,
  geometry: Geometry,
  targets: readonly FormatTarget[],
  areas: number,
  latencies: readonly LatencyFigures[],
): Promise<InitReport> {
  const placements: Placement[] = [];
  for (const [index, target] of targets.entries()) {
    placements.push(await place(plan, target, index, areas * geometry.areaSize));
  }
  const superblocks = superblocksOf(plan, geometry, placements, areas);
  const devices = await openAll(placements, geometry);
  try {
    for (const [index, device] of devices.entries()) {
      await writeContent(plan, placements[index], superblocks[index], device);
    }
    await makeData(plan, placements[0]);
    for (const [index, device] of devices.entries()) {
      const superblock = superblocks[index];
      await submitAll(
        targets[index]?.path,
        device,
        superblock === undefined ? [] : superblockWrites(superblock),
      );
    }
  } finally {
    await Promise.all(devices.map(async (device) => device.close()));
  }
  await verify(targets);
  return reportOf(plan, geometry, placements, superblocks, latencies);
}

async function place(
  plan: Plan,
  target: FormatTarget,
  index: number,
  regionBytes: number,
): Promise<Placement> {
  if (!hasPartitions(plan, target, index)) {
    return { target, region: { offset: 0, length: regionBytes }, data: undefined };
  }
  const { path, sectorSize } = target;
  const { lock, data } = await writeGpt(path, { lockBytes: regionBytes, sectorSize });
  return { target, region: lock, data: index === 0 ? data : undefined };
}

function superblocksOf(
  plan: Plan,
  geometry: Geometry,
  placements: readonly Placement[],
  areaCount: number,
): readonly Superblock[] {
  const { options, maxHosts, timings } = plan;
  const luns = placements.map(({ target }): LunIdentity => {
    const { content } = target.port;
    const earlier = content.kind === "superblock" ? content.superblock.incarnation : 0n;
    return { uuid: randomUUID(), wwid: recordedWwid(target.facts.wwid), incarnation: earlier + 1n };
  });
  const lunCount = placements.length === 5 ? 5 : placements.length === 3 ? 3 : 1;
  const common = {
    incompatible: 0,
    compatible: 0,
    clusterName: options.clusterName,
    clusterUuid: randomUUID(),
    clusterId: Math.max(1, randomBytes(4).readUInt32LE(0)),
    sectorSize: geometry.sectorSize,
    areaSize: geometry.areaSize,
    maxHosts,
    areaCount,
    lunCount,
    epoch: 1n,
    luns,
    ...timings,
    profile: options.profile,
    createdAtUnix: Math.floor(Date.now() / 1_000),
  } as const;
  return luns.map((lun, lunIndex) => ({
    ...common,
    lunIndex,
    lunUuid: lun.uuid,
    wwid: lun.wwid,
    incarnation: lun.incarnation,
    dataStart: placements[lunIndex]?.data?.offset ?? 0,
    dataLength: placements[lunIndex]?.data?.length ?? 0,
  }));
}

async function openAll(
  placements: readonly Placement[],
  geometry: Geometry,
): Promise<readonly LunDevice[]> {
  const devices: LunDevice[] = [];
  try {
    for (const { target, region } of placements) {
      const { offset: baseOffset, length: size } = region;
      const { sectorSize } = geometry;
      devices.push(await openLun({ path: target.path, baseOffset, size, sectorSize }));
    }
    return devices;
  } catch (error) {
    await Promise.all(devices.map(async (device) => device.close()));
    throw error;
  }
}

async function writeContent(
  plan: Plan,
  placement: Placement | undefined,
  superblock: Superblock | undefined,
  device: LunDevice,
): Promise<void> {
  if (placement === undefined || superblock === undefined) {
    return;
  }
  const { path, facts } = placement.target;
  for (const write of zeroWrites(superblock, !facts.isBlock)) {
    await submitAll(path, device, [write]);
  }
  await submitAll(path, device, recordWrites(superblock, plan.configText));
}

/** Long: nothing depends on the time, and an error here must be the device's own. */
const FORMAT_DEADLINE_MS = 60_000;

async function submitAll(
  path: string | undefined,
  device: LunDevice,
  ops: readonly DiskOp[],
): Promise<void> {
  const result = await device.submit(ops, FORMAT_DEADLINE_MS);
  if (result.kind !== "done") {
    const why = result.kind === "failed" ? result.message : `a write ended ${result.kind}`;
    throw new ShareHaError("ERR_LUN_WRITE", `${path ?? "the LUN"} could not be written: ${why}`, {
      hint: "The region is not complete and nobody will take it for one. Repair the device, then init again with --force.",
      fields: { path: path ?? "" },
    });
  }
}

async function makeData(plan: Plan, placement: Placement | undefined): Promise<void> {
  const { mkfs } = plan.options;
  if (mkfs === undefined || placement?.data === undefined) {
    return;
  }
  const { offset, length: sizeLimit } = placement.data;
  const { path, sectorSize, facts } = placement.target;
  const partition = facts.isBlock ? partitionAt(path, offset) : undefined;
  if (partition !== undefined) {
    await makeFilesystem(partition, mkfs);
    return;
  }
  const loop = await attachLoop({ path, offset, sizeLimit, sectorSize });
  try {
    await makeFilesystem(loop.device, mkfs);
  } finally {
    await detachLoop(loop.device, loop.status.backing);
  }
}

/** Reads back what was written, as any other program will. */
async function verify(targets: readonly FormatTarget[]): Promise<void> {
  const ports = await Promise.all(
    targets.map(async ({ path }) =>
      openPort({ path, lockFile: undefined, lockWaitMs: 0, readOnly: true, realtime: false }),
    ),
  );
  await Promise.all(ports.map(async (port) => port.raw?.close()));
  const judgement = judgeLuns(ports.map(foundLunOf));
  const outsider = judgement.kind === "ok" ? judgement.notes[0] : judgement.why;
  if (outsider !== undefined) {
    throw new ShareHaError(
      "ERR_LUN_WRITE",
      `The region does not read back as it was written: ${outsider}`,
      {
        hint: "The device loses writes, or another program writes to it. Do not use it.",
      },
    );
  }
}

function reportOf(
  plan: Plan,
  geometry: Geometry,
  placements: readonly Placement[],
  superblocks: readonly Superblock[],
  latencies: readonly LatencyFigures[],
): InitReport {
  const [first] = superblocks;
  const none: LatencyFigures = { count: 0, p50Ms: 0, p99Ms: 0, maxMs: 0 };
  return {
    clusterName: plan.options.clusterName,
    clusterUuid: first?.clusterUuid ?? "",
    sectorSize: geometry.sectorSize,
    areaSize: geometry.areaSize,
    maxHosts: plan.maxHosts,
    leases: (first?.areaCount ?? AREA.firstResource) - AREA.firstResource,
    profile: plan.options.profile,
    timings: plan.timings,
    luns: placements.map(({ target, region, data }, index) => ({
      path: target.path,
      uuid: superblocks[index]?.lunUuid ?? "",
      wwid: superblocks[index]?.wwid ?? "",
      created: target.created,
      region,
      data,
      latency: latencies[index] ?? none,
    })),
    filesystem: plan.options.mkfs,
  };
}
