import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { FakeOpenIscsi, type FakeTarget } from "../../helpers/fake-open-iscsi.js";
import { type Ran, runMain } from "./run-main.js";
import { startFakeDaemon, statusBody } from "./fake-daemon.js";

const DATA = "iqn.2026-11.lab:data";
const CHAP = "iqn.2026-11.lab:chap";
const ONE = "10.77.0.9:3260";
const WWID = "naa.6001405ab00000000000000000000000";
const SECRET = "labsecret1234";

let machine: FakeOpenIscsi;
let data: FakeTarget;
let dir: string;

describe("sharedha iscsi", () => {
  beforeEach(() => {
    machine = new FakeOpenIscsi();
    dir = mkdtempSync(join(tmpdir(), "sharedha-cli-iscsi-"));
    data = {
      name: DATA,
      portals: [ONE, "[fd00::9]:3260"],
      disks: [
        { lun: 0, wwid: WWID },
        { lun: 1, wwid: "naa.1", sizeBytes: 64 * 2 ** 20 },
      ],
    };
    machine.targets.push(data, {
      name: CHAP,
      portals: [ONE],
      disks: [],
      chap: { user: "labuser", secret: SECRET },
    });
  });
  afterEach(() => {
    machine.remove();
    rmSync(dir, { recursive: true });
  });

  const run = (...argv: readonly string[]): Promise<Ran> =>
    runMain(argv, { edges: { initiator: machine.initiator } });
  const json = async (...argv: readonly string[]): Promise<unknown> => {
    const ran = await run(...argv, "--json");
    return JSON.parse(ran.out) as unknown;
  };
  const secretFile = (text: string, mode = 0o600): string => {
    const file = join(dir, "secret");
    writeFileSync(file, text);
    chmodSync(file, mode);
    return file;
  };

  it("discover lists targets with their portals", async () => {
    const ran = await run("iscsi", "discover", "10.77.0.9");
    assert.deepEqual(ran, {
      exitCode: 0,
      out: `${DATA}  at 10.77.0.9:3260, [fd00::9]:3260\n${CHAP}  at 10.77.0.9:3260\n`,
      err: "",
    });
    assert.deepEqual(await json("iscsi", "discover", "10.77.0.9"), {
      portal: "10.77.0.9",
      targets: [
        {
          target: DATA,
          portals: [
            { portal: ONE, tpgt: 1 },
            { portal: "[fd00::9]:3260", tpgt: 1 },
          ],
        },
        { target: CHAP, portals: [{ portal: ONE, tpgt: 1 }] },
      ],
    });
    machine.targets.length = 0;
    assert.match((await run("iscsi", "discover", ONE)).out, /offers nothing/);
  });

  it("login discovers at --portal as needed, and waits for the disk of --lun", async () => {
    const ran = await run("iscsi", "login", DATA, "--portal", ONE, "--lun", "1");
    assert.equal(ran.exitCode, 0, ran.err);
    assert.match(ran.out, /^logged in to iqn\.2026-11\.lab:data at 10\.77\.0\.9:3260: session 1\n/);
    assert.match(ran.out, /\n +1 {2}\S+\/dev\/sdb +64 MiB {2}running {2}naa\.1/);
    const again = await json("iscsi", "login", DATA, "--portal", ONE, "--lun", "0");
    assert.deepEqual(again, {
      target: DATA,
      portals: [{ portal: ONE, outcome: "already", sid: 1, error: null }],
      disk: {
        lun: 0,
        name: "sda",
        path: join(machine.root, "dev/sda"),
        stablePath: null,
        wwid: WWID,
        sizeBytes: 2 ** 30,
        state: "running",
      },
    });
  });

  it("login to all portals tells of one that is down", async () => {
    await run("iscsi", "discover", ONE);
    machine.closed.add("[fd00::9]:3260");
    const { exitCode, out } = await run("iscsi", "login", DATA);
    assert.equal(exitCode, 0);
    assert.match(out, /not logged in to .* at \[fd00::9\]:3260: nobody answers.*\n {2}remedy: /);
  });

  it("CHAP: the secret comes from a file that is the owner's alone, and is nowhere afterwards", async () => {
    await run("iscsi", "discover", ONE);
    const missing = await run("iscsi", "login", CHAP);
    assert.equal(missing.exitCode, 2);
    assert.match(missing.err, /wants CHAP.*\n {2}remedy: .*--chap-secret-file/);
    const open = secretFile(`${SECRET}\n`, 0o640);
    const argv = ["iscsi", "login", CHAP, "--chap-user", "labuser", "--chap-secret-file"];
    const refused = await run(...argv, open);
    assert.equal(refused.exitCode, 2);
    assert.match(refused.err, /others may read or write it \(mode 0640\)\n {2}remedy: .*chmod 600/);
    for (const text of ["", "two\nlines-of-text", "x".repeat(2_000)]) {
      assert.equal((await run(...argv, secretFile(text))).exitCode, 2);
    }
    const wrong = await run(...argv, secretFile("labsecret9999"));
    assert.match(wrong.err, /does not take the CHAP user and secret/);
    assert.equal(wrong.exitCode, 2);
    const right = await run(...argv, secretFile(`${SECRET}\n`), "--json");
    assert.equal(right.exitCode, 0, right.err);
    const everything = [missing, refused, wrong, right, await run("iscsi", "sessions", "--json")];
    assert.doesNotMatch(JSON.stringify(everything), /labsecret|sysfs-secret/);
    assert.doesNotMatch(machine.argumentText, /labsecret/);
  });

  it("CHAP: without a file the secret is asked for on a terminal only", async () => {
    const { exitCode, err } = await run("iscsi", "login", CHAP, "--chap-user", "labuser");
    assert.equal(exitCode, 2);
    assert.match(err, /no terminal to ask on\n {2}remedy: .*--chap-secret-file FILE/);
  });

  it("sessions shows disks and states", async () => {
    assert.equal((await run("iscsi", "sessions")).out, "no sessions\n");
    await run("iscsi", "login", DATA, "--portal", ONE);
    machine.setState(1, "FAILED");
    const { out } = await run("iscsi", "sessions");
    assert.match(
      out,
      /^session 1 {2}iqn\.2026-11\.lab:data at 10\.77\.0\.9:3260 {2}FAILED, connection up\n/,
    );
    const body = (await json("iscsi", "sessions")) as {
      sessions: { state: string; disks: unknown[] }[];
    };
    assert.equal(body.sessions[0]?.state, "FAILED");
    assert.equal(body.sessions[0].disks.length, 2);
  });

  it("rescan says what changed, and shouts when it is another disk", async () => {
    await run("iscsi", "login", DATA, "--portal", ONE);
    assert.match((await run("iscsi", "rescan")).out, /nothing new, 2 disks\n$/);
    data.disks = [{ lun: 0, wwid: "naa.other" }, { lun: 1, wwid: "naa.1" }, { lun: 2 }];
    const { out } = await run("iscsi", "rescan", DATA);
    assert.match(out, /new LUN 2/);
    assert.match(out, /LUN 0 .* is ANOTHER DISK now: naa\.6001405ab0+ -> naa\.other/);
    assert.match(out, /LUN 1 .*: 64 MiB -> 1 GiB/);
  });

  it("timers shows, sets a profile's, and says when they count", async () => {
    await run("iscsi", "login", DATA, "--portal", ONE);
    const shown = await run("iscsi", "timers", DATA, "--portal", ONE);
    assert.match(shown.out, /replacement timeout +120 s +120 s\n/);
    const set = await run("iscsi", "timers", DATA, "--portal", ONE, "--profile", "default");
    assert.match(set.out, /^10\.77\.0\.9:3260: replacement timeout 120 s -> 3 s\n/);
    assert.match(set.out, /noop-out interval 5 s -> 1 s \(not before the next login\)\n/);
    assert.match(set.out, /fails after 5 s\n$/);
    const body = (await json("iscsi", "timers", DATA, "--portal", ONE, "--show")) as {
      portals: { record: Record<string, number>; session: { timers: Record<string, number> } }[];
    };
    assert.equal(body.portals[0]?.record["noopOutInterval"], 1);
    assert.equal(body.portals[0].session.timers["noopOutInterval"], 5);
    assert.equal(body.portals[0].session.timers["replacementTimeout"], 3);
  });

  it("logout ends sessions, and twice is no error", async () => {
    await run("iscsi", "login", DATA, "--portal", ONE);
    assert.equal((await run("iscsi", "logout", DATA)).out, `logged out of ${DATA}: 1 session\n`);
    assert.equal((await run("iscsi", "logout", DATA)).out, `${DATA} was not logged in\n`);
    assert.deepEqual(await json("iscsi", "logout", DATA), { target: DATA, ended: [] });
  });

  it("an error is JSON with its code, and has an exit code by its kind", async () => {
    machine.closed.add(ONE);
    const fault = await run("iscsi", "discover", ONE, "--json");
    assert.equal(fault.exitCode, 3);
    const { error } = JSON.parse(fault.out) as { error: Record<string, unknown> };
    assert.equal(error["code"], "ERR_ISCSI_UNREACHABLE");
    assert.deepEqual(error["fields"], { portal: ONE });
  });
});

