/**
 * Looks at one path: what disk is behind it, whether a region lies on it and where, and what its superblock says.
 */
import { type Decoded } from "../format/decoded.js";
import { allGeometries } from "../format/geometry.js";
import {
  decodeSuperblock,
  geometryOfSuperblock,
  type Superblock,
  SUPERBLOCK_SIZE,
  superblockOffsets,
} from "../format/superblock.js";
import { ShareHaError } from "../errors.js";
import { type FoundLun, type LunContent } from "../lease/lun-set.js";
import { type LunDevice } from "../port/disk.js";
import { openLun } from "../system/lun-device.js";
import { type LunFacts, probeLun } from "../system/lun-probe.js";
import { findOurPartitions, GPT_READ_BYTES } from "./gpt-entry.js";
import { type RegionWindow } from "./region-lun.js";

/** How long the first reads may take: longer than any deadline of a profile. */
export const LOOK_DEADLINE_MS = 10_000;

/** The device's I/O thread has ended by itself: it has to be opened again. */
export const CODE_THREAD_GONE = "ERR_LUN_WORKER";

/** One path, opened (if it could be) and looked at. */
export interface RegionPort {
  readonly path: string;
  readonly facts: LunFacts | undefined;
  /** The whole device, under its lock; undefined when it could not be opened. */
  readonly raw: LunDevice | undefined;
  readonly sectorSize: 512 | 4096;
  readonly window: RegionWindow;
  readonly content: LunContent;
  /** Offset in the region of the copy of the superblock that is believed, and the sector as read. */
  readonly believed: { readonly offset: number; readonly sector: Uint8Array } | undefined;
}

export interface PortOptions {
  readonly path: string;
  readonly lockFile: string | undefined;
  readonly lockWaitMs: number;
  readonly readOnly: boolean;
  readonly realtime: boolean;
}

/** Never throws for what the device is or does; the port's content says it. */
export async function openPort(options: PortOptions): Promise<RegionPort> {
  const { path } = options;
  let facts: LunFacts | undefined;
  try {
    facts = probeLun(path);
    const { sizeBytes, sectorSize } = facts;
    if (sectorSize !== 512 && sectorSize !== 4096) {
      const reason = `its sectors have ${sectorSize} bytes`;
      const remedy = "A region needs a device with sectors of 512 or 4096 bytes.";
      const content = { kind: "failed", code: "ERR_SECTOR_SIZE", reason, remedy } as const;
      return unopened(path, facts, content);
    }
    const size = sizeBytes - (sizeBytes % sectorSize);
    if (size === 0) {
      return unopened(path, facts, {
        kind: "failed",
        code: "ERR_TRUNCATED",
        reason: `it has ${sizeBytes} bytes`,
        remedy: "Check the path; a new region is made with: sharedha init PATH... --size BYTES",
      });
    }
    const raw = await openLun({
      path,
      baseOffset: 0,
      size,
      sectorSize,
      readOnly: options.readOnly,
      lockWaitMs: options.lockWaitMs,
      realtime: options.realtime,
      ...(options.lockFile === undefined ? {} : { lockFile: options.lockFile }),
    });
    try {
      return await lookAt({ path, facts, raw, sectorSize, size });
    } catch (error) {
      // Its thread would keep the process alive, and its lock the next one out.
      await raw.close();
      throw error;
    }
  } catch (error) {
    if (!(error instanceof ShareHaError)) {
      throw error;
    }
    const { code, message: reason, hint: remedy } = error;
    return unopened(path, facts, { kind: "failed", code, reason, remedy });
  }
}

function unopened(path: string, facts: LunFacts | undefined, content: LunContent): RegionPort {
  const window = { offset: 0, length: 0 };
  return { path, facts, raw: undefined, sectorSize: 512, window, content, believed: undefined };
}

interface OpenDevice {
  readonly path: string;
  readonly facts: LunFacts;
  readonly raw: LunDevice;
  readonly sectorSize: 512 | 4096;
  /** Bytes of the device, whole sectors. */
  readonly size: number;
  /** For each read; default `LOOK_DEADLINE_MS`. */
  readonly deadlineMs?: number;
}

/** Reads the superblock, first where a dedicated LUN has it, then in our lock partition. */
export async function lookAt(device: OpenDevice): Promise<RegionPort> {
  const { path, facts, raw, sectorSize, size } = device;
  const port = { path, facts, raw, sectorSize };
  const whole = { offset: 0, length: size };
  const head = await readAt(device, 0, Math.min(GPT_READ_BYTES, size));
  if (!(head instanceof Uint8Array)) {
    return { ...port, window: whole, content: head, believed: undefined };
  }
  const { lock } = findOurPartitions(head, sectorSize);
  const window = lock ?? whole;
  if (window.offset % sectorSize !== 0 || window.offset + window.length > size) {
    const content = truncated(
      `its lock partition ends at byte ${window.offset + window.length}`,
      size,
    );
    return { ...port, window, content, believed: undefined };
  }
  const copies = await readCopies(device, window);
  if (!Array.isArray(copies)) {
    return { ...port, window, content: copies, believed: undefined };
  }
  const best = believe(copies);
  if (best.decoded.kind !== "ok") {
    return { ...port, window, content: contentOf(best.decoded), believed: undefined };
  }
  const superblock = best.decoded.value;
  const content = checkSize(superblock, device, window) ?? { kind: "superblock", superblock };
  const used = { offset: window.offset, length: superblock.areaCount * superblock.areaSize };
  const believed = { offset: best.offset, sector: best.bytes };
  return { ...port, window: content.kind === "superblock" ? used : window, content, believed };
}

