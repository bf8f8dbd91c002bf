/** Which LUN a path is, whether it is the one that the region was made on, and who is seen to renew there. */
import { AREA, geometryOf } from "../../format/geometry.js";
import { type Superblock } from "../../format/superblock.js";
import { type FoundLun, judgeLuns, type LunContent, recordedWwid } from "../../lease/lun-set.js";
import { msText } from "../../health/finding.js";
import { type LunFacts } from "../../system/lun-probe.js";
import { diagnosis, type DoctorFinding, unlooked } from "../doctor-finding.js";
import { type LunLook } from "../lun-facts.js";

const WHY_IDENTITY =
  "Two nodes share a LUN only if both see the same name; compare it on the other nodes.";
const WHY_TWICE = "Two paths to one LUN would be two votes of a quorum, and one disk a majority.";
const WHY_CLONE =
  "A copy of the region grants the leases that the original has granted to another node.";
const WHY_REGION = "Leases and heartbeats live in the region.";
const WHY_MEMBERS = "Who renews here is another machine that sees this LUN.";

export function judgeIdentity(look: LunLook): readonly DoctorFinding[] {
  const { path: subject, probe } = look;
  if (probe === undefined) {
    return [];
  }
  const size = bytesText(probe.sizeBytes);
  const name = recordedWwid(probe.wwid);
  if (name === "") {
    return [
      diagnosis("identity", "warning", `${size}, without a name of its own`, WHY_IDENTITY, {
        subject,
        remedy:
          "Give the LUN a serial number at the target (QEMU: serial=...), so that a clone or a swapped LUN is noticed.",
      }),
    ];
  }
  const findings = [diagnosis("identity", "ok", `${name}, ${size}`, WHY_IDENTITY, { subject })];
  const disk = look.disk?.kind === "ok" ? look.disk.value : undefined;
  const local = disk?.paths.find(({ transport }) => transport === "ata" || transport === "usb");
  if (local !== undefined || disk?.name.startsWith("nvme") === true) {
    const text = `a disk of this machine (${local?.transport ?? "nvme"}): other nodes cannot see it`;
    const why = "A cluster needs a LUN that every node reaches.";
    const remedy = "Use a LUN of a SAN (iSCSI, FC, shared SAS), or a mirror of local disks.";
    findings.push(diagnosis("identity", "warning", text, why, { subject, remedy }));
  }
  return findings;
}

