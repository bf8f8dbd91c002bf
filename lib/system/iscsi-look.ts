/** The iSCSI session behind a disk, for `sharedha doctor`, as the initiator reads it. */
import { formatPortal, Initiator } from "../node-iscsi-initiator/index.js";
import { type SystemTree } from "./system-tree.js";

export interface IscsiSession {
  /** "session1" */
  readonly session: string;
  readonly target: string;
  /** "10.77.0.9:3260" */
  readonly portal: string | undefined;
  /** "LOGGED_IN", "FAILED", "FREE" */
  readonly state: string;
  /** replacement_timeout: how long I/O waits for a lost session. Null: for ever, or not told. */
  readonly recoverySeconds: number | null;
  /** noop_out_interval: silence after which the target is asked; 0 never. Null: not told. */
  readonly pingIntervalSeconds: number | null;
  /** noop_out_timeout: how long the answer may take; 0 for ever. Null: not told. */
  readonly pingTimeoutSeconds: number | null;
}

/** @param disk the disk's directory in sysfs with every link followed: "/sys/devices/.../block/sda" */
export function iscsiSessionOf(tree: SystemTree, disk: string): IscsiSession | undefined {
  const sid = Number(/\/session(\d+)\//.exec(disk)?.[1] ?? NaN);
  const roots = { sysfs: tree.at("/sys"), dev: tree.at("/dev") };
  const found = new Initiator({ roots }).sessions().find((session) => session.sid === sid);
  if (found === undefined) {
    return undefined;
  }
  const { target, state, timers } = found;
  const portal = found.portal ?? found.currentPortal;
  const recovery = timers.replacementTimeout;
  return {
    session: `session${sid}`,
    target,
    portal: portal === undefined ? undefined : formatPortal(portal),
    state,
    recoverySeconds: recovery === undefined || recovery < 0 ? null : recovery,
    pingIntervalSeconds: timers.noopOutInterval ?? null,
    pingTimeoutSeconds: timers.noopOutTimeout ?? null,
  };
}
