/**
 * Opens the region on its 1, 3 or 5 LUNs: finds it on each path, judges which LUNs count, and gives one device per LUN in
 * the order of the set. Stays open while LUNs go and come back.
 */
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import { type Geometry } from "../format/geometry.js";
import { geometryOfSuperblock, type Superblock } from "../format/superblock.js";
import { type JudgedLun, judgeLuns, type LunState } from "../lease/lun-set.js";
import { type LunSet } from "../lease/procedure.js";
import { type Timings } from "../lease/timings.js";
import { type LunDevice } from "../port/disk.js";
import { type LunFacts } from "../system/lun-probe.js";
import {
  CODE_THREAD_GONE,
  foundLunOf,
  lookAt,
  openPort,
  type PortOptions,
  type RegionPort,
} from "./find-region.js";
import { RegionLun } from "./region-lun.js";

export interface OpenRegionOptions {
  /** Every LUN of the set, in any order. */
  readonly paths: readonly string[];
  /** Where the lock files are; without it (or without `lockName`) no lock is taken. */
  readonly stateDir?: string;
  /** One process of each name per state directory: `lun-N.NAME.lock`, N = position of the path. */
  readonly lockName?: "pulse" | "daemon";
  /** How long to wait for an earlier process of that name; default 0. */
  readonly lockWaitMs?: number;
  readonly readOnly?: boolean;
  readonly realtime?: boolean;
  /** Refuse also when a minority does not count (`join`, where it is a mistake and not a fault). */
  readonly requireAll?: boolean;
}

/** One LUN of the set, as it is now. */
export interface RegionLunInfo {
  readonly path: string;
  readonly device: LunDevice;
  /** Its own superblock; undefined when it has none that is whole. */
  readonly superblock: Superblock | undefined;
  /** What the path leads to; undefined when it could not be opened. */
  readonly probe: LunFacts | undefined;
  readonly counts: boolean;
  readonly state: LunState;
  /** Why it does not count, or is stale. */
  readonly why: string | undefined;
}

export interface ReprobeResult {
  /** A LUN counts that did not, or the other way round, or the epoch is another one. */
  readonly changed: boolean;
  /** One sentence per LUN that does not count. */
  readonly notes: readonly string[];
}

/**
 * `lunSet.counts`, `luns` and `superblock` are always the newest judgement: `reprobe` changes them in place, so that a
 * procedure that runs meanwhile counts no LUN that does not count any more.
 */
export interface Region {
  readonly geometry: Geometry;
  /** Of the highest epoch. */
  readonly superblock: Superblock;
  /** The cluster's name, which is the lockspace's name. */
  readonly spaceName: string;
  readonly maxHosts: number;
  readonly timings: Timings;
  readonly profile: string;
  readonly lunSet: LunSet;
  /** In the order of the set, whatever the order of the paths was. */
  readonly luns: readonly RegionLunInfo[];
  /** `luns[n].device` for all n. */
  readonly devices: readonly LunDevice[];
  /** Where the data lies when a LUN carries it beside the region: bytes from the start of that path's device. */
  readonly data:
    { readonly path: string; readonly offset: number; readonly length: number } | undefined;
  /** Looks again at every LUN: those that came back count again, those that were replaced do not. */
  reprobe(): Promise<ReprobeResult>;
  close(): Promise<void>;
}

/**
 * @throws ERR_NOT_A_REGION, ERR_OTHER_CLUSTER, ERR_NEWER_VERSION, ERR_REGION_DAMAGED, ERR_TRUNCATED, ERR_SECTOR_SIZE,
 *   ERR_SAME_LUN_TWICE, ERR_CLONE, ERR_LUNS_SWAPPED, ERR_LUN_REPLACED, ERR_LUN_COUNT, ERR_LUN_BUSY (an earlier process of
 *   this node still has I/O out), and the errors of opening a device (ERR_NO_SUCH_DEVICE, ERR_PERMISSION ...) when so
 *   many LUNs cannot be opened that no majority is left
 */
export async function openRegion(options: OpenRegionOptions): Promise<Region> {
  const ports = await Promise.all(
    options.paths.map((_, index) => openPort(portOptions(options, index))),
  );
  try {
    refuseBusy(ports);
    const judgement = judgeLuns(ports.map(foundLunOf));
    if (judgement.kind === "refused") {
      const { code, why, remedy, path } = judgement;
      throw new ShareHaError(code, why, { hint: remedy, fields: { path } });
    }
    const outsider = judgement.luns.find((lun) => !lun.counts);
    if (options.requireAll === true && outsider !== undefined) {
      throw outsiderError(outsider);
    }
    return new LiveRegion(options, ports, judgement.superblock, judgement.luns);
  } catch (error) {
    await closeAll(ports);
    throw error;
  }
}

