/**
 * The device that is to take the place of a lost LUN: looked at before anything is written, and refused when it holds data
 * or is in use. What init asks of a device (format-target.ts) is asked here too, and that it is none of the set's own.
 */
import { setTimeout as sleep } from "node:timers/promises";

import { ShareHaError } from "../errors.js";
import { type LunDevice } from "../port/disk.js";
import { requireUnclaimed } from "../system/device-claim.js";
import { openLun } from "../system/lun-device.js";
import { type LunFacts } from "../system/lun-probe.js";
import { openPort, type RegionPort } from "./find-region.js";
import { refuseData, refuseNewer } from "./format-target.js";
import { requireNoHeartbeats } from "./live-heartbeats.js";
import { type Region } from "./open-region.js";

export interface ReplacementOptions {
  readonly region: Region;
  readonly path: string;
  readonly lunIndex: number;
  readonly force: boolean;
}

export interface Replacement {
  readonly device: LunDevice;
  readonly isBlock: boolean;
  readonly wwid: string;
}

/** A port that could be opened. */
interface OpenPort extends RegionPort {
  readonly facts: LunFacts;
  readonly raw: LunDevice;
}

/**
 * Opens the new LUN as a region of its own: whole, or in the lock partition it already has.
 * @throws ERR_SAME_LUN_TWICE, ERR_DEVICE_HAS_DATA, ERR_DEVICE_BUSY, ERR_LIVE_HEARTBEATS, ERR_NEWER_VERSION,
 *   ERR_SECTOR_SIZE, ERR_LUN_TOO_SMALL, ERR_LUN_READ, and the errors of opening a device
 */
export async function openReplacement(options: ReplacementOptions): Promise<Replacement> {
  const { region, path } = options;
  const port = await openPort({
    path,
    lockFile: undefined,
    lockWaitMs: 0,
    readOnly: true,
    realtime: false,
  });
  if (!isOpen(port)) {
    throw failedError(port);
  }
  const { facts, window } = port;
  try {
    await refuseUnfit(options, port);
  } finally {
    await port.raw.close();
  }
  const { areaCount, areaSize, sectorSize } = region.superblock;
  const size = areaCount * areaSize;
  const device = await openLun({ path, baseOffset: window.offset, size, sectorSize });
  return { device, isBlock: facts.isBlock, wwid: facts.wwid };
}

function isOpen(port: RegionPort): port is OpenPort {
  return port.facts !== undefined && port.raw !== undefined;
}

function failedError(port: RegionPort): ShareHaError {
  const { path, content } = port;
  const failed = content.kind === "failed" ? content : undefined;
  const reason = failed?.reason ?? "it cannot be read";
  // An error of opening names the path itself.
  const message = reason.startsWith(path) ? reason : `${path}: ${reason}`;
  return new ShareHaError(failed?.code ?? "ERR_LUN_READ", message, {
    hint: failed?.remedy ?? "Check the path.",
    fields: { path },
  });
}

/** What costs no time comes first: the heartbeats may have to be watched for a while. */
async function refuseUnfit(options: ReplacementOptions, port: OpenPort): Promise<void> {
  const { path, force } = options;
  const { facts, raw, sectorSize, window } = port;
  if (port.content.kind === "failed") {
    throw failedError(port);
  }
  refuseMember(options, facts.wwid);
  refuseForm(options, port);
  refuseNewer(path, port.content);
  // Beside a lock partition there may be data that is mounted, and none of that is touched.
  if (facts.isBlock && window.offset === 0) {
    requireUnclaimed(path);
  }
  if (!force) {
    // Our own lock partition on a device that was prepared for this is no data.
    const isPrepared = window.offset > 0;
    await refuseData(path, port, (found) => isPrepared && /^(gpt|PMBR|dos)\b/i.test(found));
  }
  const deviceBytes = facts.sizeBytes - (facts.sizeBytes % sectorSize);
  const starts = [...new Set([0, window.offset])];
  await requireNoHeartbeats({ path, device: raw, deviceBytes, sectorSize, starts, sleep });
}

function refuseMember(options: ReplacementOptions, wwid: string): void {
  const { region, path, lunIndex } = options;
  const member = region.luns.find(
    (lun, index) => index !== lunIndex && lun.counts && lun.probe?.wwid === wwid,
  );
  if (member !== undefined) {
    throw new ShareHaError(
      "ERR_SAME_LUN_TWICE",
      `${path} is ${member.path}, which is in the set already.`,
      {
        hint: "Give a device of its own.",
        fields: { path },
      },
    );
  }
}

function refuseForm(options: ReplacementOptions, port: OpenPort): void {
  const { path } = options;
  const { facts, window } = port;
  const { areaCount, areaSize, sectorSize } = options.region.superblock;
  if (facts.sectorSize > sectorSize) {
    throw new ShareHaError(
      "ERR_SECTOR_SIZE",
      `${path} has sectors of ${facts.sectorSize} bytes, the region ${sectorSize}`,
      { hint: "Take a device with the sector size of the others.", fields: { path } },
    );
  }
  const needed = areaCount * areaSize;
  const room = window.offset === 0 ? facts.sizeBytes : window.length;
  if (room < needed) {
    throw new ShareHaError(
      "ERR_LUN_TOO_SMALL",
      `${path} has room for ${room} bytes; ${needed} are needed`,
      {
        hint: "Take a device as large as the others.",
        fields: { path },
      },
    );
  }
}
