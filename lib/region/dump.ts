/**
 * `sharedha dump`: what lies on a region, or in a plain sanlock file (a lockspace, resources or an index alone, 512 and 4096
 * bytes), read directly and changed in nothing. sanlock's areas are shown as `sanlock direct dump` shows them.
 */
import { ShareHaError } from "../errors.js";
import { decodeDeltaSector } from "../format/delta-sector.js";
import { type Geometry } from "../format/geometry.js";
import {
  areaUseOf,
  areaUseOfLayout,
  type AreaUse,
  describeRecord,
  detectLayout,
  type Layout,
  type RecordDescription,
  recordPlaces,
} from "../format/region-dump.js";
import { geometryOfSuperblock } from "../format/superblock.js";
import { type LunDevice } from "../port/disk.js";
import { leaseLines, lockspaceLines, rindexLines } from "./sanlock-lines.js";
import { LOOK_DEADLINE_MS, openPort, type RegionPort } from "./find-region.js";

/** What `--area` takes. */
export const DUMP_AREAS = [
  "superblock",
  "outboxes",
  "reservations",
  "lockspace",
  "rindex",
  "lease",
] as const satisfies readonly AreaUse[];

export interface DumpOptions {
  /** Only areas of this use. */
  readonly area?: AreaUse;
  /** Every place that can hold a record, also the empty ones, with its bytes in hexadecimal. */
  readonly raw?: boolean;
}

export interface DumpedRecord extends RecordDescription {
  /** Bytes from the start of the region or file. */
  readonly offset: number;
  /** With `raw`: the bytes, in hexadecimal. */
  readonly hex: string | undefined;
}

export interface DumpedArea {
  readonly index: number;
  readonly offset: number;
  readonly use: AreaUse;
  readonly records: readonly DumpedRecord[];
  /** The same as sanlock's own dump says it; empty for our areas. */
  readonly sanlockLines: readonly string[];
}

export interface Dump {
  readonly path: string;
  readonly layout: Layout["kind"];
  readonly sectorSize: number;
  readonly areaSize: number;
  /** Bytes from the start of the device to the region. */
  readonly regionOffset: number;
  readonly areas: readonly DumpedArea[];
}

const BYTES_PER_READ = 1024 * 1024;
/** Areas of a plain sanlock file that are looked at: far more than anybody makes. */
const AREAS_MAX = 4096;

/**
 * Reads everything that is a record.
 * @throws ERR_NOT_A_REGION when nothing on it is known; ERR_LUN_READ; the errors of opening a device
 */
export async function dumpPath(path: string, options: DumpOptions = {}): Promise<Dump> {
  const port = await openPort({
    path,
    lockFile: undefined,
    lockWaitMs: 0,
    readOnly: true,
    realtime: false,
  });
  const { raw, facts, content } = port;
  if (raw === undefined || facts === undefined) {
    const failed = content.kind === "failed" ? content : undefined;
    throw new ShareHaError(
      failed?.code ?? "ERR_LUN_READ",
      `${path}: ${failed?.reason ?? "cannot be read"}`,
      {
        hint: failed?.remedy ?? "Check the path.",
        fields: { path },
      },
    );
  }
  try {
    return await dumpDevice(path, port, raw, facts.sizeBytes, options);
  } finally {
    await raw.close();
  }
}

async function dumpDevice(
  path: string,
  port: RegionPort,
  raw: LunDevice,
  sizeBytes: number,
  options: DumpOptions,
): Promise<Dump> {
  const reader = new Reader(path, raw, port.window.offset, port.sectorSize, sizeBytes);
  const { content } = port;
  const layout: Layout =
    content.kind === "superblock"
      ? {
          kind: "sharedha",
          g: geometryOfSuperblock(content.superblock),
          superblock: content.superblock,
        }
      : detectLayout(await reader.read(0, 16 * 1024));
  if (layout.kind === "unknown") {
    const why =
      content.kind === "corrupt" || content.kind === "unusable" ? content.reason : layout.why;
    throw new ShareHaError("ERR_NOT_A_REGION", `${path}: ${why}`, {
      hint: "Check the path. A region is made with: sharedha init PATH...",
      fields: { path },
    });
  }
  const { g } = layout;
  const areas: DumpedArea[] = [];
  for (const { index, use, hosts } of await areasOf(layout, reader)) {
    if (options.area === undefined || options.area === use) {
      areas.push(await dumpArea(g, reader, { index, use, hosts }, options.raw ?? false));
    }
  }
  return {
    path,
    layout: layout.kind,
    sectorSize: g.sectorSize,
    areaSize: g.areaSize,
    regionOffset: port.window.offset,
    areas,
  };
}

