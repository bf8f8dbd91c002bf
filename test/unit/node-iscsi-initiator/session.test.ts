import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { FakeOpenIscsi } from "../../helpers/fake-open-iscsi.js";
import { failure } from "./fixture.js";

const TARGET = "iqn.2026-11.lab:data";
const WWID = "naa.6001405ab00000000000000000000000";

describe("sessions in sysfs", () => {
  let machine: FakeOpenIscsi;
  beforeEach(() => {
    machine = new FakeOpenIscsi();
  });
  afterEach(() => {
    machine.remove();
  });
  const add = (changes: Partial<Parameters<FakeOpenIscsi["addSession"]>[0]> = {}): number =>
    machine.addSession({
      target: TARGET,
      portal: "10.77.0.9:3260",
      state: "LOGGED_IN",
      disks: [
        { lun: 0, wwid: WWID },
        { lun: 1, sizeBytes: 64 * 2 ** 20 },
      ],
      ...changes,
    });

  it("a machine without iSCSI has none", () => {
    rmSync(join(machine.root, "sys/class"), { recursive: true });
    assert.deepEqual(machine.initiator.sessions(), []);
  });

  it("have target, portal, state, timers and disks", () => {
    add();
    assert.deepEqual(machine.initiator.sessions(), [
      {
        sid: 1,
        target: TARGET,
        portal: { address: "10.77.0.9", port: 3260 },
        currentPortal: { address: "10.77.0.9", port: 3260 },
        tpgt: 1,
        state: "LOGGED_IN",
        connectionState: "up",
        host: 1,
        initiatorName: "iqn.2026-11.lab:n1",
        timers: {
          replacementTimeout: 120,
          noopOutInterval: 5,
          noopOutTimeout: 5,
          abortTimeout: 15,
          luResetTimeout: 30,
          targetResetTimeout: 30,
        },
        disks: [
          {
            lun: 0,
            name: "sda",
            path: join(machine.root, "dev/sda"),
            stablePath: undefined,
            wwid: WWID,
            sizeBytes: 2 ** 30,
            state: "running",
            hctl: "1:0:0:0",
          },
          {
            lun: 1,
            name: "sdb",
            path: join(machine.root, "dev/sdb"),
            stablePath: undefined,
            wwid: undefined,
            sizeBytes: 64 * 2 ** 20,
            state: "running",
            hctl: "1:0:0:1",
          },
        ],
      },
    ]);
  });

  it("never show the secrets that the kernel has", () => {
    add();
    assert.doesNotMatch(JSON.stringify(machine.initiator.sessions()), /secret|labuser/);
  });

  it("come in the order of their numbers, also the tenth", () => {
    for (let count = 0; count < 11; count += 1) {
      add({ disks: [] });
    }
    const sids = machine.initiator.sessions().map(({ sid }) => sid);
    assert.deepEqual(sids, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
  });

  it("a half-made one is shown as what it is", () => {
    const sid = add({ state: "FREE" });
    machine.setState(add({ portal: "[fd00::9]:3260" }), "FAILED");
    rmSync(join(machine.root, "sys/class/iscsi_connection", `connection${sid}:0`));
    const [half, failed] = machine.initiator.sessions();
    assert.equal(half?.state, "FREE");
    assert.equal(half.portal, undefined);
    assert.equal(half.connectionState, undefined);
    assert.equal(failed?.state, "FAILED");
    machine.setState(sid, "SOMETHING_NEW");
    assert.equal(machine.initiator.sessions()[0]?.state, "UNKNOWN");
  });

  it("one that ends while it is read is not there", () => {
    const sid = add();
    rmSync(join(machine.root, "sys/class/iscsi_session", `session${sid}`, "targetname"));
    assert.deepEqual(machine.initiator.sessions(), []);
  });

  it("the kernel's off is -1", () => {
    const sid = add();
    const file = join(machine.root, "sys/class/iscsi_session", `session${sid}`, "recovery_tmo");
    writeFileSync(file, "off\n");
    assert.equal(machine.initiator.sessions()[0]?.timers.replacementTimeout, -1);
  });

  describe("the stable path of a disk", () => {
    const stable = (): string | undefined =>
      machine.initiator.sessions()[0]?.disks.find(({ lun }) => lun === 0)?.stablePath;

    it("is udev's link, when it leads to this disk", () => {
      add();
      machine.addLink(`scsi-3${WWID.slice(4)}`, "sda");
      assert.equal(stable(), join(machine.root, `dev/disk/by-id/scsi-3${WWID.slice(4)}`));
      machine.addLink(`wwn-0x${WWID.slice(4)}`, "sda");
      assert.equal(stable(), join(machine.root, `dev/disk/by-id/wwn-0x${WWID.slice(4)}`));
    });

    it("is not a link that leads to another disk, or to nothing", () => {
      add();
      machine.addLink(`wwn-0x${WWID.slice(4)}`, "sdb");
      assert.equal(stable(), undefined);
      machine.addLink(`wwn-0x${WWID.slice(4)}`, "sdz");
      assert.equal(stable(), undefined);
    });

    it("is the multipath map that has the disk", () => {
      add();
      machine.addLink(`wwn-0x${WWID.slice(4)}`, "sda");
      machine.addMultipath("mpatha", ["sda"]);
      assert.equal(stable(), join(machine.root, "dev/mapper/mpatha"));
    });
  });

  describe("requireDisk", () => {
    it("finds a LUN by number and name of the disk", () => {
      add();
      assert.equal(machine.initiator.requireDisk(TARGET, 0, { wwid: WWID }).disk.name, "sda");
    });

    it("says what else there is when the LUN is not", () => {
      add();
      assert.throws(
        () => machine.initiator.requireDisk(TARGET, 7),
        failure("ERR_ISCSI_LUN_MISSING", /has no disk with LUN 7; it has 0, 1/, /rescan/),
      );
      assert.throws(
        () => machine.initiator.requireDisk("iqn.2026-11.lab:other", 0),
        failure("ERR_ISCSI_NO_SESSION", /lab:other is not logged in/),
      );
    });

    it("tells another disk from a moved one, and names both", () => {
      add({
        disks: [
          { lun: 0, wwid: "naa.other" },
          { lun: 4, wwid: WWID },
        ],
      });
      assert.throws(
        () => machine.initiator.requireDisk(TARGET, 0, { wwid: WWID }),
        failure("ERR_ISCSI_LUN_MOVED", /naa\.6001405ab0+ is not LUN 0 .*it is LUN 4 now/),
      );
      assert.throws(
        () => machine.initiator.requireDisk(TARGET, 0, { wwid: "naa.gone" }),
        failure("ERR_ISCSI_WWID_CHANGED", /it was naa\.gone, and is naa\.other/),
      );
    });

    it("does not take a disk of a session that is lost", () => {
      machine.setState(add(), "FAILED");
      assert.throws(
        () => machine.initiator.requireDisk(TARGET, 0),
        failure("ERR_ISCSI_SESSION_STALE", /session 1 is FAILED/),
      );
    });
  });
});
