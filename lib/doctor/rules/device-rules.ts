/** Whether a path can be used at all: opened, read past the cache, in whole sectors, with a cache that can be emptied. */
import { msText } from "../../health/finding.js";
import { type DiskFacts } from "../../system/disk-look.js";
import { type LunFacts } from "../../system/lun-probe.js";
import { type ScsiLook } from "../../system/scsi-look.js";
import { diagnosis, type DoctorFinding, unlooked } from "../doctor-finding.js";
import { type Looked, type LunLook, type Trouble } from "../lun-facts.js";

const WHY_DEVICE = "Every heartbeat and every lease is read from and written to it.";
const WHY_DIRECT =
  "A lock record that is read from or left in this machine's cache is not what other nodes see.";

export function judgeDevice(look: LunLook): readonly DoctorFinding[] {
  return [...judgeAccess(look), ...judgeSectors(look), ...judgeCache(look)];
}

function judgeAccess(look: LunLook): readonly DoctorFinding[] {
  const { path: subject, end, trouble, region } = look;
  const findings: DoctorFinding[] = [];
  if (trouble !== undefined) {
    findings.push(troubleFinding(subject, trouble));
  } else if (end.kind === "late") {
    findings.push(
      diagnosis(
        "device",
        "critical",
        `does not answer within ${msText(end.timeoutMs)}`,
        WHY_DEVICE,
        {
          subject,
          figure: end.timeoutMs,
          unit: "ms",
          remedy: "Repair the path to the storage: dmesg, iscsiadm -m session, multipath -ll.",
        },
      ),
    );
  } else if (end.kind === "failed") {
    findings.push(unlooked("device", "it", `the look at it ended with ${end.why}`, { subject }));
  }
  const content = region?.content;
  if (region?.isOpen === false && content?.kind === "failed") {
    const { code, reason: message, remedy: hint } = content;
    findings.push(troubleFinding(subject, { code, message, hint }));
  }
  if (region?.isOpen === true) {
    findings.push(diagnosis("direct-io", "ok", "takes direct I/O", WHY_DIRECT, { subject }));
  }
  if (look.disk?.kind === "failed") {
    findings.push(unlooked("device", "its entry in /sys", look.disk.why, { subject }));
  }
  return findings;
}

function troubleFinding(subject: string, { code, message, hint: remedy }: Trouble): DoctorFinding {
  const isDirect = code === "ERR_DIRECT_IO" || code === "ERR_SECTOR_SIZE";
  // The heading says which path it is.
  const text = message.startsWith(subject)
    ? message.slice(subject.length).replace(/^[: ]+/, "")
    : message;
  // What is wrong with a document on the LUN does not make the LUN unusable.
  const level = code.startsWith("ERR_CONFIG") ? "warning" : "critical";
  return diagnosis(
    isDirect ? "direct-io" : level === "warning" ? "region" : "device",
    level,
    text,
    isDirect ? WHY_DIRECT : WHY_DEVICE,
    { subject, remedy },
  );
}

const WHY_SECTORS =
  "A record is one sector, written as a whole or not at all; one that straddles two physical sectors may be torn.";

function judgeSectors(look: LunLook): readonly DoctorFinding[] {
  const { path: subject, probe, region, disk } = look;
  if (probe?.isBlock !== true) {
    return [];
  }
  const { sectorSize: logical, physicalSectorSize: physical } = probe;
  if (logical !== 512 && logical !== 4096) {
    return [
      diagnosis("sectors", "critical", `its sectors have ${logical} bytes`, WHY_SECTORS, {
        subject,
        figure: logical,
        unit: "bytes",
        remedy: "Present the LUN with sectors of 512 or 4096 bytes at the target.",
      }),
    ];
  }
  const isRegion = region?.content.kind === "superblock";
  const start = isRegion ? region.window.offset : 0;
  const alignment = disk?.kind === "ok" ? disk.value.alignmentOffset : 0;
  const off = physical > 0 ? (start + alignment) % physical : 0;
  const what = isRegion ? "the region" : "the device";
  return off === 0
    ? [
        diagnosis(
          "sectors",
          "ok",
          `sectors of ${logical} bytes (physical ${physical}), ${what} is aligned`,
          WHY_SECTORS,
          { subject, figure: 0, unit: "bytes" },
        ),
      ]
    : [
        diagnosis(
          "sectors",
          "warning",
          `${what} begins ${off} bytes behind a physical sector of ${physical} bytes`,
          WHY_SECTORS,
          {
            subject,
            figure: off,
            unit: "bytes",
            remedy:
              "Partition the disk at whole MiB (sfdisk does so by itself), or give the whole disk.",
          },
        ),
      ];
}

const WHY_CACHE =
  "A target that restarts forgets what was only in its cache, and an older lease record may then be granted twice.";

function judgeCache(look: LunLook): readonly DoctorFinding[] {
  const { path: subject, probe, disk, scsi } = look;
  if (probe === undefined) {
    return [];
  }
  if (!probe.isBlock) {
    const text = "a file; each lock write is O_DSYNC, which its file system passes on as a flush";
    return [diagnosis("cache", "ok", text, WHY_CACHE, { subject })];
  }
  if (disk?.kind !== "ok") {
    return [];
  }
  const silenced = silencedCache(subject, disk.value);
  if (silenced !== undefined) {
    return [silenced];
  }
  const flush = flushTrouble(subject, disk.value, scsi);
  return flush.length > 0 ? flush : [cacheFinding(subject, probe, disk.value)];
}

/** The kernel was told not to flush although the disk itself says that it caches. */
function silencedCache(subject: string, disk: DiskFacts): DoctorFinding | undefined {
  const path = disk.paths.find(({ cacheType }) => cacheType?.startsWith("write back") === true);
  return disk.writeCache === "write through" && path !== undefined
    ? diagnosis(
        "cache",
        "critical",
        `${path.name} has a volatile write cache, but the kernel was told to send no flushes (queue/write_cache is "write through")`,
        WHY_CACHE,
        { subject, remedy: `echo "write back" > /sys/block/${disk.name}/queue/write_cache` },
      )
    : undefined;
}

function flushTrouble(
  subject: string,
  disk: DiskFacts,
  scsi: Readonly<Record<string, Looked<ScsiLook>>>,
): readonly DoctorFinding[] {
  if (disk.writeCache !== "write back") {
    return [];
  }
  return Object.entries(scsi).flatMap(([name, look]) => {
    const flush = look.kind === "ok" ? look.value.flush : undefined;
    return flush?.kind === "unsupported" || flush?.kind === "failed"
      ? [
          diagnosis(
            "cache",
            "critical",
            `${name} has a volatile write cache and does not carry out SYNCHRONIZE CACHE: ${flush.why}`,
            WHY_CACHE,
            { subject, remedy: "Switch the write cache off at the target, or use another LUN." },
          ),
        ]
      : [];
  });
}

function cacheFinding(subject: string, probe: LunFacts, disk: DiskFacts): DoctorFinding {
  const how = disk.fua === true ? "goes past it (FUA)" : "flushes it";
  switch (disk.writeCache) {
    case "write back": {
      const text = `a volatile write cache; each lock write is O_DSYNC, which ${how}`;
      return diagnosis("cache", "ok", text, WHY_CACHE, { subject });
    }
    case "write through": {
      const text = probe.isLoop
        ? "a loop device without a cache of its own"
        : "announces no volatile write cache";
      return diagnosis("cache", "ok", text, WHY_CACHE, { subject });
    }
    default:
      return unlooked("cache", "its write cache", "this kernel does not tell", { subject });
  }
}
