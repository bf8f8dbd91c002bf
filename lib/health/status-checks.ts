/** Findings from the daemon's own view (GET /v1/status): the node itself, heartbeat, quorum, watchdog, versions. */
import { type StatusBody } from "../net/api.js";
import { finding, type Finding, type HealthReport, msText, reportOf } from "./finding.js";
import { checkGroups, checkLeases } from "./holding-checks.js";
import { checkMembers } from "./member-checks.js";

/**
 * @param programVersion of the command line that asks
 * @param answerMs how long the daemon took to answer
 */
export function healthOfStatus(
  status: StatusBody,
  programVersion: string,
  answerMs: number,
): HealthReport {
  return reportOf(
    [
      checkDaemon(answerMs),
      checkNode(status.node),
      checkHeartbeat(status),
      ...checkLatency(status),
      ...checkMembers(status),
      ...checkQuorum(status.luns),
      checkWatchdog(status),
      ...checkLeases(status),
      ...checkGroups(status),
      checkVersions(status.version, programVersion),
    ],
    "daemon",
  );
}

const ANSWER_WARNING_MS = 1_000;

function checkDaemon(answerMs: number): Finding {
  const figures = { figure: answerMs, unit: "ms", warningLimit: ANSWER_WARNING_MS } as const;
  return answerMs < ANSWER_WARNING_MS
    ? finding("daemon", "ok", `sharedhad answers in ${msText(answerMs)}`, figures)
    : finding("daemon", "warning", `sharedhad needed ${msText(answerMs)} to answer`, {
        ...figures,
        remedy: "Look at the load of the machine and at daemon.log in the state directory.",
      });
}

function checkNode(node: StatusBody["node"]): Finding {
  const why = node.why === null ? "" : `: ${node.why}`;
  const subject = node.name;
  switch (node.state) {
    case "joined":
      return finding("node", "ok", `${node.name} is a member`, { subject });
    case "joining":
      return finding("node", "warning", `${node.name} is still joining${why}`, {
        subject,
        remedy: "Wait; `sharedha status` shows what it waits for.",
      });
    case "leaving":
      return finding("node", "warning", `${node.name} is leaving${why}`, {
        subject,
        remedy: "Join again with `sharedha join` when it is to stay a member.",
      });
    case "lost":
      return finding("node", "critical", `${node.name} has lost its membership${why}`, {
        subject,
        remedy:
          "Look at `sharedha events`; it rejoins by itself when nothing is left of what it held.",
      });
  }
}

function checkHeartbeat(status: StatusBody): Finding {
  const { intervalMs, deadlineMs, ttlMs } = status.timers;
  const ageMs = status.heartbeatMs;
  const warningLimit = intervalMs + deadlineMs;
  const figures = { figure: ageMs, unit: "ms", limit: ttlMs, warningLimit } as const;
  const remedy =
    "Look at the LUN's path and load: `sharedha status` shows latency and state per LUN.";
  if (ageMs === null) {
    return finding("heartbeat", "critical", "this node writes no heartbeat", {
      ...figures,
      remedy,
    });
  }
  if (ageMs < warningLimit) {
    return finding("heartbeat", "ok", `own heartbeat ${msText(ageMs)} ago`, figures);
  }
  const text = `own heartbeat ${msText(ageMs)} ago, the node is lost at ${msText(ttlMs)}`;
  return finding("heartbeat", ageMs >= ttlMs ? "critical" : "warning", text, {
    ...figures,
    remedy,
  });
}

/** A renewal that takes half its deadline is one busy moment away from not counting. */
function checkLatency(status: StatusBody): readonly Finding[] {
  const latencyMs = status.members.find((member) => member.isSelf)?.latencyMs ?? null;
  if (latencyMs === null) {
    return [];
  }
  const { deadlineMs } = status.timers;
  const warningLimit = deadlineMs / 2;
  const figures = { figure: latencyMs, unit: "ms", limit: deadlineMs, warningLimit } as const;
  if (latencyMs < warningLimit) {
    return [finding("latency", "ok", `a heartbeat takes ${msText(latencyMs)}`, figures)];
  }
  const text = `a heartbeat takes ${msText(latencyMs)} of its ${msText(deadlineMs)}`;
  return [
    finding("latency", latencyMs >= deadlineMs ? "critical" : "warning", text, {
      ...figures,
      remedy:
        "Lower the load of the LUN or its path, or make the cluster anew with a slower profile.",
    }),
  ];
}

function checkQuorum(luns: StatusBody["luns"]): readonly Finding[] {
  const counting = luns.filter((lun) => lun.counts && isUsable(lun.state)).length;
  const needed = Math.floor(luns.length / 2) + 1;
  const figures = { figure: counting, limit: needed, warningLimit: luns.length };
  const text = `${counting} of ${luns.length} LUN${luns.length === 1 ? "" : "s"} usable, ${needed} needed`;
  const total =
    counting < needed
      ? finding("quorum", "critical", text, {
          ...figures,
          remedy: "Bring back the paths to the LUNs below; without a majority nothing is granted.",
        })
      : finding("quorum", counting < luns.length ? "warning" : "ok", text, {
          ...figures,
          ...(counting < luns.length ? { remedy: "See the LUNs below." } : {}),
        });
  const troubled = luns
    .filter((lun) => lun.state !== "ok" || !lun.counts)
    .map((lun) =>
      finding("quorum", "warning", `${lun.path} is ${lunText(lun)}`, {
        subject: lun.path,
        figure: lun.latencyMs,
        unit: "ms",
        remedy:
          lun.state === "blank" || lun.state === "foreign"
            ? `If ${lun.path} is meant to be in the set: \`sharedha lun replace ${lun.path}\`.`
            : `Check the path to ${lun.path} and its target.`,
      }),
    );
  return [total, ...troubled];
}

/** A late I/O is not a failed LUN yet; one that is stuck takes nothing more. */
function isUsable(state: StatusBody["luns"][number]["state"]): boolean {
  return state === "ok" || state === "late" || state === "stale";
}

function lunText(lun: StatusBody["luns"][number]): string {
  const counts = lun.counts ? "" : ", it does not count";
  const state = lun.state === "ok" ? "reachable" : lun.state;
  return `${state}${counts}${lun.why === null ? "" : `: ${lun.why}`}`;
}

function checkWatchdog(status: StatusBody): Finding {
  const { watchdog } = status;
  const note = watchdog.note === null ? "" : ` (${watchdog.note})`;
  const holdsHere =
    status.leases.some((lease) => lease.heldHere) ||
    status.groups.some((group) => group.state === "up" || group.state === "stopping");
  if (watchdog.kind === "none") {
    return finding("watchdog", "warning", `no watchdog${note}`, {
      remedy: "Nothing of this node is ever taken over without a human; join with --watchdog auto.",
    });
  }
  if (holdsHere && !watchdog.armed) {
    return finding(
      "watchdog",
      "critical",
      `${watchdog.kind} watchdog is not armed while something is held`,
      {
        remedy:
          "Release what is held and look at `sharedha events`; report it, this must not happen.",
      },
    );
  }
  const armed = watchdog.armed ? "armed" : "ready";
  return finding("watchdog", "ok", `${watchdog.kind} watchdog ${armed}${note}`);
}

function checkVersions(daemonVersion: string, programVersion: string): Finding {
  return daemonVersion === programVersion
    ? finding("versions", "ok", `version ${programVersion}`)
    : finding(
        "versions",
        "warning",
        `sharedhad runs version ${daemonVersion}, installed is ${programVersion}`,
        { remedy: "Restart sharedhad: leases and mounts stay up during a restart." },
      );
}
