import assert from "node:assert/strict";

import {
  judgeMachine,
  judgeStateDir,
  judgeTools,
  judgeVirtuality,
  programsFor,
} from "../../../lib/doctor/rules/machine-rules.js";
import {
  chosenWatchdog,
  judgeSystemd,
  judgeWatchdogs,
} from "../../../lib/doctor/rules/watchdog-rules.js";
import { type MachineFacts } from "../../../lib/system/machine-look.js";
import { type SystemdFacts } from "../../../lib/system/systemd-look.js";
import { type WatchdogLook, type WatchdogsLook } from "../../../lib/system/watchdog-look.js";
import { the, troubles, yardstick } from "./samples.js";

const GIB = 2 ** 30;

function machine(change: Partial<MachineFacts> = {}): MachineFacts {
  return {
    kernel: "6.1.0-56-amd64",
    nodeVersion: "v20.20.2",
    isRoot: true,
    clocksource: "tsc",
    clocksources: ["tsc", "hpet"],
    hasResetTrigger: true,
    swapBytes: 0,
    memlock: { limitBytes: 8 * 2 ** 20, isExempt: true, works: true },
    realtime: { kind: "realtime", priority: 10 },
    ...change,
  };
}

describe("doctor: the machine", () => {
  const of = (change: Partial<MachineFacts>): readonly string[] =>
    troubles(judgeMachine(machine(change)));

  it("nothing is wrong with a good one", () => {
    assert.deepEqual(of({}), []);
    assert.equal(judgeMachine(machine()).length, 7);
  });

  it("kernel from 5.6 on", () => {
    assert.deepEqual(of({ kernel: "5.6.0" }), []);
    assert.deepEqual(of({ kernel: "5.5.19" }), ["critical kernel"]);
    assert.deepEqual(of({ kernel: "4.18.0-553.el8" }), ["critical kernel"]);
    assert.deepEqual(of({ kernel: "10.0" }), []);
    assert.deepEqual(of({ kernel: "unknown" }), ["critical kernel"]);
  });

  it("Node.js as package.json has it", () => {
    for (const good of ["v20.19.0", "v20.20.2", "v22.12.0", "v23.0.0", "v26.1.0"]) {
      assert.deepEqual(of({ nodeVersion: good }), [], good);
    }
    for (const bad of ["v20.18.9", "v21.7.0", "v22.11.0", "v18.20.0"]) {
      assert.deepEqual(of({ nodeVersion: bad }), ["critical node.js"], bad);
    }
  });

  it("clock sources that are slow, coarse or not told", () => {
    for (const good of ["kvm-clock", "arch_sys_counter", "xen"]) {
      assert.deepEqual(of({ clocksource: good }), [], good);
    }
    const hpet = judgeMachine(machine({ clocksource: "hpet", clocksources: ["hpet"] }));
    assert.match(the(hpet, "warning clock").text, /unstable/);
    const chosen = judgeMachine(machine({ clocksource: "hpet" }));
    assert.match(the(chosen, "warning clock").remedy!, /^echo tsc > /);
    assert.deepEqual(of({ clocksource: "jiffies", clocksources: ["jiffies"] }), ["warning clock"]);
    assert.deepEqual(of({ clocksource: undefined }), ["info clock"]);
  });

  it("real time, memory, swap, the reset trigger, root", () => {
    assert.deepEqual(of({ realtime: { kind: "refused", code: "EPERM" } }), ["warning realtime"]);
    const memlock = (limitBytes: number, isExempt: boolean, works: boolean): readonly string[] =>
      of({ memlock: { limitBytes, isExempt, works } });
    assert.deepEqual(memlock(2 ** 27, false, true), []);
    assert.deepEqual(memlock(2 ** 27 - 1, false, true), ["warning memory"]);
    assert.deepEqual(memlock(Infinity, false, true), []);
    assert.deepEqual(memlock(Infinity, true, false), ["warning memory"]);
    assert.deepEqual(of({ swapBytes: GIB }), ["info memory"]);
    assert.deepEqual(of({ hasResetTrigger: false }), ["warning sysrq"]);
    assert.deepEqual(of({ isRoot: false }), ["warning user"]);
  });

  it("a virtual machine, and what the configuration promises of it", () => {
    const virtual = { virtual: true, reason: "DMI QEMU" };
    assert.equal(judgeVirtuality({ virtual: false, reason: "" }, "possible").level, "ok");
    assert.equal(judgeVirtuality(virtual, undefined).level, "info");
    assert.equal(judgeVirtuality(virtual, "never").level, "info");
    const possible = judgeVirtuality(virtual, "possible");
    assert.equal(possible.level, "warning");
    assert.match(possible.remedy!, /vm_pause = "never"/);
  });

  it("room for the state directory, and whether it outlives a reboot", () => {
    const dir = (freeBytes: number, isVolatile = false): readonly string[] =>
      troubles(judgeStateDir({ path: "/s", exists: true, freeBytes, isVolatile }));
    assert.deepEqual(dir(100 * 2 ** 20), []);
    assert.deepEqual(dir(100 * 2 ** 20 - 1), ["warning state-dir"]);
    assert.deepEqual(dir(10 * 2 ** 20), ["warning state-dir"]);
    assert.deepEqual(dir(10 * 2 ** 20 - 1), ["critical state-dir"]);
    assert.deepEqual(dir(GIB, true), ["warning state-dir"]);
  });

  it("programs: only those that are needed, one finding per level, with the packages", () => {
    const plain = { iscsi: false, multipath: false };
    assert.deepEqual(troubles(judgeTools([], plain)), []);
    assert.deepEqual(troubles(judgeTools(["iscsiadm", "multipathd"], plain)), ["info tools"]);
    const missing = judgeTools(["sfdisk", "wipefs", "iscsiadm", "sg_persist"], {
      iscsi: true,
      multipath: false,
    });
    assert.deepEqual(troubles(missing), ["critical tools", "warning tools", "info tools"]);
    const critical = the(missing, "critical tools");
    assert.equal(
      critical.remedy,
      "Debian: apt install fdisk util-linux; RHEL: dnf install util-linux",
    );
    assert.match(the(missing, "warning tools").remedy!, /open-iscsi.*iscsi-initiator-utils/);
    for (const [program, level] of [
      ["mount", "critical"],
      ["umount", "critical"],
      ["sfdisk", "critical"],
      ["wipefs", "critical"],
      ["blkid", "critical"],
      ["losetup", "critical"],
      ["e2fsck", "warning"],
      ["xfs_repair", "info"],
    ] as const) {
      assert.deepEqual(troubles(judgeTools([program], plain)), [`${level} tools`], program);
    }
    for (const program of ["multipathd", "dmsetup"]) {
      const findings = judgeTools([program], { iscsi: false, multipath: true });
      assert.deepEqual(troubles(findings), ["warning tools"], program);
    }
    assert.deepEqual(
      judgeTools(["sg_persist"], plain).map(({ level }) => level),
      ["info", "ok"],
    );
    assert.ok(programsFor({ iscsi: true, multipath: true }).includes("multipathd"));
    assert.ok(!programsFor(plain).includes("multipathd"));
    assert.deepEqual(
      judgeTools(["iscsiadm"], plain).map(({ level, text }) => `${level} ${text}`),
      [
        "info not installed: iscsiadm (LUNs over iSCSI)",
        "ok every program that is needed is installed",
      ],
    );
  });
});

