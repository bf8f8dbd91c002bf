/**
 * Names of leases: which area has which lease, and making and deleting them, under sanlock's internal lease `rindex_lease`
 * (sanlock fact sheet, section 1.5).
 *
 * The index has no versions and no checksums, so it is only a hint: what a majority of the LUNs says about the leader at
 * the offset decides. A stale LUN can therefore neither bring a deleted lease back nor move one, and an entry that was lost
 * (a late write of its sector) loses no lease. In a region of ours the areas themselves tell every lease; in an index that
 * sanlock formatted, areas without an entry may hold anything, so there only the entries count.
 *
 * Blocks of an area are never cleared when its lease is deleted and made again: a proposer that was stopped in the middle
 * of a ballot of the old lease must still find what was accepted for its lver. The new lease begins above every lver in the
 * region, so a name's fencing token never goes back, whatever area it gets.
 */
import {
  decodeRindexEntries,
  decodeRindexHeader,
  freeRindexIndex,
  RINDEX_LEASE_NAME,
  type RindexEntry,
  rindexEntrySector,
  rindexEntrySectorOffset,
} from "../format/rindex.js";
import { AREA, areaOffset, type Geometry, leaderOffset } from "../format/geometry.js";
import {
  decodeLeaderRecord,
  encodePaxosLeaderSector,
  type LeaderRecord,
} from "../format/leader-record.js";
import { nameByteLength } from "../format/name-field.js";
import { type ReadOp, type WriteOp } from "../port/disk.js";
import { acquireLease, type AcquireOutcome, type AcquireTerms, type Holder } from "./acquire.js";
import { type HeldLease, releaseLeader } from "./ballot.js";
import { freeLeader, leaseWrites } from "./fresh-lease.js";
import { type LeaseAddress } from "./lease-view.js";
import {
  describeFailures,
  type DiskProcedure,
  doneOn,
  hasRight,
  io,
  isMajority,
  type LunSet,
  majorityOf,
} from "./procedure.js";

/** Where the index lies and how far it may reach. */
export interface IndexPlace {
  readonly geometry: Geometry;
  readonly luns: LunSet;
  readonly spaceName: string;
  /** Areas of the region; leases lie behind the index. */
  readonly areaCount: number;
  /** How many hosts a new lease has room for. */
  readonly maxHosts: number;
  /** Area of the index; its lease lies in the next one. `AREA.rindex` in a region of ours. */
  readonly indexArea?: number;
  /** The region was formatted by us (default): leaders without an entry count too. */
  readonly ours?: boolean;
}

/** What it takes to change the index: the terms of every acquire, but for lease and mode. */
export type IndexTerms = IndexPlace & Omit<AcquireTerms, "address" | "luns" | "shared">;

export interface NamedLease {
  readonly address: LeaseAddress;
  readonly leader: LeaderRecord;
  /** It has an entry, so that sanlock's own programs find it by name. */
  readonly isIndexed: boolean;
}

interface Trouble {
  readonly kind: "no-quorum" | "damaged";
  readonly why: string;
}

export type LookupOutcome =
  { readonly kind: "found"; readonly lease: NamedLease } | { readonly kind: "missing" } | Trouble;

export type ListOutcome =
  { readonly kind: "list"; readonly leases: readonly NamedLease[] } | Trouble;

/** The index itself is held, or could not be taken; nothing was changed. */
export type IndexBusy =
  | { readonly kind: "index-held"; readonly holders: readonly Holder[] }
  | { readonly kind: "not-armed" | "contended"; readonly why: string }
  | Trouble
  /** It may or may not have been done; look. */
  | { readonly kind: "unfinished"; readonly why: string };

export type CreateOutcome =
  | { readonly kind: "created"; readonly lease: NamedLease }
  | { readonly kind: "exists"; readonly lease: NamedLease }
  | { readonly kind: "full"; readonly leases: number }
  | { readonly kind: "bad-name"; readonly why: string }
  | IndexBusy;

