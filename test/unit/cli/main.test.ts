import assert from "node:assert/strict";

import { type FakeDaemon, leaseBody, refusal, startFakeDaemon, statusBody } from "./fake-daemon.js";
import { runMain } from "./run-main.js";

const COMMANDS = [
  "init",
  "join",
  "leave",
  "status",
  "reserve",
  "release",
  "run",
  "health",
  "doctor",
  "events",
  "fence",
  "dump",
  "lease acquire",
  "lease release",
  "lease list",
  "lease show",
  "lease create",
  "lease delete",
  "config show",
  "config apply",
  "config diff",
  "config edit",
  "config undo",
  "lun replace",
  "iscsi discover",
  "iscsi login",
  "iscsi logout",
  "iscsi sessions",
  "iscsi rescan",
  "iscsi timers",
];

describe("sharedha --help", () => {
  for (const command of [...COMMANDS, "lease", "config", "lun", "iscsi", ""]) {
    it(`of "${command}" shows an example and the common options`, async () => {
      const words = command === "" ? [] : command.split(" ");
      const { exitCode, out, err } = await runMain([...words, "--help"]);
      assert.equal(exitCode, 0, err);
      assert.match(out, new RegExp(`Usage: sharedha ${command}`));
      assert.match(out, /Examples?:\n {2}\S/);
      assert.match(out, /--json/);
      assert.match(out, /--state-dir <dir>/);
      assert.equal(err, "");
    });
  }

  it("without a command shows the help as an error", async () => {
    const { exitCode, out, err } = await runMain([]);
    assert.equal(exitCode, 2);
    assert.equal(out, "");
    assert.match(err, /Usage: sharedha/);
    for (const command of COMMANDS) {
      assert.ok(err.includes(`  ${command.split(" ")[0] ?? ""} `), command);
    }
  });

  it("--version prints the version of the package", async () => {
    assert.deepEqual(await runMain(["--version"]), { exitCode: 0, out: "0.1.0\n", err: "" });
  });
});

describe("bad usage", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["stattus", /unknown command 'stattus'/],
    ["status --no-such", /unknown option '--no-such'/],
    ["status surplus", /too many arguments/],
    ["lease", /^Usage: sharedha lease [^]*Examples:/],
    ["lease acquire", /missing required argument 'name'/],
    ["lease acquire a --wait soon", /seconds from 0 to 604800.*forever/],
    ["lease acquire a --wait -1", /seconds from 0|argument missing/],
    ["lease acquire a --wait 604801", /seconds from 0/],
    ["init", /missing required argument 'lun'/],
    ["init iscsi://10.77.0.9/data/0", /"data" is no name of an iSCSI target/],
    ["init iscsi://10.77.0.9", /is no LUN's address/],
    ["iscsi", /^Usage: sharedha iscsi [^]*Examples:/],
    ["iscsi discover", /missing required argument 'portal'/],
    ["iscsi discover 10.0.0.999", /"10\.0\.0\.999" is no portal/],
    ["iscsi login data", /"data" is no name of an iSCSI target/],
    ["iscsi login iqn.2026-11.lab:data --lun x", /whole number from 0 to 16383/],
    ["iscsi login iqn.2026-11.lab:data --chap-user u", /no secret for --chap-user/],
    ["iscsi login iqn.2026-11.lab:data --chap-in-secret-file /x", /without --chap-in-user/],
    [
      "iscsi discover 10.0.0.9 --chap-in-user u --chap-in-secret-file /x",
      /secret in \/x cannot be used/,
    ],
    ["iscsi logout data", /is no name of an iSCSI target/],
    ["iscsi timers iqn.2026-11.lab:data --profile slow", /fast, default, multipath/],
    [
      "iscsi timers iqn.2026-11.lab:data --profile fast --show",
      /cannot be used with option '--show'/,
    ],
    ["init /x --sector-size 1024", /512, 4096/],
    ["init /x --max-hosts 65", /whole number from 1 to 64/],
    ["init /x --size 12Q", /number of bytes/],
    ["init /x --profile slow", /fast, default, multipath/],
    ["init /x --cluster a/b", /a\/b is no name for a cluster/],
    ["join /x --watchdog dog", /auto, hardware, guard, none/],
    ["join /x --host-id 0", /whole number from 1 to 64/],
    ["fence n2", /say how n2 is fenced/],
    ["fence n2 --confirm-off", /no terminal to ask on/],
    ["health --format xml", /text, plugin, json/],
    ["run", /missing required argument 'command'/],
    ["config", /^Usage: sharedha config/],
    ["constructor", /unknown command 'constructor'/],
  ];
  for (const [line, message] of cases) {
    it(`"${line}" is refused with exit code 2 and a remedy`, async () => {
      const { exitCode, out, err } = await runMain(line.split(" "));
      assert.equal(exitCode, 2, err);
      assert.equal(out, "");
      assert.match(err, message);
      assert.doesNotMatch(err, /\n\s+at |Error:/);
    });
  }

  it("is one JSON object with --json, wherever --json stands", async () => {
    for (const argv of [
      ["--json", "stattus"],
      ["lease", "acquire", "a", "--wait", "x", "--json"],
    ]) {
      const { exitCode, out } = await runMain(argv);
      assert.equal(exitCode, 2);
      const { error } = JSON.parse(out) as { error: Record<string, unknown> };
      assert.equal(error["code"], "ERR_USAGE");
      assert.equal(typeof error["hint"], "string");
    }
  });
});

