import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { type LoginEvent, type ShareHaError } from "../../../lib/node-iscsi-initiator/index.js";
import { recordValue } from "../../../lib/node-iscsi-initiator/record-file.js";
import { exit, FakeOpenIscsi, type FakeTarget } from "../../helpers/fake-open-iscsi.js";
import { failure } from "./fixture.js";

const DATA = "iqn.2026-11.lab:data";
const CHAP = "iqn.2026-11.lab:chap";
const ONE = "10.77.0.9:3260";
const TWO = "[fd00::9]:3260";
const WWID = "naa.6001405ab00000000000000000000000";
const SECRET = { user: "labuser", secret: "labsecret1234" };

let machine: FakeOpenIscsi;
let data: FakeTarget;

function useMachine(): void {
  beforeEach(async () => {
    machine = new FakeOpenIscsi();
    data = { name: DATA, portals: [ONE, TWO], disks: [{ lun: 0, wwid: WWID }] };
    machine.targets.push(data, { name: CHAP, portals: [ONE], disks: [], chap: SECRET });
    await machine.initiator.discover(ONE);
    machine.calls.length = 0;
  });
  afterEach(() => {
    machine.remove();
  });
}

function recordOf(portal: string, name: string): string | undefined {
  return recordValue(readFileSync(machine.nodeFile(DATA, portal), "utf8"), name);
}

describe("discovery", () => {
  useMachine();

  it("lists targets with their portals", async () => {
    const found = await machine.initiator.discover("10.77.0.9");
    assert.deepEqual(
      found.map(({ target, portal }) => [target, portal.address]),
      [
        [DATA, "10.77.0.9"],
        [DATA, "fd00::9"],
        [CHAP, "10.77.0.9"],
      ],
    );
  });

  it("keeps what is in the records that exist", async () => {
    await machine.initiator.updateNode(DATA, ONE, { "node.startup": "automatic" });
    await machine.initiator.setChap(DATA, ONE, SECRET);
    await machine.initiator.discover(ONE);
    assert.equal(recordOf(ONE, "node.startup"), "automatic");
    assert.equal(recordOf(ONE, "node.session.auth.password"), SECRET.secret);
  });

  it("resolves a name itself and asks an address that answers", async () => {
    machine.hosts.set("san.lab", ["10.77.0.8", "10.77.0.9"]);
    machine.closed.add("10.77.0.8:3260");
    await machine.initiator.discover("san.lab");
    assert.equal(machine.calls[0]?.args.includes("10.77.0.9:3260"), true);
  });

  it("a portal where nobody listens, and a name that does not resolve, are told apart at once", async () => {
    machine.closed.add(ONE);
    await assert.rejects(
      machine.initiator.discover(ONE),
      failure("ERR_ISCSI_UNREACHABLE", /portal 10\.77\.0\.9:3260 \(ECONNREFUSED\)/),
    );
    await assert.rejects(
      machine.initiator.discover("nowhere.lab"),
      failure("ERR_ISCSI_NAME_UNRESOLVED", /nowhere\.lab.*ENOTFOUND/, /getent hosts/),
    );
    assert.equal(machine.calls.length, 0, "iscsiadm was not needed to know that");
  });

  it("a portal that offers nothing is an empty list", async () => {
    machine.targets.length = 0;
    assert.deepEqual(await machine.initiator.discover(ONE), []);
  });

  it("with CHAP: missing and wrong are told apart, right works and is kept", async () => {
    machine.discoveryChap = SECRET;
    const { initiator } = machine;
    await assert.rejects(
      initiator.discover(ONE),
      failure("ERR_ISCSI_CHAP_MISSING", /discovery at 10\.77\.0\.9:3260/),
    );
    await assert.rejects(
      initiator.discover(ONE, { chap: { ...SECRET, secret: "labsecret9999" } }),
      failure("ERR_ISCSI_CHAP_WRONG"),
    );
    assert.equal((await initiator.discover(ONE, { chap: SECRET })).length, 3);
    assert.equal((await initiator.discover(ONE)).length, 3);
    await assert.rejects(
      initiator.discover(ONE, { chap: null }),
      failure("ERR_ISCSI_CHAP_MISSING"),
    );
  });

  it("with CHAP at a portal that was never asked", async () => {
    machine.discoveryChap = SECRET;
    assert.equal((await machine.initiator.discover(TWO, { chap: SECRET })).length, 3);
  });

  it("output that is not known is an error with the line and the version", async () => {
    machine.answers.set("--discover", { kind: "ok", stdout: "Targets: 2\n", stderr: "" });
    await assert.rejects(
      machine.initiator.discover(ONE),
      failure("ERR_ISCSI_OUTPUT", /iscsiadm 2\.1\.8 printed .*"Targets: 2"/),
    );
    machine.answers.set("--version", exit(1, ""));
    await assert.rejects(
      machine.initiator.discover(ONE),
      failure("ERR_ISCSI_OUTPUT", /of unknown version printed .*"Targets: 2"/),
    );
  });
});