export type DeleteOutcome =
  | { readonly kind: "deleted"; readonly lver: bigint }
  | { readonly kind: "missing" }
  | { readonly kind: "held"; readonly holders: readonly Holder[] }
  | { readonly kind: "bad-name"; readonly why: string }
  | IndexBusy;

const NAME_BYTES_MAX = 48;
/** Names that the region needs itself. */
const RESERVED = [RINDEX_LEASE_NAME];
/** Leaders read by one batch, which has one deadline: no more commands than a heartbeat has, whatever number of leases there is. */
const LEADERS_PER_BATCH = 3;

export function indexAreaOf(place: IndexPlace): number {
  return place.indexArea ?? AREA.rindex;
}

/** What is wrong with the name of a lease that somebody wants to make; undefined when nothing is. */
export function problemOfLeaseName(name: string): string | undefined {
  if (name === "" || nameByteLength(name) > NAME_BYTES_MAX) {
    return `a lease's name has 1 to ${NAME_BYTES_MAX} bytes`;
  }
  if (/[\p{Cc}\\]/u.test(name)) {
    return "a lease's name has no control characters and no backslashes";
  }
  return RESERVED.includes(name) ? `${name} is a name that the region uses itself` : undefined;
}

export function* lookupLease(place: IndexPlace, name: string): DiskProcedure<LookupOutcome> {
  const entries = yield* readEntries(place);
  if (entries.kind !== "entries") {
    return entries;
  }
  const hinted = entries.entries.filter((entry) => entry.name === name);
  const near = yield* readLeases(place, areasOf(place, hinted), entries.entries);
  if (near.kind !== "leaders") {
    return near;
  }
  const lease = leasesOf(place, near).find((one) => one.address.resourceName === name);
  if (lease !== undefined) {
    return { kind: "found", lease };
  }
  const all = yield* scan(place, entries.entries);
  if (all.kind !== "leaders") {
    return all;
  }
  const found = leasesOf(place, all).find((one) => one.address.resourceName === name);
  return found === undefined ? { kind: "missing" } : { kind: "found", lease: found };
}

/** In the order of their areas. */
export function* listLeases(place: IndexPlace): DiskProcedure<ListOutcome> {
  const entries = yield* readEntries(place);
  if (entries.kind !== "entries") {
    return entries;
  }
  const all = yield* scan(place, entries.entries);
  return all.kind === "leaders" ? { kind: "list", leases: leasesOf(place, all) } : all;
}

export function* createLease(terms: IndexTerms, name: string): DiskProcedure<CreateOutcome> {
  const problem = problemOfLeaseName(name);
  if (problem !== undefined) {
    return { kind: "bad-name", why: problem };
  }
  return yield* underIndexLease(terms, () => createHeld(terms, name));
}

/** Takes the lease itself first, so that nobody holds it or gets it meanwhile. */
export function* deleteLease(terms: IndexTerms, name: string): DiskProcedure<DeleteOutcome> {
  const problem = problemOfLeaseName(name);
  if (problem !== undefined) {
    return { kind: "bad-name", why: problem };
  }
  return yield* underIndexLease(terms, () => deleteHeld(terms, name));
}

type Change<T> = T | Trouble | Extract<IndexBusy, { kind: "unfinished" }>;

/** Takes the index's lease, changes the index, and gives the lease back whatever came of it. */
function* underIndexLease<T>(
  terms: IndexTerms,
  change: () => DiskProcedure<Change<T>>,
): DiskProcedure<T | IndexBusy> {
  const address = yield* addressAt(terms, indexAreaOf(terms) + 1, RINDEX_LEASE_NAME);
  if (address.kind !== "address") {
    return address;
  }
  const taken = yield* acquireLease({ ...terms, address: address.address, shared: false });
  if (taken.kind !== "granted") {
    return busyOf(taken);
  }
  const outcome = yield* change();
  const released = yield* releaseLeader(terms.luns, terms.self, taken.held, false);
  return released.kind === "released"
    ? outcome
    : { kind: "unfinished", why: `the index's lease was not given back: ${released.why}` };
}

