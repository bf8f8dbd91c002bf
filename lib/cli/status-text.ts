/** `sharedha status` for people: sentences and tables, and at the end what is not possible now and why. */
import {
  type GroupBody,
  type HolderBody,
  type LeaseBody,
  type LunBody,
  type MemberBody,
  type StatusBody,
} from "../net/api.js";
import { type Paint, type Style } from "./terminal.js";
import { ago, type Cell, duration, plural, printable, table } from "./text.js";

const MEMBER_STYLE: Readonly<Record<MemberBody["state"], Style>> = {
  live: "green",
  silent: "yellow",
  expired: "red",
  left: "dim",
  foreign: "cyan",
  unreadable: "red",
};

const GROUP_STYLE: Readonly<Record<GroupBody["state"], Style>> = {
  up: "green",
  down: "dim",
  starting: "yellow",
  stopping: "yellow",
  failed: "red",
  "held-elsewhere": "cyan",
};

/** @param nowMs wall clock, only for "since when" */
export function renderStatus(status: StatusBody, paint: Paint, nowMs: number): string {
  return [
    headOf(status, paint),
    membersOf(status.members, paint),
    groupsOf(status.groups, paint, nowMs),
    leasesOf(status.leases, paint, nowMs),
    lunsOf(status.luns, paint),
    hindrancesOf(status.hindrances, paint),
  ]
    .filter((part) => part !== "")
    .join("\n");
}

function headOf(status: StatusBody, paint: Paint): string {
  const { cluster, node, timers, watchdog } = status;
  const id =
    node.hostId === null
      ? ""
      : ` (host ${node.hostId}${node.generation === null ? "" : `, generation ${printable(node.generation)}`})`;
  const state = paint(node.state === "joined" ? "green" : "yellow", node.state);
  const why = node.why === null ? "" : `: ${printable(node.why)}`;
  const beat =
    status.heartbeatMs === null ? "no heartbeat yet" : `${duration(status.heartbeatMs)} ago`;
  const late = status.heartbeatMs !== null && status.heartbeatMs >= timers.ttlMs;
  const limits =
    `every ${duration(timers.intervalMs)}, deadline ${duration(timers.deadlineMs)}, ` +
    `lost after ${duration(timers.ttlMs)} (profile ${printable(timers.profile)})`;
  return [
    `Cluster    ${paint("bold", printable(cluster.name))}, configuration epoch ${printable(cluster.epoch)}`,
    `Node       ${paint("bold", printable(node.name))}${id} ${state}${why}`,
    `Heartbeat  ${paint(late ? "red" : undefined, beat)}, ${limits}`,
    `Watchdog   ${watchdogText(watchdog, timers.watchdogMs, paint)}`,
    "",
  ].join("\n");
}

function watchdogText(watchdog: StatusBody["watchdog"], watchdogMs: number, paint: Paint): string {
  const device = watchdog.device === null ? "" : ` ${printable(watchdog.device)}`;
  const armed = watchdog.armed ? "armed" : "not armed (nothing is held)";
  const note =
    watchdog.note === null ? "" : `\n           ${paint("yellow", printable(watchdog.note))}`;
  return watchdog.kind === "none"
    ? `${paint("red", "none")}${note}`
    : `${watchdog.kind}${device}, ${armed}, fires after ${duration(watchdogMs)}${note}`;
}

function membersOf(members: readonly MemberBody[], paint: Paint): string {
  if (members.length === 0) {
    return "Members\n  none yet\n";
  }
  const rows = members.map((member) => [
    String(member.hostId),
    { text: member.name, ...(member.isSelf ? { style: "bold" as const } : {}) },
    { text: member.state, style: MEMBER_STYLE[member.state] },
    member.generation,
    member.state === "left" ? "-" : `${duration(member.unchangedMs)} ago`,
    member.latencyMs === null ? "-" : duration(member.latencyMs),
    `${member.watchdog}${member.armed ? ", armed" : ""}${member.virtual ? ", virtual" : ""}`,
    expiryOf(member),
  ]);
  const columns = [
    { title: "HOST", align: "right" },
    { title: "NODE" },
    { title: "STATE" },
    { title: "GENERATION", align: "right" },
    { title: "HEARTBEAT", align: "right" },
    { title: "LATENCY", align: "right" },
    { title: "WATCHDOG" },
    { title: "TAKEN OVER" },
  ] as const;
  return `${paint("bold", "Members")}\n${table(columns, rows, paint)}${whyNoExpiry(members)}`;
}

/** An idle member holds nothing that anybody could take over. */
function expiryOf(member: MemberBody): string {
  if (member.expiresAfterMs !== null) {
    return `after ${duration(member.expiresAfterMs)} of silence`;
  }
  return isIdle(member) ? "-" : "not by time alone";
}

