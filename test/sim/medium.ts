/**
 * A simulated LUN: the bytes of its region, and which identity they carry. Sectors are atomic, a read of several is
 * not. Only the first sectors of each area exist, so that a region of a few MiB costs a few KiB.
 */
import { type SimRandom } from "./random.js";

const SECTOR = 512;
const AREA_BYTES = 1024 * 1024;
/** Leader, request record and one block per host; maxHosts is at most 8 here. */
const SECTORS_PER_AREA = 12;

export class Medium {
  readonly index: number;
  #bytes: Uint8Array;
  /** By area: what was read there last, until somebody writes. */
  #snapshots: ({ readonly at: number; readonly bytes: Uint8Array } | undefined)[] = [];
  #history: Map<number, Uint8Array[]> | undefined;
  /** What a node finds when it looks for the superblock. */
  identity: { uuid: string; incarnation: number } | undefined;
  /** Unreachable for everybody until then. */
  awayUntilMs = 0;

  constructor(index: number, areas: number) {
    this.index = index;
    this.#bytes = new Uint8Array(areas * SECTORS_PER_AREA * SECTOR);
    this.identity = { uuid: `lun-${index}`, incarnation: 1 };
  }

  /** Whoever reads the same unchanged sectors gets the same bytes: nobody may write into them. */
  read(offset: number, length: number): Uint8Array {
    const at = place(offset, length);
    const area = Math.floor(at / (SECTORS_PER_AREA * SECTOR));
    const known = this.#snapshots[area];
    if (known?.at === at && known.bytes.length === length) {
      return known.bytes;
    }
    const bytes = this.#bytes.slice(at, at + length);
    this.#snapshots[area] = { at, bytes };
    return bytes;
  }

  write(offset: number, data: Uint8Array): void {
    const at = place(offset, data.length);
    this.#snapshots[Math.floor(at / (SECTORS_PER_AREA * SECTOR))] = undefined;
    if (this.#history !== undefined) {
      const list = this.#history.get(offset) ?? [];
      list.push(this.#bytes.slice(at, at + data.length));
      if (list.length > 40) {
        list.shift();
      }
      this.#history.set(offset, list);
    }
    this.#bytes.set(data, at);
  }

  /** Keeps what was written over, for `rollBack`. */
  remember(): void {
    this.#history = new Map();
  }

  /** @returns false when there is nothing older of that sort */
  rollBack(
    offset: number,
    to: "same generation" | "earlier generation" | "zero",
    random: SimRandom,
  ): boolean {
    if (to === "zero") {
      this.write(offset, new Uint8Array(SECTOR));
      return true;
    }
    const now = generationOf(this.read(offset, SECTOR));
    const wanted = (this.#history?.get(offset) ?? [])
      .slice(0, -2)
      .filter((bytes) => (generationOf(bytes) === now) === (to === "same generation"));
    if (wanted.length > 0) {
      this.write(offset, random.pick(wanted));
    }
    return wanted.length > 0;
  }

  /** Another disk, never formatted, in the place of this one. */
  blank(): void {
    this.#bytes = new Uint8Array(this.#bytes.length);
    this.#snapshots = [];
    this.identity = undefined;
  }
}

/** Of a delta lease: bytes 40 to 47. */
function generationOf(sector: Uint8Array): bigint {
  return new DataView(sector.buffer, sector.byteOffset).getBigUint64(40, true);
}

function place(offset: number, length: number): number {
  const area = Math.floor(offset / AREA_BYTES);
  const within = offset - area * AREA_BYTES;
  if (within + length > SECTORS_PER_AREA * SECTOR) {
    throw new RangeError(`the simulated region has no bytes ${offset} to ${offset + length}`);
  }
  return area * SECTORS_PER_AREA * SECTOR + within;
}