function busyOf(taken: Exclude<AcquireOutcome, { kind: "granted" }>): IndexBusy {
  switch (taken.kind) {
    case "held":
      return { kind: "index-held", holders: taken.holders };
    case "contended":
      return { kind: "contended", why: "others change the index at the same time" };
    case "missing":
      return { kind: "damaged", why: `the lease ${RINDEX_LEASE_NAME} is deleted` };
    case "damaged":
      return { kind: "damaged", why: taken.reason };
    case "undecided":
      return { kind: "unfinished", why: taken.why };
    case "no-quorum":
    case "not-armed":
      return taken;
  }
}

function* createHeld(terms: IndexTerms, name: string): DiskProcedure<Change<CreateOutcome>> {
  const state = yield* readIndex(terms);
  if (state.kind !== "index") {
    return state;
  }
  const { leaders, entries } = state;
  const existing = leasesOf(terms, leaders).find((lease) => lease.address.resourceName === name);
  if (existing !== undefined) {
    // It may have been left without its entry by a crash: then the entry is written now.
    const written = yield* writeEntry(terms, entries, existing.address.area, name);
    return written ?? { kind: "exists", lease: { ...existing, isIndexed: true } };
  }
  const area = chooseArea(terms, leaders, entries, name);
  if (area === undefined) {
    return { kind: "full", leases: leasesOf(terms, leaders).length };
  }
  const before = leaders.leaders.get(area);
  const highest = highestLver(leaders);
  const lver = highest === undefined ? 0n : highest + 1n;
  // Room for as many hosts as the area's last lease had: their blocks stay.
  const numHosts = Math.max(terms.maxHosts, Number(before?.leader?.numHosts ?? 0n));
  const leader = freeLeader(terms.geometry, terms.spaceName, name, numHosts, lver);
  const writes = leaseWrites(terms.geometry, area, leader);
  const keepsBlocks = before?.leader !== undefined;
  const look = yield* io([
    { kind: "read", offset: leaderOffset(terms.geometry, area), length: terms.geometry.sectorSize },
  ]);
  if (!isMajority(terms.luns, look.luns) || !hasRight(look)) {
    return { kind: "no-quorum", why: "this node's heartbeat became older than T, or LUNs failed" };
  }
  const turn = yield* io(keepsBlocks ? writes.slice(1) : writes);
  if (!isMajority(terms.luns, turn.luns)) {
    return { kind: "unfinished", why: describeFailures(terms.luns, turn.luns) };
  }
  const written = yield* writeEntry(terms, entries, area, name);
  if (written !== undefined) {
    return written;
  }
  const address = addressOf(terms, area, leader);
  return { kind: "created", lease: { address, leader, isIndexed: true } };
}

function* deleteHeld(terms: IndexTerms, name: string): DiskProcedure<Change<DeleteOutcome>> {
  const state = yield* readIndex(terms);
  if (state.kind !== "index") {
    return state;
  }
  const lease = leasesOf(terms, state.leaders).find((one) => one.address.resourceName === name);
  if (lease === undefined) {
    return { kind: "missing" };
  }
  const { address } = lease;
  const taken = yield* acquireLease({ ...terms, address, shared: false });
  if (taken.kind === "held") {
    return taken;
  }
  if (taken.kind !== "granted") {
    const busy = busyOf(taken);
    return busy.kind === "no-quorum" || busy.kind === "damaged"
      ? busy
      : { kind: "unfinished", why: `the lease could not be taken: ${busy.kind}` };
  }
  const cleared = yield* writeCleared(terms, taken.held);
  if (cleared !== undefined) {
    return cleared;
  }
  const written = yield* writeEntry(terms, state.entries, address.area, undefined);
  return written ?? { kind: "deleted", lver: taken.held.leader.lver };
}

