/**
 * The initiator and the commands above it against a real kernel, open-iscsi and LIO. The SAN at 10.77.0.9:3260 has the
 * targets `data` (LUN 0: 1 GiB, LUN 1: 400 MiB, LUN 2: 64 MiB), `chap` and `mutual`. A guest has udev but no systemd: iscsid is
 * started by hand.
 */
import assert from "node:assert/strict";

import { type Ran } from "../lab/agent-client.js";
import { useLab } from "../lab/mocha.js";
import { type Vm } from "../lab/vm.js";
import { Commands } from "./commands.js";

const PORTAL = "10.77.0.9:3260";
const DATA = "iqn.2026-11.lab:data";
const CHAP = "iqn.2026-11.lab:chap";
const MUTUAL = "iqn.2026-11.lab:mutual";
/** A record for it is made by hand; the SAN never had it. */
const GONE = "iqn.2026-11.lab:nosuch";
const SECRETS = /labsecret1234|targetsecret1|wrongsecret12/;
const LONG = { timeoutMs: 90_000 };

interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

interface SessionBody {
  readonly sid: number;
  readonly target: string;
  readonly portal: string;
  readonly state: string;
  readonly timers: Readonly<Record<string, number | null>>;
  readonly disks: readonly {
    readonly lun: number;
    readonly path: string;
    readonly wwid: string;
    readonly sizeBytes: number;
    readonly state: string;
  }[];
}

