/** Paths to a LUN: multipath maps, lone disks that have a twin, iSCSI sessions; their timers held against T. */
import { msText } from "../../health/finding.js";
import { type DiskFacts, type DiskPath } from "../../system/disk-look.js";
import { type MultipathFacts } from "../../system/multipath-look.js";
import { diagnosis, type DoctorFinding, unlooked, type Yardstick } from "../doctor-finding.js";
import { type Looked, type LunLook } from "../lun-facts.js";
import { failoverMs, judgeIscsi, NOTICED_MS_MIN } from "./iscsi-rules.js";

const WHY_PATHS = "With one path left, the next cable or switch that fails takes the node with it.";
const WHY_FAILOVER =
  "A heartbeat that waits for a dead path longer than T costs the node its membership, however many paths are left.";

export function judgePaths(look: LunLook, yardstick: Yardstick): readonly DoctorFinding[] {
  const { path: subject, disk } = look;
  if (disk?.kind !== "ok" || disk.value.paths.length === 0) {
    return [];
  }
  const facts = disk.value;
  const isMultipath = facts.multipath !== undefined;
  return [
    ...(isMultipath
      ? judgeMap(subject, facts, look.multipath, yardstick)
      : judgeSingle(subject, facts)),
    ...judgeIscsi(subject, facts.paths, isMultipath, yardstick),
  ];
}

function judgeSingle(subject: string, disk: DiskFacts): readonly DoctorFinding[] {
  const [path] = disk.paths;
  const map = disk.maps[0];
  if (path === undefined) {
    return [];
  }
  if (map !== undefined) {
    return [
      diagnosis("paths", "critical", `is one path of the multipath map ${map}`, WHY_PATHS, {
        subject,
        remedy: `Use /dev/mapper/${map} in its place.`,
      }),
    ];
  }
  const findings: DoctorFinding[] = [];
  if (disk.strayPaths.length > 0) {
    findings.push(
      diagnosis(
        "paths",
        "warning",
        `${disk.strayPaths.join(", ")} ${disk.strayPaths.length === 1 ? "leads" : "lead"} to the same LUN, and no multipath map joins them`,
        WHY_PATHS,
        {
          subject,
          figure: disk.strayPaths.length + 1,
          remedy: `multipath -a /dev/${path.name} && multipath -r, then use /dev/mapper/NAME in place of ${subject}`,
        },
      ),
    );
  }
  if (path.state !== "running") {
    findings.push(stateFinding(subject, path, "critical"));
  }
  return findings.length > 0
    ? findings
    : [
        diagnosis("paths", "ok", `one path, ${path.name} (${path.transport})`, WHY_PATHS, {
          subject,
          figure: 1,
        }),
      ];
}

function stateFinding(
  subject: string,
  path: DiskPath,
  level: "warning" | "critical",
): DoctorFinding {
  return diagnosis("paths", level, `${path.name} is ${path.state}`, WHY_PATHS, {
    subject,
    remedy:
      "Repair that path (cable, switch, session); then: echo running > /sys/block/" +
      `${path.name}/device/state`,
  });
}

function judgeMap(
  subject: string,
  disk: DiskFacts,
  looked: Looked<MultipathFacts> | undefined,
  yardstick: Yardstick,
): readonly DoctorFinding[] {
  const map = disk.multipath?.map ?? "";
  const facts = looked?.kind === "ok" ? looked.value : undefined;
  const why = looked?.kind === "failed" ? [looked.why] : (facts?.problems ?? []);
  const remedy =
    "Debian: apt install multipath-tools; RHEL: dnf install device-mapper-multipath; then start multipathd.";
  return [
    ...judgeMapPaths(subject, map, disk.paths, facts?.pathsUsable ?? {}),
    ...why.map((reason) => unlooked("paths", `map ${map}`, reason, { subject, remedy })),
    ...(facts === undefined ? [] : judgeQueueing(subject, map, facts, yardstick)),
    ...disk.paths.flatMap((path) => judgeFailover(subject, path, yardstick)),
  ];
}

function judgeMapPaths(
  subject: string,
  map: string,
  paths: readonly DiskPath[],
  pathsUsable: MultipathFacts["pathsUsable"],
): readonly DoctorFinding[] {
  const isUsable = (path: DiskPath): boolean =>
    path.state === "running" && pathsUsable[path.number] !== false;
  const broken = paths.filter((path) => !isUsable(path));
  const usable = paths.length - broken.length;
  const level = usable === 0 ? "critical" : usable === 1 || broken.length > 0 ? "warning" : "ok";
  const names = paths.map(({ name }) => name).join(", ");
  const total = diagnosis(
    "paths",
    level,
    `${usable} of ${paths.length} paths of map ${map} usable (${names})`,
    WHY_PATHS,
    {
      subject,
      figure: usable,
      limit: 1,
      warningLimit: 2,
      remedy: level === "ok" ? null : broken.length > 0 ? REPAIR_BELOW : "Connect a second path.",
    },
  );
  return [
    total,
    ...broken.map((path) =>
      path.state === "running"
        ? diagnosis("paths", "warning", `${path.name} has failed in map ${map}`, WHY_PATHS, {
            subject,
            remedy: `multipathd reinstate path ${path.name}, when dmesg shows it well again`,
          })
        : stateFinding(subject, path, "warning"),
    ),
  ];
}