describe("login", () => {
  useMachine();

  it("to all portals, and says what happens", async () => {
    const events: LoginEvent[] = [];
    const outcomes = await machine.initiator.login(DATA, {
      onProgress: (event) => events.push(event),
    });
    assert.deepEqual(
      outcomes.map(({ kind, portal }) => [kind, portal.address]),
      [
        ["logged-in", "10.77.0.9"],
        ["logged-in", "fd00::9"],
      ],
    );
    const first = events.filter(({ portal }) => portal.address === "10.77.0.9");
    assert.deepEqual(
      first.map(({ kind }) => kind),
      ["connecting", "logged-in", "disks"],
    );
  });

  it("to one portal, also by a name", async () => {
    machine.hosts.set("san.lab", ["fd00::9"]);
    const [outcome] = await machine.initiator.login(DATA, { portal: "san.lab" });
    assert.equal(outcome?.portal.address, "fd00::9");
    assert.equal(machine.sessions().length, 1);
  });

  it("twice is a success, and starts nothing the second time", async () => {
    await machine.initiator.login(DATA, { portal: ONE });
    machine.calls.length = 0;
    const [outcome] = await machine.initiator.login(DATA, { portal: ONE });
    assert.equal(outcome?.kind, "already");
    assert.ok(!machine.calls.some(({ args }) => args.includes("--login")));
  });

  it("retries once only, and the record has its own number again afterwards", async () => {
    const former = recordOf(ONE, "node.session.initial_login_retry_max");
    const seen: (string | undefined)[] = [];
    data.login = "refuse";
    machine.onCall = (args) => {
      if (args.includes("--login")) {
        seen.push(recordOf(ONE, "node.session.initial_login_retry_max"));
      }
    };
    await assert.rejects(
      machine.initiator.login(DATA, { portal: ONE }),
      failure("ERR_ISCSI_CONNECT_TIMEOUT", /lab:data at 10\.77\.0\.9:3260/),
    );
    assert.deepEqual(seen, ["1"]);
    assert.notEqual(former, "1");
    assert.equal(recordOf(ONE, "node.session.initial_login_retry_max"), former);
  });

  it("a half-made session of somebody else's is waited for, reported, and left alone", async () => {
    machine.addSession({ target: DATA, portal: ONE, state: "FREE", disks: [] });
    await assert.rejects(
      machine.initiator.login(DATA, { portal: ONE, settleTimeoutMs: 300 }),
      failure(
        "ERR_ISCSI_SESSION_STALE",
        /session 1 is FREE, connection failed/,
        /300 ms/,
        /iscsi logout/,
      ),
    );
    assert.equal(machine.sessions().length, 1);
    assert.ok(!machine.calls.some(({ args }) => args.includes("--login")));
  });

  it("exit code 15 is no login: the session that iscsiadm means was never logged in", async () => {
    machine.onCall = (args) => {
      if (args.includes("--login")) {
        machine.addSession({ target: DATA, portal: ONE, state: "FREE", disks: [] });
      }
    };
    await assert.rejects(
      machine.initiator.login(DATA, { portal: ONE, settleTimeoutMs: 300 }),
      failure("ERR_ISCSI_SESSION_STALE", /session 1 is FREE/),
    );
    assert.equal(machine.sessions().length, 1, "it is not ours to end");
  });

  it("a half-made session that gets through in time is a success", async () => {
    const sid = machine.addSession({ target: DATA, portal: ONE, state: "FREE", disks: [] });
    setTimeout(() => {
      machine.setState(sid, "LOGGED_IN");
    }, 300);
    const [outcome] = await machine.initiator.login(DATA, { portal: ONE });
    assert.equal(outcome?.kind, "already");
  });

  it("a lost session that vanishes meanwhile is replaced by a new one", async () => {
    const sid = machine.addSession({ target: DATA, portal: ONE, state: "FAILED", disks: [] });
    setTimeout(() => {
      machine.removeSession(sid);
    }, 200);
    const [outcome] = await machine.initiator.login(DATA, { portal: ONE });
    assert.equal(outcome?.kind, "logged-in");
  });

  it("that is cancelled leaves no session behind", async () => {
    data.login = "silent";
    const controller = new AbortController();
    const events: string[] = [];
    const pending = machine.initiator.login(DATA, {
      portal: ONE,
      signal: controller.signal,
      onProgress: ({ kind }) => events.push(kind),
    });
    setTimeout(() => {
      assert.equal(machine.sessions().length, 1);
      controller.abort();
    }, 1_200);
    await assert.rejects(pending, failure("ERR_ISCSI_CANCELLED", /lab:data/));
    assert.deepEqual(events, ["connecting", "waiting"]);
    assert.deepEqual(machine.sessions(), []);
  });

  it("that takes too long leaves no session behind, however often its logout is refused at first", async () => {
    data.login = "silent";
    machine.refuseLogouts = 1;
    await assert.rejects(
      machine.initiator.login(DATA, { portal: ONE, timeoutMs: 200 }),
      failure("ERR_ISCSI_TIMEOUT", /did not end within 200 ms/),
    );
    assert.deepEqual(machine.sessions(), []);
  });

  it("that leaves a session all the same says so", async () => {
    data.login = "silent";
    machine.refuseLogouts = 99;
    await assert.rejects(
      machine.initiator.login(DATA, { portal: ONE, timeoutMs: 200, cleanUpTimeoutMs: 500 }),
      (error: unknown) =>
        failure("ERR_ISCSI_TIMEOUT", /the half-made session is left/)(error) &&
        (error as ShareHaError).fields["sessionLeft"] === true,
    );
  });

  it("CHAP: missing, wrong and right", async () => {
    const { initiator } = machine;
    await assert.rejects(
      initiator.login(CHAP),
      failure(
        "ERR_ISCSI_CHAP_MISSING",
        /login to iqn\.2026-11\.lab:chap at 10\.77\.0\.9:3260/,
        /--chap-user/,
      ),
    );
    await initiator.setChap(CHAP, ONE, { ...SECRET, secret: "labsecret9999" });
    await assert.rejects(initiator.login(CHAP), failure("ERR_ISCSI_CHAP_WRONG"));
    await initiator.setChap(CHAP, ONE, SECRET);
    assert.equal((await initiator.login(CHAP))[0]?.kind, "logged-in");
  });

  it("a target that is gone is told from a path that is", async () => {
    data.isGone = true;
    await assert.rejects(
      machine.initiator.login(DATA, { portal: ONE }),
      failure("ERR_ISCSI_TARGET_GONE", /does not offer the target iqn\.2026-11\.lab:data/),
    );
    machine.closed.add(ONE);
    await assert.rejects(
      machine.initiator.login(DATA, { portal: ONE }),
      failure("ERR_ISCSI_UNREACHABLE"),
    );
  });

  it("one dead portal of two is an outcome, not an error", async () => {
    machine.closed.add(ONE);
    const [one, two] = await machine.initiator.login(DATA);
    assert.ok(one?.kind === "failed" && two?.kind === "logged-in");
    assert.equal(one.error.code, "ERR_ISCSI_UNREACHABLE");
  });

  it("without a record says how to get one", async () => {
    await assert.rejects(
      machine.initiator.login("iqn.2026-11.lab:other"),
      failure("ERR_ISCSI_NO_RECORD", /discover PORTAL/),
    );
    await assert.rejects(
      machine.initiator.login(DATA, { portal: "10.77.0.7" }),
      failure("ERR_ISCSI_NO_RECORD", /discover 10\.77\.0\.7:3260/),
    );
    await assert.rejects(machine.initiator.login("data"), failure("ERR_ISCSI_TARGET_NAME"));
  });
});

