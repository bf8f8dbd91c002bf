/** Real regions in temporary files, and members of them that always have the right to write. */
import assert from "node:assert/strict";
import { closeSync, openSync, readSync, writeSync } from "node:fs";

import { ShareHaError } from "../../../lib/errors.js";
import { acquireLease, type AcquireOutcome } from "../../../lib/lease/acquire.js";
import { type HeldLease } from "../../../lib/lease/ballot.js";
import { type IndexTerms, lookupLease, createLease } from "../../../lib/lease/lease-index.js";
import { type LeaseAddress } from "../../../lib/lease/lease-view.js";
import { type InitOptions, initRegion } from "../../../lib/region/format-region.js";
import { openRegion, type Region } from "../../../lib/region/open-region.js";
import { type ProcedureHost, runProcedure } from "../../../lib/region/run-procedure.js";
import { createClock } from "../../../lib/system/clock.js";
import { createRandom } from "../../../lib/system/random.js";
import { Workshop } from "../../helpers/loop-image.js";

export const clock = createClock();

export class Cluster {
  readonly workshop = new Workshop();
  readonly #regions: Region[] = [];

  path(name: string): string {
    return `${this.workshop.directory}/${name}`;
  }

  /** Makes a region on files of these names, in this order. */
  async init(names: readonly string[], changes: Partial<InitOptions> = {}): Promise<string[]> {
    const paths = names.map((name) => this.path(name));
    await initRegion({
      paths,
      clusterName: "demo",
      profile: "multipath",
      sizeBytes: 12 * 1024 * 1024,
      maxHosts: 4,
      ...changes,
    });
    return paths;
  }

  async open(
    paths: readonly string[],
    changes: Partial<Parameters<typeof openRegion>[0]> = {},
  ): Promise<Region> {
    const region = await openRegion({ paths, ...changes });
    this.#regions.push(region);
    return region;
  }

  async dispose(): Promise<void> {
    for (const region of this.#regions.splice(0)) {
      await region.close();
    }
    this.workshop.dispose();
  }
}

/** A member whose heartbeat is always fresh. */
export function memberOf(region: Region): ProcedureHost {
  return {
    devices: region.devices,
    luns: region.lunSet,
    deadlineMs: 5_000,
    clock,
    standing: () => ({ renewedAtMs: clock.bootMs(), ttlMs: 60_000, lost: false, armed: true }),
    post: async () => Promise.resolve(true),
    arm: async () => Promise.resolve(true),
  };
}

export function termsOf(region: Region, hostId: number): IndexTerms {
  return {
    geometry: region.geometry,
    luns: region.lunSet,
    spaceName: region.spaceName,
    areaCount: region.superblock.areaCount,
    maxHosts: region.maxHosts,
    self: { hostId, generation: 1n },
    timestamp: 1n,
    wallSeconds: 1n,
    random: createRandom(),
    evidenceFor: () => undefined,
  };
}

export async function acquire(
  region: Region,
  hostId: number,
  address: LeaseAddress,
): Promise<AcquireOutcome> {
  const terms = { ...termsOf(region, hostId), address, shared: false };
  return await runProcedure(acquireLease(terms), memberOf(region));
}

export async function mustAcquire(
  region: Region,
  hostId: number,
  address: LeaseAddress,
): Promise<HeldLease> {
  const outcome = await acquire(region, hostId, address);
  assert(outcome.kind === "granted", `not granted: ${outcome.kind}`);
  return outcome.held;
}

export async function mustCreate(region: Region, name: string): Promise<LeaseAddress> {
  const outcome = await runProcedure(createLease(termsOf(region, 1), name), memberOf(region));
  assert(outcome.kind === "created", `not created: ${outcome.kind}`);
  return outcome.lease.address;
}

export async function mustLookup(region: Region, name: string): Promise<LeaseAddress> {
  const outcome = await runProcedure(lookupLease(termsOf(region, 1), name), memberOf(region));
  assert(outcome.kind === "found", `not found: ${outcome.kind}`);
  return outcome.lease.address;
}

/** Asserts the code, and that cause and remedy are there for people; gives back the error. */
export async function refused(code: string, action: Promise<unknown>): Promise<ShareHaError> {
  let error: unknown;
  try {
    await action;
  } catch (caught) {
    error = caught;
  }
  assert(error instanceof ShareHaError, `expected ${code}, got ${String(error)}`);
  assert.equal(error.code, code, error.message);
  assert(error.message.length > 10 && error.hint.length > 10);
  return error;
}

export function flip(path: string, offset: number, mask = 0xff): void {
  const fd = openSync(path, "r+");
  try {
    const byte = Buffer.alloc(1);
    assert.equal(readSync(fd, byte, 0, 1, offset), 1);
    byte.writeUInt8(byte.readUInt8(0) ^ mask, 0);
    writeSync(fd, byte, 0, 1, offset);
  } finally {
    closeSync(fd);
  }
}

export function overwrite(path: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(path, "r+");
  try {
    assert.equal(writeSync(fd, bytes, 0, bytes.length, offset), bytes.length);
  } finally {
    closeSync(fd);
  }
}
