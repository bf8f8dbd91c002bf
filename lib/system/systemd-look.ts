/**
 * Which watchdog systemd uses and when (systemd-system.conf(5)): asked of systemd itself where it runs, and read from the
 * files otherwise.
 */
import { basename, join } from "node:path";

import { run } from "./process.js";
import { type SystemTree } from "./system-tree.js";

export interface SystemdSetting {
  /** As written: "10min", "off", "0". */
  readonly value: string;
  /** The file it comes from; undefined when systemd said it. */
  readonly file: string | undefined;
}

export interface SystemdFacts {
  /** It is this machine's process 1. */
  readonly runs: boolean;
  /** Undefined: not set, the default holds. */
  readonly runtimeWatchdog: SystemdSetting | undefined;
  readonly rebootWatchdog: SystemdSetting | undefined;
  readonly watchdogDevice: SystemdSetting | undefined;
  /** Why systemd itself was not asked, although it runs. */
  readonly problem: string | undefined;
}

/** In the order of precedence, lowest first. */
const DIRECTORIES = ["/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd"];
const TIMEOUT_MS = 4_000;
const PROPERTIES = ["RuntimeWatchdogUSec", "RebootWatchdogUSec", "WatchdogDevice"] as const;

export async function lookAtSystemd(tree: SystemTree): Promise<SystemdFacts> {
  const runs = tree.text("/proc/1/comm") === "systemd";
  const files = readSystemdFiles(tree);
  if (!runs) {
    return { runs, ...files, problem: undefined };
  }
  const args = ["show", ...PROPERTIES.map((name) => `--property=${name}`)];
  const result = await run("ask systemd for its watchdog", "systemctl", args, {
    timeoutMs: TIMEOUT_MS,
  });
  if (result.kind !== "ok") {
    return { runs, ...files, problem: `systemctl show: ${result.kind}` };
  }
  return { runs, ...mergeSystemd(files, parseSystemctl(result.stdout)), problem: undefined };
}

type Settings = Pick<SystemdFacts, "runtimeWatchdog" | "rebootWatchdog" | "watchdogDevice">;

/** What runs now counts; the file that it probably comes from is kept, so that it can be named. */
export function mergeSystemd(files: Settings, said: Readonly<Record<string, string>>): Settings {
  const merge = (setting: SystemdSetting | undefined, name: string): SystemdSetting | undefined => {
    const value = said[name];
    return value === undefined || value === "" ? setting : { value, file: setting?.file };
  };
  return {
    runtimeWatchdog: merge(files.runtimeWatchdog, "RuntimeWatchdogUSec"),
    rebootWatchdog: merge(files.rebootWatchdog, "RebootWatchdogUSec"),
    watchdogDevice: merge(files.watchdogDevice, "WatchdogDevice"),
  };
}

export function parseSystemctl(text: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    text.split("\n").flatMap((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [] : [[line.slice(0, at), line.slice(at + 1).trim()]];
    }),
  );
}

/** system.conf of the first directory that counts, then the drop-ins of all by name; the last assignment wins. */
export function readSystemdFiles(tree: SystemTree): Settings {
  const main = [...DIRECTORIES].reverse().find((one) => tree.has(`${one}/system.conf`));
  const dropIns = new Map<string, string>();
  for (const directory of DIRECTORIES) {
    for (const name of tree.list(`${directory}/system.conf.d`)) {
      if (name.endsWith(".conf")) {
        // The same name in a directory of higher precedence replaces the other.
        dropIns.set(name, join(directory, "system.conf.d", name));
      }
    }
  }
  const ordered = [...dropIns.values()].sort((a, b) => (basename(a) < basename(b) ? -1 : 1));
  const found = new Map<string, SystemdSetting>();
  for (const file of [...(main === undefined ? [] : [`${main}/system.conf`]), ...ordered]) {
    for (const [key, value] of managerSettings(tree.text(file) ?? "")) {
      if (value === "") {
        // An empty assignment goes back to the default.
        found.delete(key);
      } else {
        found.set(key, { value, file });
      }
    }
  }
  return {
    runtimeWatchdog: found.get("RuntimeWatchdogSec"),
    rebootWatchdog: found.get("RebootWatchdogSec"),
    watchdogDevice: found.get("WatchdogDevice"),
  };
}

const KEYS = ["RuntimeWatchdogSec", "RebootWatchdogSec", "WatchdogDevice", "ShutdownWatchdogSec"];

function managerSettings(text: string): readonly (readonly [string, string])[] {
  const settings: (readonly [string, string])[] = [];
  let section = "";
  for (const line of text.split("\n").map((one) => one.trim())) {
    const header = /^\[(.+)\]$/.exec(line);
    if (header !== null) {
      section = header[1] ?? "";
      continue;
    }
    const [, key = "", value = ""] = /^([A-Za-z]+)\s*=\s*(.*)$/.exec(line) ?? [];
    if (section === "Manager" && KEYS.includes(key)) {
      // The older name of the same setting (before version 243).
      settings.push([key === "ShutdownWatchdogSec" ? "RebootWatchdogSec" : key, value]);
    }
  }
  return settings;
}
