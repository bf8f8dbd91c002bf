/** `sharedha doctor` on real SCSI disks, virtio disks and watchdogs, in virtual machines. */
import assert from "node:assert/strict";

import { type DoctorFinding, type DoctorReport } from "../../lib/doctor/doctor-finding.js";
import { useLab } from "../lab/mocha.js";
import { TARGETS } from "../lab/san.js";
import { type ScsiLook } from "../../lib/system/scsi-look.js";
import { guestDisk } from "../lab/settings.js";
import { type Vm } from "../lab/vm.js";
import { Commands } from "./commands.js";

const LUN = "/dev/sda";
const VIRTIO = guestDisk("n1", "local");

describe("doctor on real disks and watchdogs", function () {
  this.timeout(300_000);
  const lab = useLab({ vms: ["san", "n1", "n2"] });

  const commands = new Map<string, Commands>();

  before(async () => {
    await Promise.all([lab.attach("n1"), lab.attach("n2")]);
    for (const name of ["n1", "n2"] as const) {
      commands.set(name, new Commands(lab.vm(name)));
    }
  });
  after(() => {
    for (const one of commands.values()) {
      one.end();
    }
  });

  async function doctor(
    machine: Vm,
    ...args: readonly string[]
  ): Promise<DoctorReport & { readonly exitCode: number | null }> {
    const words = ["doctor", ...args, "--json"];
    const { exitCode, stdout, stderr } = await commands.get(machine.name)!.run(words);
    assert.notEqual(stdout, "", stderr);
    return { ...(JSON.parse(stdout) as DoctorReport), exitCode };
  }

  function all(report: DoctorReport, check: string, path?: string): readonly DoctorFinding[] {
    return report.findings.filter(
      (one) => one.check === check && (path === undefined || one.subject === path),
    );
  }

  async function must(machine: Vm, ...argv: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await machine.run(argv);
    assert.equal(exitCode, 0, `${argv.join(" ")}: ${stderr}`);
    return stdout.trim();
  }

  function levels(findings: readonly DoctorFinding[]): readonly string[] {
    return findings.map(({ level }) => level);
  }

  function texts(findings: readonly DoctorFinding[]): string {
    return findings.map(({ text }) => text).join("\n");
  }

  /** Until multipathd has joined the disk to a map. @returns the map's name */
  async function mapOver(machine: Vm, disk: string): Promise<string> {
    const look = `for d in /sys/block/${disk}/holders/dm-*; do cat $d/dm/name; done`;
    for (let tries = 0; tries < 60; tries++) {
      const { stdout } = await machine.run(["sh", "-c", look]);
      if (stdout.trim() !== "") {
        return stdout.trim();
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    throw new Error(`no map over ${disk}: ${await must(machine, "multipathd", "show", "paths")}`);
  }

  it("finds LIO's persistent reservations through SG_IO, as sg_persist does", async () => {
    const n1 = lab.vm("n1");
    const [found] = all(await doctor(n1, LUN), "reservations", LUN).filter(
      ({ level }) => level !== "info",
    );
    assert.equal(found?.level, "ok", JSON.stringify(found));
    assert.match(found.text, /\(WE EA WERO EARO WEAR EAAR\), kept over a power loss/);
    const words = await must(n1, "sg_persist", "--in", "--report-capabilities", LUN);
    assert.match(words, /Persist Through Power Loss Capable\(PTPL_C\): 1/);
    assert.match(words, /Write Exclusive, all registrants: 1/);
  });

  // By doctor's own look alone: its other looks read at the same time, and the kernel gives a unit attention to the first.
  it("takes the unit attention that another node's CLEAR leaves, and says so", async () => {
    const script = `import { lookAtScsiDisk } from "/opt/sharedha/dist/lib/system/scsi-look.js";
      process.stdout.write(JSON.stringify(lookAtScsiDisk("${LUN}", 5_000)));`;
    const look = async (): Promise<ScsiLook> => {
      const text = await must(n1, "node", "--input-type=module", "--eval", script);
      return JSON.parse(text) as ScsiLook;
    };
    const [n1, n2] = [lab.vm("n1"), lab.vm("n2")];
    const register = (key: string): readonly string[] => [
      "sg_persist",
      "--out",
      "--register-ignore",
      `--param-sark=${key}`,
      LUN,
    ];
    await must(n1, ...register("0xa1"));
    await must(n2, ...register("0xb2"));
    // udev reads a disk that somebody had open for writing, and would take the unit attention.
    await must(n1, "udevadm", "settle", "--timeout=20");
    await must(n2, "sg_persist", "--out", "--clear", "--param-rk=0xb2", LUN);
    const { attentions, reservations } = await look();
    assert.match(attentions.join(", "), /2a\/0[35]/);
    assert.equal(reservations.kind, "ok");
    assert.deepEqual((await look()).attentions, [], "taken once");
  });

  it("sees one wwid, size and session from both nodes", async () => {
    const reports = await Promise.all(
      (["n1", "n2"] as const).map(async (name) => await doctor(lab.vm(name), LUN)),
    );
    const [one, other] = reports.map((report) => all(report, "identity", LUN)[0]?.text);
    assert.match(one ?? "", /^36001405/);
    assert.equal(one, other);
    for (const report of reports) {
      assert.match(all(report, "iscsi", LUN)[0]?.text ?? "", /^logged in to iqn\./);
      assert.deepEqual(
        all(report, "cache", LUN).map(({ level }) => level),
        ["ok"],
      );
    }
  });

  it("holds the session's timers against T, and names the command that sets them", async () => {
    const n1 = lab.vm("n1");
    const before = await must(n1, "cat", "/sys/class/iscsi_session/session1/recovery_tmo");
    const findings = all(await doctor(n1, LUN, "--profile", "default"), "iscsi", LUN);
    const recovery = findings.find(({ text }) => text.includes("replacement_timeout"));
    if (Number(before) > 3) {
      assert.equal(recovery?.figure, Number(before) * 1_000);
      assert.equal(recovery.limit ?? recovery.warningLimit, 3_000);
      assert.match(recovery.remedy ?? "", /^sharedha iscsi timers iqn\.\S+ --profile default$/);
    } else {
      assert.equal(recovery, undefined);
    }
  });

  it("of a virtio disk: no reservations, and that is no fault", async () => {
    const report = await doctor(lab.vm("n1"), VIRTIO);
    assert.deepEqual(
      all(report, "reservations", VIRTIO).map(({ level }) => level),
      ["info"],
    );
    assert.deepEqual(all(report, "paths", VIRTIO), []);
    assert.equal(all(report, "direct-io", VIRTIO)[0]?.level, "ok");
  });

  it("a LUN that takes 300 ms is too slow for fast and fits default", async () => {
    const n1 = lab.vm("n1");
    await lab.san.slow("lun0", 300);
    try {
      const fast = await doctor(n1, LUN, "--profile", "fast");
      const [judged] = all(fast, "latency", LUN);
      assert.ok(
        judged?.level === "warning" || judged?.level === "critical",
        JSON.stringify(judged),
      );
      assert.ok((judged.figure ?? 0) >= 300);
      const [latency] = fast.latency;
      assert.ok(latency !== undefined && latency.p50Ms >= 300, JSON.stringify(latency));
      assert.notEqual(latency.fits, "fast");
      assert.notEqual(fast.exitCode, 0);
    } finally {
      await lab.san.heal("lun0");
    }
    const [healed] = all(await doctor(n1, LUN, "--profile", "multipath"), "latency", LUN);
    assert.equal(healed?.level, "ok", JSON.stringify(healed));
  });

  it("finds softdog without starting it", async () => {
    const n2 = lab.vm("n2");
    const without = all(await doctor(n2), "watchdog");
    assert.match(without[0]?.remedy ?? "", /^modprobe softdog/);
    await must(n2, "modprobe", "softdog");
    try {
      const [softdog] = all(await doctor(n2), "watchdog");
      assert.equal(softdog?.level, "info", JSON.stringify(softdog));
      assert.match(softdog.text, /^\/dev\/watchdog0 \(Software Watchdog\) can run with W 5 s/);
      assert.equal(await must(n2, "cat", "/sys/class/watchdog/watchdog0/state"), "inactive");
    } finally {
      await must(n2, "rmmod", "softdog");
    }
  });

  it("a second path: a stray at first, then a map with two paths, then with one", async () => {
    const n1 = lab.vm("n1");
    const second = "10.77.0.19";
    const name = (await must(n1, "readlink", "-f", LUN)).replace("/dev/", "");
    await must(lab.vm("san"), "ip", "address", "add", `${second}/24`, "dev", "eth0");
    await must(n1, "iscsiadm", "-m", "discovery", "-t", "st", "-p", second);
    await must(n1, "iscsiadm", "-m", "node", "-T", TARGETS.data.iqn, "-p", second, "--login");
    await must(n1, "udevadm", "settle", "--timeout=20");
    try {
      const stray = all(await doctor(n1, LUN), "paths", LUN);
      assert.deepEqual(levels(stray), ["warning"], JSON.stringify(stray));
      assert.match(stray[0]?.text ?? "", /^sd[d-f] leads to the same LUN, and no multipath map/);

      const config = "defaults {\n find_multipaths no\n no_path_retry queue\n}\n";
      await n1.steps([{ do: "write", path: "/etc/multipath.conf", text: config }]);
      await must(n1, "multipathd");
      const map = await mapOver(n1, name);
      const single = all(await doctor(n1, LUN), "paths", LUN);
      assert.deepEqual(levels(single), ["critical"], JSON.stringify(single));
      assert.match(single[0]?.remedy ?? "", new RegExp(`/dev/mapper/${map}`));

      const path = `/dev/mapper/${map}`;
      const both = await doctor(n1, path, "--profile", "multipath");
      const [total] = all(both, "paths", path);
      assert.equal(total?.level, "ok", JSON.stringify(total));
      assert.match(total.text, /^2 of 2 paths of map/);
      assert.match(texts(all(both, "paths", path)), /queue/, "queue_if_no_path is judged");

      const state = (text: string): Promise<unknown> =>
        n1.steps([{ do: "write", path: `/sys/block/${name}/device/state`, text: `${text}\n` }]);
      await state("offline");
      const one = all(await doctor(n1, path, "--profile", "multipath"), "paths", path);
      await state("running");
      assert.match(texts(one), /^1 of 2 paths of map/);
      assert.match(texts(one), new RegExp(`^${name} is offline$`, "m"));
    } finally {
      await n1.run(["multipathd", "shutdown"]);
      await n1.run(["multipath", "-F"]);
      await must(n1, "iscsiadm", "-m", "node", "-T", TARGETS.data.iqn, "-p", second, "--logout");
    }
  });
});
