import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ShareHaError } from "../../../lib/errors.js";
import {
  adoptWatchdog,
  armWatchdog,
  chooseWatchdog,
  examineWatchdog,
  isStopped,
} from "../../../lib/system/watchdog.js";
import {
  openResetTrigger,
  systemWatchdogs,
  type WatchdogSys,
  WDIOC_GETSUPPORT,
  WDIOC_GETTIMEOUT,
  WDIOC_KEEPALIVE,
  WDIOC_SETTIMEOUT,
} from "../../../lib/system/watchdog-sys.js";

const EIO = -5;
const EBUSY = -16;
const EINVAL = -22;
const ENOTTY = -25;

interface Device {
  identity?: string;
  nowayout?: string;
  state?: string;
  min?: string;
  max?: string;
  options?: number;
  /** Flags are shown in sysfs too (newer kernels). */
  optionsInSysfs?: boolean;
  timeout?: number;
  setTimeout?: (asked: number) => number;
  openResult?: number;
  keepalive?: number;
  holders?: string[];
}

/** The kernel's watchdog core as far as its ioctls show it; every call is written down. */
class FakeWatchdogs implements WatchdogSys {
  readonly calls: string[] = [];
  readonly devices: Record<string, Device>;
  #magic = false;

  constructor(devices: Record<string, Device>) {
    this.devices = devices;
  }

  #device(): Device {
    return this.devices["watchdog0"]!;
  }

  open(device: string): number {
    this.calls.push(`open ${device}`);
    const { openResult = 9 } = this.#device();
    if (openResult >= 0) {
      this.#device().state = "active";
    }
    return openResult;
  }

  ioctl(_fd: number, request: number, argument: NodeJS.TypedArray | null): number {
    const device = this.#device();
    switch (request) {
      case WDIOC_GETSUPPORT:
        if (device.options === -1) {
          return ENOTTY;
        }
        argument![0] = device.options ?? 0x8180;
        return 0;
      case WDIOC_SETTIMEOUT: {
        this.calls.push(`settimeout ${argument![0]}`);
        const result = device.setTimeout?.(Number(argument![0])) ?? Number(argument![0]);
        if (result < 0) {
          return result;
        }
        device.timeout = result;
        return 0;
      }
      case WDIOC_GETTIMEOUT:
        if (device.timeout === undefined) {
          return ENOTTY;
        }
        argument![0] = device.timeout;
        return 0;
      case WDIOC_KEEPALIVE:
        this.calls.push("keepalive");
        return device.keepalive ?? 0;
      default:
        return ENOTTY;
    }
  }

  write(_fd: number, bytes: Uint8Array): number {
    const text = Buffer.from(bytes).toString("latin1");
    this.calls.push(`write ${text}`);
    this.#magic = text === "V";
    return bytes.length;
  }

  close(): number {
    this.calls.push("close");
    if (this.#magic) {
      this.#device().state = "inactive";
    }
    return 0;
  }

  attribute(name: string, file: string): string | undefined {
    const device = this.devices[name];
    if (device === undefined) {
      return undefined;
    }
    const files: Record<string, string | undefined> = {
      identity: device.identity ?? "iTCO_wdt",
      nowayout: device.nowayout ?? "0",
      state: device.state ?? "inactive",
      min_timeout: device.min,
      max_timeout: device.max,
      options:
        device.optionsInSysfs === true ? `0x${(device.options ?? 0x8180).toString(16)}` : undefined,
    };
    return files[file];
  }

  list(): string[] {
    return Object.keys(this.devices);
  }

  holders(): string[] {
    return this.#device().holders ?? [];
  }
}

function code(expected: string, message = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShareHaError, String(error));
    assert.equal(error.code, expected, error.message);
    assert.match(error.message, message);
    return true;
  };
}

const DEVICE = "/dev/watchdog0";