function watchdog(change: Partial<WatchdogLook> = {}): WatchdogLook {
  return {
    device: "/dev/watchdog0",
    identity: "iTCO_wdt",
    isSoftware: false,
    state: "inactive",
    timeoutSeconds: 30,
    minSeconds: 1,
    maxSeconds: 613,
    holders: [],
    refusal: undefined,
    ...change,
  };
}

function watchdogs(...list: readonly WatchdogLook[]): WatchdogsLook {
  return { watchdogs: list, undescribed: [], rivals: [] };
}

const IN_USE = {
  code: "ERR_WATCHDOG_IN_USE",
  message: "the watchdog /dev/watchdog0 is running already: systemd (pid 1)",
  hint: "Stop that program (systemd: RuntimeWatchdogSec=0).",
};
const SOFTDOG = { device: "/dev/watchdog1", identity: "Software Watchdog", isSoftware: true };

describe("doctor: watchdogs", () => {
  const judge = (look: WatchdogsLook): readonly string[] =>
    troubles(judgeWatchdogs(look, yardstick("default")));

  it("hardware is fine, softdog is weaker, none is a warning with the command", () => {
    assert.deepEqual(judge(watchdogs(watchdog())), []);
    const soft = judgeWatchdogs(watchdogs(watchdog(SOFTDOG)), yardstick("fast"));
    const finding = the(soft, "info watchdog");
    assert.match(finding.text, /weaker than hardware/);
    assert.equal(finding.figure, 2_000);
    const none = the(judgeWatchdogs(watchdogs(), yardstick("default")), "warning watchdog");
    assert.match(none.remedy!, /^modprobe softdog/);
    assert.match(none.text, /guard/);
  });

  it("one that cannot be used is a warning, unless another as good can", () => {
    const refused = watchdog({ refusal: IN_USE, state: "active", holders: ["systemd (pid 1)"] });
    const alone = judgeWatchdogs(watchdogs(refused), yardstick("default"));
    assert.deepEqual(troubles(alone), ["warning watchdog", "warning watchdog"]);
    assert.equal(alone[1]!.text, "/dev/watchdog0 (iTCO_wdt) is running already: systemd (pid 1)");
    // softdog is no full replacement of hardware.
    assert.deepEqual(judge(watchdogs(refused, watchdog(SOFTDOG))), [
      "info watchdog",
      "warning watchdog",
    ]);
    assert.deepEqual(judge(watchdogs(refused, watchdog({ device: "/dev/watchdog1" }))), [
      "info watchdog",
    ]);
    const usedSoft = watchdog({ ...SOFTDOG, refusal: IN_USE });
    assert.deepEqual(judge(watchdogs(watchdog(), usedSoft)), ["info watchdog"]);
  });

  it("the one that this node's own pulse has armed is in good hands", () => {
    const ours = watchdog({
      refusal: IN_USE,
      holders: ["sharedha-pulse (pid 9)", "sleep (pid 10)"],
    });
    assert.deepEqual(judge(watchdogs(ours)), []);
    assert.equal(chosenWatchdog(watchdogs(watchdog(SOFTDOG), watchdog()))!.identity, "iTCO_wdt");
  });

  it("devices that sysfs does not describe, and programs that want one", () => {
    const look = {
      ...watchdogs(watchdog()),
      undescribed: ["/dev/watchdog1"],
      rivals: ["sbd (pid 3)"],
    };
    assert.deepEqual(judge(look), ["warning watchdog", "info watchdog"]);
    const [none] = judgeWatchdogs({ ...look, watchdogs: [] }, yardstick("default"));
    assert.match(none!.text, /^none of the watchdogs can be used/);
  });
});

