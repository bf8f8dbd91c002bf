/** Sets timers in the records, for every later login, and in the running sessions as far as the kernel lets it. */
import { type Portal } from "./address.js";
import { type Edges, type OperationOptions } from "./edges.js";
import { nodePortals, readNode, updateNode } from "./node-record.js";
import { readSessions, type Session, sessionsOf } from "./session.js";
import {
  checkTimers,
  type LiveTimers,
  recordTimers,
  type SessionTimers,
  TIMER_NAMES,
  type TimerName,
  TIMERS,
  writeReplacementTimeout,
} from "./session-timers.js";

export interface TimerOptions extends OperationOptions {
  readonly portal?: Portal | undefined;
}

/** The timers of a target at one portal: of its record, and of the session if there is one. Seconds. */
export interface TargetTimers {
  readonly target: string;
  readonly portal: Portal;
  readonly record: LiveTimers;
  readonly session: { readonly sid: number; readonly timers: LiveTimers } | undefined;
}

export interface TimerChange {
  readonly portal: Portal;
  readonly timer: TimerName;
  /** Undefined: it was not set or not known. */
  readonly from: number | undefined;
  readonly to: number;
  /**
   * `now`: in the record and in the session. `next-login`: in the record; the session has `from` until it is logged out and
   * in again (the kernel takes these at the login only). `record`: there is no session.
   */
  readonly effective: "now" | "next-login" | "record";
}

/** @throws ERR_ISCSI_NO_RECORD */
export async function readTimers(
  edges: Edges,
  target: string,
  options: TimerOptions,
): Promise<readonly TargetTimers[]> {
  const result: TargetTimers[] = [];
  for (const portal of await nodePortals(edges, target, options.portal, options)) {
    const record = recordTimers(await readNode(edges, { target, portal }, options));
    const session = sessionAt(edges, target, portal);
    result.push({
      target,
      portal,
      record,
      session: session === undefined ? undefined : { sid: session.sid, timers: session.timers },
    });
  }
  return result;
}

/** @returns what was changed; empty when everything was as wanted. @throws ERR_ISCSI_TIMERS, ERR_ISCSI_NO_RECORD */
export async function setTimers(
  edges: Edges,
  target: string,
  timers: Partial<SessionTimers>,
  options: TimerOptions,
): Promise<readonly TimerChange[]> {
  checkTimers(timers);
  const wanted = TIMER_NAMES.flatMap((name) => {
    const value = timers[name];
    return value === undefined ? [] : [[name, value] as const];
  });
  const changes: TimerChange[] = [];
  for (const portal of await nodePortals(edges, target, options.portal, options)) {
    const before = recordTimers(await readNode(edges, { target, portal }, options));
    const values = wanted.map(([name, value]) => [TIMERS[name].parameter, String(value)] as const);
    await updateNode(edges, { target, portal }, Object.fromEntries(values), options);
    const session = sessionAt(edges, target, portal);
    for (const [timer, to] of wanted) {
      const change =
        session === undefined
          ? recordChange(before, timer, to)
          : sessionChange(edges, session, before, timer, to);
      changes.push(...(change === undefined ? [] : [{ portal, timer, to, ...change }]));
    }
  }
  return changes;
}

type Change = Pick<TimerChange, "from" | "effective">;

function recordChange(before: LiveTimers, timer: TimerName, to: number): Change | undefined {
  return before[timer] === to ? undefined : { from: before[timer], effective: "record" };
}

function sessionChange(
  edges: Edges,
  session: Session,
  record: LiveTimers,
  timer: TimerName,
  to: number,
): Change | undefined {
  const live = session.timers[timer];
  if (live === to) {
    return record[timer] === to ? undefined : { from: record[timer], effective: "now" };
  }
  const isSet =
    timer === "replacementTimeout" && writeReplacementTimeout(edges.roots.sysfs, session.sid, to);
  return { from: live, effective: isSet ? "now" : "next-login" };
}

function sessionAt(edges: Edges, target: string, portal: Portal): Session | undefined {
  return sessionsOf(readSessions(edges.roots), target, portal).find(
    (session) => session.portal !== undefined,
  );
}
