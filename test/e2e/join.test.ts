/** Three nodes become members over iSCSI by one command each; from the state after it the other tests begin. */
import assert from "node:assert/strict";

import { type DoctorReport } from "../../lib/doctor/doctor-finding.js";
import { dropBuilt } from "../lab/cache.js";
import { openLab } from "../lab/mocha.js";
import { diskOf } from "../lab/san.js";
import { NODES } from "../lab/settings.js";
import { Cluster, FILES, WEB } from "./cluster.js";

describe("joining over iSCSI", function () {
  this.timeout(400_000);
  const cluster = new Cluster(openLab());

  afterEach(() => {
    cluster.timeline.print();
  });

  it("three nodes join with `sharedha join iscsi://PORTAL/TARGET/LUN`", async () => {
    // What an earlier run of this build has saved does not count: this is the test of the joining itself.
    dropBuilt("joined");
    await cluster.begin();
    for (const name of NODES) {
      const status = await cluster.status(name);
      assert.equal(status.node.state, "joined");
      assert.equal(status.watchdog.kind, "hardware");
      const live = status.members.filter(({ state }) => state === "live").map((one) => one.name);
      assert.deepEqual(live.sort(), [...NODES]);
      assert(
        status.members.every((member) => member.virtual),
        "QEMU's guests are virtual machines",
      );
    }
  });

  it("the sessions have the timers of the profile, and the record logs in at boot", async () => {
    const session = "/sys/class/iscsi_session/session1/recovery_tmo";
    assert.equal((await cluster.node("n2").must(["cat", session])).trim(), "3");
    const record = await cluster.node("n2").must(["iscsiadm", "-m", "node", "-o", "show"]);
    assert.match(record, /^node\.startup = automatic$/m);
  });

  it("doctor sees the other nodes renew on the shared LUN", async () => {
    // Without healthy latencies, which is its exit code.
    const { stdout } = await cluster.node("n3").sharedha(["doctor", diskOf("lun0"), "--json"]);
    const { findings } = JSON.parse(stdout) as DoctorReport;
    const members = findings.find(({ check }) => check === "members");
    assert.match(members?.text ?? "", /^n\d, n\d, n\d renewed within/);
  });

  it("a planned move, ext4 and xfs: released here, mounted there, checked", async () => {
    for (const group of [WEB, FILES]) {
      const reserved = await cluster.reserve("n1", group);
      const writer = cluster.startWriter("n1", group, reserved.version);
      await cluster.untilRecords(group, 10);
      const refused = await cluster.refused("n2", ["reserve", group.name]);
      assert.match(refused.stdout, /ERR_LEASE_HELD/);
      writer.signal("SIGTERM");
      await writer.ended;
      const waiting = cluster.reserve("n2", group, 60);
      await cluster.release("n1", group);
      const moved = await waiting;
      assert(BigInt(moved.version) > BigInt(reserved.version), "the fencing token grows");
      await cluster.checkRecords("n2", group);
      await cluster.release("n2", group);
      await cluster.checkFilesystem("n2", group);
    }
  });

  it("a copy of the mount, as a container has one, keeps the lease here until it has gone", async () => {
    await cluster.reserve("n1", WEB);
    let said = "";
    const unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c"];
    const copy = cluster
      .node("n1")
      .start([...unshare, "echo ready; exec sleep 300"], (text) => (said += text));
    await cluster.until("the copy is there", 30_000, () => Promise.resolve(said === "ready\n"));
    const kept = await cluster.refused("n1", ["release", WEB.name]);
    assert.match(kept.stdout, /ERR_STILL_MOUNTED/);
    assert.match((await cluster.refused("n2", ["reserve", WEB.name])).stdout, /ERR_LEASE_HELD/);
    copy.signal("SIGKILL");
    await copy.ended;
    await cluster.release("n1", WEB);
    await cluster.checkFilesystem("n1", WEB);
  });
});
