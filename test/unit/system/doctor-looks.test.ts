/** The smaller looks of doctor: multipath's words, systemd's files, watchdogs without opening one, the machine. */
import assert from "node:assert/strict";

import fc from "fast-check";

import {
  kernelFacts,
  lookAtStateDir,
  memlockFacts,
  missingPrograms,
} from "../../../lib/system/machine-look.js";
import {
  parseFeatures,
  parsePathStates,
  parsePolling,
  parseQueueing,
} from "../../../lib/system/multipath-look.js";
import { SystemTree } from "../../../lib/system/system-tree.js";
import {
  lookAtSystemd,
  mergeSystemd,
  parseSystemctl,
  readSystemdFiles,
} from "../../../lib/system/systemd-look.js";
import { lookAtWatchdogs } from "../../../lib/system/watchdog-look.js";
import { FakeMachine } from "../../helpers/fake-machine.js";

describe("a multipath map's words", () => {
  it("queue_if_no_path is one of the features, wherever it stands among them", () => {
    const rest = "1 alua 1 1 service-time 0 2 2 8:0 1 1 8:16 1 1";
    assert.equal(parseFeatures(`0 2097152 multipath 1 queue_if_no_path ${rest}`), true);
    assert.equal(
      parseFeatures(`0 9 multipath 3 pg_init_retries 50 queue_if_no_path ${rest}`),
      true,
    );
    assert.equal(parseFeatures(`0 9 multipath 0 ${rest}`), false);
    // A later word of that name is none of the features.
    assert.equal(parseFeatures(`0 9 multipath 0 1 queue_if_no_path`), false);
    assert.equal(parseFeatures("0 9 linear 8:0 0"), undefined);
    assert.equal(parseFeatures("0 9 multipath 99999 queue_if_no_path"), undefined);
    assert.equal(parseFeatures(""), undefined);
  });

  it("A is a usable path and F a failed one", () => {
    const status = "0 262144 multipath 2 0 0 0 2 1 A 0 1 2 8:0 A 0 0 1 E 0 1 2 8:16 F 3 0 1";
    assert.deepEqual(parsePathStates(status), { "8:0": true, "8:16": false });
  });

  it("multipathd's queueing and polling interval", () => {
    assert.equal(parseQueueing("mpathaa|on\nmpatha|12 chk\n", "mpatha"), "12 chk");
    assert.equal(parseQueueing("mpathb|-\n", "mpatha"), undefined);
    assert.equal(parsePolling("defaults {\n\tpolling_interval 5\n\tmax_polling_interval 20\n"), 5);
    assert.equal(parsePolling('defaults {\n\tpolling_interval "7"\n}'), 7);
    assert.equal(parsePolling("defaults {\n}\n"), undefined);
  });

  it("never throws, whatever a program prints", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string(), (text, map) => {
        parseFeatures(text);
        parsePathStates(text);
        parseQueueing(text, map);
        parsePolling(text);
        parseSystemctl(text);
      }),
    );
  });
});

