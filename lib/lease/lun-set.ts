/**
 * Which of the LUNs given are the cluster's, and which of them count (DESIGN section 6, "Quorum over 1, 3 or 5 LUNs").
 *
 * The superblock with the highest epoch of the cluster that most of the LUNs belong to has the table of the set: uuid, wwid
 * and format incarnation of each LUN. A LUN counts when the device is the one that the table names, however old its
 * records are: a stale one is only behind, and a majority of the others is not. A blank, re-formatted, copied or exchanged
 * one has forgotten or never known what it once acknowledged, so it counts for nothing (hazard H13) until `sharedha lun
 * replace`.
 */
import { crc32c } from "../format/crc32c.js";
import { MAX_WWID_BYTES, type Superblock } from "../format/superblock.js";
import { type LunSet } from "./procedure.js";

/** What was found at one path. */
export interface FoundLun {
  readonly path: string;
  /** The disk behind the path, as `probeLun` names it; "" when it could not be probed. */
  readonly wwid: string;
  readonly content: LunContent;
}

export type LunContent =
  | { readonly kind: "superblock"; readonly superblock: Superblock }
  /** Both copies of the superblock are all zero. */
  | { readonly kind: "blank" }
  /** Something else is there; `reason` says what. */
  | { readonly kind: "foreign"; readonly reason: string }
  /** A superblock of a version that this program must not interpret. */
  | { readonly kind: "newer"; readonly reason: string }
  | { readonly kind: "corrupt"; readonly reason: string }
  /** A whole superblock, but the device cannot be used as it says. */
  | {
      readonly kind: "unusable";
      readonly code: string;
      readonly reason: string;
      readonly remedy: string;
    }
  /** It could not be opened or read. */
  | {
      readonly kind: "failed";
      readonly code: string;
      readonly reason: string;
      readonly remedy: string;
    };

export type LunState = "ok" | "stale" | "blank" | "foreign" | "failed";

/** One LUN of the set, in the order of the set. */
export interface JudgedLun {
  /** Position in the paths given. */
  readonly found: number;
  readonly path: string;
  readonly lunIndex: number;
  readonly counts: boolean;
  readonly state: LunState;
  /** Why it does not count, or is stale. */
  readonly why: string | undefined;
  /** Its own superblock, when it has a whole one. */
  readonly superblock: Superblock | undefined;
}

export type Judgement =
  | {
      readonly kind: "ok";
      /** Of the highest epoch: the cluster's facts and the table of LUNs. */
      readonly superblock: Superblock;
      readonly lunSet: LunSet;
      readonly luns: readonly JudgedLun[];
      /** One sentence for each LUN that does not count. */
      readonly notes: readonly string[];
    }
  | Refusal;

export interface Refusal {
  readonly kind: "refused";
  readonly code: string;
  readonly why: string;
  readonly remedy: string;
  readonly path: string;
}

const INIT_REMEDY = "Check the path; a new region is made with: sharedha init PATH...";
const REPLACE_REMEDY =
  "If this LUN is meant to take the place of a lost one: sharedha lun replace PATH.";

/**
 * How a device is named in the table of LUNs. The device number of a file's file system changes with a restart of the
 * machine and from host to host, its inode does not; `dev:MAJOR:MINOR` says nothing about the disk at all.
 */
export function recordedWwid(wwid: string): string {
  if (wwid.startsWith("dev:")) {
    return "";
  }
  const file = /^file:[^:]*:(.*)$/.exec(wwid);
  const name = file?.[1] === undefined ? wwid : `file:${file[1]}`;
  const bytes = new TextEncoder().encode(name);
  if (bytes.length <= MAX_WWID_BYTES) {
    return name;
  }
  const head = name.replaceAll(/[^\x21-\x7e]/g, "").slice(0, 48);
  return `${head}~${crc32c(bytes).toString(16)}`;
}

