/**
 * From the address of a LUN to a device that can be opened: discovery, login, timers, disk. What has been done already is
 * not done again, so that it can be called at every join and every start of the daemon.
 */
import { ShareHaError } from "../errors.js";
import {
  type ChapCredentials,
  type Disk,
  formatIscsiUrl,
  type Initiator,
  type IscsiUrl,
  isIscsiError,
  type LoginEvent,
  parseIscsiUrl,
  type Portal,
  type PortalLogin,
  type TargetPortal,
  type TimerChange,
} from "../node-iscsi-initiator/index.js";
import { type IscsiLun } from "./iscsi-lun.js";
import { type WantedTimers } from "./iscsi-timers.js";

export interface ConnectOptions {
  /** For the login; undefined: as the node record says. */
  readonly chap?: ChapCredentials | undefined;
  /** For so many portals; undefined: the record's are left alone. */
  readonly timersFor?: ((portals: number) => WantedTimers) | undefined;
  /** All portals of the target, for dm-multipath; else the one of the address. */
  readonly allPortals?: boolean;
  /** The disk that it was at the last join. */
  readonly wwid?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((event: LoginEvent) => void) | undefined;
}

export interface ConnectedLun extends IscsiLun {
  readonly changes: readonly TimerChange[];
  /** Portals where this call has logged in; not those that were logged in before. */
  readonly loggedIn: readonly Portal[];
  /** Portals of the target that could not be logged in to, while another could. */
  readonly failed: readonly { readonly portal: Portal; readonly error: ShareHaError }[];
  /** Records that got `node.startup = automatic`, with what they had before. */
  readonly startups: readonly { readonly portal: Portal; readonly former: string }[];
}

/** The service of open-iscsi logs in to records with `automatic` at boot. */
const STARTUP = "node.startup";

/** @throws the errors of discovery, login and waitForDisk; ERR_ISCSI_NO_WWID for a disk that cannot be told from another */
export async function connectLun(
  initiator: Initiator,
  address: string,
  options: ConnectOptions,
): Promise<ConnectedLun> {
  const url = parseIscsiUrl(address);
  const { target, lun } = url;
  const { chap, signal, onProgress, wwid } = options;
  const portals = await portalsOf(initiator, url, options);
  const timers = options.timersFor?.(portals.length);
  const changes: TimerChange[] = [];
  const startups: { portal: Portal; former: string }[] = [];
  const loggedIn: Portal[] = [];
  try {
    for (const portal of portals) {
      if (chap !== undefined) {
        await initiator.setChap(target, portal, chap);
      }
      const values = { [STARTUP]: "automatic" };
      const former = await initiator.updateNode(target, portal, values, { signal });
      if (former.has(STARTUP)) {
        startups.push({ portal, former: former.get(STARTUP) ?? "manual" });
      }
      if (timers !== undefined) {
        changes.push(...(await initiator.setTimers(target, timers, { portal, signal })));
      }
    }
    const outcomes = await loginAll(initiator, target, portals, { signal, onProgress });
    loggedIn.push(...outcomes.flatMap((one) => (one.kind === "logged-in" ? [one.portal] : [])));
    // By several paths it is the same disk, whichever brings it first.
    const portal = portals.length === 1 ? portals[0] : undefined;
    const { disk } = await initiator.waitForDisk(target, lun, { portal, wwid, signal });
    return {
      url: formatIscsiUrl(url),
      path: disk.stablePath ?? disk.path,
      wwid: requireName(disk, url),
      portals: options.allPortals === true ? "all" : "one",
      startups,
      changes,
      loggedIn,
      failed: outcomes.flatMap((one) =>
        one.kind === "failed" ? [{ portal: one.portal, error: one.error }] : [],
      ),
    };
  } catch (error) {
    await disconnectLun(initiator, { url: formatIscsiUrl(url), startups, loggedIn });
    throw error;
  }
}

function requireName(disk: Disk, url: IscsiUrl): string {
  if (disk.wwid !== undefined) {
    return disk.wwid;
  }
  throw new ShareHaError(
    "ERR_ISCSI_NO_WWID",
    `${formatIscsiUrl(url)} (${disk.path}) has no name of its own: it could not be told from another disk after a reboot`,
    {
      hint: "Give the LUN an identifier at the target (a NAA id; LIO: vpd_unit_serial).",
      fields: { url: formatIscsiUrl(url), path: disk.path },
    },
  );
}

