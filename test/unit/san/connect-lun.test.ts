import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { PROFILES } from "../../../lib/lease/timings.js";
import { recordValue } from "../../../lib/node-iscsi-initiator/record-file.js";
import { connectLun, disconnectLun, loginAnew } from "../../../lib/san/connect-lun.js";
import { absentPath, currentPaths } from "../../../lib/san/current-paths.js";
import { type IscsiLun, misfitOfIscsi } from "../../../lib/san/iscsi-lun.js";
import { sessionTimersFor } from "../../../lib/san/iscsi-timers.js";
import { reconnectLuns } from "../../../lib/san/reconnect-luns.js";
import { FakeOpenIscsi, type FakeTarget } from "../../helpers/fake-open-iscsi.js";
import { failure } from "../node-iscsi-initiator/fixture.js";

const DATA = "iqn.2026-11.lab:data";
const ONE = "10.77.0.9:3260";
const TWO = "[fd00::9]:3260";
const URL_TEXT = `iscsi://${ONE}/${DATA}/0`;
const WWID = "naa.6001405ab00000000000000000000000";
const TIMERS = sessionTimersFor(PROFILES.default, 1);

let machine: FakeOpenIscsi;
let data: FakeTarget;

function useMachine(): void {
  beforeEach(() => {
    machine = new FakeOpenIscsi();
    data = { name: DATA, portals: [ONE, TWO], disks: [{ lun: 0, wwid: WWID }] };
    machine.targets.push(data);
  });
  afterEach(() => {
    machine.remove();
  });
}

function startup(portal: string): string | undefined {
  return recordValue(readFileSync(machine.nodeFile(DATA, portal), "utf8"), "node.startup");
}

describe("connectLun", () => {
  useMachine();

  it("discovers, sets timers, logs in to the portal of the address, and finds the disk", async () => {
    machine.addLink(`wwn-0x${WWID.slice(4)}`, "sda");
    const lun = await connectLun(machine.initiator, "iscsi://10.77.0.9/IQN.2026-11.lab:data/0", {
      timersFor: () => TIMERS,
    });
    assert.equal(lun.url, URL_TEXT);
    assert.equal(lun.wwid, WWID);
    assert.equal(lun.path, join(machine.root, `dev/disk/by-id/wwn-0x${WWID.slice(4)}`));
    assert.deepEqual(
      machine.sessions().map(({ portal }) => portal),
      [ONE],
    );
    // The timers were in the record before the login, so the session has them.
    const [session] = machine.initiator.sessions();
    assert.equal(session?.timers.noopOutInterval, 1);
    assert.equal(session.timers.replacementTimeout, 3);
    assert.deepEqual([startup(ONE), startup(TWO)], ["automatic", "manual"]);
  });

  it("twice changes nothing the second time", async () => {
    const { initiator } = machine;
    await connectLun(initiator, URL_TEXT, { timersFor: () => TIMERS });
    const again = await connectLun(initiator, URL_TEXT, { timersFor: () => TIMERS, wwid: WWID });
    assert.deepEqual([again.changes, again.loggedIn, again.startups], [[], [], []]);
    assert.equal(machine.sessions().length, 1);
  });

  it("to all portals, and goes on with one when the other is down", async () => {
    machine.closed.add(ONE);
    await assert.rejects(
      connectLun(machine.initiator, URL_TEXT, { allPortals: true }),
      failure("ERR_ISCSI_UNREACHABLE"),
    );
    const lun = await connectLun(machine.initiator, `iscsi://${TWO}/${DATA}/0`, {
      allPortals: true,
    });
    assert.deepEqual(
      lun.failed.map(({ error }) => error.code),
      ["ERR_ISCSI_UNREACHABLE"],
    );
    assert.equal(lun.portals, "all");
  });

  it("goes on with a standing session when the portal does not answer discovery", async () => {
    await connectLun(machine.initiator, URL_TEXT, {});
    machine.closed.add(ONE);
    const { path } = await connectLun(machine.initiator, URL_TEXT, { wwid: WWID });
    assert.equal(path, join(machine.root, "dev/sda"));
  });

  it("leaves nothing of its own when it fails, and what was there before", async function () {
    this.timeout(20_000);
    await assert.rejects(
      connectLun(machine.initiator, URL_TEXT, { wwid: "naa.other" }),
      failure("ERR_ISCSI_WWID_CHANGED", /naa\.other/, /naa\.6001405/),
    );
    assert.deepEqual(machine.sessions(), []);
    assert.equal(startup(ONE), "manual");
    data.login = "refuse";
    await assert.rejects(
      connectLun(machine.initiator, URL_TEXT, {}),
      failure("ERR_ISCSI_CONNECT_TIMEOUT"),
    );
    assert.equal(startup(ONE), "manual");
    data.login = "normal";
    await connectLun(machine.initiator, URL_TEXT, {});
    await assert.rejects(
      connectLun(machine.initiator, URL_TEXT, { wwid: "naa.other" }),
      failure("ERR_ISCSI_WWID_CHANGED"),
    );
    assert.equal(machine.sessions().length, 1, "the session was there before");
    assert.equal(startup(ONE), "automatic");
  });

  it("refuses a disk that has no name", async () => {
    data.disks = [{ lun: 0 }];
    await assert.rejects(connectLun(machine.initiator, URL_TEXT, {}), failure("ERR_ISCSI_NO_WWID"));
    assert.deepEqual(machine.sessions(), []);
  });

  it("is undone by disconnectLun", async () => {
    const lun = await connectLun(machine.initiator, URL_TEXT, {});
    await disconnectLun(machine.initiator, lun);
    assert.deepEqual(machine.sessions(), []);
    assert.equal(startup(ONE), "manual");
  });
});

