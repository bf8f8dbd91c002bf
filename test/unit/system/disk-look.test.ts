import assert from "node:assert/strict";

import { lookAtDisk } from "../../../lib/system/disk-look.js";
import { FakeMachine } from "../../helpers/fake-machine.js";

const WWID = "naa.6001405ab00000000000000000000000";
const ISCSI_BUS = "platform/host0/session1/target0:0:0";
const FC_BUS = "pci0000:00/host2/rport-2:0-1/target2:0:0";

describe("disks in sysfs", () => {
  let machine: FakeMachine;

  beforeEach(() => {
    machine = new FakeMachine();
  });
  afterEach(() => {
    machine.dispose();
  });

  function iscsi(): FakeMachine {
    return machine
      .scsiDisk("sda", ISCSI_BUS, "8:0", { wwid: WWID })
      .directory("/sys/devices/platform/host0/session1/connection1:0")
      .files("/sys/class/iscsi_session/session1", {
        targetname: "iqn.2026-01.lab:san",
        state: "LOGGED_IN",
        recovery_tmo: "120",
      })
      .files("/sys/class/iscsi_connection/connection1:0", {
        persistent_address: "10.77.0.9",
        persistent_port: "3260",
        recv_tmo: "5",
        ping_tmo: "7",
      });
  }

  it("finds the iSCSI session and its timers from the disk", () => {
    const disk = lookAtDisk(iscsi().tree, 8n, 0n);
    assert.deepEqual(disk, {
      name: "sda",
      partition: undefined,
      writeCache: "write back",
      fua: false,
      alignmentOffset: 0,
      multipath: undefined,
      paths: [
        {
          name: "sda",
          number: "8:0",
          state: "running",
          wwid: "36001405ab00000000000000000000000",
          vendor: "LIO-ORG",
          model: "IBLOCK",
          cacheType: "write back",
          transport: "iscsi",
          iscsi: {
            session: "session1",
            target: "iqn.2026-01.lab:san",
            portal: "10.77.0.9:3260",
            state: "LOGGED_IN",
            recoverySeconds: 120,
            pingIntervalSeconds: 5,
            pingTimeoutSeconds: 7,
          },
          fastIoFailSeconds: null,
          devLossSeconds: null,
        },
      ],
      strayPaths: [],
      maps: [],
    });
  });

  it("takes a recovery time of -1 and attributes that are not there for what they are", () => {
    iscsi()
      .file("/sys/class/iscsi_session/session1/recovery_tmo", "-1")
      .file("/sys/class/iscsi_connection/connection1:0/recv_tmo", "none");
    const session = lookAtDisk(machine.tree, 8n, 0n)!.paths[0]!.iscsi!;
    assert.equal(session.recoverySeconds, null);
    assert.equal(session.pingIntervalSeconds, null);
    assert.equal(session.pingTimeoutSeconds, 7);
  });

  it("sees a second path that no map has joined to the first, and no other disk", () => {
    iscsi()
      .scsiDisk("sdb", "platform/host1/session2/target1:0:0", "8:16", { wwid: WWID })
      .scsiDisk("sdc", "platform/host1/session2/target1:0:1", "8:32", { wwid: "naa.6001" });
    assert.deepEqual(lookAtDisk(machine.tree, 8n, 0n)!.strayPaths, ["sdb"]);
    assert.deepEqual(lookAtDisk(machine.tree, 8n, 32n)!.strayPaths, []);
  });

  function multipath(): FakeMachine {
    const map = "/sys/devices/virtual/block/dm-0";
    return iscsi()
      .scsiDisk("sdb", FC_BUS, "8:16", { wwid: WWID, state: "offline" })
      .files("/sys/class/fc_remote_ports/rport-2:0-1", {
        dev_loss_tmo: "60",
        fast_io_fail_tmo: "5",
      })
      .files(map, { dev: "253:0", "dm/uuid": "mpath-36001405ab0", "dm/name": "mpatha" })
      .link("/sys/class/block/dm-0", map)
      .link("/sys/dev/block/253:0", map)
      .link(`${map}/slaves/sda`, "/sys/class/block/sda")
      .link(`${map}/slaves/sdb`, "/sys/class/block/sdb")
      .link(`/sys/devices/${ISCSI_BUS}/0:0:0:0/block/sda/holders/dm-0`, map);
  }

  it("finds the paths of a multipath map, with their ports' timers", () => {
    const disk = lookAtDisk(multipath().tree, 253n, 0n)!;
    assert.deepEqual(disk.multipath, { name: "dm-0", map: "mpatha" });
    assert.deepEqual(
      disk.paths.map(({ name, state, transport, fastIoFailSeconds, devLossSeconds }) => ({
        name,
        state,
        transport,
        fastIoFailSeconds,
        devLossSeconds,
      })),
      [
        {
          name: "sda",
          state: "running",
          transport: "iscsi",
          fastIoFailSeconds: null,
          devLossSeconds: null,
        },
        {
          name: "sdb",
          state: "offline",
          transport: "fc",
          fastIoFailSeconds: 5,
          devLossSeconds: 60,
        },
      ],
    );
    assert.deepEqual(disk.strayPaths, []);
  });

  it("says of a path that a map has it, and then of no stray ones", () => {
    const disk = lookAtDisk(multipath().tree, 8n, 0n)!;
    assert.deepEqual(disk.maps, ["mpatha"]);
    assert.deepEqual(disk.strayPaths, []);
  });

  it("looks through a logical volume on a map to the paths", () => {
    const volume = "/sys/devices/virtual/block/dm-1";
    multipath()
      .files(volume, { dev: "253:1", "dm/uuid": "LVM-abc", "dm/name": "vg-lv" })
      .link("/sys/class/block/dm-1", volume)
      .link("/sys/dev/block/253:1", volume)
      .link(`${volume}/slaves/dm-0`, "/sys/class/block/dm-0");
    const disk = lookAtDisk(machine.tree, 253n, 1n)!;
    assert.deepEqual(disk.multipath, { name: "dm-0", map: "mpatha" });
    assert.deepEqual(
      disk.paths.map(({ name }) => name),
      ["sda", "sdb"],
    );
  });

  it("takes a partition for its disk, but its own alignment", () => {
    const disk = `/sys/devices/${ISCSI_BUS}/0:0:0:0/block/sda`;
    iscsi()
      .files(`${disk}/sda1`, { partition: "1", alignment_offset: "3584", dev: "8:1" })
      .link("/sys/class/block/sda1", `${disk}/sda1`)
      .link("/sys/dev/block/8:1", `${disk}/sda1`);
    const found = lookAtDisk(machine.tree, 8n, 1n)!;
    assert.deepEqual([found.name, found.partition, found.alignmentOffset], ["sda", "sda1", 3_584]);
    assert.equal(found.paths[0]!.name, "sda");
  });

  it("ends when devices lie on each other in a circle", () => {
    for (const [own, other] of [
      ["dm-4", "dm-5"],
      ["dm-5", "dm-4"],
    ] as const) {
      machine
        .file(`/sys/devices/virtual/block/${own}/dm/uuid`, "LVM-x")
        .link(`/sys/class/block/${own}`, `/sys/devices/virtual/block/${own}`)
        .directory(`/sys/devices/virtual/block/${own}/slaves/${other}`);
    }
    machine.link("/sys/dev/block/253:4", "/sys/devices/virtual/block/dm-4");
    assert.deepEqual(lookAtDisk(machine.tree, 253n, 4n)!.paths, []);
  });

  it("knows a disk that is no SCSI disk, and none at all", () => {
    machine
      .files("/sys/devices/pci/virtio1/block/vdb", {
        "queue/write_cache": "write back",
        "queue/fua": "1",
      })
      .link("/sys/class/block/vdb", "/sys/devices/pci/virtio1/block/vdb")
      .link("/sys/dev/block/252:16", "/sys/devices/pci/virtio1/block/vdb");
    const disk = lookAtDisk(machine.tree, 252n, 16n)!;
    assert.deepEqual([disk.name, disk.fua, disk.paths], ["vdb", true, []]);
    assert.equal(lookAtDisk(machine.tree, 1n, 1n), undefined);
  });
});