function portOptions(options: OpenRegionOptions, index: number): PortOptions {
  const { stateDir, lockName, paths } = options;
  const isLocked = stateDir !== undefined && lockName !== undefined;
  return {
    path: paths[index] ?? "",
    lockFile: isLocked ? join(stateDir, `lun-${index + 1}.${lockName}.lock`) : undefined,
    lockWaitMs: options.lockWaitMs ?? 0,
    readOnly: options.readOnly ?? false,
    realtime: options.realtime ?? false,
  };
}

/** One lock that is held means that an earlier process lives, and all of its LUNs are still its. */
function refuseBusy(ports: readonly RegionPort[]): void {
  for (const { content, path } of ports) {
    if (content.kind === "failed" && content.code === "ERR_LUN_BUSY") {
      throw new ShareHaError(content.code, content.reason, {
        hint: content.remedy,
        fields: { path },
      });
    }
  }
}

function outsiderError(lun: JudgedLun): ShareHaError {
  return new ShareHaError(
    "ERR_LUN_NOT_COUNTED",
    `LUN ${lun.lunIndex + 1} (${lun.path}) does not count: ${lun.why ?? lun.state}`,
    {
      hint: "Repair the path to it or, when it is blank and meant to take a lost one's place: sharedha lun replace PATH.",
      fields: { path: lun.path, state: lun.state },
    },
  );
}

async function closeAll(ports: readonly RegionPort[]): Promise<void> {
  await Promise.all(ports.map(async (port) => port.raw?.close()));
}

function needsOpening(port: RegionPort): boolean {
  return port.raw === undefined;
}

class LiveRegion implements Region {
  readonly geometry: Geometry;
  readonly spaceName: string;
  readonly maxHosts: number;
  readonly timings: Timings;
  readonly profile: string;
  readonly lunSet: LunSet;
  readonly devices: readonly LunDevice[];
  readonly #options: OpenRegionOptions;
  readonly #counts: boolean[];
  readonly #regionLuns: readonly RegionLun[];
  #superblock: Superblock;
  /** In the order of the paths. */
  #ports: readonly RegionPort[];
  #judged: readonly JudgedLun[];
  #looking: Promise<ReprobeResult> | undefined;
  #isClosed = false;

  constructor(
    options: OpenRegionOptions,
    ports: readonly RegionPort[],
    superblock: Superblock,
    judged: readonly JudgedLun[],
  ) {
    this.#options = options;
    this.#ports = ports;
    this.#judged = judged;
    this.#superblock = superblock;
    this.geometry = geometryOfSuperblock(superblock);
    this.spaceName = superblock.clusterName;
    this.maxHosts = superblock.maxHosts;
    const { intervalMs, deadlineMs, ttlMs, watchdogMs } = superblock;
    this.timings = { intervalMs, deadlineMs, ttlMs, watchdogMs };
    this.profile = superblock.profile;
    this.#counts = judged.map((lun) => lun.counts);
    this.lunSet = { total: superblock.lunCount, counts: this.#counts };
    this.#regionLuns = judged.map(() => new RegionLun());
    this.devices = this.#regionLuns;
    this.#connect();
  }

  get superblock(): Superblock {
    return this.#superblock;
  }

  get luns(): readonly RegionLunInfo[] {
    return this.#judged.map((lun, index) => {
      const { path, superblock, counts, state, why } = lun;
      const device = this.devices[index];
      if (device === undefined) {
        throw this.#defect(index);
      }
      return { path, device, superblock, probe: this.#portOf(lun).facts, counts, state, why };
    });
  }

  get data():
    { readonly path: string; readonly offset: number; readonly length: number } | undefined {
    for (const { path, superblock, counts } of this.#judged) {
      if (counts && superblock !== undefined && superblock.dataLength > 0) {
        return { path, offset: superblock.dataStart, length: superblock.dataLength };
      }
    }
    return undefined;
  }

