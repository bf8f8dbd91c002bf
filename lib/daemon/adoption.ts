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
  // One that hangs in the kernel may still write: this node is not silent before it has ended.
  const leaders = [notes.daemon, ...notes.processes];
  while (!isClosed() && (await endSessions(leaders, boundMs)).length > 0) {
    events.add(
      "not-ended",
      "processes of a former client or daemon do not end; no join before that",
    );
  }
  const mounts = notes.mounts.map((note) => ({
    name: note.group,
    target: targetOf(note),
    data: dataOf(note),
  }));
  await loss.tearDownAll(mounts, boundMs, isClosed);
  return { hostId: notes.hostId, generation: notes.generation };
}

function targetOf({ path, deviceId }: MountNote): MountTarget {
  return { path, device: deviceId };
}

/** A loop device below it goes with the mount by itself, or is found attached and not in use. */
function dataOf({ device, deviceId }: MountNote): DataDevice {
  return { device, id: deviceId, backing: undefined, attached: undefined };
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
  const isThisBoot = notes.bootId === bootId;
  // Its fsck or its mount(8) may still be at work. Once the right is lost, the teardown waits for what they have open.
  while (isThisBoot && node.disk.hasRight() && !(await areHelpersEnded(node, notes))) {
    node.events.add("not-ended", "helpers of the former daemon do not end");
  }
  const alive = adoptGroups(node, isThisBoot ? notes.mounts : [], isOurs);
  // The connections ended with the former daemon: what ran under them ends, and only then is what was bound released.
  const processes = isThisBoot ? notes.processes : [];
  const binding =
    processes.length > 0 || notes.held.some((held) => held.bound)
      ? node.bindings.adopt(processes, BOUND_GRACE_MS)
      : undefined;
  try {
    return isOurs ? await adoptNoted(node, notes, alive, self, binding) : notOurs(alive);
  } finally {
    if (binding !== undefined) {
      node.bindings.endAdopted(binding);
    }
  }
}

/** First of all, so that a loss finds them. @returns what is not down */
function adoptGroups(
  node: AdoptingNode,
  noted: readonly MountNote[],
  isOurs: boolean,
): readonly MountNote[] {
  const alive = noted.filter((note) => isAlive(note));
  for (const note of noted) {
    if (findTarget(targetOf(note)).some(({ isHere }) => isHere)) {
      node.groups.adopt(note.group, targetOf(note), dataOf(note));
    } else if (isOurs || alive.includes(note)) {
      node.groups.adoptUnfinished(note.group, targetOf(note), dataOf(note));
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

async function adoptNoted(
  node: AdoptingNode,
  notes: LeaseNotes,
  alive: readonly MountNote[],
  self: Self,
  binding: LeaseBinding | undefined,
): Promise<Adopted> {
  for (const note of notes.held) {
    const trouble = await adoptOne(node, note, self, note.bound ? binding : undefined);
    if (trouble !== undefined && alive.some((mount) => mount.group === note.group)) {
      return { kind: "lost", why: trouble };
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
