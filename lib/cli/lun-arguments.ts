/** The LUNs of a command line: paths, and addresses iscsi://PORTAL/TARGET/LUN, which are connected and become paths. */
import { resolve } from "node:path";

import { PROFILES, type Timings } from "../lease/timings.js";
import type { ChapCredentials, Initiator, TimerChange } from "../node-iscsi-initiator/index.js";
import type { WantedTimers } from "../san/iscsi-timers.js";
import type { ConnectedLun } from "../san/connect-lun.js";
import type { IscsiLun, LunPaths } from "../san/iscsi-lun.js";
import { type Context } from "./context.js";
import { usageError } from "./exit-code.js";
import { printable } from "./text.js";

export interface ConnectedLuns {
  readonly paths: readonly string[];
  readonly connected: readonly ConnectedLun[];
}

export function isAddress(argument: string): boolean {
  return /^iscsi:/i.test(argument);
}

/** The arguments of the former join, for a join without any. @throws ERR_USAGE */
export function formerArguments(former: LunPaths | undefined): readonly string[] {
  if (former === undefined) {
    throw usageError(
      "no LUN is given, and this node has not joined before",
      "`sharedha join PATH...` or `sharedha join iscsi://PORTAL/TARGET/LUN`; --state-dir if it is another node's.",
    );
  }
  const { paths, iscsi = [] } = former;
  return paths.map((path) => iscsi.find((lun) => lun.path === path)?.url ?? path);
}

/** What the arguments mean to a node that is joined already; an address that it does not know stays one. */
export async function knownPaths(
  args: readonly string[],
  former: LunPaths | undefined,
): Promise<readonly string[]> {
  return await Promise.all(
    args.map(async (argument) => {
      if (!isAddress(argument)) {
        return resolve(argument);
      }
      const { formatIscsiUrl, parseIscsiUrl } = await import("../node-iscsi-initiator/index.js");
      const url = formatIscsiUrl(parseIscsiUrl(argument));
      return former?.iscsi?.find((lun) => lun.url === url)?.path ?? url;
    }),
  );
}

export interface ConnectLunsOptions {
  readonly former?: LunPaths | undefined;
  readonly chap?: ChapCredentials | undefined;
  /** Of the cluster, where it is known already (`init`). */
  readonly profile?: { readonly name: string; readonly timings: Timings } | undefined;
}

/** Connects one after the other; when one fails, those that this call has connected before are undone. */
export async function connectLuns(
  context: Context,
  args: readonly string[],
  options: ConnectLunsOptions,
): Promise<ConnectedLuns> {
  if (!args.some(isAddress)) {
    return { paths: args.map((path) => resolve(path)), connected: [] };
  }
  const [initiator, { connectLun }, { sessionTimersFor }, text, { interruptible }] =
    await Promise.all([
      context.initiator(),
      import("../san/connect-lun.js"),
      import("../san/iscsi-timers.js"),
      import("./iscsi-text.js"),
      import("./interrupt.js"),
    ]);
  const { formatIscsiUrl, parseIscsiUrl } = await import("../node-iscsi-initiator/index.js");
  const { former, chap, profile } = options;
  // The pings of a session are set at its login only, so they are set before the profile is known: most have these.
  const timings = profile?.timings ?? PROFILES.default;
  const connected: ConnectedLun[] = [];
  const paths: string[] = [];
  try {
    for (const argument of args) {
      if (!isAddress(argument)) {
        paths.push(resolve(argument));
        continue;
      }
      const url = formatIscsiUrl(parseIscsiUrl(argument));
      const known = former?.iscsi?.find((lun) => lun.url === url);
      const lun = await interruptible((signal) =>
        connectLun(initiator, url, {
          chap,
          signal,
          wwid: known?.wwid,
          timersFor:
            known === undefined || profile !== undefined
              ? (portals) => sessionTimersFor(timings, portals)
              : undefined,
          allPortals: known?.portals === "all" || profile?.name === "multipath",
          onProgress: text.loginTeller(context),
        }),
      );
      connected.push(lun);
      paths.push(lun.path);
    }
  } catch (error) {
    await disconnectLuns(initiator, connected);
    throw error;
  }
  return { paths, connected };
}