describe("a machine's files", () => {
  let machine: FakeMachine;

  beforeEach(() => {
    machine = new FakeMachine();
  });
  afterEach(() => {
    machine.dispose();
  });

  describe("systemd", () => {
    const manager = (...lines: readonly string[]): string => ["[Manager]", ...lines].join("\n");

    it("drop-ins override system.conf by name, /etc hides the same name elsewhere", () => {
      machine
        .file("/usr/lib/systemd/system.conf", manager("RuntimeWatchdogSec=1min"))
        .file(
          "/etc/systemd/system.conf",
          manager("#RuntimeWatchdogSec=off", "RebootWatchdogSec=5min"),
        )
        .file("/usr/lib/systemd/system.conf.d/50-vendor.conf", manager("RuntimeWatchdogSec=30s"))
        .file("/run/systemd/system.conf.d/10-run.conf", manager("RuntimeWatchdogSec=20s"))
        .file("/etc/systemd/system.conf.d/50-vendor.conf", manager("WatchdogDevice=/dev/watchdog1"))
        .file("/etc/systemd/system.conf.d/notes.txt", manager("RuntimeWatchdogSec=99"));
      assert.deepEqual(readSystemdFiles(machine.tree), {
        runtimeWatchdog: { value: "20s", file: "/run/systemd/system.conf.d/10-run.conf" },
        rebootWatchdog: { value: "5min", file: "/etc/systemd/system.conf" },
        watchdogDevice: {
          value: "/dev/watchdog1",
          file: "/etc/systemd/system.conf.d/50-vendor.conf",
        },
      });
    });

    it("counts only the section Manager, an empty value resets, the older name is the same", () => {
      machine
        .file(
          "/etc/systemd/system.conf",
          "[Other]\nRuntimeWatchdogSec=1\n[Manager]\nShutdownWatchdogSec=2min",
        )
        .file("/etc/systemd/system.conf.d/a.conf", manager("WatchdogDevice=/dev/watchdog1"))
        .file("/etc/systemd/system.conf.d/b.conf", manager("WatchdogDevice="));
      const { runtimeWatchdog, rebootWatchdog, watchdogDevice } = readSystemdFiles(machine.tree);
      assert.equal(runtimeWatchdog, undefined);
      assert.deepEqual(rebootWatchdog, { value: "2min", file: "/etc/systemd/system.conf" });
      assert.equal(watchdogDevice, undefined);
    });

    it("what systemd says counts more than its files", () => {
      const said = parseSystemctl(
        "RuntimeWatchdogUSec=1min\nRebootWatchdogUSec=10min\nWatchdogDevice=\n",
      );
      const files = {
        runtimeWatchdog: { value: "off", file: "/etc/systemd/system.conf" },
        rebootWatchdog: undefined,
        watchdogDevice: undefined,
      };
      assert.deepEqual(mergeSystemd(files, said), {
        runtimeWatchdog: { value: "1min", file: "/etc/systemd/system.conf" },
        rebootWatchdog: { value: "10min", file: undefined },
        watchdogDevice: undefined,
      });
    });

    it("is not asked where it is not process 1", async () => {
      machine.file("/proc/1/comm", "init");
      const facts = await lookAtSystemd(machine.tree);
      assert.deepEqual([facts.runs, facts.problem], [false, undefined]);
    });
  });

  describe("watchdogs", () => {
    function softdog(change: Readonly<Record<string, string>> = {}): FakeMachine {
      return machine.files("/sys/class/watchdog/watchdog0", {
        identity: "Software Watchdog",
        timeout: "60",
        min_timeout: "1",
        max_timeout: "65535",
        state: "inactive",
        nowayout: "0",
        ...change,
      });
    }

    it("softdog as the lab's kernel shows it", () => {
      softdog().directory("/proc");
      assert.deepEqual(lookAtWatchdogs(machine.tree, 5).watchdogs, [
        {
          device: "/dev/watchdog0",
          identity: "Software Watchdog",
          isSoftware: true,
          state: "inactive",
          timeoutSeconds: 60,
          minSeconds: 1,
          maxSeconds: 65_535,
          holders: [],
          refusal: undefined,
        },
      ]);
    });

    it("says why join would not take it", () => {
      softdog({ min_timeout: "10" }).directory("/proc");
      assert.equal(
        lookAtWatchdogs(machine.tree, 5).watchdogs[0]!.refusal!.code,
        "ERR_WATCHDOG_RANGE",
      );
      softdog({ nowayout: "1" });
      assert.equal(
        lookAtWatchdogs(machine.tree, 5).watchdogs[0]!.refusal!.code,
        "ERR_WATCHDOG_NOWAYOUT",
      );
    });

    it("names who holds it, a script by its own name, and programs that want one", () => {
      softdog({ state: "active" })
        .file("/proc/71/comm", "systemd")
        .file("/proc/71/cmdline", "/sbin/init\0")
        .linkText("/proc/71/fd/5", "/dev/watchdog0")
        .file("/proc/72/comm", "node")
        .file("/proc/72/cmdline", "/usr/bin/node\0/opt/dist/bin/sharedha-pulse.js\0")
        .linkText("/proc/72/fd/9", "/dev/watchdog")
        .file("/proc/73/comm", "sbd")
        .file("/proc/73/cmdline", "sbd: watcher\0")
        .directory("/proc/73/fd")
        .file("/proc/74/comm", "watchdogd")
        .file("/proc/74/cmdline", "")
        .directory("/proc/74/fd");
      const look = lookAtWatchdogs(machine.tree, 5);
      assert.deepEqual(look.watchdogs[0]!.holders, ["systemd (pid 71)", "sharedha-pulse (pid 72)"]);
      assert.equal(look.watchdogs[0]!.refusal!.code, "ERR_WATCHDOG_IN_USE");
      assert.deepEqual(look.rivals, ["sbd (pid 73)"]);
    });

    it("notices a device that sysfs does not describe", () => {
      softdog().directory("/proc").file("/dev/watchdog0", "").file("/dev/watchdog1", "");
      machine.file("/dev/watchdog", "");
      assert.deepEqual(lookAtWatchdogs(machine.tree, 5).undescribed, ["/dev/watchdog1"]);
    });
  });

  describe("kernel, limits and programs", () => {
    it("reads what is there", () => {
      machine
        .file("/proc/sys/kernel/osrelease", "6.1.0-56-amd64")
        .file("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")
        .file("/sys/devices/system/clocksource/clocksource0/available_clocksource", "hpet acpi_pm")
        .file("/proc/meminfo", "MemTotal: 10 kB\nSwapTotal:      2048 kB\nSwapFree: 1 kB")
        .file("/proc/sysrq-trigger", "");
      assert.deepEqual(kernelFacts(machine.tree), {
        kernel: "6.1.0-56-amd64",
        clocksource: "hpet",
        clocksources: ["hpet", "acpi_pm"],
        hasResetTrigger: true,
        swapBytes: 2_097_152,
      });
    });

    it("says of an empty machine that nothing is known, and no more", () => {
      assert.deepEqual(kernelFacts(machine.tree), {
        kernel: "unknown",
        clocksource: undefined,
        clocksources: [""],
        hasResetTrigger: false,
        swapBytes: 0,
      });
      assert.deepEqual(memlockFacts(machine.tree), { limitBytes: 0, isExempt: false });
    });

    const limits = (value: string): string =>
      `Max file size             unlimited            unlimited            bytes\nMax locked memory         ${value}              8388608              bytes`;

    it("knows the limit of locked memory, and the capability that lifts it", () => {
      machine
        .file("/proc/self/limits", limits("8388608"))
        .file("/proc/self/status", "CapEff:\t0000000000004000");
      assert.deepEqual(memlockFacts(machine.tree), { limitBytes: 8_388_608, isExempt: true });
      machine
        .file("/proc/self/limits", limits("unlimited"))
        .file("/proc/self/status", "CapEff:\tffffffffffffbfff");
      assert.deepEqual(memlockFacts(machine.tree), { limitBytes: Infinity, isExempt: false });
    });

    it("looks for programs where administrators' programs are", () => {
      machine
        .file("/usr/sbin/sfdisk", "", 0o755)
        .file("/usr/bin/mount", "", 0o755)
        .file("/sbin/blkid", "", 0o644);
      assert.deepEqual(missingPrograms(machine.tree, ["sfdisk", "mount", "blkid", "wipefs"]), [
        "blkid",
        "wipefs",
      ]);
    });

    it("measures the nearest directory that exists", () => {
      const facts = lookAtStateDir(`${machine.root}/not/made/yet`);
      assert.equal(facts.exists, false);
      assert.ok(facts.freeBytes > 0);
      assert.equal(lookAtStateDir("/dev/shm").isVolatile, true);
    });
  });

  describe("the tree", () => {
    it("tells what is not there from what may not be read", () => {
      assert.equal(machine.tree.text("/nothing"), undefined);
      assert.equal(machine.tree.text("/nothing/below"), undefined);
      assert.deepEqual(machine.tree.list("/nothing"), []);
      assert.equal(machine.tree.real("/nothing"), undefined);
      assert.throws(() => machine.directory("/sys/odd").tree.text("/sys/odd"), /EISDIR/);
    });

    it("gives paths of the machine, and none outside of it", () => {
      machine.file("/sys/a/b", "x").link("/sys/c", "/sys/a").linkText("/sys/out", "/etc");
      assert.equal(machine.tree.real("/sys/c/b"), "/sys/a/b");
      assert.equal(machine.tree.real("/sys/out"), undefined);
      assert.equal(new SystemTree().real("/proc/self/ns/../../1"), "/proc/1");
    });

    it("takes no more than its part of a file without end", () => {
      machine.file("/proc/long", "y".repeat(400_000));
      assert.equal(machine.tree.text("/proc/long")!.length, 256 * 1024);
    });

    it("numbers are numbers only", () => {
      machine.files("/sys", { a: "-1", b: "12", c: "off", d: "1e3", e: "" });
      assert.deepEqual(
        ["a", "b", "c", "d", "e", "f"].map((name) => machine.tree.number(`/sys/${name}`)),
        [-1, 12, undefined, undefined, undefined, undefined],
      );
    });
  });
});