describe("logout and delete", () => {
  useMachine();

  it("end what is there, and are content when nothing is", async () => {
    const { initiator } = machine;
    await initiator.login(DATA);
    const ended = await initiator.logout(DATA, { portal: TWO });
    assert.deepEqual(
      ended.map(({ portal }) => portal?.address),
      ["fd00::9"],
    );
    assert.equal((await initiator.logout(DATA)).length, 1);
    assert.deepEqual(machine.sessions(), []);
    assert.deepEqual(await initiator.logout(DATA), []);
    assert.equal(await initiator.deleteNode(DATA, ONE), "deleted");
    assert.equal(await initiator.deleteNode(DATA, ONE), "absent");
    assert.deepEqual(
      (await initiator.nodes()).map(({ target, portal }) => [target, portal.address]),
      [
        [CHAP, "10.77.0.9"],
        [DATA, "fd00::9"],
      ],
    );
  });

  it("a session that stays is an error, whatever iscsiadm says", async () => {
    await machine.initiator.login(DATA, { portal: ONE });
    machine.answers.set("--logout", { kind: "ok", stdout: "", stderr: "" });
    await assert.rejects(
      machine.initiator.logout(DATA, { timeoutMs: 400 }),
      failure("ERR_ISCSI_LOGOUT", /session 1 is still there/),
    );
  });
});