/**
 * The portals to log in to. Discovery is asked every time, because it makes the records that are missing and knows a target
 * that is gone; but a session that stands is worth more than a discovery that fails.
 */
async function portalsOf(
  initiator: Initiator,
  url: IscsiUrl,
  options: ConnectOptions,
): Promise<readonly Portal[]> {
  const { target } = url;
  let offered: readonly TargetPortal[];
  try {
    offered = await initiator.discover(url.portal, { signal: options.signal });
  } catch (error) {
    const known = (await initiator.nodes({ signal: options.signal })).filter(
      (node) => node.target === target,
    );
    if (known.length === 0 || !isIscsiError(error) || isIscsiError(error, "ERR_ISCSI_CANCELLED")) {
      throw error;
    }
    return choose(known, url, options);
  }
  const mine = offered.filter((one) => one.target === target);
  if (mine.length === 0) {
    const others = offered.map((one) => one.target).join(", ");
    throw new ShareHaError(
      "ERR_ISCSI_TARGET_GONE",
      `the portal of ${formatIscsiUrl(url)} does not offer that target; it offers ${others === "" ? "none" : others}`,
      {
        hint: "Correct the name, or let the target list the name in /etc/iscsi/initiatorname.iscsi.",
        fields: { url: formatIscsiUrl(url), target },
      },
    );
  }
  return choose(mine, url, options);
}

/** The portal of the address; when the target is known by other addresses only (a name was given), its first. */
function choose(
  nodes: readonly TargetPortal[],
  url: IscsiUrl,
  options: ConnectOptions,
): readonly Portal[] {
  const portals = nodes.map(({ portal }) => portal);
  if (options.allPortals === true) {
    return portals;
  }
  const { address, port } = url.portal;
  const own = portals.find((portal) => portal.address === address && portal.port === port);
  return [own ?? portals[0] ?? url.portal];
}

async function loginAll(
  initiator: Initiator,
  target: string,
  portals: readonly Portal[],
  options: Pick<ConnectOptions, "signal" | "onProgress">,
): Promise<readonly PortalLogin[]> {
  const outcomes: PortalLogin[] = [];
  for (const portal of portals) {
    try {
      outcomes.push(...(await initiator.login(target, { portal, ...options })));
    } catch (error) {
      if (!(error instanceof ShareHaError) || isIscsiError(error, "ERR_ISCSI_CANCELLED")) {
        throw error;
      }
      outcomes.push({ kind: "failed", portal, error });
    }
  }
  const failed = outcomes.filter((one) => one.kind === "failed");
  if (failed.length === outcomes.length && failed[0] !== undefined) {
    throw failed[0].error;
  }
  return outcomes;
}

/**
 * Logs out and in again where this very command has logged in, so that timers count that a session takes at its login only.
 * Nobody else can have opened the disk in between.
 * @returns the changes that count now
 */
export async function loginAnew(
  initiator: Initiator,
  lun: ConnectedLun,
  changes: readonly TimerChange[],
  options: Pick<ConnectOptions, "signal" | "onProgress">,
): Promise<readonly TimerChange[]> {
  const { target, lun: number } = parseIscsiUrl(lun.url);
  const isOwn = (portal: Portal): boolean =>
    lun.loggedIn.some((one) => one.address === portal.address && one.port === portal.port);
  const pending = changes.filter(
    ({ portal, effective }) => effective === "next-login" && isOwn(portal),
  );
  const portals = lun.loggedIn.filter((portal) =>
    pending.some((change) => change.portal.address === portal.address),
  );
  for (const portal of portals) {
    await initiator.logout(target, { portal, signal: options.signal });
    await initiator.login(target, { portal, ...options });
  }
  if (portals.length > 0) {
    await initiator.waitForDisk(target, number, { wwid: lun.wwid, signal: options.signal });
  }
  return changes.map((change) =>
    pending.includes(change) ? { ...change, effective: "now" } : change,
  );
}

/** Back to what was before `connectLun`: for a join that failed afterwards. */
export async function disconnectLun(
  initiator: Initiator,
  lun: Pick<ConnectedLun, "url" | "startups" | "loggedIn">,
): Promise<void> {
  const { target } = parseIscsiUrl(lun.url);
  for (const { portal, former } of lun.startups) {
    await initiator.updateNode(target, portal, { [STARTUP]: former });
  }
  for (const portal of lun.loggedIn) {
    await initiator.logout(target, { portal });
  }
}
