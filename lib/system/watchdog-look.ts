/**
 * The machine's watchdogs without opening one: opening starts it. `wdctl` is not asked either, since it opens the device
 * for what sysfs does not tell.
 */
import { ShareHaError } from "../errors.js";
import { type SystemTree } from "./system-tree.js";
import { examineWatchdog, SOFTDOG } from "./watchdog.js";
import { watchdogSysfs } from "./watchdog-sys.js";

export interface WatchdogLook {
  /** "/dev/watchdog0" */
  readonly device: string;
  readonly identity: string;
  readonly isSoftware: boolean;
  readonly state: string;
  readonly timeoutSeconds: number | undefined;
  readonly minSeconds: number | undefined;
  /** Undefined or 0: the driver names no limit. */
  readonly maxSeconds: number | undefined;
  /** "wd_keepalive (pid 812)" */
  readonly holders: readonly string[];
  /** Why `join` would not take it with this W. */
  readonly refusal:
    { readonly code: string; readonly message: string; readonly hint: string } | undefined;
}

export interface WatchdogsLook {
  readonly watchdogs: readonly WatchdogLook[];
  /** Device nodes that sysfs does not describe (a kernel without CONFIG_WATCHDOG_SYSFS). */
  readonly undescribed: readonly string[];
  /** Running programs that want a watchdog for themselves: "sbd (pid 12)". */
  readonly rivals: readonly string[];
}

/** sanlock's wdmd, SBD, and the watchdog daemon with its early form. */
const RIVALS = new Set(["sbd", "wdmd", "watchdog", "wd_keepalive", "watchdogd", "watchdog-mux"]);

export function lookAtWatchdogs(tree: SystemTree, timeoutSeconds: number): WatchdogsLook {
  const sys = watchdogSysfs(tree.at("/"));
  const watchdogs = sys.list().map((name): WatchdogLook => {
    const device = `/dev/${name}`;
    const seconds = (file: string): number | undefined =>
      tree.number(`/sys/class/watchdog/${name}/${file}`);
    const identity = sys.attribute(name, "identity") ?? "unknown";
    return {
      device,
      identity,
      isSoftware: identity === SOFTDOG,
      state: sys.attribute(name, "state") ?? "unknown",
      timeoutSeconds: seconds("timeout"),
      minSeconds: seconds("min_timeout"),
      maxSeconds: seconds("max_timeout"),
      holders: sys.holders(device),
      refusal: refusalOf(() => examineWatchdog(device, timeoutSeconds, sys)),
    };
  });
  const described = new Set(watchdogs.map(({ device }) => device));
  return {
    watchdogs,
    undescribed: tree
      .list("/dev")
      .filter((name) => /^watchdog\d+$/.test(name))
      .map((name) => `/dev/${name}`)
      .filter((device) => !described.has(device)),
    rivals: findRivals(tree),
  };
}

function refusalOf(examine: () => unknown): WatchdogLook["refusal"] {
  try {
    examine();
    return undefined;
  } catch (error) {
    if (!(error instanceof ShareHaError)) {
      throw error;
    }
    const { code, message, hint } = error;
    return { code, message, hint };
  }
}

/** Kernel threads ("watchdogd") have no program. */
function findRivals(tree: SystemTree): readonly string[] {
  return tree
    .list("/proc")
    .filter((pid) => /^\d+$/.test(pid))
    .flatMap((pid) => {
      const name = tree.text(`/proc/${pid}/comm`) ?? "";
      const isProgram = RIVALS.has(name) && (tree.text(`/proc/${pid}/cmdline`) ?? "") !== "";
      return isProgram ? [`${name} (pid ${pid})`] : [];
    });
}