function bytesText(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = bytes < 1_024 ? 0 : Math.min(5, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 2 ** (10 * power);
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} ${units[power] ?? "bytes"}`;
}

export function judgeRegion(look: LunLook): readonly DoctorFinding[] {
  const { path: subject, region, probe } = look;
  if (region === undefined || probe === undefined) {
    return [];
  }
  const { content } = region;
  if (content.kind !== "superblock") {
    return [...tooSmall(subject, probe, content), ...regionless(subject, content)];
  }
  const { superblock } = content;
  const recorded = superblock.wwid;
  const actual = recordedWwid(probe.wwid);
  if (recorded !== "" && actual !== "" && recorded !== actual) {
    return [
      diagnosis(
        "region",
        "critical",
        `carries the region of cluster ${superblock.clusterName}, which was made on ${recorded}; this device is ${actual}`,
        WHY_CLONE,
        {
          subject,
          remedy: "Use the original. If this one is to take its place: sharedha lun replace PATH.",
        },
      ),
      ...judgeMembers(look),
    ];
  }
  return [
    diagnosis("region", "ok", regionText(superblock), WHY_REGION, { subject }),
    ...judgeMembers(look),
  ];
}

function regionText(superblock: Superblock): string {
  const { clusterName, lunIndex, lunCount, profile, lunUuid } = superblock;
  const place = lunCount === 1 ? "" : `, LUN ${lunIndex + 1} of ${lunCount}`;
  return `region of cluster ${clusterName}${place}, profile ${profile}, uuid ${lunUuid}`;
}

/** What `init` asks for at least: our own areas, a lease for the configuration and one for a group. */
function tooSmall(
  subject: string,
  { sizeBytes, sectorSize }: LunFacts,
  content: LunContent,
): readonly DoctorFinding[] {
  const isFree = content.kind === "blank" || content.kind === "foreign";
  const needed = (AREA.firstResource + 2) * geometryOf(sectorSize === 4096 ? 4096 : 512).areaSize;
  return isFree && sizeBytes < needed
    ? [
        diagnosis(
          "region",
          "warning",
          `${bytesText(sizeBytes)} are too few for a region, which needs ${bytesText(needed)}`,
          WHY_REGION,
          {
            subject,
            figure: sizeBytes,
            unit: "bytes",
            warningLimit: needed,
            remedy: "Give a larger device or file.",
          },
        ),
      ]
    : [];
}

function regionless(
  subject: string,
  content: Exclude<LunContent, { kind: "superblock" }>,
): readonly DoctorFinding[] {
  const init = `sharedha init ${subject}`;
  switch (content.kind) {
    case "blank":
      return [diagnosis("region", "info", "no region yet", WHY_REGION, { subject, remedy: init })];
    case "foreign":
      return [
        diagnosis("region", "info", `no region: ${content.reason}`, WHY_REGION, {
          subject,
          remedy: `${init} (it refuses a device that holds data, and names what it found)`,
        }),
      ];
    case "newer":
      return [
        diagnosis("region", "critical", content.reason, WHY_REGION, {
          subject,
          remedy: "Upgrade sharedha on this node.",
        }),
      ];
    case "corrupt":
      return [
        diagnosis("region", "critical", `the region is damaged: ${content.reason}`, WHY_REGION, {
          subject,
          remedy: `sharedha dump ${subject}`,
        }),
      ];
    case "unusable":
      return [
        diagnosis("region", "critical", content.reason, WHY_REGION, {
          subject,
          remedy: content.remedy,
        }),
      ];
    case "failed":
      // It could not be opened, which device-rules.ts reports; or it opened and could not be read.
      return content.code === "ERR_LUN_READ"
        ? [unlooked("region", "the region", content.reason, { subject, remedy: content.remedy })]
        : [];
  }
}

function judgeMembers(look: LunLook): readonly DoctorFinding[] {
  const { path: subject, hosts } = look;
  if (hosts === undefined) {
    return [];
  }
  if (hosts.failure !== null) {
    return [unlooked("members", "the heartbeats", hosts.failure, { subject })];
  }
  const unreadable = hosts.hosts.filter(({ state }) => state === "unreadable");
  const damaged = unreadable.map(({ hostId }) =>
    diagnosis("members", "critical", `the record of host ${hostId} cannot be read`, WHY_MEMBERS, {
      subject,
      remedy: `sharedha dump ${subject} --area lockspace`,
    }),
  );
  const live = hosts.hosts.filter(({ state }) => state === "changed").map(({ name }) => name);
  const silent = hosts.hosts.filter(({ state }) => state === "unchanged").map(({ name }) => name);
  const window = `within ${msText(hosts.windowMs)}`;
  const text =
    live.length === 0
      ? `nobody renewed ${window}`
      : `${live.join(", ")} renewed ${window}: other machines see this LUN`;
  const rest = silent.length === 0 ? "" : `; ${silent.join(", ")} did not`;
  const seen = diagnosis("members", "info", text + rest, WHY_MEMBERS, {
    subject,
    figure: live.length,
  });
  return [...damaged, seen];
}

/** What only shows when the paths are seen together. */
export function judgeTogether(looks: readonly LunLook[]): readonly DoctorFinding[] {
  const found = looks.flatMap(foundOf);
  const twice = found.flatMap((lun, index) => twin(lun, found.slice(0, index)));
  return twice.length > 0 ? twice : judgeSet(looks, found);
}

function foundOf({ path, probe, region }: LunLook): readonly FoundLun[] {
  return probe === undefined || region === undefined
    ? []
    : [{ path, wwid: probe.wwid, content: region.content }];
}

function twin(lun: FoundLun, earlier: readonly FoundLun[]): readonly DoctorFinding[] {
  const uuid = uuidOf(lun);
  const same = earlier.find((other) => other.wwid === lun.wwid);
  const copy = earlier.find((other) => uuid !== undefined && uuidOf(other) === uuid);
  if (same !== undefined) {
    return [
      diagnosis("identity", "critical", `the same LUN as ${same.path} (${lun.wwid})`, WHY_TWICE, {
        subject: lun.path,
        remedy: "Give each LUN once; of several paths to it the multipath map.",
      }),
    ];
  }
  return copy === undefined
    ? []
    : [
        diagnosis(
          "identity",
          "critical",
          `carries the same LUN uuid ${uuid ?? ""} as ${copy.path}: one is a copy of the other`,
          WHY_CLONE,
          { subject: lun.path, remedy: "Use the original, not a copy or snapshot." },
        ),
      ];
}

function uuidOf(lun: FoundLun): string | undefined {
  return lun.content.kind === "superblock" ? lun.content.superblock.lunUuid : undefined;
}

function judgeSet(looks: readonly LunLook[], found: readonly FoundLun[]): readonly DoctorFinding[] {
  const regions = looks.flatMap(({ path, region }) =>
    region?.content.kind === "superblock" ? [{ path, superblock: region.content.superblock }] : [],
  );
  const superblock = regions[0]?.superblock;
  const other = regions.find((one) => one.superblock.clusterUuid !== superblock?.clusterUuid);
  if (superblock !== undefined && other !== undefined) {
    const { clusterName } = other.superblock;
    const text = `belongs to cluster ${clusterName}, ${regions[0]?.path ?? ""} to ${superblock.clusterName}`;
    const why = "A node is a member of one cluster, and a set of LUNs belongs to one.";
    const remedy = "Give the LUNs of one cluster in one command.";
    return [diagnosis("region", "warning", text, why, { subject: other.path, remedy })];
  }
  // A LUN that stands alone has been judged already; data LUNs may have been given beside it.
  if (superblock === undefined || superblock.lunCount === 1) {
    return [];
  }
  if (looks.length !== superblock.lunCount || found.length !== looks.length) {
    const text = `cluster ${superblock.clusterName} has ${superblock.lunCount} LUNs; the set is judged when all of them are given and answer`;
    return [diagnosis("region", "info", text, WHY_REGION, { figure: found.length })];
  }
  const judgement = judgeLuns(found);
  if (judgement.kind === "refused") {
    const { why, remedy } = judgement;
    return [diagnosis("region", "critical", why, WHY_REGION, { remedy })];
  }
  return judgement.notes.map((note) =>
    diagnosis("region", "warning", note, WHY_REGION, {
      remedy: "sharedha lun replace PATH, if it is meant to be in the set.",
    }),
  );
}