/** The leader of a deleted lease keeps owner and lver, so that the next lease in this area begins above them. */
function* writeCleared(
  terms: IndexTerms,
  held: HeldLease,
): DiskProcedure<Extract<IndexBusy, { kind: "unfinished" }> | undefined> {
  const { address, leader } = held;
  const cleared: LeaderRecord = {
    ...leader,
    kind: "cleared",
    timestamp: 0n,
    writeTimestamp: terms.wallSeconds,
  };
  const turn = yield* io([
    {
      kind: "write",
      offset: leaderOffset(address.geometry, address.area),
      data: encodePaxosLeaderSector(address.geometry, cleared),
    },
  ]);
  return isMajority(terms.luns, turn.luns)
    ? undefined
    : { kind: "unfinished", why: describeFailures(terms.luns, turn.luns) };
}

interface IndexState {
  readonly kind: "index";
  readonly leaders: Leaders;
  readonly entries: readonly RindexEntry[];
}

function* readIndex(place: IndexPlace): DiskProcedure<IndexState | Trouble> {
  const entries = yield* readEntries(place);
  if (entries.kind !== "entries") {
    return entries;
  }
  const every = Array.from(
    { length: resourcesOf(place) },
    (_, index) => firstResourceOf(place) + index,
  );
  const leaders = yield* readLeases(place, every, entries.entries);
  return leaders.kind === "leaders"
    ? { kind: "index", leaders, entries: entries.entries }
    : leaders;
}

/** Changes one entry on every LUN that answers, each in the sector as that LUN has it. */
function* writeEntry(
  terms: IndexTerms,
  entries: readonly RindexEntry[],
  area: number,
  name: string | undefined,
): DiskProcedure<Extract<IndexBusy, { kind: "unfinished" }> | Trouble | undefined> {
  const { geometry, luns } = terms;
  const index = area - firstResourceOf(terms);
  const known = entries.find((entry) => entry.index === index);
  if (known?.name === name && (known === undefined || areaOfEntry(terms, known) === area)) {
    return undefined;
  }
  const offset =
    areaOffset(geometry, indexAreaOf(terms)) + rindexEntrySectorOffset(geometry, index);
  const read = yield* io([{ kind: "read", offset, length: geometry.sectorSize }]);
  const sector = doneOn(luns, read.luns)[0]?.reads[0];
  if (!isMajority(luns, read.luns) || sector === undefined) {
    return { kind: "no-quorum", why: describeFailures(luns, read.luns) };
  }
  if (!hasRight(read)) {
    return { kind: "unfinished", why: "this node's heartbeat became older than T" };
  }
  // The sectors may differ between LUNs where one is stale; what the leaders say makes up for either.
  const entry =
    name === undefined ? undefined : { name, offset: BigInt(areaOffset(geometry, area)) };
  const write: WriteOp = {
    kind: "write",
    offset,
    data: rindexEntrySector(geometry, mergedSector(terms, entries, index, sector), index, entry),
  };
  const turn = yield* io([write]);
  return isMajority(luns, turn.luns)
    ? undefined
    : { kind: "unfinished", why: describeFailures(luns, turn.luns) };
}

/** One LUN's sector with the neighbours as the union of all LUNs has them. */
function mergedSector(
  place: IndexPlace,
  entries: readonly RindexEntry[],
  index: number,
  sector: Uint8Array,
): Uint8Array {
  const { geometry } = place;
  const offset = rindexEntrySectorOffset(geometry, index);
  const neighbours = entries.filter(
    (entry) => rindexEntrySectorOffset(geometry, entry.index) === offset,
  );
  return neighbours.reduce(
    (bytes, entry) => rindexEntrySector(geometry, bytes, entry.index, entry),
    sector,
  );
}

type Entries = { readonly kind: "entries"; readonly entries: readonly RindexEntry[] } | Trouble;

