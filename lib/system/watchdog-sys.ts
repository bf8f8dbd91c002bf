import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
} from "node:fs";
import { basename, join } from "node:path";

import { close, ioctl, write } from "./libc.js";
import { isGone } from "./mounts.js";

// linux/watchdog.h; struct watchdog_info is 40 bytes: options, firmware_version, identity[32].
export const WDIOC_GETSUPPORT = 0x80285700;
export const WDIOC_KEEPALIVE = 0x80045705;
export const WDIOC_SETTIMEOUT = 0xc0045706;
export const WDIOC_GETTIMEOUT = 0x80045707;
export const WATCHDOG_INFO_SIZE = 40;
export const WDIOF_SETTIMEOUT = 0x0080;
export const WDIOF_MAGICCLOSE = 0x0100;
export const WDIOF_KEEPALIVEPING = 0x8000;

/**
 * What watchdog.ts asks of the operating system; tests give their own. Numbers are results >= 0 or negative errnos.
 */
export interface WatchdogSys extends WatchdogSysfs {
  /** Opens for writing, close-on-exec. Starts the watchdog. */
  open(device: string): number;
  ioctl(fd: number, request: number, argument: NodeJS.TypedArray | null): number;
  write(fd: number, bytes: Uint8Array): number;
  close(fd: number): number;
}

/** What can be known without opening a device. */
export interface WatchdogSysfs {
  /** A file of /sys/class/watchdog/NAME, trimmed; undefined when this kernel has none. */
  attribute(name: string, file: string): string | undefined;
  /** "watchdog0", "watchdog1" ... */
  list(): string[];
  /** Who has the device open: "wd_keepalive (pid 812)". */
  holders(device: string): string[];
}

export const systemWatchdogs: WatchdogSys = {
  open(device) {
    try {
      return openSync(device, constants.O_WRONLY | constants.O_NOCTTY);
    } catch (error) {
      if (error instanceof Error && "errno" in error && typeof error.errno === "number") {
        return error.errno;
      }
      throw error;
    }
  },
  ioctl,
  write,
  close,
  ...watchdogSysfs(),
};

/** @param root tests give another one */
export function watchdogSysfs(root = "/"): WatchdogSysfs {
  const directory = join(root, "sys/class/watchdog");
  return {
    attribute(name, file) {
      const path = join(directory, name, file);
      return existsSync(path) ? readFileSync(path, "latin1").trim() : undefined;
    },
    list() {
      return existsSync(directory)
        ? readdirSync(directory)
            .filter((name) => /^watchdog\d+$/.test(name))
            .sort((a, b) => Number(a.slice(8)) - Number(b.slice(8)))
        : [];
    },
    holders: (device) => findHolders(device, join(root, "proc")),
  };
}

/** Descriptors of every process that lead to the device, or to /dev/watchdog, which is the first one's other name. */
function findHolders(device: string, proc: string): string[] {
  const names = device === "/dev/watchdog0" ? [device, "/dev/watchdog"] : [device];
  const found: string[] = [];
  for (const pid of readdirSync(proc).filter((name) => /^\d+$/.test(name))) {
    try {
      const fds = readdirSync(`${proc}/${pid}/fd`);
      if (fds.some((fd) => names.includes(readlinkSync(`${proc}/${pid}/fd/${fd}`)))) {
        found.push(`${programName(`${proc}/${pid}`)} (pid ${pid})`);
      }
    } catch (error) {
      // The process, or one of its descriptors, has gone meanwhile; or it is not ours to look into.
      if (!isGone(error)) {
        throw error;
      }
    }
  }
  return found;
}

/** Of a script that node runs, the script: "node" says nothing. */
function programName(process: string): string {
  const [program = "", script = ""] = readFileSync(`${process}/cmdline`, "utf8").split("\0");
  return basename(program) === "node" && script !== ""
    ? basename(script, ".js")
    : readFileSync(`${process}/comm`, "utf8").trim();
}

/** Somewhere to write the one letter that resets the machine at once, opened before it is needed. */
export interface ResetTrigger {
  /** Resets the machine without sync or unmount (sysrq b). Returns only when the kernel refused: a negative errno. */
  reset(): number;
  close(): void;
}

/**
 * Opens the kernel's reset trigger ahead of time, so that the reset itself needs no path look-up and no memory.
 * @param path another file in tests; the default really resets the machine
 */
export function openResetTrigger(path = "/proc/sysrq-trigger"): ResetTrigger {
  const fd = openSync(path, constants.O_WRONLY);
  const letter = Uint8Array.of(0x62); // "b"
  return {
    reset: () => write(fd, letter),
    close: () => {
      closeSync(fd);
    },
  };
}
