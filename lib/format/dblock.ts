import { getU32, getU64, isZero, putU32, putU64, viewOf } from "./bytes.js";
import { crc32cOfRanges, sanlockChecksum } from "./crc32c.js";
import { corrupt, type Decoded, decodedOk } from "./decoded.js";
import type { Geometry } from "./geometry.js";

/**
 * One host's sector of a resource lease: its disk block of Disk Paxos (Gafni and Lamport 2003: mbal, bal, inp) and its
 * mode block for shared holding, both as in sanlock (sanlock fact sheet, section 1.4); and our own sequence number, which
 * orders the copies of one host's block on several LUNs.
 */

/** dblock flag: the host has released what it acquired with this block. Not covered by sanlock's checksum */
export const DBLOCK_RELEASED = 0x1;
/** mode block flag: the host holds the lease shared. Not covered by any checksum of sanlock */
export const MODE_SHARED = 0x1;

const CHECKSUM_OFFSET = 48;
const FLAGS_OFFSET = 52;
const MODE_OFFSET = 128;
const MODE_GENERATION_OFFSET = 136;
/** "SHSQ" */
const SEQUENCE_MAGIC = 0x51534853;
const SEQUENCE_MAGIC_OFFSET = 152;
const SEQUENCE_OFFSET = 160;
const SEQUENCE_CRC_OFFSET = 168;
/** The sequence's CRC covers also what it orders: all of the dblock with its flags, and the mode block. */
const SEQUENCE_CRC_RANGES = [
  [152, 168],
  [0, 56],
  [128, 144],
] as const;

export interface Dblock {
  readonly mbal: bigint;
  readonly bal: bigint;
  /** host id proposed as owner */
  readonly inp: bigint;
  /** its generation */
  readonly inp2: bigint;
  /** its timestamp */
  readonly inp3: bigint;
  readonly lver: bigint;
  readonly released: boolean;
}

export interface ModeBlock {
  readonly shared: boolean;
  readonly generation: bigint;
}

export interface HostBlock {
  readonly dblock: Dblock;
  readonly mode: ModeBlock;
  /** 0 when a sanlock daemon wrote the block, or when the number or what it covers is damaged */
  readonly sequence: bigint;
}

export const EMPTY_DBLOCK: Dblock = Object.freeze({
  mbal: 0n,
  bal: 0n,
  inp: 0n,
  inp2: 0n,
  inp3: 0n,
  lver: 0n,
  released: false,
});

/** Not held shared. */
export const NO_MODE: ModeBlock = Object.freeze({ shared: false, generation: 0n });

export const EMPTY_HOST_BLOCK: HostBlock = Object.freeze({
  dblock: EMPTY_DBLOCK,
  mode: NO_MODE,
  sequence: 0n,
});

const NEVER_USED = Object.freeze(decodedOk(EMPTY_HOST_BLOCK));

/**
 * @returns one sector; bytes that no field owns are zero. A block of zeros is written without checksum, as sanlock's init
 * leaves it; sequence 0 is not written at all, so such a block is byte for byte a sanlock daemon's.
 * @throws ERR_RECORD_FIELD
 */
export function encodeHostBlock(g: Geometry, block: HostBlock): Uint8Array {
  const { dblock, mode, sequence } = block;
  const bytes = new Uint8Array(g.sectorSize);
  const view = viewOf(bytes);
  if (!isEmptyDblock(dblock)) {
    putU64(view, 0, dblock.mbal, "mbal");
    putU64(view, 8, dblock.bal, "bal");
    putU64(view, 16, dblock.inp, "inp");
    putU64(view, 24, dblock.inp2, "inp2");
    putU64(view, 32, dblock.inp3, "inp3");
    putU64(view, 40, dblock.lver, "lver");
    putU32(view, CHECKSUM_OFFSET, sanlockChecksum(bytes.subarray(0, CHECKSUM_OFFSET)), "checksum");
    putU32(view, FLAGS_OFFSET, dblock.released ? DBLOCK_RELEASED : 0, "flags");
  }
  putU32(view, MODE_OFFSET, mode.shared ? MODE_SHARED : 0, "mode flags");
  putU64(view, MODE_GENERATION_OFFSET, mode.generation, "mode generation");
  if (sequence !== 0n) {
    putU32(view, SEQUENCE_MAGIC_OFFSET, SEQUENCE_MAGIC, "sequence magic");
    putU64(view, SEQUENCE_OFFSET, sequence, "sequence");
    putU32(view, SEQUENCE_CRC_OFFSET, crc32cOfRanges(bytes, SEQUENCE_CRC_RANGES), "sequence crc");
  }
  return bytes;
}

/**
 * @param bytes the sector. Bytes outside the fields may be garbage: a sanlock daemon that converts shared to exclusive
 *   writes an uncleared buffer, so they are ignored
 * @returns `ok` with zeros for a block that was never used, `corrupt` for a bad checksum; never `empty` or `foreign`,
 *   because a block has no magic
 */
export function decodeHostBlock(g: Geometry, bytes: Uint8Array): Decoded<HostBlock> {
  if (bytes.length !== g.sectorSize) {
    return corrupt(`a host's block has ${g.sectorSize} bytes, here are ${bytes.length}`);
  }
  // Most blocks of most leases were never used, and every poll of a waiter reads them all.
  if (isZero(bytes, 0, SEQUENCE_CRC_OFFSET + 4)) {
    return NEVER_USED;
  }
  const view = viewOf(bytes);
  const mode: ModeBlock = {
    shared: (getU32(view, MODE_OFFSET) & MODE_SHARED) !== 0,
    generation: getU64(view, MODE_GENERATION_OFFSET),
  };
  const sequence = readSequence(bytes, view);
  const dblock: Dblock = {
    mbal: getU64(view, 0),
    bal: getU64(view, 8),
    inp: getU64(view, 16),
    inp2: getU64(view, 24),
    inp3: getU64(view, 32),
    lver: getU64(view, 40),
    released: (getU32(view, FLAGS_OFFSET) & DBLOCK_RELEASED) !== 0,
  };
  const checksum = getU32(view, CHECKSUM_OFFSET);
  if (checksum === 0 && isUnusedDblock(dblock)) {
    return decodedOk({ dblock: EMPTY_DBLOCK, mode, sequence });
  }
  if (sanlockChecksum(bytes.subarray(0, CHECKSUM_OFFSET)) !== checksum) {
    return corrupt("the checksum of the dblock does not match");
  }
  return decodedOk({ dblock, mode, sequence });
}

function readSequence(bytes: Uint8Array, view: DataView): bigint {
  const valid =
    getU32(view, SEQUENCE_MAGIC_OFFSET) === SEQUENCE_MAGIC &&
    getU32(view, SEQUENCE_CRC_OFFSET) === crc32cOfRanges(bytes, SEQUENCE_CRC_RANGES);
  return valid ? getU64(view, SEQUENCE_OFFSET) : 0n;
}

/** sanlock's rule for a block nobody has written: checksum and these four fields are zero (inp2, inp3 are not looked at). */
function isUnusedDblock(dblock: Dblock): boolean {
  return dblock.mbal === 0n && dblock.bal === 0n && dblock.inp === 0n && dblock.lver === 0n;
}

function isEmptyDblock(dblock: Dblock): boolean {
  return isUnusedDblock(dblock) && dblock.inp2 === 0n && dblock.inp3 === 0n && !dblock.released;
}
