/**
 * Findings without a daemon: what can be read from the LUNs of node.json. Two looks at the lockspace, one window apart,
 * show who still renews; that proves life, and never death.
 */
import { type HostLook } from "../region/lockspace-look.js";
import { finding, type Finding, type HealthReport, msText, reportOf } from "./finding.js";

export interface LunsLook {
  /** The name in node.json. */
  readonly node: string;
  readonly luns: readonly {
    readonly path: string;
    readonly counts: boolean;
    readonly state: string;
    readonly why: string | null;
  }[];
  /** Undefined: no majority of the LUNs could be read, so nothing is known of the hosts. */
  readonly hosts: readonly HostLook[] | undefined;
  /** Between the two looks. */
  readonly windowMs: number;
  /** Why the region could not be opened at all. */
  readonly trouble: { readonly message: string; readonly hint: string } | undefined;
}

const START_REMEDY =
  "Start it: `sharedha join PATH...` with the same paths, or the service that runs sharedhad.";

/** @param why how the daemon failed to answer */
export function healthWithoutDaemon(
  why: { readonly message: string; readonly hint: string },
  look: LunsLook,
): HealthReport {
  const daemon = finding("daemon", "critical", why.message, { remedy: why.hint });
  if (look.trouble !== undefined) {
    const { message, hint } = look.trouble;
    return reportOf([daemon, finding("quorum", "critical", message, { remedy: hint })], "luns");
  }
  return reportOf(
    [daemon, ...checkLuns(look.luns), ...checkHosts(look), ...unknownChecks()],
    "luns",
  );
}

/** No daemon and no node.json: this machine is no member, and nothing can be said about a cluster. */
export function healthOfNobody(stateDir: string): HealthReport {
  return reportOf(
    [
      finding(
        "node",
        "unknown",
        `this node is no member of a cluster (no node.json in ${stateDir})`,
        {
          remedy:
            "Join with `sharedha join PATH...`, or name the state directory with --state-dir.",
        },
      ),
    ],
    "none",
  );
}

function checkLuns(luns: LunsLook["luns"]): readonly Finding[] {
  const good = luns.filter((lun) => lun.counts).length;
  const needed = Math.floor(luns.length / 2) + 1;
  const level = good < needed ? "critical" : good < luns.length ? "warning" : "ok";
  const total = finding(
    "quorum",
    level,
    `${good} of ${luns.length} LUNs readable, ${needed} needed`,
    {
      figure: good,
      limit: needed,
      warningLimit: luns.length,
      remedy: level === "ok" ? null : "Bring back the paths to the LUNs below.",
    },
  );
  const troubled = luns
    .filter((lun) => !lun.counts || lun.state !== "ok")
    .map((lun) =>
      finding(
        "quorum",
        "warning",
        `${lun.path} is ${lun.state}${lun.why === null ? "" : `: ${lun.why}`}`,
        {
          subject: lun.path,
          remedy: `Check the path to ${lun.path} and its target.`,
        },
      ),
    );
  return [total, ...troubled];
}

function checkHosts(look: LunsLook): readonly Finding[] {
  if (look.hosts === undefined) {
    return [
      finding(
        "members",
        "unknown",
        "no majority of the LUNs can be read, so nothing is known of the members",
        {
          remedy: "Bring back the paths to the LUNs.",
        },
      ),
    ];
  }
  return look.hosts
    .filter((host) => host.state !== "free")
    .map((host) => checkHost(host, host.name === look.node, look.windowMs));
}

function checkHost(host: HostLook, isSelf: boolean, windowMs: number): Finding {
  const name = `${host.name} (host ${host.hostId})`;
  const rest = { subject: host.name };
  if (host.state === "unreadable") {
    return finding("members", "critical", `the record of ${name} cannot be read`, {
      ...rest,
      remedy: "`sharedha dump PATH --area lockspace` shows what is there.",
    });
  }
  if (host.state === "changed") {
    return isSelf
      ? finding("members", "warning", `${name} renews although its daemon is gone`, {
          ...rest,
          remedy: `Its pulse lives on for a restart. ${START_REMEDY}`,
        })
      : finding("members", "ok", `${name} renews`, rest);
  }
  return finding("members", "warning", `${name} did not renew within ${msText(windowMs)}`, {
    ...rest,
    figure: windowMs,
    unit: "ms",
    remedy: isSelf ? START_REMEDY : `Look at ${host.name}: it is down, or its path to the LUN is.`,
  });
}

function unknownChecks(): readonly Finding[] {
  const remedy = "Only the daemon knows; see above.";
  return [
    finding("watchdog", "unknown", "watchdog not checked", { remedy }),
    finding("groups", "unknown", "groups not checked", { remedy }),
  ];
}
