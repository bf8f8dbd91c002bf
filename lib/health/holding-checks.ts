/** Findings about what is held: leases whose holder is silent, groups that are not up where they are held. */
import { type HolderBody, type MemberBody, type StatusBody } from "../net/api.js";
import { finding, type Finding, type Level, worstLevel } from "./finding.js";

interface HolderJudgement {
  readonly level: Level;
  readonly text: string;
  readonly remedy: string | null;
}

/** Only leases with trouble get a line of their own: there may be thousands. */
export function checkLeases(status: StatusBody): readonly Finding[] {
  const held = status.leases.filter((lease) => lease.holders.length > 0);
  const troubled = held.flatMap((lease) =>
    lease.holders.flatMap((holder): readonly Finding[] => {
      const judged = judgeHolder(holder, status.members);
      return judged.level === "ok"
        ? []
        : [
            finding("leases", judged.level, `${lease.name} is held by ${judged.text}`, {
              subject: lease.name,
              figure: lease.queue.length,
              remedy: judged.remedy,
            }),
          ];
    }),
  );
  const count = `${held.length} of ${status.leases.length} leases held`;
  const level = worstLevel(troubled.map((one) => one.level));
  const total = finding(
    "leases",
    level,
    troubled.length === 0 ? count : `${count}, ${troubled.length} with trouble`,
    {
      figure: troubled.length,
      ...(troubled.length === 0 ? {} : { remedy: "See the leases below." }),
    },
  );
  return [total, ...troubled];
}

function judgeHolder(holder: HolderBody, members: readonly MemberBody[]): HolderJudgement {
  const member = members.find(
    ({ hostId, generation }) => hostId === holder.hostId && generation === holder.generation,
  );
  const name = `${holder.name} (host ${holder.hostId})`;
  if (member === undefined) {
    return {
      level: "warning",
      text: `${name} in generation ${holder.generation}, which is no member now`,
      remedy:
        "It is taken over by whoever acquires it, once there is evidence; `sharedha status` says what is missing.",
    };
  }
  switch (member.state) {
    case "live":
    case "foreign":
      return { level: "ok", text: name, remedy: null };
    case "silent":
      return {
        level: "warning",
        text: `${name}, which is silent`,
        remedy: `Look at ${holder.name}; others take over when it has expired.`,
      };
    case "left":
      return {
        level: "warning",
        text: `${name}, which has left`,
        remedy: "Acquire and release it from a member.",
      };
    case "expired":
      return {
        level: "critical",
        text: `${name}, which is dead`,
        remedy:
          "Acquire it from another node: `sharedha reserve GROUP` or `sharedha lease acquire NAME`.",
      };
    case "unreadable":
      return {
        level: "critical",
        text: `${name}, whose record cannot be read`,
        remedy: `If ${holder.name} is off: sharedha fence ${holder.name} --confirm-off.`,
      };
  }
}

export function checkGroups(status: StatusBody): readonly Finding[] {
  return status.groups.map((group) => {
    const { name, holder } = group;
    const why = group.why === null ? "" : `: ${group.why}`;
    const isHere = holder !== null && holder.hostId === status.node.hostId;
    const make = (level: Level, text: string, remedy: string | null): Finding =>
      finding("groups", level, `group ${text}`, { subject: name, remedy });
    switch (group.state) {
      case "up":
        return make("ok", `${name} is up here`, null);
      case "starting":
      case "stopping":
        return make(
          "warning",
          `${name} is ${group.state}${why}`,
          "Wait; `sharedha status` shows when it is done.",
        );
      case "failed":
        return make(
          "critical",
          `${name} has failed${why}`,
          `Remove the cause, then \`sharedha release ${name}\` and \`sharedha reserve ${name}\`.`,
        );
      case "down":
        return isHere
          ? make(
              "critical",
              `${name} is held here but not mounted${why}`,
              `\`sharedha release ${name}\`, then \`sharedha reserve ${name}\`.`,
            )
          : make(
              "warning",
              `${name} is down, nobody has it${why}`,
              `\`sharedha reserve ${name}\` on one node.`,
            );
      case "held-elsewhere": {
        const judged = holder === null ? undefined : judgeHolder(holder, status.members);
        return judged === undefined
          ? make(
              "unknown",
              `${name} is held elsewhere, by whom is not known${why}`,
              "Look at `sharedha lease list`.",
            )
          : make(judged.level, `${name} is held by ${judged.text}`, judged.remedy);
      }
    }
  });
}
