/**
 * Who renews: two looks at the lockspace, some time apart, without a daemon. A record that changed proves life; one that
 * did not proves nothing.
 */
import { type Decoded } from "../format/decoded.js";
import { decodeDeltaSector, type DeltaSector } from "../format/delta-sector.js";
import { deltaOffset, type Geometry, lockspaceReadLength } from "../format/geometry.js";
import { type LunDevice } from "../port/disk.js";

export interface HostLook {
  readonly hostId: number;
  readonly name: string;
  /** free: left, or never used. */
  readonly state: "changed" | "unchanged" | "free" | "unreadable";
}

export interface LockspaceRead {
  /** By host id - 1; empty when the read failed or the LUN does not count. */
  readonly sectors: readonly Decoded<DeltaSector>[];
  readonly failure: string | null;
}

/** @param start of the region on the device, in bytes */
export async function readLockspace(
  device: LunDevice,
  place: { readonly geometry: Geometry; readonly maxHosts: number; readonly start?: number },
  deadlineMs: number,
): Promise<LockspaceRead> {
  const { geometry: g, maxHosts, start = 0 } = place;
  const offset = start + deltaOffset(g, 1);
  const length = lockspaceReadLength(g, maxHosts);
  const result = await device.submit([{ kind: "read", offset, length }], deadlineMs);
  if (result.kind !== "done") {
    const why = result.kind === "failed" ? result.message : `the read is ${result.kind}`;
    return { sectors: [], failure: why };
  }
  const bytes = result.reads[0] ?? new Uint8Array(0);
  const sectors = Array.from({ length: maxHosts }, (_, index) =>
    decodeDeltaSector(g, bytes.subarray(index * g.sectorSize, (index + 1) * g.sectorSize)),
  );
  return { sectors, failure: null };
}

/** A host renews when its record changed on any LUN: that is life, whatever the majority says. */
export function compareLooks(
  maxHosts: number,
  before: readonly LockspaceRead[],
  after: readonly LockspaceRead[],
): readonly HostLook[] {
  return Array.from({ length: maxHosts }, (_, index): HostLook => {
    const looks = after.map(
      (read, lun) => [before[lun]?.sectors[index], read.sectors[index]] as const,
    );
    const hostId = index + 1;
    const newest = looks
      .flatMap(([, late]) => (late?.kind === "ok" ? [late.value.leader] : []))
      .sort((a, b) => compareVersions(b, a))[0];
    if (newest === undefined) {
      // Also a zeroed record is damage: init writes a record for every host id.
      const isDamaged = looks.some(([, late]) => late !== undefined);
      return { hostId, name: `host-${hostId}`, state: isDamaged ? "unreadable" : "free" };
    }
    const name = newest.resourceName;
    if (newest.timestamp === 0n) {
      return { hostId, name, state: "free" };
    }
    return { hostId, name, state: looks.some(hasChanged) ? "changed" : "unchanged" };
  });
}

interface Version {
  readonly ownerGeneration: bigint;
  readonly timestamp: bigint;
}

function compareVersions(a: Version, b: Version): number {
  if (a.ownerGeneration !== b.ownerGeneration) {
    return a.ownerGeneration > b.ownerGeneration ? 1 : -1;
  }
  return a.timestamp === b.timestamp ? 0 : a.timestamp > b.timestamp ? 1 : -1;
}

type Pair = readonly [Decoded<DeltaSector> | undefined, Decoded<DeltaSector> | undefined];

function hasChanged([early, late]: Pair): boolean {
  return (
    early?.kind === "ok" &&
    late?.kind === "ok" &&
    (early.value.leader.timestamp !== late.value.leader.timestamp ||
      early.value.leader.ownerGeneration !== late.value.leader.ownerGeneration)
  );
}
