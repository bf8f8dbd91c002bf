/** Findings about the other members, as this node sees their heartbeats. */
import { type MemberBody, type StatusBody } from "../net/api.js";
import { finding, type Finding, msText } from "./finding.js";

export function checkMembers(status: StatusBody): readonly Finding[] {
  const { members } = status;
  const live = members.filter((member) => member.state === "live").length;
  const text = `${live} of ${members.filter((member) => member.state !== "left").length} members live`;
  const figures = { figure: live, limit: 1, warningLimit: 2 };
  const total =
    live >= 2
      ? finding("members", "ok", text, figures)
      : finding("members", live === 1 ? "warning" : "critical", `${text}: nobody can take over`, {
          ...figures,
          remedy: "Join another node with `sharedha join`, or bring back those that are silent.",
        });
  const others = members
    .filter((member) => !member.isSelf)
    .map((member) => checkMember(member, status));
  return [total, ...others];
}

function checkMember(member: MemberBody, status: StatusBody): Finding {
  const { intervalMs, deadlineMs } = status.timers;
  const warningLimit = 2 * (intervalMs + deadlineMs);
  const age = msText(member.unchangedMs);
  const name = `${member.name} (host ${member.hostId})`;
  const rest = {
    subject: member.name,
    figure: member.unchangedMs,
    unit: "ms",
    limit: member.expiresAfterMs,
    warningLimit,
  } as const;
  switch (member.state) {
    case "left":
      return finding("members", "ok", `${name} has left`, { subject: member.name });
    case "unreadable":
      return finding("members", "critical", `the record of ${name} cannot be read`, {
        ...rest,
        remedy:
          "It is damaged or of a newer version: `sharedha dump PATH --area lockspace`; upgrade this node.",
      });
    case "expired":
      return finding("members", "critical", `${name} is dead: silent for ${age}`, {
        ...rest,
        remedy: `Repair ${member.name} and join it again.`,
      });
    case "silent":
      return finding("members", "warning", `${name} is silent for ${age}${expiryText(member)}`, {
        ...rest,
        remedy: silentRemedy(member),
      });
    case "foreign":
    case "live":
      return member.unchangedMs < warningLimit
        ? finding("members", "ok", `${name} is ${member.state}, heartbeat ${age} ago`, rest)
        : finding(
            "members",
            "warning",
            `${name} is ${member.state}, but its heartbeat is ${age} old`,
            {
              ...rest,
              remedy: `Look at the load of ${member.name} and its path to the LUN.`,
            },
          );
  }
}

function expiryText(member: MemberBody): string {
  if (member.expiresAfterMs !== null) {
    return `, taken over after ${msText(member.expiresAfterMs)}`;
  }
  return `, and time alone proves nothing${member.whyNoExpiry === null ? "" : `: ${member.whyNoExpiry}`}`;
}

function silentRemedy(member: MemberBody): string {
  return member.expiresAfterMs === null
    ? `Make sure that ${member.name} is off, then: sharedha fence ${member.name} --confirm-off.`
    : `Look at ${member.name}: it is down, or its path to the LUN is.`;
}