interface Copy {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly decoded: Decoded<Superblock>;
}

/** The first copy, and the last one: where the first says, or wherever it may be when there is no first. */
async function readCopies(device: OpenDevice, window: RegionWindow): Promise<Copy[] | LunContent> {
  const first = await readCopy(device, window, 0, device.sectorSize);
  if (!("decoded" in first)) {
    return first;
  }
  if (first.decoded.kind === "ok" && first.decoded.value.sectorSize < device.sectorSize) {
    // The second copy does not begin at a sector of this device, so it cannot be read at all.
    return sectorsTooLarge(first.decoded.value, device);
  }
  const geometries =
    first.decoded.kind === "ok"
      ? [geometryOfSuperblock(first.decoded.value)]
      : allGeometries().filter((g) => g.sectorSize >= device.sectorSize);
  const copies = [first];
  for (const geometry of geometries) {
    const [, offset] = superblockOffsets(geometry);
    if (offset + device.sectorSize > window.length) {
      continue;
    }
    const copy = await readCopy(device, window, offset, device.sectorSize);
    if (!("decoded" in copy)) {
      return copy;
    }
    // A stray record of another geometry in the middle of an area is not a copy.
    const fits =
      copy.decoded.kind !== "ok" ||
      superblockOffsets(geometryOfSuperblock(copy.decoded.value))[1] === offset;
    if (fits) {
      copies.push(copy);
    }
  }
  return copies;
}

async function readCopy(
  device: OpenDevice,
  window: RegionWindow,
  offset: number,
  length: number,
): Promise<Copy | LunContent> {
  if (window.length < Math.max(length, SUPERBLOCK_SIZE)) {
    return truncated(`a superblock needs ${SUPERBLOCK_SIZE} bytes`, window.length);
  }
  const bytes = await readAt(device, window.offset + offset, length);
  return bytes instanceof Uint8Array ? { offset, bytes, decoded: decodeSuperblock(bytes) } : bytes;
}

/**
 * Newer if either copy is (an upgrade has begun); else the whole copy with the highest epoch; else the damage, else what
 * else is there, else nothing at all.
 */
function believe(copies: readonly Copy[]): Copy {
  const rank = (copy: Copy): number => {
    switch (copy.decoded.kind) {
      case "foreign":
        return isNewer(copy.decoded) ? 5 : 2;
      case "ok":
        return 4;
      case "corrupt":
        return 3;
      case "empty":
        return 1;
    }
  };
  return copies.reduce((best, copy) => {
    if (rank(copy) !== rank(best)) {
      return rank(copy) > rank(best) ? copy : best;
    }
    const isLater =
      copy.decoded.kind === "ok" &&
      best.decoded.kind === "ok" &&
      copy.decoded.value.epoch > best.decoded.value.epoch;
    return isLater ? copy : best;
  });
}

function isNewer(decoded: Decoded<Superblock>): boolean {
  return decoded.kind === "foreign" && decoded.reason.includes("newer version");
}

function contentOf(decoded: Exclude<Decoded<Superblock>, { kind: "ok" }>): LunContent {
  switch (decoded.kind) {
    case "empty":
      return { kind: "blank" };
    case "foreign":
      return { kind: isNewer(decoded) ? "newer" : "foreign", reason: decoded.reason };
    case "corrupt":
      return decoded;
  }
}

function checkSize(
  superblock: Superblock,
  device: OpenDevice,
  window: RegionWindow,
): LunContent | undefined {
  if (superblock.sectorSize < device.sectorSize) {
    return sectorsTooLarge(superblock, device);
  }
  const needed = superblock.areaCount * superblock.areaSize;
  if (needed > window.length) {
    return truncated(`the region has ${needed} bytes`, window.length);
  }
  const dataEnd = superblock.dataStart + superblock.dataLength;
  return dataEnd > device.size
    ? truncated(`its data ends at byte ${dataEnd}`, device.size)
    : undefined;
}

function sectorsTooLarge(superblock: Superblock, device: OpenDevice): LunContent {
  return {
    kind: "unusable",
    code: "ERR_SECTOR_SIZE",
    reason: `the region was made for sectors of ${superblock.sectorSize} bytes, the device has ${device.sectorSize}`,
    remedy: "Present the LUN with the sector size it had, or make a new region: sharedha init.",
  };
}

function truncated(what: string, there: number): LunContent {
  return {
    kind: "unusable",
    code: "ERR_TRUNCATED",
    reason: `${what}, but only ${there} are there`,
    remedy: "The device or file was cut off: restore its size before anything writes to it.",
  };
}

async function readAt(
  device: OpenDevice,
  offset: number,
  length: number,
): Promise<Uint8Array | LunContent> {
  const { raw, deadlineMs = LOOK_DEADLINE_MS } = device;
  const result = await raw.submit([{ kind: "read", offset, length }], deadlineMs);
  const bytes = result.kind === "done" ? result.reads[0] : undefined;
  if (bytes !== undefined) {
    return bytes;
  }
  const isGone = result.kind === "failed" && result.code === "EWORKER";
  return {
    kind: "failed",
    code: isGone ? CODE_THREAD_GONE : "ERR_LUN_READ",
    reason: result.kind === "failed" ? result.message : `the read ended ${result.kind}`,
    remedy: "Repair the path to the storage; see the kernel log (dmesg).",
  };
}

/** What the judgement needs to know of a port. */
export function foundLunOf(port: RegionPort): FoundLun {
  return { path: port.path, wwid: port.facts?.wwid ?? "", content: port.content };
}
