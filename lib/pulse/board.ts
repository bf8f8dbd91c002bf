/**
 * The own outbox on the LUNs. A change counts when it is on a majority; a LUN that missed one gets the newest with its
 * next beat, because peers take the copy with the highest sequence from whatever LUNs they can read.
 */
import { type Geometry } from "../format/geometry.js";
import { type Outbox } from "../format/outbox.js";
import { OutboxState } from "../lease/outbox-state.js";
import { type LunSet, majorityOf, type OutboxChange } from "../lease/procedure.js";
import { type BatchResult, type LunDevice, type WriteOp } from "../port/disk.js";

export interface BoardTerms {
  readonly geometry: Geometry;
  readonly luns: LunSet;
  readonly deadlineMs: number;
  readonly device: (lun: number) => LunDevice;
  readonly hostId: number;
  readonly generation: bigint;
  /** The own outbox as found on disk. */
  readonly found: Outbox | undefined;
}

export class Board {
  readonly #terms: BoardTerms;
  readonly #state: OutboxState;
  /** What each LUN is known to hold. */
  readonly #landed: (WriteOp | undefined)[];
  /** Which write is out to a LUN; never two at once. */
  readonly #out: (WriteOp | undefined)[];
  #current: WriteOp | undefined;

  constructor(terms: BoardTerms) {
    this.#terms = terms;
    this.#state = new OutboxState(terms.geometry, terms.hostId, terms.generation, terms.found);
    this.#landed = terms.luns.counts.map(() => undefined);
    this.#out = terms.luns.counts.map(() => undefined);
  }

  /**
   * Publishes a change. True when it is on a majority; false when that is not known (it stays in force here and is
   * written again with the next beats). @throws ERR_OUTBOX_FULL and leaves all as it was
   */
  async post(change: OutboxChange): Promise<boolean> {
    const op = this.#state.apply(change);
    this.#current = op;
    const { luns } = this.#terms;
    const needed = majorityOf(luns);
    return await new Promise<boolean>((resolve, reject) => {
      let answered = 0;
      let landed = 0;
      luns.counts.forEach((counts, lun) => {
        this.#write(lun, op).then((isDone) => {
          answered++;
          landed += isDone && counts ? 1 : 0;
          if (landed >= needed) {
            resolve(true);
          } else if (answered === luns.counts.length) {
            resolve(false);
          }
        }, reject);
      });
    });
  }

  /** Takes everything out: the last write of a node that leaves. */
  async clear(): Promise<boolean> {
    return await this.post({ remove: this.#state.entries, add: [] });
  }

  /** Writes the newest outbox to a LUN that does not have it; after the renewal of each beat. */
  async refresh(lun: number): Promise<void> {
    const op = this.#current;
    if (op !== undefined && this.#landed[lun] !== op && this.#out[lun] !== op) {
      await this.#write(lun, op);
    }
  }

  async #write(lun: number, op: WriteOp): Promise<boolean> {
    const { device, deadlineMs } = this.#terms;
    if (device(lun).stuck) {
      return false;
    }
    this.#out[lun] = op;
    const result: BatchResult = await device(lun).submit([op], deadlineMs);
    if (this.#out[lun] === op) {
      this.#out[lun] = undefined;
    }
    if (result.kind === "done") {
      this.#landed[lun] = op;
      return true;
    }
    return false;
  }
}