function isIdle(member: MemberBody): boolean {
  return member.state === "left" || (member.state === "live" && !member.armed);
}

function whyNoExpiry(members: readonly MemberBody[]): string {
  return members
    .filter((member) => member.expiresAfterMs === null && !isIdle(member))
    .filter((member) => member.whyNoExpiry !== null)
    .map((member) => `  ${printable(member.name)}: ${printable(member.whyNoExpiry ?? "")}\n`)
    .join("");
}

export function holderText(holder: HolderBody): string {
  return `${printable(holder.name)} (host ${holder.hostId})`;
}

function holdersCell(holders: readonly HolderBody[], isHere: boolean): Cell {
  if (holders.length === 0) {
    return { text: "free", style: "dim" };
  }
  const text = holders.map(holderText).join(", ");
  return isHere ? { text, style: "bold" } : { text };
}

function sinceOf(holders: readonly HolderBody[], nowMs: number): string {
  const since = holders.map((holder) => holder.since).find((one) => one !== null);
  return since === undefined ? "-" : `${ago(since, nowMs)} ago`;
}

function queueOf(queue: readonly string[]): string {
  return queue.length === 0 ? "-" : queue.join(", ");
}

export function leaseTable(leases: readonly LeaseBody[], paint: Paint, nowMs: number): string {
  const rows = leases.map((lease) => [
    lease.name,
    lease.version,
    holdersCell(lease.holders, lease.heldHere),
    lease.holders.length === 0
      ? "-"
      : lease.holders.some(({ shared }) => shared)
        ? "shared"
        : "exclusive",
    sinceOf(lease.holders, nowMs),
    queueOf(lease.queue),
  ]);
  const columns = [
    { title: "LEASE" },
    { title: "VERSION", align: "right" },
    { title: "HOLDER" },
    { title: "MODE" },
    { title: "SINCE" },
    { title: "QUEUE" },
  ] as const;
  return table(columns, rows, paint);
}

function leasesOf(leases: readonly LeaseBody[], paint: Paint, nowMs: number): string {
  return leases.length === 0
    ? ""
    : `${paint("bold", "Leases")}\n${leaseTable(leases, paint, nowMs)}`;
}

function groupsOf(groups: readonly GroupBody[], paint: Paint, nowMs: number): string {
  if (groups.length === 0) {
    return "";
  }
  const rows = groups.map((group) => [
    group.name,
    { text: group.state, style: GROUP_STYLE[group.state] },
    group.holder === null ? "-" : holderText(group.holder),
    group.holder === null ? "-" : sinceOf([group.holder], nowMs),
    group.device,
    group.mount === null ? "-" : `${group.mount.path} (${group.mount.type})`,
    queueOf(group.queue),
  ]);
  const columns = [
    { title: "GROUP" },
    { title: "STATE" },
    { title: "HOLDER" },
    { title: "SINCE" },
    { title: "DEVICE" },
    { title: "MOUNT" },
    { title: "QUEUE" },
  ] as const;
  const whys = groups
    .filter((group) => group.why !== null)
    .map((group) => `  ${printable(group.name)}: ${printable(group.why ?? "")}\n`);
  return `${paint("bold", "Groups")}\n${table(columns, rows, paint)}${whys.join("")}`;
}

function lunsOf(luns: readonly LunBody[], paint: Paint): string {
  const counting = luns.filter((lun) => lun.counts).length;
  const needed = Math.floor(luns.length / 2) + 1;
  const rows = luns.map((lun) => [
    lun.path,
    { text: lun.state, style: lun.state === "ok" ? ("green" as const) : ("red" as const) },
    lun.counts ? "yes" : "no",
    lun.latencyMs === null ? "-" : duration(lun.latencyMs),
    lun.why ?? "",
  ]);
  const columns = [
    { title: "LUN" },
    { title: "STATE" },
    { title: "COUNTS" },
    { title: "LATENCY", align: "right" },
    { title: "" },
  ] as const;
  const enough = counting >= needed;
  const quorum = `${counting} of ${plural(luns.length, "LUN")} count, ${needed} needed`;
  return `${paint("bold", "Quorum")}  ${paint(enough ? undefined : "red", quorum)}\n${table(columns, rows, paint)}`;
}

function hindrancesOf(hindrances: StatusBody["hindrances"], paint: Paint): string {
  if (hindrances.length === 0) {
    return "";
  }
  const items = hindrances.map(
    ({ what, why, remedy }) =>
      `  ${paint("yellow", printable(what))}: ${printable(why)}\n    remedy: ${printable(remedy)}\n`,
  );
  return `${paint("bold", "Not possible now")}\n${items.join("")}`;
}
