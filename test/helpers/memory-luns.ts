/**
 * LUNs in memory, for tests of the pure protocols: sparse, sector by sector, each operation atomic. A LUN that was never
 * written reads as zeros, like a blank disk.
 */
import { type Geometry } from "../../lib/format/geometry.js";
import { type DiskOp, type WriteOp } from "../../lib/port/disk.js";

export class MemoryLuns {
  readonly count: number;
  readonly #sectorSize: number;
  readonly #sectors: Map<number, Uint8Array>[];

  constructor(geometry: Geometry, count: number) {
    this.count = count;
    this.#sectorSize = geometry.sectorSize;
    this.#sectors = Array.from({ length: count }, () => new Map<number, Uint8Array>());
  }

  /** Carries out one operation at once; the bytes of a read. */
  perform(lun: number, op: DiskOp): Uint8Array | undefined {
    const sectors = this.#lun(lun);
    const size = this.#sectorSize;
    if (op.kind === "write") {
      for (let at = 0; at < op.data.length; at += size) {
        sectors.set(op.offset + at, op.data.slice(at, at + size));
      }
      return undefined;
    }
    const bytes = new Uint8Array(op.length);
    for (let at = 0; at < op.length; at += size) {
      const sector = sectors.get(op.offset + at);
      if (sector !== undefined) {
        bytes.set(sector, at);
      }
    }
    return bytes;
  }

  writeAll(...ops: readonly WriteOp[]): void {
    for (let lun = 0; lun < this.count; lun++) {
      for (const op of ops) {
        this.perform(lun, op);
      }
    }
  }

  read(lun: number, offset: number, length = this.#sectorSize): Uint8Array {
    const bytes = this.perform(lun, { kind: "read", offset, length });
    return bytes ?? new Uint8Array(0);
  }

  /** Replaced by a new disk: all zero. */
  blank(lun: number): void {
    this.#lun(lun).clear();
  }

  copy(lun: number): ReadonlyMap<number, Uint8Array> {
    return new Map(this.#lun(lun));
  }

  /** Goes back in time: a LUN that was away, or that has lost what its cache held. */
  restore(lun: number, copy: ReadonlyMap<number, Uint8Array>): void {
    const sectors = this.#lun(lun);
    sectors.clear();
    for (const [offset, bytes] of copy) {
      sectors.set(offset, bytes);
    }
  }

  /** Two sets of LUNs with the same content have the same key. */
  contentKey(): string {
    return this.#sectors
      .map((sectors) =>
        [...sectors]
          .toSorted(([one], [other]) => one - other)
          .map(([offset, bytes]) => `${offset}=${Buffer.from(bytes).toString("latin1")}`)
          .join(";"),
      )
      .join("|");
  }

  #lun(lun: number): Map<number, Uint8Array> {
    const sectors = this.#sectors[lun];
    if (sectors === undefined) {
      throw new RangeError(`there is no LUN ${lun + 1}`);
    }
    return sectors;
  }
}