/** The entries of all LUNs that answered, one per position: every one is only a hint. */
function* readEntries(place: IndexPlace): DiskProcedure<Entries> {
  const { geometry, luns, spaceName } = place;
  const offset = areaOffset(geometry, indexAreaOf(place));
  const bytesNeeded = geometry.sectorSize + resourcesOf(place) * 64;
  const length = Math.min(
    geometry.areaSize,
    Math.ceil(bytesNeeded / geometry.sectorSize) * geometry.sectorSize,
  );
  const turn = yield* io([{ kind: "read", offset, length }]);
  if (!isMajority(luns, turn.luns)) {
    return { kind: "no-quorum", why: describeFailures(luns, turn.luns) };
  }
  const entries = new Map<number, RindexEntry>();
  let usable = 0;
  let reason = "";
  for (const batch of doneOn(luns, turn.luns)) {
    const bytes = batch.reads[0] ?? new Uint8Array(0);
    const header = decodeRindexHeader(bytes);
    if (header.kind !== "ok" || header.value.spaceName !== spaceName) {
      reason = `LUN ${batch.lun + 1}: the index ${header.kind === "ok" ? `is of lockspace ${header.value.spaceName}` : `is ${header.kind}`}`;
      continue;
    }
    usable++;
    for (const entry of decodeRindexEntries(geometry, bytes, header.value.maxResources)) {
      entries.set(entry.index, entries.get(entry.index) ?? entry);
    }
  }
  // In a region of ours a damaged index hides nothing: the leaders are all there.
  return usable === 0 && place.ours === false
    ? { kind: "damaged", why: reason }
    : { kind: "entries", entries: [...entries.values()] };
}

/** What a majority says about one area. */
interface AreaState {
  /** The leader with the highest lver, also a cleared one; undefined when the area never had one. */
  readonly leader: LeaderRecord | undefined;
  /** No majority could be read as a leader or as empty. */
  readonly damaged: string | undefined;
}

interface Leaders {
  readonly kind: "leaders";
  readonly leaders: ReadonlyMap<number, AreaState>;
  readonly entries: readonly RindexEntry[];
}

function* scan(
  place: IndexPlace,
  entries: readonly RindexEntry[],
): DiskProcedure<Leaders | Trouble> {
  const first = firstResourceOf(place);
  const areas =
    place.ours === false
      ? areasOf(place, entries)
      : Array.from({ length: resourcesOf(place) }, (_, index) => first + index);
  return yield* readLeases(place, areas, entries);
}

function* readLeases(
  place: IndexPlace,
  areas: readonly number[],
  entries: readonly RindexEntry[],
): DiskProcedure<Leaders | Trouble> {
  const { geometry, luns } = place;
  const leaders = new Map<number, AreaState>();
  for (let start = 0; start < areas.length; start += LEADERS_PER_BATCH) {
    const some = areas.slice(start, start + LEADERS_PER_BATCH);
    const ops = some.map((area): ReadOp => ({
      kind: "read",
      offset: leaderOffset(geometry, area),
      length: geometry.sectorSize,
    }));
    const turn = yield* io(ops);
    if (!isMajority(luns, turn.luns)) {
      return { kind: "no-quorum", why: describeFailures(luns, turn.luns) };
    }
    const done = doneOn(luns, turn.luns);
    some.forEach((area, index) => {
      leaders.set(
        area,
        judgeArea(
          place,
          done.map((batch) => batch.reads[index]),
        ),
      );
    });
  }
  return { kind: "leaders", leaders, entries };
}

/** The highest lver counts; of two with the same lver the cleared one, which is the later. */
function judgeArea(place: IndexPlace, sectors: readonly (Uint8Array | undefined)[]): AreaState {
  let leader: LeaderRecord | undefined;
  let readable = 0;
  let damaged = "";
  for (const sector of sectors) {
    const decoded = decodeLeaderRecord(sector ?? new Uint8Array(0), "paxos");
    if (decoded.kind === "ok" && decoded.value.spaceName === place.spaceName) {
      readable++;
      leader = laterOf(leader, decoded.value);
    } else if (decoded.kind === "empty") {
      readable++;
    } else {
      damaged =
        decoded.kind === "ok" ? `it is of lockspace ${decoded.value.spaceName}` : decoded.reason;
    }
  }
  return readable >= majorityOf(place.luns)
    ? { leader, damaged: undefined }
    : { leader: undefined, damaged };
}

