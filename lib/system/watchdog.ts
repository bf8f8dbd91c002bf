/**
 * The hardware watchdog (DESIGN sections 4 and 5). Opening the device starts it, so everything that can be known before is
 * asked of sysfs first; a refusal after the open stops it again. The kernel pings on every unclean last close and on
 * SETTIMEOUT (facts/hazards.md, H1), so the timeout is set exactly once and the descriptor is held by a second process.
 */
import { ShareHaError } from "../errors.js";
import { EBUSY, errnoName } from "./libc.js";
import {
  systemWatchdogs,
  WATCHDOG_INFO_SIZE,
  type WatchdogSys,
  type WatchdogSysfs,
  WDIOC_GETSUPPORT,
  WDIOC_GETTIMEOUT,
  WDIOC_KEEPALIVE,
  WDIOC_SETTIMEOUT,
  WDIOF_KEEPALIVEPING,
  WDIOF_MAGICCLOSE,
  WDIOF_SETTIMEOUT,
} from "./watchdog-sys.js";

const NEEDED_FLAGS = [
  [WDIOF_SETTIMEOUT, "SETTIMEOUT"],
  [WDIOF_MAGICCLOSE, "MAGICCLOSE"],
  [WDIOF_KEEPALIVEPING, "KEEPALIVEPING"],
] as const;

/** The identity of the kernel's own software watchdog: the last choice, since a hung kernel stops it. */
export const SOFTDOG = "Software Watchdog";

export interface WatchdogFacts {
  /** "/dev/watchdog0" */
  readonly device: string;
  readonly identity: string;
  readonly isSoftware: boolean;
}

/** A running watchdog whose descriptor this process has. */
export interface ArmedWatchdog extends WatchdogFacts {
  readonly fd: number;
  /** W as read back from the driver, whole seconds. */
  readonly timeoutSeconds: number;
  /** @throws ERR_WATCHDOG_PET */
  pet(): void;
  /**
   * Lets go of it without a reset: magic close. The watchdog stops at the last close, so the keeper has to be ended too,
   * and `stopped` tells afterwards. @throws ERR_WATCHDOG_CLOSE
   */
  magicClose(): void;
}

/**
 * What is known of a watchdog without opening it.
 * @throws ERR_WATCHDOG_UNKNOWN (no such device, or a kernel without its sysfs files), ERR_WATCHDOG_NOWAYOUT,
 *   ERR_WATCHDOG_IN_USE, ERR_WATCHDOG_RANGE, ERR_WATCHDOG_DRIVER
 */
export function examineWatchdog(
  device: string,
  timeoutSeconds: number,
  sys: Pick<WatchdogSysfs, "attribute" | "holders"> = systemWatchdogs,
): WatchdogFacts {
  const name = nameOf(device);
  const nowayout = sys.attribute(name, "nowayout");
  const state = sys.attribute(name, "state");
  if (nowayout === undefined || state === undefined) {
    throw watchdogError("ERR_WATCHDOG_UNKNOWN", device, "is not described in /sys/class/watchdog", {
      hint: "Load the driver of this machine's watchdog (or modprobe softdog); the kernel needs CONFIG_WATCHDOG_SYSFS.",
    });
  }
  if (nowayout !== "0") {
    throw watchdogError(
      "ERR_WATCHDOG_NOWAYOUT",
      device,
      "cannot be stopped once started (nowayout)",
      {
        hint: "Load its driver with nowayout=0; otherwise leaving the cluster would reset the machine.",
      },
    );
  }
  if (state !== "inactive") {
    throw inUse(device, sys);
  }
  const minimum = Number(sys.attribute(name, "min_timeout") ?? "0");
  const maximum = Number(sys.attribute(name, "max_timeout") ?? "0");
  if (minimum > timeoutSeconds || (maximum !== 0 && maximum < timeoutSeconds)) {
    const range = `${minimum} to ${maximum === 0 ? "any" : maximum} s`;
    throw rangeError(device, timeoutSeconds, `its driver allows ${range}`);
  }
  const options = sys.attribute(name, "options");
  if (options !== undefined) {
    refuseMissingFlags(device, Number(options));
  }
  const identity = sys.attribute(name, "identity") ?? "unknown";
  return { device, identity, isSoftware: identity === SOFTDOG };
}

