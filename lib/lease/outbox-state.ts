/** The own outbox as pulse keeps it: apply a change, encode the next sector. Each write has a higher sequence. */
import { encodeOutbox, type Outbox, type OutboxEntry } from "../format/outbox.js";
import { type Geometry, outboxOffset } from "../format/geometry.js";
import { type WriteOp } from "../port/disk.js";
import { type OutboxChange } from "./procedure.js";

export class OutboxState {
  readonly #geometry: Geometry;
  #outbox: Outbox;

  /** @param found the own outbox as it stands on disk, whose sequence goes on */
  constructor(geometry: Geometry, hostId: number, generation: bigint, found: Outbox | undefined) {
    this.#geometry = geometry;
    const isOwn = found?.hostId === hostId && found.generation === generation;
    this.#outbox = {
      hostId,
      generation,
      sequence: found?.sequence ?? 0n,
      tableGeneration: found?.tableGeneration ?? 0n,
      entries: isOwn ? found.entries : [],
    };
  }

  get entries(): readonly OutboxEntry[] {
    return this.#outbox.entries;
  }

  /** Takes the change in and returns the write that publishes it. Throws ERR_OUTBOX_FULL and leaves all as it was. */
  apply(change: OutboxChange): WriteOp {
    const kept = this.#outbox.entries.filter(
      (entry) =>
        !change.remove.some(
          (gone) =>
            gone.kind === entry.kind &&
            gone.area === entry.area &&
            gone.targetHostId === entry.targetHostId,
        ),
    );
    const next: Outbox = {
      ...this.#outbox,
      sequence: this.#outbox.sequence + 1n,
      entries: [...kept, ...change.add],
    };
    const data = encodeOutbox(this.#geometry, next);
    this.#outbox = next;
    return { kind: "write", offset: outboxOffset(this.#geometry, next.hostId), data };
  }
}