describe("doctor: systemd", () => {
  const facts = (change: Partial<SystemdFacts>): SystemdFacts => ({
    runs: true,
    runtimeWatchdog: undefined,
    rebootWatchdog: { value: "off", file: undefined },
    watchdogDevice: undefined,
    problem: undefined,
    ...change,
  });
  const one = watchdogs(watchdog());
  const of = (change: Partial<SystemdFacts>, look = one): readonly string[] =>
    troubles(judgeSystemd(facts(change), look));
  const setting = (value: string): { value: string; file: string } => ({
    value,
    file: "/etc/systemd/system.conf",
  });

  it("off in all its spellings is fine", () => {
    for (const value of ["off", "0", "0s", "no", "OFF"]) {
      assert.deepEqual(
        of({ runtimeWatchdog: setting(value), rebootWatchdog: setting(value) }),
        [],
        value,
      );
    }
  });

  it("one that pets the watchdog we need is critical, with the setting to change", () => {
    for (const value of ["30s", "1min", "default", "infinity"]) {
      assert.deepEqual(of({ runtimeWatchdog: setting(value) }), ["critical systemd"], value);
    }
    const finding = the(
      judgeSystemd(facts({ runtimeWatchdog: setting("1min") }), one),
      "critical systemd",
    );
    assert.match(
      finding.text,
      /RuntimeWatchdogSec=1min in \/etc\/systemd\/system.conf takes \/dev\/watchdog0/,
    );
    assert.match(finding.remedy!, /RuntimeWatchdogSec=0.*daemon-reexec$/);
  });

  it("at shutdown it takes the watchdog unless told not to", () => {
    const findings = judgeSystemd(facts({ rebootWatchdog: undefined }), one);
    assert.match(the(findings, "critical systemd").text, /RebootWatchdogSec=10min/);
  });

  it("another device than ours is none of our business, and neither is one that is not there", () => {
    const both = watchdogs(watchdog(), watchdog({ device: "/dev/watchdog1", isSoftware: true }));
    const taken = { runtimeWatchdog: setting("1min") };
    assert.deepEqual(of({ ...taken, watchdogDevice: setting("/dev/watchdog1") }, both), []);
    assert.deepEqual(of({ ...taken, watchdogDevice: setting("/dev/watchdog") }, both), [
      "critical systemd",
    ]);
    assert.deepEqual(of(taken, watchdogs()), []);
    // Held by systemd, so nothing is chosen: the device is ours all the same.
    assert.deepEqual(of(taken, watchdogs(watchdog({ refusal: IN_USE }))), ["critical systemd"]);
  });

  it("where it does not run its defaults do not matter, but what is written does", () => {
    assert.deepEqual(of({ runs: false, rebootWatchdog: undefined }), []);
    assert.deepEqual(of({ runs: false, runtimeWatchdog: setting("1min") }), ["critical systemd"]);
  });

  it("that it could not be asked is said", () => {
    assert.deepEqual(of({ problem: "systemctl show: timeout" }), ["warning systemd"]);
  });
});
