/**
 * `lun replace`: a blank LUN takes the place of a lost one.
 *
 * 1. A new epoch, with the new LUN in the table, is written to a majority of the OLD set (without the lost LUN, whether or
 *    not somebody still reaches it). From then on no batch anywhere counts the lost LUN any more: every batch of a process
 *    ends with a look at the superblock (region-lun.ts), every majority of the old set has one of those LUNs in it, and a
 *    batch that ended before the new superblock was there is on the medium for step 2 to read.
 * 2. Of every record, the highest that a majority of the old set has is copied to the new LUN.
 * 3. The new LUN's own superblock: from now on it counts, for everybody who looks at the LUNs again.
 *
 * A crash after 1 leaves a set whose new member is blank: one LUN fewer, and `lun replace` again finishes it. The epoch is
 * made from the lver of the lease `sharedha:config`, so two that replace at the same time never choose the same one.
 */
import { randomUUID } from "node:crypto";

import { ShareHaError } from "../errors.js";
import { type LunIdentity, type Superblock } from "../format/superblock.js";
import { type HeldLease } from "../lease/ballot.js";
import { mergeUnits } from "../lease/lun-merge.js";
import { recordedWwid } from "../lease/lun-set.js";
import { majorityOf } from "../lease/procedure.js";
import { type DiskOp, type LunDevice } from "../port/disk.js";
import { type Region, type RegionLunInfo } from "./open-region.js";
import { openReplacement, type Replacement } from "./replacement.js";
import { RegionLun } from "./region-lun.js";
import { superblockWrites, zeroWrites } from "./region-image.js";

export interface ReplaceOptions {
  readonly region: Region;
  /** The blank device or file; it may be one of the region's own paths that is blank now. */
  readonly path: string;
  /** The lease `sharedha:config`, held exclusively by this host. */
  readonly held: HeldLease;
  /** True while this host still has the right to write. */
  readonly hasRight: () => boolean;
  /** Take the device although it holds data; never one in use, and never a LUN of this set. */
  readonly force: boolean;
}

export interface ReplaceReport {
  readonly lunIndex: number;
  readonly path: string;
  readonly uuid: string;
  readonly epoch: bigint;
}

/** Copying is not urgent; an I/O that takes longer is an error and ends the replacement before the new LUN counts. */
const COPY_DEADLINE_MS = 30_000;

/** Epochs of one hold of the lease; the first epoch of a region is 1. */
const EPOCHS_PER_LVER = 256n;

/**
 * @throws ERR_REPLACE_NOT_POSSIBLE (no LUN is lost, or no majority is left), ERR_LEASE_LOST, ERR_NO_QUORUM, ERR_LUN_WRITE,
 *   and the errors of openReplacement
 */
export async function replaceLun(options: ReplaceOptions): Promise<ReplaceReport> {
  const { region, path } = options;
  await region.reprobe();
  const lunIndex = chooseIndex(region, path);
  const target = await openReplacement({ ...options, lunIndex });
  try {
    const identity: LunIdentity = {
      uuid: randomUUID(),
      wwid: recordedWwid(target.wwid),
      incarnation: (region.superblock.luns[lunIndex]?.incarnation ?? 0n) + 1n,
    };
    const next = nextSuperblock(options, lunIndex, identity);
    const sources = region.luns.filter((lun, index) => lun.counts && index !== lunIndex);
    await decideEpoch(options, sources, next);
    await copyRecords(options, sources, target, next);
    requireRight(options);
    await submit(path, target.device, superblockWrites(ownSuperblock(next, lunIndex)));
    return { lunIndex, path, uuid: identity.uuid, epoch: next.epoch };
  } finally {
    await target.device.close();
    await region.reprobe();
  }
}

function chooseIndex(region: Region, path: string): number {
  const lost = region.luns.map((lun, index) => ({ lun, index })).filter(({ lun }) => !lun.counts);
  const same = lost.find(({ lun }) => lun.path === path);
  const chosen = same ?? lost[0];
  if (chosen === undefined) {
    throw new ShareHaError(
      "ERR_REPLACE_NOT_POSSIBLE",
      "Every LUN of the set counts: none is to be replaced.",
      {
        hint: "Detach the LUN that is to go from this node first; then it does not count here any more.",
        fields: { path },
      },
    );
  }
  const counting = region.luns.filter((lun) => lun.counts).length;
  if (counting < majorityOf(region.lunSet)) {
    throw new ShareHaError(
      "ERR_REPLACE_NOT_POSSIBLE",
      `Only ${counting} of ${region.lunSet.total} LUNs count: no majority can decide on a new set.`,
      { hint: "Bring one of the lost LUNs back first.", fields: { path } },
    );
  }
  return chosen.index;
}