interface Area {
  readonly index: number;
  readonly use: AreaUse;
  readonly hosts: number;
}

async function areasOf(
  layout: Exclude<Layout, { kind: "unknown" }>,
  reader: Reader,
): Promise<readonly Area[]> {
  if (layout.kind === "sharedha") {
    const { areaCount, maxHosts: hosts } = layout.superblock;
    return Array.from({ length: areaCount }, (_, index) => ({
      index,
      use: areaUseOf(index),
      hosts,
    }));
  }
  const { g } = layout;
  const areas: Area[] = [];
  const count = Math.min(AREAS_MAX, Math.floor(reader.size / g.areaSize));
  for (let index = 0; index < count; index++) {
    const found = detectLayout(await reader.read(index * g.areaSize, g.sectorSize));
    if (found.kind !== "unknown" && found.kind !== "sharedha") {
      areas.push({ index, use: areaUseOfLayout(found), hosts: g.maxHostsFormat });
    }
  }
  return areas;
}

async function dumpArea(
  g: Geometry,
  reader: Reader,
  area: Area,
  raw: boolean,
): Promise<DumpedArea> {
  const offset = area.index * g.areaSize;
  const bytes = await reader.read(offset, Math.min(g.areaSize, reader.size - offset));
  const records: DumpedRecord[] = [];
  for (const place of recordPlaces(g, area.use, area.hosts)) {
    if (place.offset + place.length > bytes.length) {
      continue;
    }
    const piece = bytes.subarray(place.offset, place.offset + place.length);
    const description = describeRecord(place, piece);
    if (raw || (description.state !== "empty" && !isUnused(g, area.use, piece))) {
      const hex = raw ? Buffer.from(piece).toString("hex") : undefined;
      records.push({ ...description, offset: offset + place.offset, hex });
    }
  }
  const sanlockLines = sanlockLinesOf(g, area.use, bytes, offset);
  return { index: area.index, offset, use: area.use, records, sanlockLines };
}

function sanlockLinesOf(
  g: Geometry,
  use: AreaUse,
  bytes: Uint8Array,
  offset: number,
): readonly string[] {
  switch (use) {
    case "lockspace":
      return lockspaceLines(g, bytes, offset);
    case "lease":
      return leaseLines(g, bytes, offset);
    case "rindex":
      return rindexLines(g, bytes, offset);
    case "superblock":
    case "outboxes":
    case "reservations":
      return [];
  }
}

/** A host id that nobody ever had, a block that nobody ever wrote: not shown unless everything is. */
function isUnused(g: Geometry, use: AreaUse, bytes: Uint8Array): boolean {
  if (use === "lockspace") {
    const decoded = decodeDeltaSector(g, bytes);
    return decoded.kind === "ok" && decoded.value.leader.ownerId === 0n;
  }
  return false;
}

/** Reads pieces of any size, in whole sectors. */
class Reader {
  readonly size: number;
  readonly #path: string;
  readonly #raw: LunDevice;
  readonly #base: number;
  readonly #sectorSize: number;

  constructor(path: string, raw: LunDevice, base: number, sectorSize: number, sizeBytes: number) {
    this.#path = path;
    this.#raw = raw;
    this.#base = base;
    this.#sectorSize = sectorSize;
    this.size = sizeBytes - base - ((sizeBytes - base) % sectorSize);
  }

  /** Fewer bytes at the end of the device. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const wanted = Math.max(0, Math.min(length, this.size - offset));
    const bytes = new Uint8Array(wanted);
    for (let done = 0; done < wanted; done += BYTES_PER_READ) {
      const rest = Math.min(BYTES_PER_READ, wanted - done);
      const whole = Math.ceil(rest / this.#sectorSize) * this.#sectorSize;
      const op = { kind: "read", offset: this.#base + offset + done, length: whole } as const;
      const result = await this.#raw.submit([op], LOOK_DEADLINE_MS);
      const piece = result.kind === "done" ? result.reads[0] : undefined;
      if (piece === undefined) {
        const why = result.kind === "failed" ? result.message : `the read ended ${result.kind}`;
        throw new ShareHaError("ERR_LUN_READ", `${this.#path}: ${why}`, {
          hint: "See the kernel log (dmesg) for the device.",
          fields: { path: this.#path },
        });
      }
      bytes.set(piece.subarray(0, rest), done);
    }
    return bytes;
  }
}