/** @param found one entry per path, in any order */
export function judgeLuns(found: readonly FoundLun[]): Judgement {
  const twice = findTwice(found);
  if (twice !== undefined) {
    return twice;
  }
  const newer = found.find((lun) => lun.content.kind === "newer");
  if (newer !== undefined) {
    // Also when it is one of three: somebody has begun to upgrade the region.
    return {
      kind: "refused",
      code: "ERR_NEWER_VERSION",
      why: `${newer.path}: ${reasonOf(newer.content)}`,
      remedy: "Upgrade sharedha on this node before it uses the region.",
      path: newer.path,
    };
  }
  const current = currentOf(found);
  if (current === undefined) {
    return refusalOfNone(found);
  }
  if (found.length !== current.lunCount) {
    return wrongCount(found, current);
  }
  const luns = placeLuns(found, current);
  const counts = luns.map((lun) => lun.counts);
  const lunSet: LunSet = { total: current.lunCount, counts };
  if (counts.filter(Boolean).length <= current.lunCount / 2) {
    return refusalOfMinority(found, luns, current);
  }
  const notes = luns
    .filter((lun) => !lun.counts)
    .map((lun) => `LUN ${lun.lunIndex + 1} (${lun.path}) does not count: ${lun.why ?? lun.state}.`);
  return { kind: "ok", superblock: current, lunSet, luns, notes };
}

function reasonOf(content: LunContent): string {
  switch (content.kind) {
    case "superblock":
      return "it has a superblock";
    case "blank":
      return "it is blank: there is no region on it";
    default:
      return content.reason;
  }
}

/** The same disk by two paths, or two disks with the uuid of one, would be two votes of one LUN. */
function findTwice(found: readonly FoundLun[]): Refusal | undefined {
  for (const [index, lun] of found.entries()) {
    const earlier = found.slice(0, index);
    const sameDisk = earlier.find((other) => other.wwid !== "" && other.wwid === lun.wwid);
    if (sameDisk !== undefined) {
      return sameTwice(lun, sameDisk, `are the same device (${lun.wwid})`);
    }
    const uuid = uuidOf(lun);
    const sameUuid = earlier.find((other) => uuid !== undefined && uuidOf(other) === uuid);
    if (sameUuid !== undefined) {
      return sameTwice(
        lun,
        sameUuid,
        `carry the same LUN uuid ${uuid ?? ""}: one is a copy of the other`,
      );
    }
  }
  return undefined;
}

function sameTwice(lun: FoundLun, other: FoundLun, how: string): Refusal {
  return {
    kind: "refused",
    code: "ERR_SAME_LUN_TWICE",
    why: `${other.path} and ${lun.path} ${how}.`,
    remedy: "Give each LUN of the set once, and the originals, not copies or snapshots.",
    path: lun.path,
  };
}

function uuidOf(lun: FoundLun): string | undefined {
  return lun.content.kind === "superblock" ? lun.content.superblock.lunUuid : undefined;
}

function superblocksOf(found: readonly FoundLun[]): readonly Superblock[] {
  return found.flatMap((lun) =>
    lun.content.kind === "superblock" ? [lun.content.superblock] : [],
  );
}

/** The superblock with the highest epoch of the cluster that has the most LUNs among these; the first of equals. */
function currentOf(found: readonly FoundLun[]): Superblock | undefined {
  const superblocks = superblocksOf(found);
  const votes = new Map<string, number>();
  for (const { clusterUuid } of superblocks) {
    votes.set(clusterUuid, (votes.get(clusterUuid) ?? 0) + 1);
  }
  const most = Math.max(...votes.values());
  return superblocks
    .filter((superblock) => votes.get(superblock.clusterUuid) === most)
    .reduce<Superblock | undefined>((best, superblock) => {
      if (best === undefined) {
        return superblock;
      }
      const isLater = superblock.clusterUuid === best.clusterUuid && superblock.epoch > best.epoch;
      return isLater ? superblock : best;
    }, undefined);
}

/** Nothing given has a usable superblock: the first path that says why. */
function refusalOfNone(found: readonly FoundLun[]): Refusal {
  const lun = found.find((one) => one.content.kind !== "blank") ?? found[0];
  if (lun === undefined) {
    return {
      kind: "refused",
      code: "ERR_LUN_COUNT",
      why: "No LUN was given.",
      remedy: "Name the region's device or file, or its three or five.",
      path: "",
    };
  }
  return refusalOf(lun);
}

