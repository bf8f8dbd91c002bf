/** A file in place of the watchdog device (so that the keeper and its descriptor are real), its ioctls answered here. */
import assert from "node:assert/strict";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { ShareHaError } from "../../../lib/errors.js";
import { HardwarePetter } from "../../../lib/pulse/hardware-petter.js";
import { type KeeperState } from "../../../lib/pulse/saved-state.js";
import { isAlive, killExact, type ProcessIdentity } from "../../../lib/system/process.js";
import {
  openResetTrigger,
  type WatchdogSys,
  WDIOC_GETSUPPORT,
  WDIOC_GETTIMEOUT,
  WDIOC_KEEPALIVE,
  WDIOC_SETTIMEOUT,
} from "../../../lib/system/watchdog-sys.js";

const DEVICE = "/dev/watchdog0";
const EIO = -5;
const EPERM = -1;
const EINVAL = -22;

/** One watchdog; the file's descriptor stands for the device's, and what was done is in `calls`. */
class FileWatchdog implements WatchdogSys {
  readonly calls: string[] = [];
  readonly files: Record<string, string> = { nowayout: "0", state: "inactive", identity: "test" };
  options = 0x8180;
  timeout = 0;
  keepalive = 0;
  setTimeout = (seconds: number): number => seconds;
  readonly #path: string;
  #magic = false;

  constructor(path: string) {
    this.#path = path;
    writeFileSync(path, "");
  }