function nextSuperblock(
  options: ReplaceOptions,
  lunIndex: number,
  identity: LunIdentity,
): Superblock {
  const { superblock } = options.region;
  const ofThisHold = options.held.leader.lver * EPOCHS_PER_LVER + 1n;
  const epoch = superblock.epoch >= ofThisHold ? superblock.epoch + 1n : ofThisHold;
  const luns = superblock.luns.map((lun, index) => (index === lunIndex ? identity : lun));
  return { ...superblock, epoch, luns };
}

/** The same set as LUN `lunIndex` itself has it. Where the data lies is each LUN's own matter. */
function ownSuperblock(next: Superblock, lunIndex: number, own?: Superblock): Superblock {
  const lun = next.luns[lunIndex];
  return {
    ...next,
    lunIndex,
    lunUuid: lun?.uuid ?? "",
    wwid: lun?.wwid ?? "",
    incarnation: lun?.incarnation ?? 0n,
    dataStart: own?.dataStart ?? 0,
    dataLength: own?.dataLength ?? 0,
  };
}

async function decideEpoch(
  options: ReplaceOptions,
  sources: readonly RegionLunInfo[],
  next: Superblock,
): Promise<void> {
  requireRight(options);
  const results = await Promise.all(
    sources.map(async (lun) => {
      const lunIndex = lun.superblock?.lunIndex ?? 0;
      const ops = superblockWrites(ownSuperblock(next, lunIndex, lun.superblock));
      // The look at the end of a batch would find what this very batch has written.
      const { deadlineMs } = options.region.timings;
      const result =
        lun.device instanceof RegionLun
          ? await lun.device.submitUnguarded(ops, deadlineMs)
          : await lun.device.submit(ops, deadlineMs);
      return result.kind === "done";
    }),
  );
  const written = results.filter(Boolean).length;
  if (written < majorityOf(options.region.lunSet)) {
    throw new ShareHaError(
      "ERR_NO_QUORUM",
      `The new set of LUNs reached ${written} of ${options.region.lunSet.total} LUNs; it is not decided.`,
      { hint: "Repair the LUNs that failed (sharedha status), then: sharedha lun replace again." },
    );
  }
  await options.region.reprobe();
}

async function copyRecords(
  options: ReplaceOptions,
  sources: readonly RegionLunInfo[],
  target: Replacement,
  next: Superblock,
): Promise<void> {
  const { region, path } = options;
  for (const write of zeroWrites(next, !target.isBlock)) {
    await submit(path, target.device, [write]);
  }
  for (const unit of mergeUnits(region.geometry, region.maxHosts, next.areaCount)) {
    const { offset, length } = unit;
    const results = await Promise.all(
      sources.map(async (lun) =>
        lun.device.submit([{ kind: "read", offset, length }], COPY_DEADLINE_MS),
      ),
    );
    const copies = results.flatMap((result) => (result.kind === "done" ? result.reads : []));
    if (copies.length < majorityOf(region.lunSet)) {
      throw new ShareHaError(
        "ERR_NO_QUORUM",
        `Only ${copies.length} LUNs could be read while copying.`,
        {
          hint: "The new LUN does not count yet. Repair the others, then: sharedha lun replace again.",
        },
      );
    }
    const data = unit.merge(copies);
    if (data.some((byte) => byte !== 0)) {
      await submit(path, target.device, [{ kind: "write", offset, data }]);
    }
  }
}

function requireRight(options: ReplaceOptions): void {
  if (!options.hasRight()) {
    throw new ShareHaError(
      "ERR_LEASE_LOST",
      "This node lost its right to write while it replaced a LUN.",
      {
        hint: "When it has joined again: sharedha lun replace again.",
      },
    );
  }
}

async function submit(path: string, device: LunDevice, ops: readonly DiskOp[]): Promise<void> {
  const result = await device.submit(ops, COPY_DEADLINE_MS);
  if (result.kind !== "done") {
    const why = result.kind === "failed" ? result.message : `a write ended ${result.kind}`;
    throw new ShareHaError("ERR_LUN_WRITE", `${path} could not be written: ${why}`, {
      hint: "It does not count. Repair or change the device, then: sharedha lun replace again.",
      fields: { path },
    });
  }
}