describe("rescan and disks", () => {
  useMachine();

  it("tells new LUNs and LUNs that have another disk behind them", async () => {
    await machine.initiator.login(DATA, { portal: ONE });
    data.disks = [{ lun: 0, wwid: "naa.other" }, { lun: 1 }];
    const [result] = await machine.initiator.rescan(DATA);
    assert.deepEqual(
      [
        result?.added.map(({ lun }) => lun),
        result?.removed,
        result?.changed.map(({ before, after }) => [before.wwid, after.wwid]),
      ],
      [[1], [], [[WWID, "naa.other"]]],
    );
  });

  it("waitForDisk rescans for a LUN that was mapped after the login", async () => {
    await machine.initiator.login(DATA, { portal: ONE });
    data.disks = [
      { lun: 0, wwid: WWID },
      { lun: 5, wwid: "naa.five" },
    ];
    const { disk } = await machine.initiator.waitForDisk(DATA, 5, { timeoutMs: 3_000 });
    assert.equal(disk.wwid, "naa.five");
  });

  it("waitForDisk waits for udev's link", async () => {
    await machine.initiator.login(DATA, { portal: ONE });
    machine.addLink("scsi-other", "sdz");
    setTimeout(() => {
      machine.addLink(`wwn-0x${WWID.slice(4)}`, "sda");
    }, 300);
    const { disk } = await machine.initiator.waitForDisk(DATA, 0, { wwid: WWID });
    assert.match(disk.stablePath ?? "", /by-id\/wwn-0x6001405/);
  });

  it("waitForDisk gives up with the reason, and by a signal", async () => {
    await machine.initiator.login(DATA, { portal: ONE });
    await assert.rejects(
      machine.initiator.waitForDisk(DATA, 9, { timeoutMs: 200 }),
      failure("ERR_ISCSI_LUN_MISSING", /no disk with LUN 9; it has 0/),
    );
    const signal = AbortSignal.timeout(150);
    await assert.rejects(
      machine.initiator.waitForDisk(DATA, 9, { signal }),
      failure("ERR_ISCSI_CANCELLED"),
    );
  });
});

describe("a login where nobody answers", () => {
  useMachine();

  it("names portal and target", async () => {
    machine.closed.add(ONE);
    await assert.rejects(
      machine.initiator.login(DATA, { portal: ONE }),
      failure("ERR_ISCSI_UNREACHABLE", /portal 10\.77\.0\.9:3260 .*iqn\.2026-11\.lab:data/),
    );
  });
});

