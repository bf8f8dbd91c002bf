import { ShareHaError } from "../errors.js";
import {
  codeOf,
  getU16,
  getU32,
  getU64,
  isZero,
  putU16,
  putU32,
  putU64,
  putU8,
  viewOf,
} from "./bytes.js";
import { crc32cOfRanges } from "./crc32c.js";
import { corrupt, type Decoded, decodedOk, EMPTY, foreign } from "./decoded.js";
import { type Geometry, MAX_HOSTS_LIMIT, outboxOffset } from "./geometry.js";

/**
 * A host's outbox: one sector that this host alone writes (its pulse does), and that everybody reads once per beat. An
 * entry is addressed to a host id and a generation and carries a nonce, so that it can be answered (DESIGN section 3;
 * hazard H11 has what happens with inboxes).
 */

/** "SHOB" */
const MAGIC = 0x424f4853;
const VERSION = 1;
const HEADER_SIZE = 64;
const CRC_OFFSET = 60;
const ENTRY_SIZE = 32;
const FLAG_SHARED = 0x1;
/** 512 - 64 = 14 * 32: the limit of the small sector holds for both sizes */
export const MAX_OUTBOX_ENTRIES = 14;
export const MAX_OUTBOX_ENTRIES_OF_A_KIND = 8;

/** Codes on disk are positions in this list, plus 1; only ever append. 0 is no kind. */
export const OUTBOX_KINDS = ["ticket", "pill", "answer", "handover", "fencing"] as const;
export type OutboxKind = (typeof OUTBOX_KINDS)[number];

export interface OutboxEntry {
  readonly kind: OutboxKind;
  /** ticket: wants the lease shared. Free for use by other kinds */
  readonly shared: boolean;
  /** 0 = nobody in particular */
  readonly targetHostId: number;
  /** area index of the lease this is about, 0 = none */
  readonly area: number;
  readonly targetGeneration: bigint;
  /** ticket number, lver, or age, by kind */
  readonly value: bigint;
  readonly nonce: bigint;
}

export interface Outbox {
  readonly hostId: number;
  /** generation of the writer */
  readonly generation: bigint;
  /** +1 with every write: the highest copy on several LUNs counts */
  readonly sequence: bigint;
  /** generation of the reservation table that the writer has seen */
  readonly tableGeneration: bigint;
  readonly entries: readonly OutboxEntry[];
}

/** @returns one sector. @throws ERR_OUTBOX_FULL, ERR_RECORD_FIELD */
export function encodeOutbox(g: Geometry, outbox: Outbox): Uint8Array {
  requireRoom(outbox.entries);
  outboxOffset(g, outbox.hostId); // throws ERR_GEOMETRY for a host id that has no outbox
  const bytes = new Uint8Array(g.sectorSize);
  const view = viewOf(bytes);
  putU32(view, 0, MAGIC, "magic");
  putU16(view, 4, VERSION, "version");
  putU16(view, 6, outbox.hostId, "hostId");
  putU64(view, 8, outbox.generation, "generation");
  putU64(view, 16, outbox.sequence, "sequence");
  putU64(view, 24, outbox.tableGeneration, "tableGeneration");
  putU16(view, 32, outbox.entries.length, "count");
  outbox.entries.forEach((entry, index) => {
    writeEntry(view, HEADER_SIZE + index * ENTRY_SIZE, entry);
  });
  putU32(view, CRC_OFFSET, outboxCrc(bytes), "crc");
  return bytes;
}

/** @param bytes the sector */
export function decodeOutbox(g: Geometry, bytes: Uint8Array): Decoded<Outbox> {
  if (bytes.length !== g.sectorSize) {
    return corrupt(`an outbox has ${g.sectorSize} bytes, here are ${bytes.length}`);
  }
  const view = viewOf(bytes);
  if (getU32(view, 0) !== MAGIC) {
    return isZero(bytes) ? EMPTY : foreign("the sector is not an outbox");
  }
  if (getU16(view, 4) !== VERSION) {
    return foreign(`outbox version ${getU16(view, 4)} is not ${VERSION}`);
  }
  if (getU32(view, CRC_OFFSET) !== outboxCrc(bytes)) {
    return corrupt("the checksum of the outbox does not match");
  }
  const hostId = getU16(view, 6);
  const count = getU16(view, 32);
  if (hostId < 1 || hostId > MAX_HOSTS_LIMIT || count > MAX_OUTBOX_ENTRIES) {
    return corrupt(`the outbox of host ${hostId} says it has ${count} entries`);
  }
  const entries: OutboxEntry[] = [];
  for (let index = 0; index < count; index++) {
    const entry = readEntry(view, HEADER_SIZE + index * ENTRY_SIZE);
    if (entry === undefined) {
      return corrupt(`entry ${index} of the outbox has an unknown kind or flag`);
    }
    entries.push(entry);
  }
  return decodedOk({
    hostId,
    generation: getU64(view, 8),
    sequence: getU64(view, 16),
    tableGeneration: getU64(view, 24),
    entries,
  });
}

function writeEntry(view: DataView, at: number, entry: OutboxEntry): void {
  putU8(view, at, codeOf(OUTBOX_KINDS, entry.kind, "kind") + 1, "kind");
  putU8(view, at + 1, entry.shared ? FLAG_SHARED : 0, "flags");
  putU16(view, at + 2, entry.targetHostId, "targetHostId");
  putU32(view, at + 4, entry.area, "area");
  putU64(view, at + 8, entry.targetGeneration, "targetGeneration");
  putU64(view, at + 16, entry.value, "value");
  putU64(view, at + 24, entry.nonce, "nonce");
}

function readEntry(view: DataView, at: number): OutboxEntry | undefined {
  const kind = OUTBOX_KINDS[view.getUint8(at) - 1];
  const flags = view.getUint8(at + 1);
  if (kind === undefined || (flags & ~FLAG_SHARED) !== 0) {
    return undefined;
  }
  return {
    kind,
    shared: (flags & FLAG_SHARED) !== 0,
    targetHostId: getU16(view, at + 2),
    area: getU32(view, at + 4),
    targetGeneration: getU64(view, at + 8),
    value: getU64(view, at + 16),
    nonce: getU64(view, at + 24),
  };
}

/** CRC-32C over the whole sector but the CRC field. */
function outboxCrc(bytes: Uint8Array): number {
  return crc32cOfRanges(bytes, [
    [0, CRC_OFFSET],
    [CRC_OFFSET + 4, bytes.length],
  ]);
}

function requireRoom(entries: readonly OutboxEntry[]): void {
  const crowded = OUTBOX_KINDS.find(
    (kind) => entries.filter((e) => e.kind === kind).length > MAX_OUTBOX_ENTRIES_OF_A_KIND,
  );
  if (entries.length > MAX_OUTBOX_ENTRIES || crowded !== undefined) {
    throw new ShareHaError(
      "ERR_OUTBOX_FULL",
      `The outbox cannot hold ${entries.length} entries${crowded === undefined ? "" : ` (kind ${crowded})`}.`,
      {
        hint: `A host can have ${MAX_OUTBOX_ENTRIES_OF_A_KIND} entries of a kind and ${MAX_OUTBOX_ENTRIES} in all; wait for fewer leases at once.`,
        fields: { entries: entries.length },
      },
    );
  }
}