export async function disconnectLuns(
  initiator: Initiator,
  connected: readonly ConnectedLun[],
): Promise<void> {
  const { disconnectLun } = await import("../san/connect-lun.js");
  for (const lun of connected) {
    await disconnectLun(initiator, lun);
  }
}

/**
 * The timers of the region's profile, now that it is known; with several paths also the other portals.
 * @param onFitted told after each, with those that are done: what has to be undone if a later one fails
 * @returns the LUNs with all changes of this join
 */
export async function fitLuns(
  context: Context,
  luns: readonly ConnectedLun[],
  profile: { readonly name: string; readonly timings: Timings },
  onFitted: (fitted: readonly ConnectedLun[]) => void = () => undefined,
): Promise<readonly ConnectedLun[]> {
  if (luns.length === 0) {
    return luns;
  }
  const initiator = await context.initiator();
  const { connectLun, loginAnew } = await import("../san/connect-lun.js");
  const { sessionTimersFor } = await import("../san/iscsi-timers.js");
  const timersFor = (portals: number): WantedTimers => sessionTimersFor(profile.timings, portals);
  const allPortals = profile.name === "multipath";
  const fitted: ConnectedLun[] = [];
  for (const lun of luns) {
    const again = await connectLun(initiator, lun.url, { wwid: lun.wwid, timersFor, allPortals });
    const effective = await loginAnew(initiator, lun, again.changes, {});
    fitted.push({
      ...again,
      changes: mergeChanges(lun.changes, effective),
      loggedIn: [...lun.loggedIn, ...again.loggedIn],
      startups: [...lun.startups, ...again.startups],
    });
    onFitted(fitted);
  }
  return fitted;
}

/** From what it was before the command to what it is now. */
function mergeChanges(
  early: readonly TimerChange[],
  late: readonly TimerChange[],
): readonly TimerChange[] {
  const isSame = (one: TimerChange, other: TimerChange): boolean =>
    one.timer === other.timer &&
    one.portal.address === other.portal.address &&
    one.portal.port === other.portal.port;
  const merged = early.map((change) => {
    const later = late.find((one) => isSame(one, change));
    // What was put into the record before the login counts since the login.
    const effective = change.effective === "record" ? "now" : change.effective;
    return later === undefined ? { ...change, effective } : { ...later, from: change.from };
  });
  const added = late.filter((change) => !early.some((one) => isSame(one, change)));
  return [...merged, ...added].filter(({ from, to }) => from !== to);
}

/**
 * @param fitted those of `connected`, in the same order, as they are in the end. udev makes the links of a disk one after the
 *   other, so the best path may have become another one; an entry of `iscsi` without its path would be none
 */
export function lunsOf(
  { paths, connected }: ConnectedLuns,
  fitted: readonly ConnectedLun[],
): LunPaths & { readonly iscsi: readonly IscsiLun[] } {
  const newest = new Map(
    connected.map((lun, index) => [lun.path, fitted[index]?.path ?? lun.path]),
  );
  return {
    paths: paths.map((path) => newest.get(path) ?? path),
    iscsi: fitted.map(({ path, url, wwid, portals }) => ({ path, url, wwid, portals })),
  };
}

export async function connectedBodies(
  connected: readonly ConnectedLun[],
): Promise<readonly unknown[]> {
  if (connected.length === 0) {
    return [];
  }
  const { timerChangeBody } = await import("./iscsi-text.js");
  return connected.map(({ url, path, wwid, changes }) => ({
    url,
    path,
    wwid,
    changes: changes.map(timerChangeBody),
  }));
}

export async function connectedText(connected: readonly ConnectedLun[]): Promise<string> {
  if (connected.length === 0) {
    return "";
  }
  const { timerChangesText } = await import("./iscsi-text.js");
  return connected
    .map(({ url, path, changes, failed }) => {
      const missing = failed.map(({ error }) => `  not logged in: ${printable(error.message)}\n`);
      const lines = timerChangesText(changes).replaceAll(/^(?=.)/gm, "  ");
      return `${printable(url)} is ${printable(path)}\n${missing.join("")}${lines}`;
    })
    .join("");
}