describe("a portal by its host name", () => {
  useMachine();

  beforeEach(() => {
    machine.hosts.set("san.lab", ["fd00::9", "10.77.0.9"]);
    machine.hosts.set("other.lab", ["192.0.2.7"]);
  });

  it("is the one of the session: logout, rescan and disk find it", async () => {
    const { initiator } = machine;
    await initiator.login(DATA, { portal: ONE });
    const { disk } = await initiator.waitForDisk(DATA, 0, { portal: "san.lab" });
    assert.equal(disk.wwid, WWID);
    assert.equal((await initiator.rescan(DATA, { portal: "san.lab" })).length, 1);
    assert.deepEqual(await initiator.logout(DATA, { portal: "other.lab" }), []);
    assert.equal(initiator.sessions().length, 1);
    assert.equal((await initiator.logout(DATA, { portal: "san.lab" })).length, 1);
    assert.deepEqual(initiator.sessions(), []);
  });

  it("is the one of the record: parameters, CHAP and deletion", async () => {
    const { initiator } = machine;
    await initiator.updateNode(DATA, "san.lab", { "node.startup": "automatic" });
    assert.equal((await initiator.node(DATA, "san.lab")).get("node.startup"), "automatic");
    await initiator.setChap(DATA, "san.lab", SECRET);
    assert.equal(recordOf(ONE, "node.session.auth.password"), SECRET.secret);
    assert.equal(await initiator.deleteNode(DATA, "san.lab"), "deleted");
    await assert.rejects(
      initiator.setChap(DATA, "nowhere.lab", SECRET),
      failure("ERR_ISCSI_NAME_UNRESOLVED"),
    );
  });
});

describe("parameters and timers", () => {
  useMachine();

  it("are read back, because iscsiadm takes what it cannot read for 0", async () => {
    const name = "node.session.timeo.replacement_timeout";
    await assert.rejects(
      machine.initiator.updateNode(DATA, ONE, { [name]: "abc" }),
      failure("ERR_ISCSI_DATABASE", /replacement_timeout is 0 after it was set to abc/),
    );
    await assert.rejects(
      machine.initiator.updateNode(DATA, ONE, { "node.session.bogus": "1" }),
      failure("ERR_ISCSI_ARGUMENT", /Invalid param name/),
    );
  });

  it("no secret is set as a parameter, nor anything that is no line", async () => {
    const { initiator } = machine;
    for (const [name, value, code] of [
      ["node.session.auth.password", "labsecret1234", "ERR_ISCSI_SECRET"],
      ["node.startup", "a\nb", "ERR_ISCSI_ARGUMENT"],
      ["-o", "delete", "ERR_ISCSI_ARGUMENT"],
    ] as const) {
      await assert.rejects(initiator.updateNode(DATA, ONE, { [name]: value }), failure(code));
    }
    assert.equal(machine.calls.length, 0);
  });

  it("without a session are set in the record", async () => {
    const changes = await machine.initiator.setTimers(
      DATA,
      { replacementTimeout: 3, noopOutInterval: 5 },
      { portal: ONE },
    );
    assert.deepEqual(changes, [
      {
        portal: { address: "10.77.0.9", port: 3260 },
        timer: "replacementTimeout",
        from: 120,
        to: 3,
        effective: "record",
      },
    ]);
    assert.equal(recordOf(ONE, "node.session.timeo.replacement_timeout"), "3");
  });

  it("with a session: the recovery timeout now, the others at the next login", async () => {
    await machine.initiator.login(DATA, { portal: ONE });
    const wanted = { replacementTimeout: 3, noopOutInterval: 1 };
    const changes = await machine.initiator.setTimers(DATA, wanted, { portal: ONE });
    assert.deepEqual(
      changes.map(({ timer, from, to, effective }) => [timer, from, to, effective]),
      [
        ["replacementTimeout", 120, 3, "now"],
        ["noopOutInterval", 5, 1, "next-login"],
      ],
    );
    const [timers] = await machine.initiator.timers(DATA, { portal: ONE });
    assert.equal(timers?.record.noopOutInterval, 1);
    assert.equal(timers.session?.timers.noopOutInterval, 5);
    assert.equal(timers.session.timers.replacementTimeout, 3);
    const again = await machine.initiator.setTimers(DATA, wanted, { portal: ONE });
    assert.deepEqual(
      again.map(({ timer, effective }) => [timer, effective]),
      [["noopOutInterval", "next-login"]],
    );
  });

  it("that are no whole seconds in range are refused before anything is done", async () => {
    for (const bad of [
      { noopOutInterval: 1.5 },
      { replacementTimeout: -2 },
      { abortTimeout: 0 },
      { luResetTimeout: NaN },
      { noopOutTimeout: 86_401 },
    ]) {
      await assert.rejects(machine.initiator.setTimers(DATA, bad), failure("ERR_ISCSI_TIMERS"));
    }
    assert.equal(machine.calls.length, 0);
  });
});
