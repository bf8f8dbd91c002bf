/** The whole picture for people: who, what, where, and for everything that is not possible now, why and what to do. */
import { readFileSync } from "node:fs";

import { type Group, leaseNameOf } from "../group/group.js";
import { type Timings } from "../lease/timings.js";
import {
  type GroupBody,
  type LeaseBody,
  type LunBody,
  type MemberBody,
  type StatusBody,
} from "../net/api.js";
import { type Beat, type Hello } from "../pulse/messages.js";
import { type Region } from "../region/open-region.js";
import { type GroupManager } from "./group-manager.js";
import { type ListedLeases } from "./lease-views.js";

export type NodeState = StatusBody["node"]["state"];
export type Hindrance = StatusBody["hindrances"][number];

export interface StatusSources {
  readonly region: Region;
  readonly nodeName: string;
  readonly state: NodeState;
  readonly why: string | undefined;
  readonly hello: Hello | undefined;
  readonly beat: Beat | undefined;
  readonly nowMs: number;
  readonly members: readonly MemberBody[];
  readonly groups: readonly Group[];
  readonly groupManager: Pick<GroupManager, "state">;
  readonly listed: ListedLeases;
  /** Found elsewhere: configuration, foreign hosts, state directory ... */
  readonly hindrances: readonly Hindrance[];
}

export const VERSION: string = readVersion();

function readVersion(): string {
  // dist/lib/daemon in an installation, and the same depth in the source tree's build.
  const text = readFileSync(new URL("../../../package.json", import.meta.url), "utf8");
  const { version } = JSON.parse(text) as { readonly version: string };
  return version;
}

export function statusBody(sources: StatusSources): StatusBody {
  const { region, hello, beat, listed, members } = sources;
  const { superblock, timings } = region;
  const renewedAtMs = beat?.renewedAtMs;
  return {
    version: VERSION,
    cluster: {
      name: superblock.clusterName,
      uuid: superblock.clusterUuid,
      epoch: String(superblock.epoch),
    },
    node: {
      name: sources.nodeName,
      hostId: hello?.hostId ?? null,
      generation: hello === undefined ? null : String(hello.generation),
      state: sources.state,
      why: sources.why ?? null,
    },
    timers: { profile: region.profile, ...timings },
    watchdog: watchdogBody(hello, beat),
    members,
    leases: listed.leases.filter((lease) => !isInternal(lease.name)),
    groups: sources.groups.map((group) => groupBody(group, sources)),
    luns: region.luns.map((lun, index) => lunBody(lun, beat?.luns[index])),
    hindrances: hindrancesOf(sources, timings),
    heartbeatMs:
      renewedAtMs === undefined ? null : Math.max(0, Math.round(sources.nowMs - renewedAtMs)),
  };
}

/** Leases that sharedha uses for itself; people see them with `lease show`. */
export function isInternal(name: string): boolean {
  return name.startsWith("sharedha:");
}

function watchdogBody(hello: Hello | undefined, beat: Beat | undefined): StatusBody["watchdog"] {
  const kind = hello?.watchdog.kind ?? "none";
  return {
    kind,
    device: hello?.watchdog.device ?? null,
    armed: beat?.armed ?? false,
    note: hello === undefined ? null : noteOn(kind),
  };
}

function noteOn(kind: StatusBody["watchdog"]["kind"]): string | null {
  switch (kind) {
    case "hardware":
      return null;
    case "guard":
      return "a guard process stands in for a watchdog: weaker, it cannot stop writes the kernel already has";
    case "none":
      return "nothing resets this node when it hangs: what it holds is never taken over without a human's word";
  }
}

function lunBody(lun: Region["luns"][number], seen: Beat["luns"][number] | undefined): LunBody {
  const { path, superblock, counts, state, why } = lun;
  const isJudged = state !== "ok" && state !== "failed";
  return {
    path,
    uuid: superblock?.lunUuid ?? "",
    counts,
    state: isJudged ? state : (seen?.state ?? (state === "failed" ? "failed" : "ok")),
    why: why ?? seen?.why ?? null,
    latencyMs: seen?.latencyMs ?? null,
  };
}

function groupBody(group: Group, sources: StatusSources): GroupBody {
  const lease = leaseNameOf(group.name);
  const body = sources.listed.leases.find((each) => each.name === lease);
  const own = sources.groupManager.state(group.name);
  const holder = body?.holders[0] ?? null;
  const isElsewhere = own.state === "down" && holder !== null && body?.heldHere !== true;
  return {
    name: group.name,
    lease,
    device: group.device,
    mount: group.mount ?? null,
    state: isElsewhere ? "held-elsewhere" : own.state,
    holder,
    queue: body?.queue ?? [],
    why: own.why ?? (isElsewhere ? whyElsewhere(body, sources.members) : null),
  };
}

function whyElsewhere(lease: LeaseBody | undefined, members: readonly MemberBody[]): string | null {
  const holder = lease?.holders[0];
  const member = members.find((each) => each.hostId === holder?.hostId);
  if (holder === undefined || member?.state !== "silent") {
    return null;
  }
  return member.whyNoExpiry === null
    ? `${holder.name} is silent for ${member.unchangedMs} ms; it can be taken over after ${member.expiresAfterMs ?? 0} ms`
    : `${holder.name} is silent, but ${member.whyNoExpiry}`;
}

function hindrancesOf(sources: StatusSources, timings: Timings): readonly Hindrance[] {
  const found: Hindrance[] = [...sources.hindrances];
  if (sources.state !== "joined") {
    found.push({
      what: "no lease can be taken on this node",
      why: sources.why ?? `it is ${sources.state}`,
      remedy: "It joins by itself when that is safe; daemon.log and pulse.log tell more.",
    });
  }
  for (const member of sources.members) {
    if (member.state === "silent" && member.whyNoExpiry !== null && !member.isSelf) {
      found.push({
        what: `what ${member.name} holds cannot be taken over`,
        why: member.whyNoExpiry,
        remedy: `Make sure that it is off, then: sharedha fence ${member.name} --confirm-off`,
      });
    }
    if (member.state === "unreadable") {
      found.push({
        what: `host id ${member.hostId} cannot be judged`,
        why: "its host record cannot be read",
        remedy: "sharedha dump PATH --area lockspace shows the record.",
      });
    }
  }
  for (const lun of sources.region.luns) {
    if (!lun.counts) {
      found.push({
        what: `LUN ${lun.path} does not count`,
        why: lun.why ?? lun.state,
        remedy: `Repair the path to it, or replace it: sharedha lun replace ${lun.path}`,
      });
    }
  }
  for (const { name, why } of sources.listed.unread) {
    found.push({
      what: `lease ${name} cannot be read`,
      why,
      remedy: "sharedha dump PATH shows the records.",
    });
  }
  const ageMs = sources.nowMs - (sources.beat?.renewedAtMs ?? sources.nowMs);
  if (ageMs > timings.intervalMs + timings.deadlineMs) {
    found.push({
      what: "the own heartbeat is late",
      why: `the newest renewal is ${Math.round(ageMs)} ms old; after ${timings.ttlMs} ms this node has lost`,
      remedy: "Check the path to the LUNs and the load of the machine.",
    });
  }
  return found;
}