describe("sharedha join with iSCSI", function () {
  // A LUN that is not there is waited for.
  this.timeout(20_000);
  let stateDir: string;
  beforeEach(() => {
    machine = new FakeOpenIscsi();
    stateDir = mkdtempSync(join(tmpdir(), "sharedha-join-iscsi-"));
    chmodSync(stateDir, 0o700);
    data = { name: DATA, portals: [ONE], disks: [{ lun: 0, wwid: WWID }] };
    machine.targets.push(data);
  });
  afterEach(() => {
    machine.remove();
    rmSync(stateDir, { recursive: true });
  });
  const URL_TEXT = `iscsi://10.77.0.9/${DATA}/0`;
  const join_ = (...argv: readonly string[]): Promise<Ran> =>
    runMain(["join", ...argv, "--state-dir", stateDir], {
      edges: { initiator: machine.initiator },
    });

  it("without a LUN and without a former join says what to give", async () => {
    const { exitCode, err } = await join_();
    assert.equal(exitCode, 2);
    assert.match(err, /no LUN is given, and this node has not joined before/);
  });

  it("that fails for the first time leaves no session, no start at boot and no node.json", async () => {
    // The disk is an empty file: there is no region on it.
    const { exitCode, err } = await join_(URL_TEXT);
    assert.equal(exitCode, 2, err);
    assert.deepEqual(machine.sessions(), []);
    assert.match(readFileSync(machine.nodeFile(DATA, ONE), "utf8"), /^node\.startup = manual$/m);
    assert.throws(() => readFileSync(join(stateDir, "node.json")), { code: "ENOENT" });
  });

  it("names the target and what else there is", async () => {
    assert.match((await join_(`iscsi://10.77.0.9/${DATA}/5`)).err, /no disk with LUN 5; it has 0/);
    assert.deepEqual(machine.sessions(), []);
    const other = await join_("iscsi://10.77.0.9/iqn.2026-11.lab:other/0");
    assert.match(other.err, /does not offer that target; it offers iqn\.2026-11\.lab:data\n/);
    machine.closed.add(ONE);
    assert.equal((await join_(URL_TEXT)).exitCode, 3);
  });

  it("refuses another disk behind the address of the last join, and leaves node.json as it is", async () => {
    const lun = {
      path: "/dev/sda",
      url: `iscsi://${ONE}/${DATA}/0`,
      wwid: "naa.mine",
      portals: "one",
    };
    const node = { paths: ["/dev/sda"], iscsi: [lun], node: "n1", watchdog: "auto" };
    writeFileSync(join(stateDir, "node.json"), JSON.stringify(node));
    for (const argv of [[], [URL_TEXT]]) {
      const { exitCode, err } = await join_(...argv);
      assert.equal(exitCode, 2);
      assert.match(err, /is another disk now: it was naa\.mine, and is naa\.6001405ab0+\n/);
    }
    assert.deepEqual(JSON.parse(readFileSync(join(stateDir, "node.json"), "utf8")), node);
  });

  it("joined already: the address is the one of node.json, in any spelling, and nothing is asked", async () => {
    const daemon = await startFakeDaemon({ "GET /v1/status": () => ({ body: statusBody() }) });
    try {
      const lun = { path: "/dev/sda", url: `iscsi://${ONE}/${DATA}/0`, wwid: WWID, portals: "one" };
      const node = { paths: ["/dev/sda"], iscsi: [lun], node: "n1", watchdog: "auto" };
      writeFileSync(join(daemon.stateDir, "node.json"), JSON.stringify(node));
      const options = { edges: { initiator: machine.initiator } };
      for (const argv of [[], [URL_TEXT.toUpperCase().replace("ISCSI", "iscsi")], [URL_TEXT]]) {
        const ran = await runMain(["join", ...argv, "--state-dir", daemon.stateDir], options);
        assert.equal(ran.exitCode, 0, ran.err);
        assert.match(ran.out, /^already joined office/);
      }
      const other = await runMain(
        ["join", `iscsi://10.77.0.9/${DATA}/1`, "--state-dir", daemon.stateDir],
        options,
      );
      assert.equal(other.exitCode, 2);
      assert.equal(machine.calls.length, 0);
    } finally {
      await daemon.close();
    }
  });
});
