/**
 * What a new daemon does with what its predecessor left: with a pulse that still runs, it goes on only with what the disk
 * says is still this generation's; without one, everything of the predecessor is torn down before anything is joined.
 */
import { type Self } from "../lease/ballot.js";
import { type LeaseAddress } from "../lease/lease-view.js";
import { type HostGeneration } from "../pulse/options.js";
import { findTarget, type MountTarget } from "../system/mounted-filesystem.js";
import { type Bindings } from "./bindings.js";
import { type DataDevice, GROUP_EDGES } from "./data-device.js";
import { type DiskAccess } from "./disk-access.js";
import { type EventLog } from "./event-log.js";
import { type GroupManager } from "./group-manager.js";
import { heldInView, lookAtLease } from "./lease-adoption.js";
import { type HeldNote, type LeaseNotes, type MountNote } from "./lease-file.js";
import { type LeaseBinding, type LeaseManager } from "./lease-manager.js";
import { type LossHandler } from "./loss.js";
import { endSessions } from "./session-processes.js";
import { type Region } from "../region/open-region.js";

/** `sharedha run` ends its command when its daemon is gone; after this long the rest is ended here. */
const BOUND_GRACE_MS = 3_000;
const LOOK_AGAIN_MS = 100;
/** For a first round of signals; what does not end by it is waited for after the cut. */
const SIGNALLED_MS = 20;

export interface CleanUpTerms {
  /** Of this boot. */
  readonly notes: LeaseNotes | undefined;
  readonly loss: LossHandler;
  readonly events: EventLog;
  readonly boundMs: number;
  readonly isClosed: () => boolean;
}

/**
 * No pulse runs, so nobody renews for what may still be mounted.
 * @returns the generation of which nothing is left, if there are notes
 */
export async function cleanUpAfterPredecessor(
  terms: CleanUpTerms,
): Promise<HostGeneration | undefined> {
  const { notes, loss, events, boundMs, isClosed } = terms;
  if (notes === undefined) {
    return undefined;
  }
  const leaders = [notes.daemon, ...notes.processes];
  const mounts = notes.mounts.map((note) => ({
    name: note.group,
    target: targetOf(note),
    data: dataOf(note),
  }));
  await endSessions(leaders, SIGNALLED_MS);
  await loss.tearDownAll(mounts, boundMs, isClosed);
  // One that hangs in the kernel may still write: this node is not silent before it has ended.
  while (!isClosed() && (await endSessions(leaders, boundMs)).length > 0) {
    events.add(
      "not-ended",
      "processes of a former client or daemon do not end; no join before that",
    );
  }
  // A mount(8) among them may have come to its end.
  await loss.tearDownAll(mounts, boundMs, isClosed);
  return { hostId: notes.hostId, generation: notes.generation };
}

function targetOf({ path, deviceId }: MountNote): MountTarget {
  return { path, device: deviceId };
}

function dataOf({ device, deviceId, attached }: MountNote): DataDevice {
  return { device, id: deviceId, backing: undefined, attached };
}