/**
 * Starts a watchdog with this timeout. When anything is not as needed it is stopped again and the error says why.
 * @param timeoutSeconds W, whole seconds; the driver has to take exactly this value
 * @throws the errors of examineWatchdog, ERR_WATCHDOG_OPEN
 */
export function armWatchdog(
  device: string,
  timeoutSeconds: number,
  sys: WatchdogSys = systemWatchdogs,
): ArmedWatchdog {
  if (!Number.isInteger(timeoutSeconds) || timeoutSeconds < 1 || timeoutSeconds > 65_535) {
    throw rangeError(device, timeoutSeconds, "whole seconds from 1 to 65535 are possible");
  }
  const facts = examineWatchdog(device, timeoutSeconds, sys);
  const fd = sys.open(device);
  if (fd === -EBUSY) {
    throw inUse(device, sys);
  }
  if (fd < 0) {
    throw watchdogError("ERR_WATCHDOG_OPEN", device, `cannot be opened (${errnoName(fd)})`, {
      hint: "Run as root; see dmesg.",
    });
  }
  let armed = false;
  try {
    refuseMissingFlags(device, readSupport(device, fd, sys));
    const asked = Int32Array.of(timeoutSeconds);
    const result = sys.ioctl(fd, WDIOC_SETTIMEOUT, asked);
    if (result < 0) {
      throw rangeError(device, timeoutSeconds, `its driver refuses it (${errnoName(result)})`);
    }
    const readBack = readTimeout(device, fd, sys);
    if (readBack !== timeoutSeconds) {
      throw rangeError(device, timeoutSeconds, `its driver made ${readBack} s of it`);
    }
    armed = true;
    return createArmed(facts, fd, readBack, sys);
  } finally {
    if (!armed) {
      sys.write(fd, MAGIC);
      sys.close(fd);
    }
  }
}

/**
 * Takes over a descriptor of a watchdog that is running already (from the keeper). Neither sets the timeout nor pings: the
 * first pet has to follow a renewal of the own.
 * @throws ERR_WATCHDOG_DRIVER when it does not answer as a watchdog
 */
export function adoptWatchdog(
  device: string,
  fd: number,
  sys: WatchdogSys = systemWatchdogs,
): ArmedWatchdog {
  refuseMissingFlags(device, readSupport(device, fd, sys));
  const timeoutSeconds = readTimeout(device, fd, sys);
  const identity = sys.attribute(nameOf(device), "identity") ?? "unknown";
  return createArmed(
    { device, identity, isSoftware: identity === SOFTDOG },
    fd,
    timeoutSeconds,
    sys,
  );
}

/** Whether the device stands still; to be asked after a magic close and the end of the keeper. */
export function isStopped(device: string, sys: WatchdogSys = systemWatchdogs): boolean {
  return sys.attribute(nameOf(device), "state") === "inactive";
}

export type WatchdogChoice =
  | { readonly kind: "chosen"; readonly facts: WatchdogFacts }
  /** Why each device that there is cannot be used; empty when there is none. */
  | { readonly kind: "none"; readonly refusals: readonly ShareHaError[] };

/** The watchdog to use: the given device, or with "auto" the first that fits, real hardware before softdog. */
export function chooseWatchdog(
  wanted: string,
  timeoutSeconds: number,
  sys: WatchdogSysfs = systemWatchdogs,
): WatchdogChoice {
  const devices = wanted === "auto" ? sys.list().map((name) => `/dev/${name}`) : [wanted];
  const fitting: WatchdogFacts[] = [];
  const refusals: ShareHaError[] = [];
  for (const device of devices) {
    try {
      fitting.push(examineWatchdog(device, timeoutSeconds, sys));
    } catch (error) {
      if (!(error instanceof ShareHaError)) {
        throw error;
      }
      refusals.push(error);
    }
  }
  const facts = fitting.find(({ isSoftware }) => !isSoftware) ?? fitting[0];
  return facts === undefined ? { kind: "none", refusals } : { kind: "chosen", facts };
}