  open(device: string): number {
    this.calls.push(`open ${device}`);
    this.files["state"] = "active";
    return openSync(this.#path, "r+");
  }

  ioctl(_fd: number, request: number, argument: NodeJS.TypedArray | null): number {
    switch (request) {
      case WDIOC_GETSUPPORT:
        argument![0] = this.options;
        return 0;
      case WDIOC_SETTIMEOUT: {
        this.calls.push(`settimeout ${argument![0]}`);
        const result = this.setTimeout(Number(argument![0]));
        this.timeout = Math.max(0, result);
        return Math.min(0, result);
      }
      case WDIOC_GETTIMEOUT:
        argument![0] = this.timeout;
        return 0;
      case WDIOC_KEEPALIVE:
        this.calls.push("pet");
        return this.keepalive;
      default:
        return EINVAL;
    }
  }

  write(_fd: number, bytes: Uint8Array): number {
    this.#magic = Buffer.from(bytes).toString("latin1") === "V";
    this.calls.push(this.#magic ? "magic" : "write");
    return bytes.length;
  }

  close(fd: number): number {
    this.calls.push("close");
    closeSync(fd);
    if (this.#magic) {
      this.files["state"] = "inactive";
    }
    return 0;
  }

  attribute(_name: string, file: string): string | undefined {
    return this.files[file];
  }

  list(): string[] {
    return ["watchdog0"];
  }

  holders(): string[] {
    return ["wd_keepalive (pid 812)"];
  }
}

function identityOf(keeper: KeeperState): ProcessIdentity {
  return { pid: keeper.process.pid, startTime: BigInt(keeper.process.startTime) };
}

async function gone(identity: ProcessIdentity): Promise<void> {
  const giveUpAtMs = performance.now() + 5_000;
  while (isAlive(identity)) {
    assert.ok(performance.now() < giveUpAtMs, "the keeper goes on");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe("pulse's petter of a hardware watchdog", () => {
  let directory: string;
  let sys: FileWatchdog;
  let saved: (KeeperState | undefined)[];
  let lost: string[];
  let log: string[];
  let resetResult: number | undefined;
  const keepers: ProcessIdentity[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "sharedha-hardware-"));
    sys = new FileWatchdog(join(directory, "device"));
    writeFileSync(join(directory, "trigger"), "");
    saved = [];
    lost = [];
    log = [];
    resetResult = undefined;
  });
  afterEach(() => {
    for (const keeper of keepers.splice(0)) {
      killExact(keeper, "SIGKILL");
    }
    rmSync(directory, { recursive: true });
  });

  function petterOf(device: FileWatchdog = sys): HardwarePetter {
    const trigger = openResetTrigger(join(directory, "trigger"));
    return new HardwarePetter({
      device: DEVICE,
      watchdogMs: 5_000,
      sys: device,
      reset: {
        reset: () => {
          const written = trigger.reset();
          trigger.close();
          return resetResult ?? written;
        },
        close: () => {
          trigger.close();
        },
      },
      log: (message) => log.push(message),
      save: (keeper) => {
        device.calls.push(keeper === undefined ? "forget the keeper" : "save the keeper");
        saved.push(keeper);
        if (keeper !== undefined) {
          keepers.push(identityOf(keeper));
        }
      },
      onRefused: (why) => lost.push(why),
    });
  }

  it("sets W once and reads it back; the keeper runs and is written down before the first pet (H1, H16)", async () => {
    const petter = petterOf();
    assert.equal(await petter.arm(), 5_000);
    assert.deepEqual(sys.calls, ["open /dev/watchdog0", "settimeout 5", "save the keeper", "pet"]);
    const keeper = saved[0];
    assert.ok(keeper !== undefined && isAlive(identityOf(keeper)));
    assert.equal(keeper.watchdogMs, 5_000);
    assert.equal(await petter.arm(), 5_000, "armed once is armed");
    petter.pet();
    assert.equal(sys.calls.filter((call) => call === "pet").length, 2);
    assert.equal(sys.calls.filter((call) => call.startsWith("settimeout")).length, 1);
    await petter.disarm();
  });

  it("disarms by ending the keeper and the magic letter, and knows that it stands still", async () => {
    const petter = petterOf();
    await petter.arm();
    const keeper = identityOf(saved[0]!);
    await petter.disarm();
    await gone(keeper);
    assert.deepEqual(sys.calls.slice(-3), ["magic", "close", "forget the keeper"]);
    assert.equal(sys.files["state"], "inactive");
    petter.pet();
    await petter.leave();
    assert.deepEqual(sys.calls.slice(-3), ["magic", "close", "forget the keeper"], "nothing more");
  });

  it("says when the watchdog runs on after the magic close", async function () {
    this.timeout(5_000);
    const petter = petterOf();
    await petter.arm();
    Object.defineProperty(sys.files, "state", { value: "active", writable: false });
    sys.close = (fd) => {
      closeSync(fd);
      return 0;
    };
    await assert.rejects(petter.disarm(), refusal("ERR_WATCHDOG_RUNS", /does not stop/));
  });

  it("a pet that came too late resets the machine, before anything else", async () => {
    const petter = petterOf();
    await petter.arm();
    petter.overran();
    assert.equal(readFileSync(join(directory, "trigger"), "latin1"), "b");
  });

  it("a reset that the kernel refuses: never pets or disarms again, so that the watchdog does it", async () => {
    const petter = petterOf();
    await petter.arm();
    resetResult = EPERM;
    petter.overran();
    assert.match(lost.join(), /not reset \(EPERM\)/);
    assert.match(log.join(), /watchdog is not petted any more/);
    const { length } = sys.calls;
    petter.pet();
    petter.pet();
    await assert.rejects(petter.disarm(), refusal("ERR_WATCHDOG_EXPIRING", /left to reset/));
    await assert.rejects(petter.leave(), refusal("ERR_WATCHDOG_EXPIRING", /left to reset/));
    assert.equal(sys.calls.length, length, "neither petted nor stopped");
    assert.ok(isAlive(identityOf(saved[0]!)), "the keeper holds it open");
  });

  it("a node that is not armed is never reset", () => {
    const petter = petterOf();
    petter.overran();
    assert.equal(readFileSync(join(directory, "trigger"), "latin1"), "");
    assert.deepEqual(lost, []);
  });

  it("a pet that the driver does not take is a missing one: told once, tried again", async () => {
    const petter = petterOf();
    await petter.arm();
    sys.keepalive = EIO;
    petter.pet();
    petter.pet();
    assert.equal(log.length, 1);
    assert.match(log[0] ?? "", /EIO/);
    sys.keepalive = 0;
    petter.pet();
    assert.equal(sys.calls.filter((call) => call === "pet").length, 4);
    await petter.disarm();
  });

  it("a restarted pulse adopts it from the keeper: no open, no timeout set, no pet (H1)", async () => {
    await petterOf().arm();
    const keeper = saved[0]!;
    const { length } = sys.calls;
    const next = petterOf();
    next.adopt(keeper);
    assert.equal(sys.calls.length, length);
    assert.equal(await next.arm(), 5_000, "arming again sets nothing");
    assert.equal(sys.calls.length, length);
    next.pet();
    assert.deepEqual(sys.calls.slice(length), ["pet"]);
    await next.disarm();
    await gone(identityOf(keeper));
    assert.equal(sys.files["state"], "inactive");
  });

  it("adopts nothing from a keeper that is gone, nor a timeout that was not published", async () => {
    await petterOf().arm();
    const keeper = saved[0]!;
    const stranger = { ...keeper, process: { ...keeper.process, startTime: "1" } };
    assert.throws(
      () => {
        petterOf().adopt(stranger);
      },
      refusal("ERR_KEEPER_GONE", /is gone/),
    );
    sys.timeout = 600;
    assert.throws(
      () => {
        petterOf().adopt(keeper);
      },
      refusal("ERR_WATCHDOG_RANGE", /600000 ms, and 5000 ms was published/),
    );
    sys.timeout = 5;
    sys.options = 0x8080;
    assert.throws(
      () => {
        petterOf().adopt(keeper);
      },
      refusal("ERR_WATCHDOG_DRIVER", /MAGICCLOSE/),
    );
    assert.equal(sys.calls.includes("magic"), false, "it still runs");
    assert.ok(isAlive(identityOf(keeper)));
  });

  it("what arming refuses is named, with a remedy, and leaves no watchdog running and no keeper", async () => {
    const cases: [(device: FileWatchdog) => void, string, RegExp][] = [
      [
        (device) => (device.files["state"] = "active"),
        "ERR_WATCHDOG_IN_USE",
        /wd_keepalive \(pid 812\)/,
      ],
      [(device) => (device.files["nowayout"] = "1"), "ERR_WATCHDOG_NOWAYOUT", /nowayout/],
      [(device) => (device.files["min_timeout"] = "6"), "ERR_WATCHDOG_RANGE", /6 to any/],
      [(device) => (device.options = 0x0180), "ERR_WATCHDOG_DRIVER", /KEEPALIVEPING/],
      [(device) => (device.setTimeout = () => 6), "ERR_WATCHDOG_RANGE", /made 6 s/],
      [(device) => (device.setTimeout = () => EINVAL), "ERR_WATCHDOG_RANGE", /EINVAL/],
      [(device) => (device.keepalive = EIO), "ERR_WATCHDOG_PET", /EIO/],
    ];
    for (const [spoil, expected, message] of cases) {
      const device = new FileWatchdog(join(directory, "spoilt"));
      spoil(device);
      const wasRunning = device.files["state"];
      const petter = petterOf(device);
      await assert.rejects(petter.arm(), refusal(expected, message));
      assert.equal(device.files["state"], wasRunning);
      for (const keeper of keepers.splice(0)) {
        await gone(keeper);
      }
      assert.equal(saved.at(-1), undefined);
      device.calls.length = 0;
      petter.pet();
      assert.deepEqual(device.calls, []);
    }
  });
});

function refusal(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShareHaError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.ok(error.hint.length >= 10);
    return true;
  };
}