describe("options", () => {
  let daemon: FakeDaemon;
  beforeEach(async () => {
    daemon = await startFakeDaemon({
      "GET /v1/status": () => ({ body: statusBody() }),
      "GET /v1/leases": () => ({ body: { leases: [leaseBody()] } }),
    });
  });
  afterEach(() => daemon.close());

  it("may come before the command, between its words and after it", async () => {
    const { stateDir } = daemon;
    for (const argv of [
      ["--json", "--state-dir", stateDir, "lease", "list"],
      ["lease", "--json", "--state-dir", stateDir, "list"],
      ["lease", "list", "--state-dir", stateDir, "--json"],
      [`--state-dir=${stateDir}`, "lease", "list", "--json"],
    ]) {
      const { exitCode, out, err } = await runMain(argv);
      assert.equal(exitCode, 0, `${argv.join(" ")}: ${err}`);
      assert.deepEqual(JSON.parse(out), { leases: [leaseBody()] });
    }
  });

  it("SHAREDHA_STATE_DIR names the directory, and --state-dir is stronger", async () => {
    const env = { SHAREDHA_STATE_DIR: daemon.stateDir };
    assert.equal((await runMain(["status"], { env })).exitCode, 0);
    const other = await runMain(["status", "--state-dir", "/nowhere"], { env });
    assert.equal(other.exitCode, 3);
    assert.match(other.err, /no sharedhad answers on \/nowhere\/control\.sock\n {2}remedy: /);
  });
});

describe("exit codes", () => {
  for (const [status, exitCode] of [
    [400, 2],
    [404, 2],
    [409, 1],
    [503, 3],
    [500, 3],
  ] as const) {
    it(`HTTP ${status} is ${exitCode}`, async () => {
      const daemon = await startFakeDaemon({
        "GET /v1/leases/a": () => refusal(status, "ERR_X", "it is so"),
      });
      try {
        const ran = await runMain(["lease", "show", "a", "--state-dir", daemon.stateDir]);
        assert.deepEqual(ran, {
          exitCode,
          out: "",
          err: "sharedha: it is so\n  remedy: remedy of ERR_X\n",
        });
      } finally {
        await daemon.close();
      }
    });
  }

  it("a message from the daemon cannot steer the terminal", async () => {
    const daemon = await startFakeDaemon({
      "GET /v1/leases/a": () => refusal(409, "ERR_X", "held by \u001b]0;evil\u0007"),
    });
    try {
      const { err } = await runMain(["lease", "show", "a", "--state-dir", daemon.stateDir]);
      assert.match(err, /^sharedha: held by \?\]0;evil\?\n/);
    } finally {
      await daemon.close();
    }
  });
});