describe("loginAnew", () => {
  useMachine();

  it("makes the timers of a login count in the session that this command made", async () => {
    const { initiator } = machine;
    const lun = await connectLun(initiator, URL_TEXT, {});
    const changes = await initiator.setTimers(DATA, TIMERS, { portal: ONE });
    assert.ok(changes.some(({ effective }) => effective === "next-login"));
    const counted = await loginAnew(initiator, lun, changes, {});
    assert.deepEqual([...new Set(counted.map(({ effective }) => effective))], ["now"]);
    assert.equal(initiator.sessions()[0]?.timers.noopOutInterval, 1);
  });

  it("leaves a session alone that was there before", async () => {
    const { initiator } = machine;
    await connectLun(initiator, URL_TEXT, {});
    const lun = await connectLun(initiator, URL_TEXT, {});
    const changes = await initiator.setTimers(DATA, TIMERS, { portal: ONE });
    const sid = initiator.sessions()[0]?.sid;
    const counted = await loginAnew(initiator, lun, changes, {});
    assert.equal(initiator.sessions()[0]?.sid, sid);
    assert.ok(counted.some(({ effective }) => effective === "next-login"));
  });
});

describe("the LUNs of node.json", () => {
  useMachine();
  const lun = (changes: Partial<IscsiLun> = {}): IscsiLun => ({
    path: "/dev/sdq",
    url: URL_TEXT,
    wwid: WWID,
    portals: "one",
    ...changes,
  });

  it("are where their disk is now, whatever it was called before", async () => {
    await machine.initiator.discover(ONE);
    await machine.initiator.login(DATA);
    const node = { paths: ["/dev/sdq", "/tmp/file"], iscsi: [lun()] };
    assert.deepEqual(currentPaths(node, machine.initiator), [
      join(machine.root, "dev/sda"),
      "/tmp/file",
    ]);
  });

  it("lead nowhere when the disk is not there, or another one is behind the number", async () => {
    const node = { paths: ["/dev/sda"], iscsi: [lun({ path: "/dev/sda", wwid: "naa.mine" })] };
    assert.deepEqual(currentPaths(node, machine.initiator), ["/dev/disk/by-id/wwn-0xmine"]);
    await machine.initiator.discover(ONE);
    await machine.initiator.login(DATA);
    assert.deepEqual(currentPaths(node, machine.initiator), ["/dev/disk/by-id/wwn-0xmine"]);
    assert.equal(absentPath("t10.LIO x/../y"), "/dev/disk/by-id/wwn-0xt10.LIO_x_.._y");
  });

  it("are logged in to again after a reboot", async () => {
    const reached = await reconnectLuns(
      { paths: ["/dev/sdq", "/tmp/file"], iscsi: [lun()] },
      machine.initiator,
    );
    const path = join(machine.root, "dev/sda");
    assert.deepEqual(reached.paths, [path, "/tmp/file"]);
    assert.deepEqual(reached.iscsi, [lun({ path })]);
    assert.match(reached.notes.join(), /^logged in to iscsi:/);
    machine.calls.length = 0;
    const again = await reconnectLuns(reached, machine.initiator);
    assert.deepEqual([again.paths, again.notes], [reached.paths, []]);
    assert.equal(machine.calls.length, 0, "a standing session needs no program");
  });

  it("a minority that is away leads nowhere, and is said; all that are away are an error", async () => {
    machine.closed.add(ONE);
    const paths = ["/dev/sdq", "/tmp/two", "/tmp/three"];
    const reached = await reconnectLuns({ paths, iscsi: [lun()] }, machine.initiator);
    assert.equal(reached.paths[0], absentPath(WWID));
    assert.match(reached.notes.join(), /nobody answers at portal 10\.77\.0\.9:3260/);
    await assert.rejects(
      reconnectLuns({ paths: ["/dev/sdq"], iscsi: [lun()] }, machine.initiator),
      failure("ERR_ISCSI_UNREACHABLE"),
    );
  });

  it("keep their disk while the session is lost for the moment", async () => {
    await machine.initiator.discover(ONE);
    await machine.initiator.login(DATA, { portal: ONE });
    machine.setState(1, "FAILED");
    machine.closed.add(ONE);
    machine.answers.set("node", { kind: "cancelled" });
    const reached = await reconnectLuns({ paths: ["/dev/sdq"], iscsi: [lun()] }, machine.initiator);
    assert.deepEqual(reached.paths, [join(machine.root, "dev/sda")]);
    assert.equal(reached.notes.length, 1);
  });

  it("have a form that is checked", () => {
    assert.equal(misfitOfIscsi(undefined), undefined);
    assert.equal(misfitOfIscsi([lun(), lun({ url: `iscsi://${TWO}/${DATA}/0` })]), undefined);
    for (const bad of [
      7,
      [{}],
      [{ ...lun(), wwid: 7 }],
      [lun({ url: "/dev/sda" })],
      [{ ...lun(), portals: "x" }],
    ]) {
      assert.match(misfitOfIscsi(bad) ?? "", /iscsi/);
    }
  });
});