const REPAIR_BELOW = "Repair the paths below.";

/** How long multipathd lets I/O wait when every path is gone. Infinity: for ever. */
function queueMs(facts: MultipathFacts): number {
  const checks = /^(\d+) chk$/.exec(facts.queueing ?? "")?.[1];
  const seconds = /^(\d+) sec$/.exec(facts.queueing ?? "")?.[1];
  if (checks !== undefined && facts.pollingSeconds !== undefined) {
    return Number(checks) * facts.pollingSeconds * 1_000;
  }
  return seconds === undefined ? Infinity : Number(seconds) * 1_000;
}

function judgeQueueing(
  subject: string,
  map: string,
  facts: MultipathFacts,
  { timings, profile }: Yardstick,
): readonly DoctorFinding[] {
  if (facts.queuesIfNoPath === undefined) {
    return [];
  }
  const why =
    "A write that waits in the map is still the node's: it may land long after others have taken over, and the node cannot rejoin before.";
  const ms = facts.queuesIfNoPath ? queueMs(facts) : 0;
  const howLong = ms === Infinity ? "for ever" : `for ${msText(ms)}`;
  const rest = {
    subject,
    figure: Number.isFinite(ms) ? ms : null,
    unit: "ms",
    warningLimit: timings.ttlMs,
  } as const;
  return ms < timings.ttlMs
    ? [
        diagnosis(
          "paths",
          "ok",
          ms === 0 ? "I/O fails when no path is left" : `I/O waits ${howLong} when no path is left`,
          why,
          rest,
        ),
      ]
    : [
        diagnosis(
          "paths",
          "warning",
          `I/O waits ${howLong} when no path is left (queue_if_no_path); T of profile ${profile} is ${msText(timings.ttlMs)}`,
          why,
          {
            ...rest,
            remedy: `no_path_retry fail in /etc/multipath.conf, then multipathd reconfigure; at once: multipathd disablequeueing map ${map}`,
          },
        ),
      ];
}

/** How long I/O on one dead path waits before multipath hears of it. */
function judgeFailover(
  subject: string,
  path: DiskPath,
  { timings, profile }: Yardstick,
): readonly DoctorFinding[] {
  if (path.transport !== "fc" && path.iscsi === undefined) {
    return [];
  }
  const ms = path.iscsi === undefined ? fcFailoverMs(path) : failoverMs(path.iscsi);
  const { intervalMs, deadlineMs, ttlMs } = timings;
  const limit = ttlMs - intervalMs;
  const warningLimit = limit - deadlineMs;
  const level = ms >= limit ? "critical" : ms > warningLimit ? "warning" : "ok";
  const time = Number.isFinite(ms) ? `within ${msText(ms)}` : "never";
  return [
    diagnosis(
      "paths",
      level,
      `${path.name} gives up I/O on a dead path ${time}; ${msText(Math.max(0, warningLimit))} fit profile ${profile}`,
      WHY_FAILOVER,
      {
        subject,
        figure: Number.isFinite(ms) ? ms : null,
        unit: "ms",
        limit,
        warningLimit,
        remedy: level === "ok" ? null : failoverRemedy(subject, path, warningLimit, profile),
      },
    ),
  ];
}

/** Timers can be as short as a second; a profile whose T is too short even for that is the wrong one. */
function failoverRemedy(subject: string, path: DiskPath, limitMs: number, profile: string): string {
  if (limitMs < (path.iscsi === undefined ? 1_000 : NOTICED_MS_MIN)) {
    return `sharedha init ${subject} --profile multipath (a new region): no timer of the paths fits T of ${profile}`;
  }
  return path.iscsi === undefined
    ? `fast_io_fail_tmo ${Math.floor(limitMs / 1_000)} in /etc/multipath.conf, then multipathd reconfigure`
    : `sharedha iscsi timers ${path.iscsi.target} --profile ${profile}`;
}

function fcFailoverMs(path: DiskPath): number {
  const seconds = path.fastIoFailSeconds ?? path.devLossSeconds;
  return seconds === null ? Infinity : seconds * 1_000;
}