function refusalOf(lun: FoundLun): Refusal {
  const { content, path } = lun;
  const common = { kind: "refused", why: `${path}: ${reasonOf(content)}`, path } as const;
  switch (content.kind) {
    case "superblock":
    case "blank":
    case "foreign":
      return { ...common, code: "ERR_NOT_A_REGION", remedy: INIT_REMEDY };
    case "newer":
      return { ...common, code: "ERR_NEWER_VERSION", remedy: "Upgrade sharedha on this node." };
    case "corrupt":
      return {
        ...common,
        code: "ERR_REGION_DAMAGED",
        remedy: `Look at it with: sharedha dump ${path}. ${REPLACE_REMEDY}`,
      };
    case "unusable":
    case "failed":
      return { ...common, code: content.code, remedy: content.remedy };
  }
}

function wrongCount(found: readonly FoundLun[], current: Superblock): Refusal {
  const alien = found.find(
    (lun) =>
      lun.content.kind === "superblock" &&
      lun.content.superblock.clusterUuid !== current.clusterUuid,
  );
  if (alien?.content.kind === "superblock") {
    return otherCluster(alien.path, alien.content.superblock, current);
  }
  return {
    kind: "refused",
    code: "ERR_LUN_COUNT",
    why: `Cluster ${current.clusterName} has ${current.lunCount} LUNs; ${found.length} were given.`,
    remedy: "Give the path of every LUN of the set, also of one that cannot be reached now.",
    path: found[0]?.path ?? "",
  };
}

function otherCluster(path: string, superblock: Superblock, current: Superblock): Refusal {
  return {
    kind: "refused",
    code: "ERR_OTHER_CLUSTER",
    why:
      `${path} belongs to cluster ${superblock.clusterName} (${superblock.clusterUuid}), ` +
      `not to ${current.clusterName} (${current.clusterUuid}).`,
    remedy: `Give the LUNs of one cluster. ${REPLACE_REMEDY}`,
    path,
  };
}

interface Claim {
  readonly lunIndex: number | undefined;
  readonly state: LunState;
  readonly why: string | undefined;
  readonly code: string;
}

/** Every path gets a place of the set: its own by its superblock, the others the places that are left. */
function placeLuns(found: readonly FoundLun[], current: Superblock): readonly JudgedLun[] {
  const claims = found.map((lun) => claimOf(lun, current));
  const free = new Set(current.luns.keys());
  // Those that count go first, so that a copy never takes the place of the original.
  for (const claim of claims) {
    if (claim.lunIndex !== undefined) {
      free.delete(claim.lunIndex);
    }
  }
  const judged = found.map((lun, index): JudgedLun => {
    const claim = claims[index];
    let lunIndex = claim?.lunIndex;
    if (lunIndex === undefined) {
      lunIndex = [...free][0] ?? 0;
      free.delete(lunIndex);
    }
    const counts = claim?.state === "ok" || claim?.state === "stale";
    const superblock = lun.content.kind === "superblock" ? lun.content.superblock : undefined;
    const { state = "failed", why } = claim ?? {};
    return { found: index, path: lun.path, lunIndex, counts, state, why, superblock };
  });
  return judged.sort((one, other) => one.lunIndex - other.lunIndex);
}

function claimOf(lun: FoundLun, current: Superblock): Claim {
  const { content } = lun;
  switch (content.kind) {
    case "superblock":
      return judgeSuperblock(lun, content.superblock, current);
    case "blank":
      return {
        lunIndex: undefined,
        state: "blank",
        why: reasonOf(content),
        code: "ERR_NOT_A_REGION",
      };
    case "failed":
      return { lunIndex: undefined, state: "failed", why: content.reason, code: content.code };
    case "unusable":
      return { lunIndex: undefined, state: "foreign", why: content.reason, code: content.code };
    case "foreign":
    case "corrupt":
    case "newer":
      return {
        lunIndex: undefined,
        state: "foreign",
        why: content.reason,
        code: refusalOf(lun).code,
      };
  }
}