export interface AdoptingNode {
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

/**
 * @param notes of this boot
 * @param isCurrent false as soon as the generation is lost: then the teardown has what was registered here, and nothing may
 * be added to it any more
 */
export async function adoptHolds(
  node: AdoptingNode,
  notes: LeaseNotes | undefined,
  self: Self,
  isCurrent: () => boolean,
): Promise<Adopted> {
  if (notes === undefined) {
    return { kind: "adopted" };
  }
  const isOurs = notes.hostId === self.hostId && notes.generation === self.generation;
  // Registered first of all, so that a loss finds them.
  for (const note of notes.mounts) {
    node.groups.adoptUnfinished(note.group, targetOf(note), dataOf(note));
  }
  // The connections ended with the former daemon: what ran under them ends, and only then is what was bound released.
  const binding =
    notes.processes.length > 0 || notes.held.some((held) => held.bound)
      ? node.bindings.adopt(notes.processes, BOUND_GRACE_MS)
      : undefined;
  try {
    // Its fsck or its mount(8) may still be at work.
    while (isCurrent() && !(await areHelpersEnded(node, notes))) {
      node.events.add("not-ended", "helpers of the former daemon do not end");
    }
    if (!isCurrent()) {
      return { kind: "adopted" };
    }
    const alive = settleGroups(node, notes.mounts, isOurs);
    return isOurs
      ? await adoptNoted(node, { notes, alive, self, binding, isCurrent })
      : notOurs(alive);
  } finally {
    if (binding !== undefined) {
      node.bindings.endAdopted(binding);
    }
  }
}

/** What is mounted where it belongs is up; of an earlier generation what is down is nothing any more. @returns what is not down */
function settleGroups(
  node: AdoptingNode,
  noted: readonly MountNote[],
  isOurs: boolean,
): readonly MountNote[] {
  const alive = noted.filter((note) => isAlive(note));
  for (const note of noted) {
    if (findTarget(targetOf(note)).some(({ isHere }) => isHere)) {
      node.groups.adopt(note.group, targetOf(note), dataOf(note));
    } else if (!isOurs && !alive.includes(note)) {
      node.groups.drop(note.group);
    }
  }
  return alive;
}

async function areHelpersEnded(node: AdoptingNode, notes: LeaseNotes): Promise<boolean> {
  return (await endSessions([notes.daemon], node.region.timings.intervalMs)).length === 0;
}

/** Its file system is mounted, here or elsewhere, or something has its device to itself. */
function isAlive(note: MountNote): boolean {
  const isMounted = findTarget(targetOf(note)).length > 0;
  return isMounted || GROUP_EDGES.problemOfUse(dataOf(note)) !== undefined;
}

function notOurs(alive: readonly MountNote[]): Adopted {
  return alive.length === 0
    ? { kind: "adopted" }
    : { kind: "lost", why: "something of an earlier generation is still mounted" };
}

interface Inheritance {
  readonly notes: LeaseNotes;
  readonly alive: readonly MountNote[];
  readonly self: Self;
  readonly binding: LeaseBinding | undefined;
  readonly isCurrent: () => boolean;
}

async function adoptNoted(node: AdoptingNode, from: Inheritance): Promise<Adopted> {
  const { notes, alive } = from;
  for (const note of notes.held) {
    const trouble = await adoptOne(node, note, from);
    if (trouble !== undefined && alive.some((mount) => mount.group === note.group)) {
      return { kind: "lost", why: trouble };
    }
    if (trouble !== undefined && note.group !== undefined) {
      node.groups.drop(note.group);
    }
  }
  const orphan = alive.find((mount) => !notes.held.some((held) => held.group === mount.group));
  if (orphan !== undefined) {
    return { kind: "lost", why: `group ${orphan.group} is mounted without a lease` };
  }
  return { kind: "adopted" };
}

/** @returns why it is not held any more */
async function adoptOne(
  node: AdoptingNode,
  note: HeldNote,
  { self, binding, isCurrent }: Inheritance,
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
  if (!isCurrent()) {
    return undefined;
  }
  const held = look.kind === "view" ? heldInView(address, look.view, self) : undefined;
  if (held === undefined || (held.leader.lver !== note.lver && !held.shared)) {
    const why = `lease ${note.name}, version ${note.lver}, is not held by this node any more`;
    node.events.add("not-adopted", why, { lease: note.name });
    return why;
  }
  node.leases.adopt(note.name, held, note.group, note.bound ? binding : undefined);
  if (note.group !== undefined && node.groups.state(note.group).state === "down") {
    node.groups.adoptBare(note.group);
  }
  node.events.add("lease-adopted", `lease ${note.name}, version ${note.lver}`, {
    lease: note.name,
    version: String(note.lver),
  });
  return undefined;
}