/** The letter that tells the driver that the next close is meant. */
const MAGIC = Uint8Array.of(0x56); // "V"

function createArmed(
  facts: WatchdogFacts,
  fd: number,
  timeoutSeconds: number,
  sys: WatchdogSys,
): ArmedWatchdog {
  return {
    ...facts,
    fd,
    timeoutSeconds,
    pet() {
      const result = sys.ioctl(fd, WDIOC_KEEPALIVE, null);
      if (result < 0) {
        const what = `does not take a keep-alive (${errnoName(result)})`;
        throw watchdogError("ERR_WATCHDOG_PET", facts.device, what, { hint: "See dmesg." });
      }
    },
    magicClose() {
      const written = sys.write(fd, MAGIC);
      const closed = sys.close(fd);
      if (written < 0 || closed < 0) {
        const what = `cannot be stopped (${errnoName(Math.min(written, closed))})`;
        throw watchdogError("ERR_WATCHDOG_CLOSE", facts.device, what, {
          hint: `The machine will be reset within ${timeoutSeconds} s.`,
        });
      }
    },
  };
}

function readSupport(device: string, fd: number, sys: WatchdogSys): number {
  const info = new Uint32Array(WATCHDOG_INFO_SIZE / 4);
  const result = sys.ioctl(fd, WDIOC_GETSUPPORT, info);
  if (result < 0) {
    throw watchdogError("ERR_WATCHDOG_DRIVER", device, `is no watchdog (${errnoName(result)})`, {
      hint: "Give a /dev/watchdogN.",
    });
  }
  return info[0] ?? 0;
}

function readTimeout(device: string, fd: number, sys: WatchdogSys): number {
  const timeout = new Int32Array(1);
  const result = sys.ioctl(fd, WDIOC_GETTIMEOUT, timeout);
  if (result < 0) {
    const what = `does not tell its timeout (${errnoName(result)})`;
    throw watchdogError("ERR_WATCHDOG_DRIVER", device, what, { hint: "Use another driver." });
  }
  return timeout[0] ?? 0;
}

function refuseMissingFlags(device: string, options: number): void {
  const missing = NEEDED_FLAGS.filter(([flag]) => (options & flag) === 0).map(([, name]) => name);
  if (missing.length > 0) {
    const what = `has a driver without ${missing.join(", ")}`;
    throw watchdogError("ERR_WATCHDOG_DRIVER", device, what, {
      hint: "Its timeout could not be trusted, or it would stop when the process dies. Use another driver, or softdog.",
    });
  }
}

function nameOf(device: string): string {
  const match = /^\/dev\/(watchdog\d+)$/.exec(device);
  if (match?.[1] === undefined) {
    throw watchdogError("ERR_WATCHDOG_UNKNOWN", device, "is no name of a watchdog", {
      hint: "Give a /dev/watchdogN (not /dev/watchdog, which is another name of the first).",
    });
  }
  return match[1];
}

function inUse(device: string, sys: Pick<WatchdogSysfs, "holders">): ShareHaError {
  const holders = sys.holders(device);
  const who = holders.length === 0 ? "nobody that can be seen has it open" : holders.join(", ");
  return watchdogError("ERR_WATCHDOG_IN_USE", device, `is running already: ${who}`, {
    hint:
      holders.length === 0
        ? "Firmware or a crashed program started it; stop that, or restart the machine."
        : "Stop that program (systemd: RuntimeWatchdogSec=0), or use another watchdog.",
  });
}

function rangeError(device: string, timeoutSeconds: number, why: string): ShareHaError {
  return watchdogError(
    "ERR_WATCHDOG_RANGE",
    device,
    `cannot run with ${timeoutSeconds} s: ${why}`,
    {
      hint: "Choose a profile with another watchdog timeout, or another driver.",
    },
  );
}

function watchdogError(
  code: string,
  device: string,
  what: string,
  options: { readonly hint: string },
): ShareHaError {
  return new ShareHaError(code, `the watchdog ${device} ${what}`, {
    hint: options.hint,
    fields: { device },
  });
}