describe("hardware watchdog", () => {
  it("is armed with the timeout read back, petted by ioctl, and stopped by a magic close", () => {
    const sys = new FakeWatchdogs({ watchdog0: { min: "1", max: "600" } });
    const watchdog = armWatchdog(DEVICE, 5, sys);
    assert.equal(watchdog.timeoutSeconds, 5);
    assert.equal(watchdog.identity, "iTCO_wdt");
    assert.equal(isStopped(DEVICE, sys), false);
    watchdog.pet();
    watchdog.magicClose();
    assert.deepEqual(sys.calls, [
      "open /dev/watchdog0",
      "settimeout 5",
      "keepalive",
      "write V",
      "close",
    ]);
    assert.equal(isStopped(DEVICE, sys), true);
  });

  it("is not opened when sysfs already tells why it cannot be used", () => {
    const cases: [Device, string, RegExp][] = [
      [{ nowayout: "1" }, "ERR_WATCHDOG_NOWAYOUT", /nowayout/],
      [
        { state: "active", holders: ["watchdogd (pid 7)"] },
        "ERR_WATCHDOG_IN_USE",
        /watchdogd \(pid 7\)/,
      ],
      [{ state: "active" }, "ERR_WATCHDOG_IN_USE", /nobody/],
      [{ min: "6", max: "600" }, "ERR_WATCHDOG_RANGE", /6 to 600/],
      [{ min: "1", max: "4" }, "ERR_WATCHDOG_RANGE", /1 to 4/],
      [{ options: 0x8080, optionsInSysfs: true }, "ERR_WATCHDOG_DRIVER", /without MAGICCLOSE/],
    ];
    for (const [device, expected, message] of cases) {
      const sys = new FakeWatchdogs({ watchdog0: device });
      assert.throws(() => armWatchdog(DEVICE, 5, sys), code(expected, message));
      assert.deepEqual(sys.calls, []);
    }
  });

  it("is stopped again when the open device turns out to be unfit", () => {
    const cases: [Device, string, RegExp][] = [
      [{ options: 0x0180 }, "ERR_WATCHDOG_DRIVER", /without KEEPALIVEPING/],
      [{ options: 0x8100 }, "ERR_WATCHDOG_DRIVER", /without SETTIMEOUT/],
      [{ options: 0 }, "ERR_WATCHDOG_DRIVER", /SETTIMEOUT, MAGICCLOSE, KEEPALIVEPING/],
      [{ options: -1 }, "ERR_WATCHDOG_DRIVER", /no watchdog/],
      [{ setTimeout: () => EINVAL }, "ERR_WATCHDOG_RANGE", /EINVAL/],
      [{ setTimeout: () => 10 }, "ERR_WATCHDOG_RANGE", /made 10 s of it/],
      [{ setTimeout: () => 4 }, "ERR_WATCHDOG_RANGE", /made 4 s of it/],
    ];
    for (const [device, expected, message] of cases) {
      const sys = new FakeWatchdogs({ watchdog0: device });
      assert.throws(() => armWatchdog(DEVICE, 5, sys), code(expected, message));
      assert.deepEqual(sys.calls.slice(-2), ["write V", "close"]);
      assert.equal(isStopped(DEVICE, sys), true);
    }
  });

  it("names who got it first when the open says so, and any other refusal of the open", () => {
    const busy = new FakeWatchdogs({ watchdog0: { openResult: EBUSY, holders: ["sbd (pid 3)"] } });
    assert.throws(() => armWatchdog(DEVICE, 5, busy), code("ERR_WATCHDOG_IN_USE", /sbd \(pid 3\)/));
    const broken = new FakeWatchdogs({ watchdog0: { openResult: EIO } });
    assert.throws(() => armWatchdog(DEVICE, 5, broken), code("ERR_WATCHDOG_OPEN", /EIO/));
  });

  it("takes whole seconds only, and only names that mean one device", () => {
    const sys = new FakeWatchdogs({ watchdog0: {} });
    for (const seconds of [0, 1.5, -1, NaN, 65_536]) {
      assert.throws(() => armWatchdog(DEVICE, seconds, sys), code("ERR_WATCHDOG_RANGE"));
    }
    for (const device of [
      "/dev/watchdog",
      "/dev/../dev/watchdog0",
      "watchdog0",
      "/dev/watchdog1",
    ]) {
      assert.throws(() => examineWatchdog(device, 5, sys), code("ERR_WATCHDOG_UNKNOWN"));
    }
    assert.deepEqual(sys.calls, []);
  });

  it("is adopted without setting the timeout, without a ping, without an open", () => {
    const sys = new FakeWatchdogs({ watchdog0: { state: "active", timeout: 7 } });
    const watchdog = adoptWatchdog(DEVICE, 12, sys);
    assert.equal(watchdog.timeoutSeconds, 7);
    assert.equal(watchdog.fd, 12);
    assert.deepEqual(sys.calls, []);
    const other = new FakeWatchdogs({ watchdog0: { options: -1 } });
    assert.throws(() => adoptWatchdog(DEVICE, 12, other), code("ERR_WATCHDOG_DRIVER"));
    const mute = new FakeWatchdogs({ watchdog0: {} });
    assert.throws(() => adoptWatchdog(DEVICE, 12, mute), code("ERR_WATCHDOG_DRIVER"));
  });

  it("says when a pet is not taken", () => {
    const sys = new FakeWatchdogs({ watchdog0: { keepalive: EIO } });
    const watchdog = armWatchdog(DEVICE, 5, sys);
    assert.throws(() => {
      watchdog.pet();
    }, code("ERR_WATCHDOG_PET"));
  });

  it("is chosen automatically: fit before unfit, hardware before software", () => {
    const soft = { identity: "Software Watchdog" };
    const sys = new FakeWatchdogs({ watchdog0: soft, watchdog1: { nowayout: "1" }, watchdog2: {} });
    const choice = chooseWatchdog("auto", 5, sys);
    assert.equal(choice.kind === "chosen" && choice.facts.device, "/dev/watchdog2");
    sys.devices["watchdog2"]!.state = "active";
    const second = chooseWatchdog("auto", 5, sys);
    assert.equal(second.kind === "chosen" && second.facts.isSoftware, true);
    soft.identity = "x";
    sys.devices["watchdog0"]!.nowayout = "1";
    const none = chooseWatchdog("auto", 5, sys);
    assert.deepEqual(none.kind === "none" && none.refusals.map((refusal) => refusal.code), [
      "ERR_WATCHDOG_NOWAYOUT",
      "ERR_WATCHDOG_NOWAYOUT",
      "ERR_WATCHDOG_IN_USE",
    ]);
    const asked = chooseWatchdog("/dev/watchdog2", 5, sys);
    assert.equal(asked.kind === "none" && asked.refusals[0]?.code, "ERR_WATCHDOG_IN_USE");
  });

  it("asks the real system the same questions without a crash", () => {
    for (const name of systemWatchdogs.list()) {
      assert.notEqual(systemWatchdogs.attribute(name, "identity"), undefined);
    }
    assert.equal(systemWatchdogs.attribute("watchdog999", "state"), undefined);
    assert.equal(systemWatchdogs.open("/dev/watchdog999"), -2);
    assert.deepEqual(systemWatchdogs.holders("/dev/watchdog999"), []);
    assert.throws(() => armWatchdog("/dev/watchdog999", 5), code("ERR_WATCHDOG_UNKNOWN"));
  });

  it("resets by one letter to the trigger (here a plain file)", () => {
    const directory = mkdtempSync(join(tmpdir(), "sharedha-reset-"));
    const path = join(directory, "trigger");
    writeFileSync(path, "");
    const trigger = openResetTrigger(path);
    assert.equal(trigger.reset(), 1);
    trigger.close();
    assert.equal(readFileSync(path, "latin1"), "b");
    rmSync(directory, { recursive: true });
  });
});