function laterOf(one: LeaderRecord | undefined, other: LeaderRecord): LeaderRecord {
  if (one === undefined) {
    return other;
  }
  if (other.lver !== one.lver) {
    return other.lver > one.lver ? other : one;
  }
  return other.kind === "cleared" ? other : one;
}

function leasesOf(place: IndexPlace, leaders: Leaders): readonly NamedLease[] {
  const leases: NamedLease[] = [];
  for (const [area, { leader }] of leaders.leaders) {
    if (leader?.kind !== "paxos") {
      continue;
    }
    const isIndexed = leaders.entries.some(
      (entry) => areaOfEntry(place, entry) === area && entry.name === leader.resourceName,
    );
    if (isIndexed || place.ours !== false) {
      leases.push({ address: addressOf(place, area, leader), leader, isIndexed });
    }
  }
  return leases;
}

function addressOf(place: IndexPlace, area: number, leader: LeaderRecord): LeaseAddress {
  return {
    geometry: place.geometry,
    area,
    spaceName: place.spaceName,
    resourceName: leader.resourceName,
    numHosts: Number(leader.numHosts),
  };
}

function* addressAt(
  place: IndexPlace,
  area: number,
  name: string,
): DiskProcedure<{ readonly kind: "address"; readonly address: LeaseAddress } | Trouble> {
  const read = yield* readLeases(place, [area], []);
  if (read.kind !== "leaders") {
    return read;
  }
  const state = read.leaders.get(area);
  if (state?.leader?.kind !== "paxos" || state.leader.resourceName !== name) {
    const what = state?.damaged ?? state?.leader?.resourceName ?? "no lease";
    return { kind: "damaged", why: `area ${area} is not the lease ${name}: ${what}` };
  }
  return { kind: "address", address: addressOf(place, area, state.leader) };
}

/** The area that had this name last, else one that never had a lease, else the lowest one that is free. */
function chooseArea(
  place: IndexPlace,
  leaders: Leaders,
  entries: readonly RindexEntry[],
  name: string,
): number | undefined {
  const free = [...leaders.leaders].filter(
    ([, state]) => state.damaged === undefined && state.leader?.kind !== "paxos",
  );
  const foreign = place.ours === false;
  const same = free.find(([, { leader }]) => leader?.resourceName === name);
  const fresh = free.find(([, { leader }]) => leader === undefined);
  const chosen = (same ?? fresh ?? free[0])?.[0];
  if (!foreign) {
    return chosen;
  }
  // An index of sanlock's: what has no entry is free, whatever lies there.
  const index = freeRindexIndex(entries, resourcesOf(place));
  return index === undefined ? undefined : firstResourceOf(place) + index;
}

function highestLver(leaders: Leaders): bigint | undefined {
  let highest: bigint | undefined;
  for (const { leader } of leaders.leaders.values()) {
    if (leader !== undefined && (highest === undefined || leader.lver > highest)) {
      highest = leader.lver;
    }
  }
  return highest;
}

function firstResourceOf(place: IndexPlace): number {
  return indexAreaOf(place) + 2;
}

function resourcesOf(place: IndexPlace): number {
  return Math.max(0, place.areaCount - firstResourceOf(place));
}

/** The area an entry points to, undefined when that is no resource area of this region. */
function areaOfEntry(place: IndexPlace, entry: RindexEntry): number | undefined {
  const size = BigInt(place.geometry.areaSize);
  const area = Number(entry.offset / size);
  const isInside = area >= firstResourceOf(place) && area < place.areaCount;
  return isInside && entry.offset % size === 0n ? area : undefined;
}

function areasOf(place: IndexPlace, entries: readonly RindexEntry[]): readonly number[] {
  const areas = entries.map((entry) => areaOfEntry(place, entry));
  return [...new Set(areas.filter((area) => area !== undefined))];
}
