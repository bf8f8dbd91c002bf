/** At the start of the daemon, also after a reboot: sessions for the LUNs of node.json, and where their disks are now. */
import { ShareHaError } from "../errors.js";
import { Initiator } from "../node-iscsi-initiator/index.js";
import { connectLun } from "./connect-lun.js";
import { absentPath, pathOfLun } from "./current-paths.js";
import { type IscsiLun, type LunPaths } from "./iscsi-lun.js";

export interface ReachedLuns extends LunPaths {
  readonly iscsi: readonly IscsiLun[];
  /** One sentence per LUN that was not as it was left. */
  readonly notes: readonly string[];
}

type Reached =
  { readonly path: string; readonly note: string | undefined } | { readonly error: ShareHaError };

/**
 * A minority of the LUNs may be away, as for those given by path: theirs lead nowhere, and do not count.
 * @throws why the first LUN cannot be reached, when none can
 */
export async function reconnectLuns(
  node: LunPaths,
  initiator = new Initiator(),
): Promise<ReachedLuns> {
  const luns = (node.iscsi ?? []).filter(({ path }) => node.paths.includes(path));
  const reached = await Promise.all(luns.map((lun) => reconnect(initiator, lun)));
  const errors = reached.flatMap((one) => ("error" in one ? [one.error] : []));
  if (errors[0] !== undefined && errors.length === node.paths.length) {
    throw errors[0];
  }
  const now = luns.map((lun, index): IscsiLun => {
    const one = reached[index];
    const path = one !== undefined && "path" in one ? one.path : absentPath(lun.wwid);
    return { ...lun, path };
  });
  return {
    paths: node.paths.map((path) => {
      const index = luns.findIndex((lun) => lun.path === path);
      return now[index]?.path ?? path;
    }),
    iscsi: now,
    notes: reached.flatMap((one) => {
      const note = "error" in one ? `${one.error.message}. ${one.error.hint}` : one.note;
      return note === undefined ? [] : [note];
    }),
  };
}

async function reconnect(initiator: Initiator, lun: IscsiLun): Promise<Reached> {
  const standing = pathOfLun(
    initiator.sessions().filter(({ state }) => state === "LOGGED_IN"),
    lun,
  );
  if (standing !== undefined) {
    const note = standing === lun.path ? undefined : `${lun.url} is ${standing} now`;
    return { path: standing, note };
  }
  try {
    const { path } = await connectLun(initiator, lun.url, {
      wwid: lun.wwid,
      allPortals: lun.portals === "all",
    });
    return { path, note: `logged in to ${lun.url}: ${path}` };
  } catch (error) {
    if (!(error instanceof ShareHaError)) {
      throw error;
    }
    // A session that is lost for the moment has its disk all the same, and iscsid brings it back.
    const path = pathOfLun(initiator.sessions(), lun);
    return path === undefined ? { error } : { path, note: `${error.message}. ${error.hint}` };
  }
}