function judgeSuperblock(lun: FoundLun, own: Superblock, current: Superblock): Claim {
  const outside = { lunIndex: undefined, state: "foreign" } as const;
  if (own.clusterUuid !== current.clusterUuid) {
    const why = `it belongs to cluster ${own.clusterName} (${own.clusterUuid})`;
    return { ...outside, why, code: "ERR_OTHER_CLUSTER" };
  }
  const place = current.luns[own.lunIndex];
  if (place?.uuid !== own.lunUuid || place.incarnation !== own.incarnation) {
    return { ...outside, ...replacedOrSwapped(own, current) };
  }
  const actual = recordedWwid(lun.wwid);
  if (place.wwid !== "" && actual !== "" && actual !== place.wwid) {
    return { ...outside, ...cloneOrSwapped(actual, own, current) };
  }
  if (own.epoch < current.epoch) {
    const why = `its superblock has epoch ${own.epoch}, the cluster ${current.epoch}: it was away`;
    return { lunIndex: own.lunIndex, state: "stale", why, code: "" };
  }
  return { lunIndex: own.lunIndex, state: "ok", why: undefined, code: "" };
}

function replacedOrSwapped(own: Superblock, current: Superblock): { why: string; code: string } {
  const elsewhere = current.luns.findIndex((place) => place.uuid === own.lunUuid);
  if (elsewhere >= 0 && elsewhere !== own.lunIndex) {
    const why = `it says that it is LUN ${own.lunIndex + 1}, the set has it as LUN ${elsewhere + 1}`;
    return { why, code: "ERR_LUNS_SWAPPED" };
  }
  return {
    why:
      elsewhere >= 0
        ? `it has format incarnation ${own.incarnation}, the set ${current.luns[elsewhere]?.incarnation ?? 0n}`
        : `it was LUN ${own.lunIndex + 1} up to epoch ${own.epoch} and has been replaced`,
    code: "ERR_LUN_REPLACED",
  };
}

function cloneOrSwapped(
  actual: string,
  own: Superblock,
  current: Superblock,
): { why: string; code: string } {
  const other = current.luns.findIndex((place) => place.wwid === actual);
  if (other >= 0) {
    return {
      why: `the device is LUN ${other + 1} (${actual}) but has the content of LUN ${own.lunIndex + 1}`,
      code: "ERR_LUNS_SWAPPED",
    };
  }
  return {
    why:
      `it is a copy of LUN ${own.lunIndex + 1}: the set has that on ${own.wwid}, ` +
      `and this device is ${actual}`,
    code: "ERR_CLONE",
  };
}

/** Too few LUNs count: the reason of the first that does not. */
function refusalOfMinority(
  found: readonly FoundLun[],
  luns: readonly JudgedLun[],
  current: Superblock,
): Refusal {
  const first = luns.find((lun) => !lun.counts);
  const lun = found[first?.found ?? 0];
  const code = lun === undefined ? "" : claimOf(lun, current).code;
  const counting = luns.filter((one) => one.counts).length;
  const why = luns
    .filter((one) => !one.counts)
    .map((one) => `${one.path}: ${one.why ?? one.state}`)
    .join("; ");
  const alone = current.lunCount === 1;
  return {
    kind: "refused",
    code: code === "" ? "ERR_NO_QUORUM" : code,
    why: alone ? `${why}.` : `Only ${counting} of ${current.lunCount} LUNs count. ${why}.`,
    remedy: remedyFor(code, lun),
    path: lun?.path ?? "",
  };
}

function remedyFor(code: string, lun: FoundLun | undefined): string {
  switch (code) {
    case "ERR_CLONE":
      return (
        "Give the original device. If the original is gone and no node of the cluster runs, make a new region on the " +
        "copy: sharedha init --force."
      );
    case "ERR_LUNS_SWAPPED":
      return "Put the contents back in their places, or check how the storage maps its LUNs.";
    case "ERR_OTHER_CLUSTER":
      return `Give the LUNs of one cluster. ${REPLACE_REMEDY}`;
    case "ERR_LUN_REPLACED":
      return "Give the LUN that took its place; sharedha status on another node shows the set.";
    default:
      return lun === undefined || lun.content.kind === "superblock"
        ? INIT_REMEDY
        : refusalOf(lun).remedy;
  }
}