  /** One look at a time: whoever asks during one gets its result. */
  async reprobe(): Promise<ReprobeResult> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined;
    });
    return await this.#looking;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#looking;
    this.#regionLuns.forEach((lun, index) => {
      lun.detach(this.#portOf(this.#judged[index]).raw, "the region was closed");
    });
    await closeAll(this.#ports);
  }

  /**
   * First the devices that are open, which answer at once or are late; what they say takes effect before anything is
   * opened again, which may take as long as a device that hangs lets it.
   */
  async #look(): Promise<ReprobeResult> {
    const before = [...this.#counts];
    const { epoch } = this.#superblock;
    this.#ports = await Promise.all(this.#ports.map(async (port) => this.#lookAgain(port)));
    const first = this.#judge();
    const isComplete = this.#ports.every((port) => !needsOpening(port)) || this.#isClosed;
    let last = first;
    if (!isComplete) {
      this.#ports = await Promise.all(
        this.#ports.map(async (port, index) => this.#openAgain(port, index)),
      );
      last = this.#judge();
    }
    const changed =
      this.#superblock.epoch !== epoch || before.some((was, lun) => this.#counts[lun] !== was);
    return { changed, notes: last };
  }

  /** @returns one sentence per LUN that does not count */
  #judge(): readonly string[] {
    const judgement = judgeLuns(this.#ports.map(foundLunOf));
    if (judgement.kind === "refused") {
      // No majority can be judged now. The LUNs known so far stay what they are: their I/O fails by itself.
      return [`${judgement.why} ${judgement.remedy}`];
    }
    const { superblock } = judgement;
    if (superblock.clusterUuid !== this.#superblock.clusterUuid) {
      return [`Most LUNs now belong to ${superblock.clusterName}.`];
    }
    if (superblock.epoch < this.#superblock.epoch) {
      // The LUNs that had the newest set do not answer: what they said holds all the same.
      return [`The LUNs that answer know only epoch ${superblock.epoch} of the set.`];
    }
    this.#judged = judgement.luns;
    this.#superblock = superblock;
    this.#connect();
    return judgement.notes;
  }

  /** A LUN that counts and does not answer now keeps what is known of it. */
  async #lookAgain(port: RegionPort): Promise<RegionPort> {
    const { raw, facts, path, sectorSize } = port;
    if (raw === undefined || facts === undefined || raw.stuck || this.#isClosed) {
      return port;
    }
    const size = facts.sizeBytes - (facts.sizeBytes % sectorSize);
    const { deadlineMs } = this.timings;
    const seen = await lookAt({ path, facts, raw, sectorSize, size, deadlineMs });
    const { content } = seen;
    if (content.kind === "failed" && content.code === CODE_THREAD_GONE) {
      return { ...seen, raw: undefined };
    }
    const keeps = content.kind === "failed" && port.content.kind === "superblock";
    return keeps ? port : seen;
  }

  async #openAgain(port: RegionPort, index: number): Promise<RegionPort> {
    return needsOpening(port)
      ? await openPort({ ...portOptions(this.#options, index), lockWaitMs: 0 })
      : port;
  }

  /** Makes devices and counts what the judgement says. */
  #connect(): void {
    this.#judged.forEach((lun, index) => {
      const port = this.#portOf(lun);
      const device = this.#regionLuns[index];
      const { believed, raw } = port;
      if (device === undefined) {
        throw this.#defect(index);
      }
      this.#counts[index] = lun.counts;
      if (!lun.counts || raw === undefined || believed === undefined) {
        device.detach(raw, lun.why ?? `LUN ${index + 1} does not count`);
        return;
      }
      const guard =
        this.lunSet.total === 1
          ? undefined
          : {
              offset: believed.offset,
              bytes: believed.sector,
              onChange: () => {
                this.#lookInBackground();
              },
            };
      device.attach(raw, port.window, guard);
    });
  }

  /** A reprobe never rejects for what a device does, so a rejection here is a defect and must be seen. */
  #lookInBackground(): void {
    this.reprobe().catch((error: unknown) => {
      process.emitWarning(`looking at the LUNs again failed: ${String(error)}`);
    });
  }

  #portOf(lun: JudgedLun | undefined): RegionPort {
    const port = this.#ports[lun?.found ?? -1];
    if (port === undefined) {
      throw this.#defect(lun?.lunIndex ?? -1);
    }
    return port;
  }

  #defect(index: number): ShareHaError {
    return new ShareHaError("ERR_DEFECT", `LUN ${index + 1} is not one of the region's`, {
      hint: "A defect of the program. Please report it.",
    });
  }
}
