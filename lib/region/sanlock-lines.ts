/**
 * sanlock's areas, line by line as `sanlock direct dump FILE -f 2` prints them, so that the two can be compared.
 */
import { decodeHostBlock } from "../format/dblock.js";
import { decodeDeltaSector } from "../format/delta-sector.js";
import { type Geometry } from "../format/geometry.js";
import { decodeLeaderRecord, type LeaderRecord } from "../format/leader-record.js";
import { decodeRequestRecord, FORCE_MODES } from "../format/request-record.js";
import { decodeRindexEntries, decodeRindexHeader } from "../format/rindex.js";

/** sanlock's headline. */
export const SANLOCK_HEADLINE =
  "  offset                            lockspace                                         resource  timestamp  own  gen lver/req/mode";

const CHECKSUM_OFFSET = 48;
const ENTRY_SIZE = 64;
/** Where the columns "own" and "gen" begin. */
const OWNER_COLUMN = 106;

/** @param bytes the area from its start. @param offset of the area, as it is to be shown */
export function lockspaceLines(g: Geometry, bytes: Uint8Array, offset: number): readonly string[] {
  const lines: string[] = [];
  for (let index = 0; index < g.maxHostsFormat; index++) {
    const at = index * g.sectorSize;
    if (at + g.sectorSize > bytes.length) {
      break;
    }
    const decoded = decodeDeltaSector(g, bytes.subarray(at, at + g.sectorSize));
    if (decoded.kind !== "ok" || decoded.value.leader.ownerId === 0n) {
      continue;
    }
    const { leader, bitmap } = decoded.value;
    const hostIds = [...bitmap].flatMap((byte, place) =>
      [0, 1, 2, 3, 4, 5, 6, 7]
        .filter((bit) => (byte & (1 << bit)) !== 0)
        .map((bit) => place * 8 + bit + 1),
    );
    const marks = hostIds.length === 0 ? "" : ` ${hostIds.join(" ")}`;
    lines.push(`${leaderText(leader, offset + at)}${marks}`);
  }
  return lines;
}

/** @param bytes the lease's area from its start. @param offset of the area, as it is to be shown */
export function leaseLines(g: Geometry, bytes: Uint8Array, offset: number): readonly string[] {
  const leader = decodeLeaderRecord(bytes, "paxos");
  if (leader.kind !== "ok" || leader.value.kind === "cleared") {
    return [];
  }
  const request = decodeRequestRecord(bytes.subarray(g.sectorSize));
  const asked = request.kind === "ok" ? request.value : { lver: 0n, forceMode: "none" as const };
  const mode = FORCE_MODES.indexOf(asked.forceMode);
  const lines = [`${leaderText(leader.value, offset)} ${leader.value.lver}/${asked.lver}/${mode}`];
  for (let index = 0; index < Number(leader.value.numHosts); index++) {
    const at = (2 + index) * g.sectorSize;
    if (at + g.sectorSize > bytes.length) {
      break;
    }
    lines.push(...blockLines(g, bytes.subarray(at, at + g.sectorSize), index));
  }
  return lines;
}

function blockLines(g: Geometry, bytes: Uint8Array, index: number): readonly string[] {
  const decoded = decodeHostBlock(g, bytes);
  if (decoded.kind !== "ok") {
    return [];
  }
  const { dblock, mode } = decoded.value;
  const lines: string[] = [];
  if (dblock.mbal !== 0n || dblock.lver !== 0n) {
    const sum = new DataView(bytes.buffer, bytes.byteOffset).getUint32(CHECKSUM_OFFSET, true);
    lines.push(
      `dblock[${pad(index, 4)}] mbal ${dblock.mbal} bal ${dblock.bal} inp ${dblock.inp} inp2 ${dblock.inp2} ` +
        `inp3 ${dblock.inp3} lver ${dblock.lver} sum ${sum.toString(16)}`,
    );
  }
  if (mode.shared) {
    lines.push(`${" ".repeat(OWNER_COLUMN)}${pad(index + 1, 4)} ${pad(mode.generation, 4)} SH`);
  }
  return lines;
}

/** @param bytes the index's area from its start. @param offset of the area, as it is to be shown */
export function rindexLines(g: Geometry, bytes: Uint8Array, offset: number): readonly string[] {
  const header = decodeRindexHeader(bytes);
  if (header.kind !== "ok") {
    return [];
  }
  const { spaceName, maxResources, geometry, offset: own } = header.value;
  const space = spaceName.padStart(36);
  const lines = [
    `${pad(offset)} ${space} rindex_header 0x${geometry.rhfFlag.toString(16)} ${geometry.sectorSize} ${maxResources} ${own}`,
  ];
  for (const entry of decodeRindexEntries(g, bytes, maxResources)) {
    const at = offset + g.sectorSize + entry.index * ENTRY_SIZE;
    lines.push(`${pad(at)} ${space} rentry ${entry.name} ${entry.offset}`);
  }
  return lines;
}

function leaderText(leader: LeaderRecord, offset: number): string {
  return [
    pad(offset),
    leader.spaceName.padStart(36),
    leader.resourceName.padStart(48),
    pad(leader.timestamp, 10),
    pad(leader.ownerId, 4),
    pad(leader.ownerGeneration, 4),
  ].join(" ");
}

function pad(value: number | bigint, width = 8): string {
  return value.toString().padStart(width, "0");
}
