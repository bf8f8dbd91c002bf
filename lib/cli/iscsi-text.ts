/** Sessions, disks and timers as text for people and as JSON for programs (docs/cli.md has the shapes). */
import {
  type Disk,
  formatPortal,
  type LiveTimers,
  type LoginEvent,
  type PortalLogin,
  type RescanResult,
  type Session,
  type TargetPortal,
  type TargetTimers,
  type TimerChange,
  type TimerName,
} from "../node-iscsi-initiator/index.js";
import { type Context } from "./context.js";
import { bytes, duration, plural, printable, table } from "./text.js";

const TIMER_TITLES: Readonly<Record<TimerName, string>> = {
  replacementTimeout: "replacement timeout",
  noopOutInterval: "noop-out interval",
  noopOutTimeout: "noop-out timeout",
  abortTimeout: "abort timeout",
  luResetTimeout: "LUN reset timeout",
  targetResetTimeout: "target reset timeout",
};
const TIMERS = Object.keys(TIMER_TITLES) as readonly TimerName[];
/** Between two lines about a login that takes its time. */
const TELL_EVERY_MS = 5_000;

interface TargetPortalBody {
  readonly portal: string;
  readonly tpgt: number | null;
}

export interface TargetBody {
  readonly target: string;
  readonly portals: readonly TargetPortalBody[];
}

/** One entry per target, in the order of the answer. */
export function targetBodies(found: readonly TargetPortal[]): readonly TargetBody[] {
  return [...new Set(found.map(({ target }) => target))].map((target) => ({
    target,
    portals: found
      .filter((one) => one.target === target)
      .map(({ portal, tpgt }) => ({ portal: formatPortal(portal), tpgt: tpgt ?? null })),
  }));
}

export function targetsText(targets: readonly TargetBody[]): string {
  return targets
    .map(({ target, portals }) => {
      const where = portals.map(({ portal }) => printable(portal)).join(", ");
      return `${printable(target)}  at ${where}\n`;
    })
    .join("");
}

export function diskBody(disk: Disk) {
  const { lun, name, path, stablePath = null, wwid = null, sizeBytes, state } = disk;
  return { lun, name, path, stablePath, wwid, sizeBytes, state };
}

export function sessionBody(session: Session) {
  const { sid, target, portal, currentPortal, tpgt = null, state, timers, disks } = session;
  return {
    sid,
    target,
    portal: portal === undefined ? null : formatPortal(portal),
    currentPortal: currentPortal === undefined ? null : formatPortal(currentPortal),
    tpgt,
    state,
    connectionState: session.connectionState ?? null,
    initiatorName: session.initiatorName ?? null,
    timers: timersBody(timers),
    disks: disks.map(diskBody),
  };
}

function timersBody(timers: LiveTimers): Readonly<Record<string, number | null>> {
  return Object.fromEntries(TIMERS.map((name) => [name, timers[name] ?? null]));
}

export function sessionsText(context: Context, sessions: readonly Session[]): string {
  return sessions
    .map((session) => {
      const { sid, target, portal, state, connectionState, disks } = session;
      const where = portal === undefined ? "nowhere yet" : formatPortal(portal);
      const isFine = state === "LOGGED_IN";
      const shown = context.paint(isFine ? "green" : "red", state);
      const link =
        connectionState === undefined ? "" : `, connection ${printable(connectionState)}`;
      const head = `session ${sid}  ${printable(target)} at ${printable(where)}  ${shown}${link}\n`;
      return head + (disks.length === 0 ? "  no disks\n" : disksText(context, disks));
    })
    .join("");
}

export function disksText(context: Context, disks: readonly Disk[]): string {
  const columns = [
    { title: "LUN", align: "right" as const },
    { title: "DISK" },
    { title: "SIZE", align: "right" as const },
    { title: "STATE" },
    { title: "WWID" },
    { title: "STABLE PATH" },
  ];
  const rows = disks.map((disk) => [
    String(disk.lun),
    disk.path,
    bytes(disk.sizeBytes),
    disk.state === "running" ? disk.state : { text: disk.state, style: "red" as const },
    disk.wwid ?? "-",
    disk.stablePath ?? "-",
  ]);
  return table(columns, rows, context.paint);
}

export function loginBody(target: string, outcomes: readonly PortalLogin[]) {
  return {
    target,
    portals: outcomes.map((one) => ({
      portal: formatPortal(one.portal),
      outcome: one.kind,
      sid: one.kind === "failed" ? null : one.session.sid,
      error:
        one.kind === "failed"
          ? { code: one.error.code, message: one.error.message, hint: one.error.hint }
          : null,
    })),
  };
}