describe("iSCSI", function () {
  this.timeout(180_000);
  const lab = useLab({ vms: ["san", "n1"] });
  let n1: Vm;
  let commands: Commands;

  before(() => {
    n1 = lab.vm("n1");
    commands = new Commands(n1);
  });
  after(() => {
    commands.end();
  });
  beforeEach(async () => {
    await lab.network.heal();
    await sh("iscsiadm -m node --logoutall=all; rm -rf /etc/iscsi/nodes /etc/iscsi/send_targets");
    for (const { target } of await sessions()) {
      await commands.run(["iscsi", "logout", target]);
    }
  });

  async function sh(
    script: string,
    options: { timeoutMs?: number; input?: string } = {},
  ): Promise<Ran> {
    return await n1.run(["sh", "-c", script], options);
  }

  async function ok(...args: readonly string[]): Promise<Record<string, unknown>> {
    const result = await commands.run([...args, "--json"]);
    assert.equal(result.exitCode, 0, result.stderr);
    assert.doesNotMatch(result.stdout + result.stderr, SECRETS);
    return JSON.parse(result.stdout) as Record<string, unknown>;
  }

  async function refused(
    exitCode: number,
    code: string,
    ...args: readonly string[]
  ): Promise<Failure> {
    const result = await commands.run([...args, "--json"]);
    assert.doesNotMatch(result.stdout + result.stderr, SECRETS);
    const { error } = JSON.parse(result.stdout) as { error: Failure };
    assert.equal(error.code, code, error.message);
    assert.equal(result.exitCode, exitCode);
    assert.notEqual(error.hint, "");
    return error;
  }

  async function sessions(): Promise<readonly SessionBody[]> {
    return (await ok("iscsi", "sessions"))["sessions"] as readonly SessionBody[];
  }

  async function secretFile(name: string, text: string): Promise<string> {
    const path = `/tmp/${name}.secret`;
    await sh(`umask 077; cat > ${path}`, { input: `${text}\n` });
    return path;
  }

  async function chapFlags(secret: string, mutual?: string): Promise<readonly string[]> {
    const own = ["--chap-user", "labuser", "--chap-secret-file", await secretFile("own", secret)];
    return mutual === undefined
      ? own
      : [
          ...own,
          "--chap-in-user",
          "labtarget",
          "--chap-in-secret-file",
          await secretFile("in", mutual),
        ];
  }

  async function until<T>(
    what: string,
    timeoutMs: number,
    look: () => Promise<T | undefined>,
  ): Promise<T> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const found = await look();
      if (found !== undefined) {
        return found;
      }
      assert.ok(performance.now() < end, `not within ${timeoutMs} ms: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }

  describe("discovery", () => {
    it("lists the targets, and keeps what is in records that exist", async () => {
      const { targets } = (await ok("iscsi", "discover", "10.77.0.9")) as {
        targets: readonly { target: string; portals: readonly { portal: string }[] }[];
      };
      const data = targets.find(({ target }) => target === DATA);
      assert.deepEqual(
        data?.portals.map(({ portal }) => portal),
        [PORTAL],
      );
      await ok("iscsi", "timers", DATA, "--profile", "default");
      await ok("iscsi", "discover", "10.77.0.9");
      const { portals } = (await ok("iscsi", "timers", DATA)) as {
        portals: readonly { record: Record<string, number> }[];
      };
      assert.equal(portals[0]?.record["replacementTimeout"], 3);
    });

    it("a closed port, a dead address and an unknown name are told apart, quickly", async () => {
      const startMs = performance.now();
      const closed = await refused(
        3,
        "ERR_ISCSI_UNREACHABLE",
        "iscsi",
        "discover",
        "10.77.0.9:3999",
      );
      assert.match(closed.message, /10\.77\.0\.9:3999.*ECONNREFUSED/);
      const dead = await refused(3, "ERR_ISCSI_UNREACHABLE", "iscsi", "discover", "10.77.0.77");
      assert.match(dead.message, /10\.77\.0\.77:3260.*(ETIMEDOUT|EHOSTUNREACH)/);
      await refused(2, "ERR_ISCSI_NAME_UNRESOLVED", "iscsi", "discover", "no-such-host.invalid");
      await refused(2, "ERR_ISCSI_PORTAL", "iscsi", "discover", "10.77.0.999");
      assert.ok(performance.now() - startMs < 40_000);
    });

    it("without iscsid says how to start it", async () => {
      await sh("pid=$(pidof iscsid); for p in $pid; do kill $p; done; sleep 1");
      try {
        const { hint } = await refused(3, "ERR_ISCSI_NO_ISCSID", "iscsi", "discover", PORTAL);
        assert.match(hint, /systemctl enable --now iscsid/);
      } finally {
        await sh("iscsid");
      }
    });

    it("without iscsiadm names the packages", async () => {
      await sh("mv /usr/sbin/iscsiadm /usr/sbin/iscsiadm.away");
      try {
        const { hint } = await refused(3, "ERR_ISCSI_NOT_INSTALLED", "iscsi", "discover", PORTAL);
        assert.match(hint, /apt-get install open-iscsi.*iscsi-initiator-utils/);
      } finally {
        await sh("mv /usr/sbin/iscsiadm.away /usr/sbin/iscsiadm");
      }
    });
  });

  describe("login and logout", () => {
    it("give a session with its disks, and are idempotent", async () => {
      const first = await ok("iscsi", "login", DATA, "--portal", "10.77.0.9", "--lun", "1");
      const again = await ok("iscsi", "login", DATA);
      const outcome = (body: Record<string, unknown>): unknown =>
        (body["portals"] as readonly { outcome: string }[])[0]?.outcome;
      assert.deepEqual([outcome(first), outcome(again)], ["logged-in", "already"]);
      const [session, ...others] = await sessions();
      assert.equal(others.length, 0);
      assert.equal(session?.state, "LOGGED_IN");
      assert.equal(session.portal, PORTAL);
      assert.deepEqual(
        session.disks.map(({ lun, sizeBytes, state }) => [lun, sizeBytes, state]),
        [
          [0, 2 ** 30, "running"],
          [1, 400 * 2 ** 20, "running"],
          [2, 64 * 2 ** 20, "running"],
        ],
      );
      for (const { wwid, path } of session.disks) {
        assert.match(wwid, /^naa\.[0-9a-f]{32}$/);
        const read = await sh(`dd if=${path} of=/dev/null bs=4096 count=1 iflag=direct`);
        assert.equal(read.exitCode, 0, read.stderr);
      }
      const admin = await sh("iscsiadm -m session");
      assert.match(
        admin.stdout,
        new RegExp(`\\[${session.sid}\\] ${PORTAL.replaceAll(".", "\\.")},1 ${DATA}`),
      );
      await ok("iscsi", "logout", DATA);
      await ok("iscsi", "logout", DATA);
      assert.deepEqual(await sessions(), []);
      assert.notEqual((await sh("iscsiadm -m session")).exitCode, 0);
    });

    it("leave the record's number of retries as it was", async () => {
      await ok("iscsi", "discover", PORTAL);
      const show = `iscsiadm -m node -T ${DATA} -p ${PORTAL} | grep initial_login_retry_max`;
      const before = await sh(show);
      await ok("iscsi", "login", DATA);
      assert.equal((await sh(show)).stdout, before.stdout);
    });

    it("a LUN that is not there is said, with those that are", async () => {
      const { message } = await refused(
        2,
        "ERR_ISCSI_LUN_MISSING",
        ...["iscsi", "login", DATA, "--portal", PORTAL, "--lun", "9"],
      );
      assert.match(message, /no disk with LUN 9; it has 0, 1, 2/);
    });

    it("a target that was never discovered, and a malformed name", async () => {
      await refused(2, "ERR_ISCSI_NO_RECORD", "iscsi", "login", DATA);
      await refused(2, "ERR_ISCSI_TARGET_NAME", "iscsi", "login", "data");
    });

    it("a target that the portal does not have any more: said so, and no session is left", async () => {
      await ok("iscsi", "discover", PORTAL);
      await sh(`iscsiadm -m node -T ${GONE} -p ${PORTAL} -o new`);
      const startMs = performance.now();
      const { message } = await refused(2, "ERR_ISCSI_TARGET_GONE", "iscsi", "login", GONE);
      assert.ok(performance.now() - startMs < 60_000);
      assert.match(message, /10\.77\.0\.9:3260 answers, but does not offer the target .*:nosuch/);
      assert.deepEqual(await sessions(), []);
    });

    it("interrupted, a login leaves no session and nothing that goes on", async () => {
      await sh(`iscsiadm -m node -T ${GONE} -p ${PORTAL} -o new`);
      // Interrupted when the kernel has the half-made session.
      const script = `sharedha iscsi login ${GONE} --json & pid=$!; n=0
        until ls /sys/class/iscsi_session | grep -q . || [ $n -ge 200 ]; do sleep 0.1; n=$((n+1)); done
        kill -INT $pid; wait $pid`;
      const result = await sh(script, LONG);
      assert.equal(result.exitCode, 1, result.stderr);
      assert.match(result.stdout, /ERR_ISCSI_CANCELLED/);
      assert.deepEqual(await sessions(), []);
      await new Promise((resolve) => setTimeout(resolve, 20_000));
      assert.deepEqual(await sessions(), []);
    });

    it("a half-made session of somebody else's is no login, and logout ends it", async () => {
      await sh(`iscsiadm -m node -T ${GONE} -p ${PORTAL} -o new`);
      // Two retries are 30 s: longer than a login waits, shorter than a logout. Until then iscsid itself ends nothing.
      const retries = "node.session.initial_login_retry_max";
      await sh(`iscsiadm -m node -T ${GONE} -p ${PORTAL} -o update -n ${retries} -v 2`);
      await sh(`timeout -s KILL 3 iscsiadm -m node -T ${GONE} -p ${PORTAL} --login`);
      const half = await until("the half-made session", 10_000, async () =>
        (await sessions()).find(({ target }) => target === GONE),
      );
      assert.notEqual(half.state, "LOGGED_IN");
      const { message } = await refused(3, "ERR_ISCSI_SESSION_STALE", "iscsi", "login", GONE);
      assert.match(message, new RegExp(`session \\d+ is ${half.state}`));
      await ok("iscsi", "logout", GONE);
      assert.deepEqual(await sessions(), []);
    });
  });

  describe("CHAP", () => {
    it("missing, wrong and right", async () => {
      await ok("iscsi", "discover", PORTAL);
      const missing = await refused(2, "ERR_ISCSI_CHAP_MISSING", "iscsi", "login", CHAP);
      assert.match(missing.message, /lab:chap at 10\.77\.0\.9:3260/);
      const wrong = await chapFlags("wrongsecret12");
      await refused(2, "ERR_ISCSI_CHAP_WRONG", "iscsi", "login", CHAP, ...wrong);
      assert.deepEqual(await sessions(), []);
      await ok("iscsi", "login", CHAP, ...(await chapFlags("labsecret1234")));
      assert.equal((await sessions())[0]?.state, "LOGGED_IN");
      // The record keeps it, for the next login and for root alone.
      await ok("iscsi", "logout", CHAP);
      await ok("iscsi", "login", CHAP);
      const modes = await sh(`find /etc/iscsi/nodes/${CHAP} -type f -printf '%m %u\\n'`);
      assert.equal(modes.stdout, "600 root\n");
    });

    it("mutual: the target must prove itself", async () => {
      await ok("iscsi", "discover", PORTAL);
      const wrong = await chapFlags("labsecret1234", "wrongsecret12");
      const failed = await commands.run(["iscsi", "login", MUTUAL, ...wrong, "--json"]);
      assert.notEqual(failed.exitCode, 0);
      assert.doesNotMatch(failed.stdout + failed.stderr, SECRETS);
      assert.deepEqual(await sessions(), []);
      await ok("iscsi", "login", MUTUAL, ...(await chapFlags("labsecret1234", "targetsecret1")));
      assert.equal((await sessions())[0]?.state, "LOGGED_IN");
    });

    it("no program is ever started with a secret", async () => {
      await ok("iscsi", "discover", PORTAL);
      const watch =
        "end=$(($(date +%s) + 8)); while [ $(date +%s) -lt $end ]; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'labsecret1234' && break; done; true";
      const flags = await chapFlags("labsecret1234");
      // The pattern itself would be found on the watcher's own command line.
      const watching = sh(watch.replace("labsecret1234", "labsecret[1]234"), LONG);
      await ok("iscsi", "login", CHAP, ...flags);
      assert.equal((await watching).stdout, "");
    });
  });

  describe("timers and paths", () => {
    const live = async (): Promise<Readonly<Record<string, number | null>>> => {
      const [session] = await sessions();
      assert.ok(session !== undefined);
      return session.timers;
    };

    it("the replacement timeout counts at once, the pings at the next login", async () => {
      await ok("iscsi", "login", DATA, "--portal", PORTAL);
      const { changes } = (await ok("iscsi", "timers", DATA, "--profile", "default")) as {
        changes: readonly { timer: string; to: number; effective: string }[];
      };
      const effects = new Map(changes.map(({ timer, effective }) => [timer, effective]));
      assert.equal(effects.get("replacementTimeout"), "now");
      assert.equal(effects.get("noopOutInterval"), "next-login");
      assert.equal((await live())["replacementTimeout"], 3);
      await ok("iscsi", "logout", DATA);
      await ok("iscsi", "login", DATA);
      const { replacementTimeout, noopOutInterval, noopOutTimeout } = await live();
      assert.deepEqual([replacementTimeout, noopOutInterval, noopOutTimeout], [3, 1, 1]);
    });

    for (const [profile, sumMs] of [
      ["fast", 2_000],
      ["default", 5_000],
    ] as const) {
      it(`${profile}: a write on a path that went silent fails after ${sumMs} ms`, async () => {
        await ok("iscsi", "discover", PORTAL);
        await ok("iscsi", "timers", DATA, "--profile", profile);
        const { disk } = (await ok("iscsi", "login", DATA, "--lun", "1")) as {
          disk: { path: string };
        };
        await lab.network.cut("n1", "san");
        const dd = `dd if=/dev/zero of=${disk.path} bs=4096 count=1 oflag=direct`;
        const result = await sh(
          `s=$(date +%s%3N); ${dd}; rc=$?; echo $(($(date +%s%3N) - s)); exit $rc`,
          LONG,
        );
        assert.notEqual(result.exitCode, 0);
        const ms = Number(result.stdout.trim());
        // The guest is emulated and slow; what is shown is that it is not minutes.
        assert.ok(ms > sumMs - 2_000 && ms < sumMs + 4_000, `${ms} ms`);
        await lab.network.heal();
        await until("the session to be back", 60_000, async () =>
          (await sessions()).find(({ state }) => state === "LOGGED_IN"),
        );
        assert.equal((await sh(dd, LONG)).exitCode, 0);
      });
    }

    it("a session whose path is cut is shown as lost, and a login says so", async () => {
      await ok("iscsi", "discover", PORTAL);
      await ok("iscsi", "timers", DATA, "--profile", "fast");
      await ok("iscsi", "login", DATA);
      await lab.network.cut("n1", "san");
      await until("the loss to be noticed", 20_000, async () =>
        (await sessions()).find(({ state }) => state !== "LOGGED_IN"),
      );
      const { message } = await refused(3, "ERR_ISCSI_SESSION_STALE", "iscsi", "login", DATA);
      assert.match(message, /is (FAILED|FREE)/);
    });

    it("a session outlives a restart of the target", async () => {
      await ok("iscsi", "login", DATA, "--portal", PORTAL);
      await lab.san.restartTarget();
      await until("the session to be back", 60_000, async () =>
        (await sessions()).find(
          ({ state, disks }) =>
            state === "LOGGED_IN" && disks.every((disk) => disk.state === "running"),
        ),
      );
    });

    it("a stopped target is a portal where nobody answers", async () => {
      await lab.san.stopTarget();
      try {
        await refused(3, "ERR_ISCSI_UNREACHABLE", "iscsi", "discover", PORTAL);
      } finally {
        await lab.san.startTarget();
      }
    });

    it("a rescan of what has not changed says so", async () => {
      await ok("iscsi", "login", DATA, "--portal", PORTAL);
      const { sessions: results } = (await ok("iscsi", "rescan", DATA)) as {
        sessions: readonly { added: unknown[]; removed: unknown[]; changed: unknown[] }[];
      };
      assert.deepEqual(
        results.map(({ added, removed, changed }) => [added, removed, changed]),
        [[[], [], []]],
      );
    });
  });

  describe("join", () => {
    const URL_TEXT = `iscsi://10.77.0.9/${DATA}/1`;
    const STATE = ["--state-dir", "/var/lib/sharedha"] as const;
    const NODE_JSON = "/var/lib/sharedha/node.json";

    interface NodeJson {
      readonly paths: readonly string[];
      readonly iscsi: readonly {
        readonly path: string;
        readonly url: string;
        readonly wwid: string;
      }[];
    }

    async function nodeJson(): Promise<NodeJson> {
      return JSON.parse((await sh(`cat ${NODE_JSON}`)).stdout) as NodeJson;
    }

    /** As the first join has left it. */
    let joined: NodeJson;

    async function join(...args: readonly string[]): Promise<Record<string, unknown>> {
      return await ok("join", ...args, "--node", "n1", "--watchdog", "none", ...STATE);
    }

    before(async () => {
      const made = await commands.run(["init", URL_TEXT, "--whole", "--force", "--json"]);
      assert.equal(made.exitCode, 0, made.stderr);
    });
    afterEach(async () => {
      await commands.run(["leave", ...STATE]);
      await sh(`rm -f ${NODE_JSON}`);
    });

    it("by address: logs in, says what timers it changed, is a member, and will be after a boot", async () => {
      await sh("rm -rf /etc/iscsi/nodes");
      const body = await join(URL_TEXT);
      const [lun] = body["iscsi"] as readonly {
        wwid: string;
        changes: readonly { timer: string; from: number; to: number; effective: string }[];
      }[];
      const change = lun?.changes.find(({ timer }) => timer === "replacementTimeout");
      assert.deepEqual([change?.from, change?.to], [120, 3]);
      assert.equal(
        lun?.changes.every(({ effective }) => effective === "now"),
        true,
      );
      const record = await sh(`iscsiadm -m node -T ${DATA} -p ${PORTAL}`);
      assert.match(record.stdout, /^node\.startup = automatic$/m);
      joined = await nodeJson();
      const { iscsi, paths } = joined;
      assert.equal(iscsi[0]?.url, `iscsi://${PORTAL}/${DATA}/1`);
      assert.equal(iscsi[0].wwid, lun.wwid);
      assert.deepEqual(paths, [iscsi[0].path]);
      const [session] = await sessions();
      assert.equal(session?.timers["noopOutInterval"], 1);
    });

    it("again without arguments, when the session is gone as after a reboot", async () => {
      await sh(`cat > ${NODE_JSON}`, { input: JSON.stringify(joined) });
      const body = await join();
      assert.equal((body["node"] as { state: string }).state, "joined");
      assert.equal((await sessions())[0]?.state, "LOGGED_IN");
    });

    it("without arguments on a machine that has never joined is bad usage", async () => {
      await refused(2, "ERR_USAGE", "join", ...STATE);
    });

    it("refuses another disk behind the number, and a disk that has another number, naming both", async () => {
      const [lun] = joined.iscsi;
      assert.ok(lun !== undefined);
      await ok("iscsi", "login", DATA, "--portal", PORTAL);
      const zero = (await sessions())[0]?.disks.find((disk) => disk.lun === 0)?.wwid ?? "";
      for (const [wwid, code] of [
        ["naa.60014050000000000000000000000bad", "ERR_ISCSI_WWID_CHANGED"],
        [zero, "ERR_ISCSI_LUN_MOVED"],
      ] as const) {
        const changed = { ...joined, iscsi: [{ ...lun, wwid }] };
        await sh(`cat > ${NODE_JSON}`, { input: JSON.stringify(changed) });
        const { message } = await refused(2, code, "join", ...STATE);
        assert.ok(message.includes(wwid), message);
      }
    });

    it("that fails for the first time leaves no session of its own", async () => {
      await refused(2, "ERR_ISCSI_LUN_MISSING", "join", `iscsi://10.77.0.9/${DATA}/9`, ...STATE);
      assert.deepEqual(await sessions(), []);
      await refused(2, "ERR_ISCSI_TARGET_GONE", "join", `iscsi://10.77.0.9/${GONE}/0`, ...STATE);
      assert.deepEqual(await sessions(), []);
    });
  });
});
