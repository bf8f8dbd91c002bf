/**
 * What a new daemon does with what its predecessor left: with a pulse that still runs, it goes on only with what the disk
 * says is still this generation's; without one, everything of the predecessor is torn down before anything is joined.
 */
import { type Self } from "../lease/ballot.js";
import { type LeaseAddress } from "../lease/lease-view.js";
import { type HostGeneration } from "../pulse/options.js";
import { topMount } from "../system/filesystem.js";
import { findMountsEverywhere, type Mount } from "../system/mounts.js";
import { type Bindings } from "./bindings.js";
import { type DataDevice, GROUP_EDGES } from "./data-device.js";
import { type DiskAccess } from "./disk-access.js";
import { type EventLog } from "./event-log.js";
import { type GroupManager } from "./group-manager.js";
import { heldInView, lookAtLease } from "./lease-adoption.js";
import { type HeldNote, type LeaseFile, type LeaseNotes, type MountNote } from "./lease-file.js";
import { type LeaseBinding, type LeaseManager } from "./lease-manager.js";
import { type LossHandler } from "./loss.js";
import { endSessions } from "./session-processes.js";
import { type Region } from "../region/open-region.js";

/** `sharedha run` ends its command when its daemon is gone; after this long the rest is ended here. */
const BOUND_GRACE_MS = 3_000;
const LOOK_AGAIN_MS = 100;

export interface CleanUpTerms {
  readonly notes: LeaseNotes | undefined;
  readonly bootId: string;
  readonly loss: LossHandler;
  readonly events: EventLog;
  readonly boundMs: number;
  readonly isClosed: () => boolean;
}

/**
 * No pulse runs, so nobody renews for what may still be mounted.
 * @returns the generation of which nothing is left, if the notes of this very boot name one
 */
export async function cleanUpAfterPredecessor(
  terms: CleanUpTerms,
): Promise<HostGeneration | undefined> {
  const { notes, bootId, loss, events, boundMs, isClosed } = terms;
  if (notes?.bootId !== bootId) {
    return undefined;
  }
  const mounts = notes.mounts
    .filter((mount) => isStillMounted(mount))
    .map((mount) => ({
      name: mount.group,
      path: mount.path,
      data: dataDeviceOf(mount),
    }));
  // One that hangs in the kernel may still write: this node is not silent before it has ended.
  while (!isClosed() && (await endSessions(notes.processes, boundMs)).length > 0) {
    events.add("bound-not-ended", "processes of a former client do not end; no join before that");
  }
  await loss.tearDownAll(mounts, boundMs, isClosed);
  return { hostId: notes.hostId, generation: notes.generation };
}

/** An unknown device number means that the daemon ended while it mounted: whatever is there now is that mount. */
function isStillMounted(note: MountNote): boolean {
  const mount = topMount(note.path);
  return (
    mount !== undefined &&
    (note.devMajorMinor === undefined
      ? mount.source === note.device
      : mount.devMajorMinor === note.devMajorMinor)
  );
}

/** The former daemon has unmounted it, and something else kept the file system alive: then its lease stays here. */
function copyElsewhere(note: MountNote): Mount | undefined {
  return findMountsEverywhere().find((mount) => mount.devMajorMinor === note.devMajorMinor);
}

/** A loop device below it goes with the mount by itself. */
function dataDeviceOf(note: MountNote): DataDevice {
  return { device: note.device, backing: undefined, attached: undefined };
}

export interface AdoptingNode {
  readonly file: LeaseFile;
  readonly region: Region;
  readonly disk: DiskAccess;
  readonly leases: LeaseManager;
  readonly groups: GroupManager;
  readonly bindings: Bindings;
  readonly events: EventLog;
}

export type Adopted =
  | { readonly kind: "adopted" }
  /** Something is mounted whose lease is not this generation's any more. */
  | { readonly kind: "lost"; readonly why: string };

export async function adoptHolds(node: AdoptingNode, self: Self, bootId: string): Promise<Adopted> {
  const notes = node.file.read();
  if (notes === undefined) {
    return { kind: "adopted" };
  }
  const isOurs =
    notes.bootId === bootId && notes.hostId === self.hostId && notes.generation === self.generation;
  const noted = notes.bootId === bootId ? notes.mounts : [];
  const mounts = noted.filter(isStillMounted);
  // Adopted first of all, so that a loss finds them.
  for (const note of noted) {
    const mount = mounts.includes(note) ? topMount(note.path) : copyElsewhere(note);
    if (mount !== undefined) {
      const { device } = note;
      const backing = GROUP_EDGES.backingOf({ path: device, offset: 0, length: undefined });
      node.groups.adopt(note.group, note.path, mount, { device, backing, attached: undefined });
    }
  }
  // The connections ended with the former daemon: what ran under them ends, and only then is what was bound released.
  const processes = notes.bootId === bootId ? notes.processes : [];
  const binding =
    processes.length > 0 || notes.held.some((held) => held.bound)
      ? node.bindings.adopt(processes, BOUND_GRACE_MS)
      : undefined;
  try {
    return isOurs ? await adoptNoted(node, notes, mounts, self, binding) : notOurs(mounts);
  } finally {
    if (binding !== undefined) {
      node.bindings.endAdopted(binding);
    }
  }
}

function notOurs(mounts: readonly MountNote[]): Adopted {
  return mounts.length === 0
    ? { kind: "adopted" }
    : { kind: "lost", why: "something of an earlier generation is still mounted" };
}

async function adoptNoted(
  node: AdoptingNode,
  notes: LeaseNotes,
  mounts: readonly MountNote[],
  self: Self,
  binding: LeaseBinding | undefined,
): Promise<Adopted> {
  for (const note of notes.held) {
    const trouble = await adoptOne(node, note, self, note.bound ? binding : undefined);
    if (trouble !== undefined && mounts.some((mount) => mount.group === note.group)) {
      return { kind: "lost", why: trouble };
    }
  }
  const orphan = mounts.find((mount) => !notes.held.some((held) => held.group === mount.group));
  if (orphan !== undefined) {
    return { kind: "lost", why: `group ${orphan.group} is mounted without a lease` };
  }
  return { kind: "adopted" };
}

/** @returns why it is not held any more */
async function adoptOne(
  node: AdoptingNode,
  note: HeldNote,
  self: Self,
  binding: LeaseBinding | undefined,
): Promise<string | undefined> {
  const { region, disk } = node;
  const address: LeaseAddress = {
    geometry: region.geometry,
    area: note.area,
    spaceName: region.spaceName,
    resourceName: note.name,
    numHosts: note.numHosts,
  };
  let look = await disk.run(lookAtLease(address, disk.luns));
  // A LUN that is slow for a moment takes nothing away; T does.
  while (look.kind === "no-quorum" && disk.hasRight()) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
    look = await disk.run(lookAtLease(address, disk.luns));
  }
  const held = look.kind === "view" ? heldInView(address, look.view, self) : undefined;
  if (held === undefined || (held.leader.lver !== note.lver && !held.shared)) {
    const why = `lease ${note.name}, version ${note.lver}, is not held by this node any more`;
    node.events.add("not-adopted", why, { lease: note.name });
    return why;
  }
  node.leases.adopt(note.name, held, note.group, binding);
  if (note.group !== undefined && node.groups.state(note.group).state === "down") {
    node.groups.adoptBare(note.group);
  }
  node.events.add("lease-adopted", `lease ${note.name}, version ${note.lver}`, {
    lease: note.name,
    version: String(note.lver),
  });
  return undefined;
}
