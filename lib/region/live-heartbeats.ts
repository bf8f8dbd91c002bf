/**
 * Is anybody alive on a device that is about to be formatted? Looks for lockspaces, whatever the superblock says (it may be
 * damaged while nodes still renew), and watches their records for as long as a live host needs to change its own.
 */
import { ShareHaError } from "../errors.js";
import { allGeometries, AREA, type Geometry, MAX_HOSTS_LIMIT } from "../format/geometry.js";
import { decodeDeltaSector, type DeltaSector } from "../format/delta-sector.js";
import { expiredAfterMs, sanlockHostDeadMs, type Timings } from "../lease/timings.js";
import { type LunDevice } from "../port/disk.js";
import { LOOK_DEADLINE_MS } from "./find-region.js";

/** A lockspace somewhere on the device. */
interface Lockspace {
  readonly geometry: Geometry;
  /** Bytes from the start of the device. */
  readonly offset: number;
  readonly hosts: number;
}

export interface LiveCheckOptions {
  readonly path: string;
  readonly device: LunDevice;
  readonly deviceBytes: number;
  /** The device's own sector size. */
  readonly sectorSize: 512 | 4096;
  /** Where a region may begin: 0 and the lock partition. */
  readonly starts: readonly number[];
  readonly sleep: (ms: number) => Promise<void>;
  /** Told before a wait that a person notices. */
  readonly onWait?: ((text: string) => void) | undefined;
}

/** @throws ERR_LIVE_HEARTBEATS, ERR_LUN_READ */
export async function requireNoHeartbeats(options: LiveCheckOptions): Promise<void> {
  const lockspaces = await findLockspaces(options);
  const first = await readAll(options, lockspaces);
  const waitMs = Math.max(0, ...first.flat().map(waitFor));
  if (waitMs === 0) {
    return;
  }
  options.onWait?.(
    `${options.path} has host records: watching for ${(waitMs / 1_000).toFixed(1)} s whether anybody renews`,
  );
  await options.sleep(waitMs);
  const second = await readAll(options, lockspaces);
  second.forEach((records, index) => {
    refuseChanged(options.path, first[index] ?? [], records);
  });
}

interface HostSector {
  readonly hostId: number;
  readonly bytes: Uint8Array;
  readonly record: DeltaSector | undefined;
}

/**
 * A host that has left may be joined again at any time, so 2 h + d of silence is asked for; a record that is not free
 * must stay unchanged until others might take its leases.
 */
function waitFor(sector: HostSector): number {
  const { record } = sector;
  if (record === undefined) {
    return 0;
  }
  const { host, leader } = record;
  if (host === undefined) {
    return leader.timestamp === 0n ? 0 : sanlockHostDeadMs(leader.ioTimeout);
  }
  const timings: Timings = host;
  return leader.timestamp === 0n
    ? 2 * timings.intervalMs + timings.deadlineMs
    : expiredAfterMs(timings, 3);
}

async function findLockspaces(options: LiveCheckOptions): Promise<readonly Lockspace[]> {
  const found: Lockspace[] = [];
  const usable = allGeometries().filter((g) => g.sectorSize >= options.sectorSize);
  for (const start of options.starts) {
    for (const geometry of usable) {
      // Area 3 of a region; a plain lockspace of sanlock begins at once.
      for (const area of [0, AREA.lockspace]) {
        const offset = start + area * geometry.areaSize;
        const hosts = MAX_HOSTS_LIMIT;
        if (offset + hosts * geometry.sectorSize > options.deviceBytes) {
          continue;
        }
        const sectors = await readHosts(options, { geometry, offset, hosts });
        const isOne = sectors.some(({ record }) => record?.leader.flags === geometry.lflFlag);
        if (isOne) {
          found.push({ geometry, offset, hosts });
        }
      }
    }
  }
  return found;
}

async function readAll(
  options: LiveCheckOptions,
  lockspaces: readonly Lockspace[],
): Promise<readonly (readonly HostSector[])[]> {
  const all: (readonly HostSector[])[] = [];
  for (const lockspace of lockspaces) {
    all.push(await readHosts(options, lockspace));
  }
  return all;
}

async function readHosts(
  options: LiveCheckOptions,
  lockspace: Lockspace,
): Promise<readonly HostSector[]> {
  const { geometry, offset, hosts } = lockspace;
  const size = geometry.sectorSize;
  const result = await options.device.submit(
    [{ kind: "read", offset, length: hosts * size }],
    LOOK_DEADLINE_MS,
  );
  const bytes = result.kind === "done" ? result.reads[0] : undefined;
  if (bytes === undefined) {
    const why = result.kind === "failed" ? result.message : `the read ended ${result.kind}`;
    throw new ShareHaError("ERR_LUN_READ", `${options.path}: ${why}`, {
      hint: "Nothing is formatted before it is known that nobody uses it. Repair the device first.",
      fields: { path: options.path },
    });
  }
  return Array.from({ length: hosts }, (_, index) => {
    const sector = bytes.subarray(index * size, (index + 1) * size);
    const decoded = decodeDeltaSector(geometry, sector);
    const record = decoded.kind === "ok" ? decoded.value : undefined;
    return { hostId: index + 1, bytes: sector, record };
  });
}

function refuseChanged(
  path: string,
  before: readonly HostSector[],
  after: readonly HostSector[],
): void {
  const changed = after.find((sector, index) => {
    const earlier = before[index];
    return earlier !== undefined && !isSame(earlier.bytes, sector.bytes);
  });
  if (changed !== undefined) {
    const name = changed.record?.leader.resourceName ?? "";
    const space = changed.record?.leader.spaceName ?? "";
    throw new ShareHaError(
      "ERR_LIVE_HEARTBEATS",
      `${path} is in use: host ${changed.hostId}${name === "" ? "" : ` (${name})`} of lockspace ${space} renews its heartbeat.`,
      {
        hint: "Nothing was written. Let every node leave first (sharedha leave); --force does not help here.",
        fields: { path, hostId: changed.hostId, node: name },
      },
    );
  }
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.every((byte, at) => byte === other[at]);
}