export function loginText(target: string, outcomes: readonly PortalLogin[]): string {
  return outcomes
    .map((one) => {
      const where = `${printable(target)} at ${printable(formatPortal(one.portal))}`;
      switch (one.kind) {
        case "logged-in":
          return `logged in to ${where}: session ${one.session.sid}\n`;
        case "already":
          return `logged in already to ${where}: session ${one.session.sid}\n`;
        case "failed":
          return `not logged in to ${where}: ${printable(one.error.message)}\n  remedy: ${printable(one.error.hint)}\n`;
      }
    })
    .join("");
}

/** Tells a human at a terminal that a login goes on. */
export function loginTeller(context: Context): (event: LoginEvent) => void {
  let told = 0;
  return (event) => {
    if (context.isJson || event.kind !== "waiting" || event.elapsedMs < told + TELL_EVERY_MS) {
      return;
    }
    told = event.elapsedMs;
    const where = `${printable(event.target)} at ${printable(formatPortal(event.portal))}`;
    context.terminal.err(`logging in to ${where} (${duration(event.elapsedMs)})\n`);
  };
}

export function rescanBody(result: RescanResult) {
  const { session, added, removed, changed } = result;
  return {
    sid: session.sid,
    target: session.target,
    portal: session.portal === undefined ? null : formatPortal(session.portal),
    added: added.map(diskBody),
    removed: removed.map(diskBody),
    changed: changed.map(({ before, after }) => ({
      lun: after.lun,
      before: diskBody(before),
      after: diskBody(after),
    })),
  };
}

export function rescanText(result: RescanResult): string {
  const { session, added, removed, changed } = result;
  const lines = [
    ...added.map((disk) => `new LUN ${disk.lun}: ${disk.path}, ${bytes(disk.sizeBytes)}`),
    ...removed.map((disk) => `LUN ${disk.lun} is gone (${disk.path})`),
    ...changed.map(({ before, after }) =>
      before.wwid === after.wwid
        ? `LUN ${after.lun} (${after.path}): ${bytes(before.sizeBytes)} -> ${bytes(after.sizeBytes)}`
        : `LUN ${after.lun} (${after.path}) is ANOTHER DISK now: ${before.wwid ?? "?"} -> ${after.wwid ?? "?"}`,
    ),
  ];
  const what = lines.length === 0 ? "nothing new" : plural(lines.length, "change");
  const head = `session ${session.sid}  ${printable(session.target)}: ${what}, ${plural(session.disks.length, "disk")}\n`;
  return head + lines.map((line) => `  ${printable(line)}\n`).join("");
}

export function timerChangeBody({ portal, timer, from, to, effective }: TimerChange) {
  return { portal: formatPortal(portal), timer, from: from ?? null, to, effective };
}

export function targetTimersBody({ portal, record, session }: TargetTimers) {
  return {
    portal: formatPortal(portal),
    record: timersBody(record),
    session:
      session === undefined ? null : { sid: session.sid, timers: timersBody(session.timers) },
  };
}

const seconds = (value: number | undefined): string =>
  value === undefined ? "-" : value === -1 ? "never" : `${value} s`;

const EFFECTS: Readonly<Record<TimerChange["effective"], string>> = {
  now: "",
  record: " (at the login)",
  "next-login": " (not before the next login)",
};

export function timerChangesText(changes: readonly TimerChange[]): string {
  return changes
    .map(
      ({ portal, timer, from, to, effective }) =>
        `${printable(formatPortal(portal))}: ${TIMER_TITLES[timer]} ${seconds(from)} -> ${seconds(to)}${EFFECTS[effective]}\n`,
    )
    .join("");
}

export function targetTimersText(context: Context, all: readonly TargetTimers[]): string {
  return all
    .map(({ target, portal, record, session }) => {
      const columns = [
        { title: "TIMER" },
        { title: "RECORD", align: "right" as const },
        {
          title: session === undefined ? "NO SESSION" : `SESSION ${session.sid}`,
          align: "right" as const,
        },
      ];
      const rows = TIMERS.map((name) => [
        TIMER_TITLES[name],
        seconds(record[name]),
        seconds(session?.timers[name]),
      ]);
      const title = `${printable(target)} at ${printable(formatPortal(portal))}\n`;
      return title + table(columns, rows, context.paint);
    })
    .join("");
}
