/**
 * What `init` is pointed at: looked at before anything is written, and refused when it holds data or is in use.
 */
import { closeSync, existsSync, openSync, statSync, truncateSync, unlinkSync } from "node:fs";
import { dirname, resolve } from "node:path";

import { ShareHaError } from "../errors.js";
import { type LunContent } from "../lease/lun-set.js";
import { type LunDevice } from "../port/disk.js";
import { requireUnclaimed } from "../system/device-claim.js";
import { deviceError } from "../system/device-error.js";
import { probeSignatures } from "../system/gpt.js";
import { openLun } from "../system/lun-device.js";
import { probeLun, type LunFacts } from "../system/lun-probe.js";
import { describeRun, run } from "../system/process.js";
import { lookAt, type RegionPort } from "./find-region.js";
import { requireNoHeartbeats } from "./live-heartbeats.js";

const FALLOCATE_TIMEOUT_MS = 120_000;

/** One path of `init`, open as a whole. */
export interface FormatTarget {
  readonly path: string;
  /** `init` made the file, and removes it again when it refuses. */
  readonly created: boolean;
  readonly facts: LunFacts;
  /** The device's own sector size. */
  readonly sectorSize: 512 | 4096;
  /** Whole sectors. */
  readonly deviceBytes: number;
  readonly device: LunDevice;
  /** What lies there now. */
  readonly port: RegionPort;
}

export interface TargetOptions {
  readonly path: string;
  /** Length of a file that does not exist yet, in bytes. */
  readonly newFileBytes: number;
  readonly force: boolean;
  readonly sleep: (ms: number) => Promise<void>;
  readonly onWait?: ((text: string) => void) | undefined;
}

/**
 * Opens a target after everything that could speak against it was looked at. Creates a file that does not exist, with its
 * blocks allocated.
 * @throws ERR_DEVICE_HAS_DATA, ERR_DEVICE_BUSY, ERR_LIVE_HEARTBEATS, ERR_NEWER_VERSION, ERR_DISK_FULL, and the errors of
 *   opening a device
 */
export async function openTarget(options: TargetOptions): Promise<FormatTarget> {
  const { path } = options;
  const created = !existsSync(path);
  if (created) {
    await createFile(path, options.newFileBytes);
  }
  let device: LunDevice | undefined;
  try {
    const facts = probeLun(path);
    const { sectorSize } = facts;
    if (sectorSize !== 512 && sectorSize !== 4096) {
      throw new ShareHaError("ERR_SECTOR_SIZE", `${path} has sectors of ${sectorSize} bytes`, {
        hint: "A region needs a device with sectors of 512 or 4096 bytes.",
        fields: { path, sectorSize },
      });
    }
    if (facts.isBlock) {
      requireUnclaimed(path);
    }
    const deviceBytes = facts.sizeBytes - (facts.sizeBytes % sectorSize);
    if (deviceBytes === 0) {
      throw tooSmall(path, facts.sizeBytes, sectorSize);
    }
    device = await openLun({ path, baseOffset: 0, size: deviceBytes, sectorSize });
    const port = await lookAt({ path, facts, raw: device, sectorSize, size: deviceBytes });
    if (!created) {
      refuseNewer(path, port.content);
      if (!options.force) {
        await refuseData(path, port);
      }
      const starts = [...new Set([0, port.window.offset])];
      const { sleep, onWait } = options;
      await requireNoHeartbeats({ path, device, deviceBytes, sectorSize, starts, sleep, onWait });
    }
    return { path, created, facts, sectorSize, deviceBytes, device, port };
  } catch (error) {
    await device?.close();
    if (created) {
      unlinkSync(path);
    }
    throw error;
  }
}

export function tooSmall(path: string, there: number, needed: number): ShareHaError {
  return new ShareHaError("ERR_LUN_TOO_SMALL", `${path} has ${there} bytes; ${needed} are needed`, {
    hint: "Give a larger device, or --size for a new file.",
    fields: { path, there, needed },
  });
}

async function createFile(path: string, bytes: number): Promise<void> {
  const directory = dirname(resolve(path));
  if (path.startsWith("/dev/")) {
    // A device name with a typing error would become a file in memory.
    throw new ShareHaError("ERR_NO_SUCH_DEVICE", `${path} does not exist`, {
      hint: "Check the name with lsblk; sharedha makes no files in /dev.",
      fields: { path },
    });
  }
  if (!existsSync(directory) || !statSync(directory).isDirectory()) {
    throw new ShareHaError("ERR_NO_SUCH_DEVICE", `${directory} is no directory`, {
      hint: "Make the directory first; it must be on storage that all nodes share.",
      fields: { path },
    });
  }
  try {
    closeSync(openSync(path, "wx", 0o600));
  } catch (error) {
    throw deviceError(path, error);
  }
  // Allocated, not sparse: a file system that is full later must not fail a heartbeat.
  const result = await run(
    `allocate ${path}`,
    "fallocate",
    ["--length", String(bytes), "--", path],
    {
      timeoutMs: FALLOCATE_TIMEOUT_MS,
    },
  );
  if (result.kind === "ok") {
    return;
  }
  const isUnsupported =
    result.kind === "exit" && /not supported|not implemented/i.test(result.stderr);
  if (isUnsupported || result.kind === "missing") {
    // The region itself becomes real all the same: every byte of it is written.
    truncateSync(path, bytes);
    return;
  }
  unlinkSync(path);
  throw new ShareHaError(
    "ERR_DISK_FULL",
    `${path}: ${bytes} bytes cannot be allocated: ${describeRun(result)}`,
    {
      hint: "Make room on the file system, or choose a smaller --size.",
      fields: { path, bytes },
    },
  );
}

/** @throws ERR_NEWER_VERSION, also where data may be overwritten: nobody here can read who is alive there */
export function refuseNewer(path: string, content: LunContent): void {
  if (content.kind === "newer") {
    throw new ShareHaError("ERR_NEWER_VERSION", `${path}: ${content.reason}`, {
      hint:
        "This program cannot tell whether nodes are alive there. Use the newer sharedha; or, when no node runs, wipe the " +
        "device first: wipefs --all, and zeros over its first 16 MiB.",
      fields: { path },
    });
  }
}

/**
 * @param isNoData of the signatures that were found on the device, those that may be overwritten all the same
 * @throws ERR_DEVICE_HAS_DATA, with everything that was found
 */
export async function refuseData(
  path: string,
  { content }: Pick<RegionPort, "content">,
  isNoData: (signature: string) => boolean = () => false,
): Promise<void> {
  const what: string[] = [];
  if (content.kind === "superblock") {
    what.push(`a sharedha region of cluster ${content.superblock.clusterName}`);
  } else if (content.kind === "corrupt") {
    what.push(`a damaged sharedha region (${content.reason})`);
  } else if (content.kind === "unusable") {
    what.push(`a sharedha region (${content.reason})`);
  }
  const signatures = await probeSignatures(path);
  if (signatures.kind === "found") {
    what.push(...signatures.what.filter((one) => !isNoData(one)));
  }
  if (what.length > 0) {
    throw new ShareHaError("ERR_DEVICE_HAS_DATA", `${path} holds data: ${what.join(", ")}.`, {
      hint: "Nothing was written. If all of that may be destroyed: the same command with --force.",
      fields: { path, found: what.join(", ") },
    });
  }
}
