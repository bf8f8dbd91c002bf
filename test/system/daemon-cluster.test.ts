/** What people do with a cluster, through the command line and with real nodes: fence by hand, configure, replace a LUN. */
import assert from "node:assert/strict";
import { closeSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";

import {
  type AcquiredBody,
  type ConfigBody,
  type ErrorBody,
  type LunBody,
} from "../../lib/net/api.js";
import { type Ran, sharedha, TestNode } from "../helpers/nodes.js";
import { Workspace } from "../helpers/workspace.js";

async function until(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
  withinMs = 20_000,
): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!(await isTrue())) {
    assert(performance.now() < untilMs, `${what}: not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function done(ran: Ran): string {
  assert.equal(ran.exitCode, 0, `exit ${ran.exitCode}\n${ran.stdout}${ran.stderr}`);
  return ran.stdout;
}

/** The error of a command that was run with `--json`. */
function errorOf(ran: Ran, exitCode: number): ErrorBody["error"] {
  assert.equal(ran.exitCode, exitCode, `exit ${ran.exitCode}\n${ran.stdout}${ran.stderr}`);
  const { error } = JSON.parse(ran.stdout) as ErrorBody;
  assert.match(error.hint, /\w{3,}/);
  return error;
}

async function cluster(
  workspace: Workspace,
  luns: readonly string[],
  watchdogs: Readonly<Record<string, "guard" | "none">>,
): Promise<readonly TestNode[]> {
  done(await sharedha(["init", ...luns, "--cluster", "people", "--size", "32M"]));
  const nodes = Object.entries(watchdogs).map(
    ([name, watchdog]) => new TestNode(workspace, { name, luns, watchdog }),
  );
  for (const node of nodes) {
    done(await node.join());
  }
  return nodes;
}

describe("sharedha fence --confirm-off", function () {
  this.timeout(60_000);
  const workspace = new Workspace("fence");
  let n1: TestNode;
  let n2: TestNode;

  before(async () => {
    const nodes = await cluster(workspace, [workspace.path("lun")], { n1: "none", n2: "guard" });
    [n1, n2] = nodes as [TestNode, TestNode];
    done(await n1.cli("lease", "create", "a"));
    done(await n1.cli("lease", "acquire", "a"));
  });

  after(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  it("has pulse and guard, which are real-time, collect garbage without helper threads", () => {
    for (const role of ["pulse", "guard"] as const) {
      const found = n2.processes().find((one) => one.role === role);
      const words = readFileSync(`/proc/${found?.pid}/cmdline`, "utf8").split("\0");
      assert(words.includes("--single-threaded-gc"), words.join(" "));
    }
  });

  it("is refused while the node renews, and needs the word and a yes", async () => {
    const alive = errorOf(await n2.cli("fence", "n1", "--confirm-off", "--yes", "--json"), 1);
    assert.equal(alive.code, "ERR_HOST_ALIVE");
    const wordless = errorOf(await n2.cli("fence", "n1", "--yes", "--json"), 2);
    assert.equal(wordless.code, "ERR_USAGE");
    const unasked = errorOf(await n2.cli("fence", "n1", "--confirm-off", "--json"), 2);
    assert.equal(unasked.code, "ERR_USAGE");
    const nobody = errorOf(await n2.cli("fence", "n9", "--confirm-off", "--yes", "--json"), 2);
    assert.equal(nobody.code, "ERR_NO_SUCH_HOST");
  });

  it("nothing of a dead node without a watchdog is taken over without it, and all with it", async () => {
    // Daemon first: it would start a new pulse.
    n1.signal("SIGKILL", "daemon");
    n1.signal("SIGKILL");
    // Longer than the 6.5 s after which an armed node's lease is taken over.
    const early = errorOf(await n2.cli("lease", "acquire", "a", "--wait", "8", "--json"), 1);
    assert.equal(early.code, "ERR_TIMED_OUT");
    assert.match(early.hint, /without a watchdog.*sharedha fence NODE --confirm-off/);

    const waiting = n2.cli("lease", "acquire", "a", "--wait", "20", "--json");
    await until("n2 waits", async () => (await n2.status()).leases[0]?.queue[0] === "n2");
    const confirmed = done(await n2.cli("fence", "n1", "--confirm-off", "--yes"));
    assert.match(confirmed, /^confirmed: n1 \(host 1, generation 1\) is off; valid for 10 min/);
    const granted = JSON.parse(done(await waiting)) as AcquiredBody;
    assert.deepEqual(
      granted.evidence.map(({ kind, hostId }) => ({ kind, hostId })),
      [{ kind: "confirmed", hostId: 1 }],
    );
    const events = done(await n2.cli("events"));
    assert.match(events, /a human confirmed that n1 is off/);
    assert.match(events, /lease a was taken over from host 1 \(confirmed: a human/);
  });
});

describe("sharedha config of a cluster that was made with timers of its own", function () {
  this.timeout(60_000);
  const workspace = new Workspace("timers");
  const text = "[timers]\nttl_ms = 4000\n";
  let node: TestNode;

  function file(toml: string): string {
    const path = workspace.path("cluster.toml");
    writeFileSync(path, toml);
    return path;
  }

  before(async () => {
    const lun = workspace.path("lun");
    const words = ["init", lun, "--cluster", "timed", "--size", "32M", "--config", file(text)];
    done(await sharedha(words));
    node = new TestNode(workspace, { name: "n1", luns: [lun], watchdog: "none" });
    done(await node.join());
  });

  after(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  it("lives by them, and has nothing to undo yet", async () => {
    assert.equal((await node.status()).timers.ttlMs, 4_000);
    assert.equal(done(await node.cli("config", "show")), text);
    const error = errorOf(await node.cli("config", "undo", "--json"), 1);
    assert.equal(error.code, "ERR_NOTHING_TO_UNDO");
  });

  it("takes a change of something else with the same timers, and refuses other timers", async () => {
    done(await node.cli("config", "apply", file(`accept_guard = true\n${text}`)));
    const other = file("accept_guard = true\n[timers]\nttl_ms = 4500\n");
    const error = errorOf(await node.cli("config", "apply", other, "--json"), 2);
    assert.equal(error.code, "ERR_TIMERS_FIXED");
    assert.match(error.message, /timers\.ttl_ms: .* 4000 ms/);
    assert.equal(done(await node.cli("config", "show")), `accept_guard = true\n${text}`);
    assert.match(done(await node.cli("config", "undo")), /^- accept_guard = true$/m);
  });
});

describe("sharedha config with two nodes", function () {
  this.timeout(60_000);
  const workspace = new Workspace("config");
  let n1: TestNode;
  let n2: TestNode;

  before(async () => {
    const nodes = await cluster(workspace, [workspace.path("lun")], { n1: "none", n2: "none" });
    [n1, n2] = nodes as [TestNode, TestNode];
  });

  after(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  function file(name: string, text: string): string {
    const path = workspace.path(name);
    writeFileSync(path, text);
    return path;
  }

  it("shows on one node what was applied on the other, and takes it back", async () => {
    const before = done(await n1.cli("config", "show"));
    const next = file("next.toml", "accept_guard = true\n");
    const differs = await n1.cli("config", "diff", next);
    assert.equal(differs.exitCode, 1, differs.stderr);
    assert.match(differs.stdout, /^\+ accept_guard = true$/m);
    assert.match(done(await n1.cli("config", "apply", next)), /^applied, stamp /m);
    assert.equal(done(await n2.cli("config", "show")), "accept_guard = true\n");
    assert.equal(done(await n2.cli("config", "diff", next)), "");
    assert.match(done(await n2.cli("config", "apply", next)), /nothing to change/);
    assert.match(done(await n2.cli("config", "undo")), /^- accept_guard = true$/m);
    assert.equal(done(await n1.cli("config", "show")), before);
  });

  it("refuses a change that is based on an older text", async () => {
    const old = (await n1.call("GET", "/v1/config")) as ConfigBody;
    done(await n2.cli("config", "apply", file("theirs.toml", "foreign_watchdog = true\n")));
    const stale = { toml: "accept_guard = true\n", stamp: old.stamp };
    await assert.rejects(n1.call("PUT", "/v1/config", stale), /ERR_CONFIG_CONFLICT/);
    const undo = { stamp: old.stamp };
    await assert.rejects(n1.call("POST", "/v1/config/undo", undo), /ERR_CONFIG_CONFLICT/);
    assert.equal(done(await n1.cli("config", "show")), "foreign_watchdog = true\n");
  });

  it("refuses what it does not know, and nothing of it is kept", async () => {
    const before = done(await n1.cli("config", "show"));
    const texts: readonly (readonly [string, RegExp])[] = [
      ["acept_guard = true\n", /acept_guard/],
      ['[group.web]\ndevice = "lun"\nmont = 1\n', /mont/],
      ["accept_guard = \n", /line 1|1:\d+/i],
    ];
    for (const [toml, words] of texts) {
      const path = file("bad.toml", toml);
      const error = errorOf(await n1.cli("config", "apply", path, "--json"), 2);
      assert.equal(error.code, "ERR_CONFIG");
      assert.match(error.message, words);
    }
    assert.equal(done(await n2.cli("config", "show")), before);
  });

  it("two changes at the same time: one is applied, the other is told", async () => {
    const { stamp } = (await n1.call("GET", "/v1/config")) as ConfigBody;
    const results = await Promise.allSettled(
      [n1, n2].map(async (node) =>
        node.call("PUT", "/v1/config", { toml: `# by ${node.name}\n`, stamp }),
      ),
    );
    const refused = results.filter((result) => result.status === "rejected");
    assert.equal(refused.length, 1);
    assert.match(String(refused[0]?.reason), /ERR_CONFIG_CONFLICT/);
    const winner = results[0]?.status === "fulfilled" ? "n1" : "n2";
    assert.equal(done(await n1.cli("config", "show")), `# by ${winner}\n`);
    assert.equal(done(await n2.cli("config", "show")), `# by ${winner}\n`);
  });
});

describe("three LUNs, one of which is overwritten", function () {
  this.timeout(90_000);
  const workspace = new Workspace("three");
  const luns = [1, 2, 3].map((number) => workspace.path(`lun${number}`));
  let n1: TestNode;
  let n2: TestNode;

  before(async () => {
    const nodes = await cluster(workspace, luns, { n1: "guard", n2: "guard" });
    [n1, n2] = nodes as [TestNode, TestNode];
    done(await n1.cli("lease", "create", "a"));
    done(await n1.cli("lease", "acquire", "a"));
  });

  after(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  async function lunTwo(node: TestNode): Promise<LunBody> {
    const [, found] = (await node.status()).luns;
    assert(found !== undefined);
    return found;
  }

  async function staysWithN1(): Promise<void> {
    const own = await n1.status();
    assert.deepEqual([own.node.state, own.leases[0]?.heldHere], ["joined", true]);
    const refused = errorOf(await n2.cli("lease", "acquire", "a", "--json"), 1);
    assert.equal(refused.code, "ERR_LEASE_HELD");
    assert.match(refused.message, /held by n1/);
  }

  it("does not count any more, and the lease stays where it is", async () => {
    const path = luns[1] ?? "";
    const zeros = Buffer.alloc(1_048_576);
    const file = openSync(path, "r+");
    for (let offset = 0; offset < statSync(path).size; offset += zeros.length) {
      writeSync(file, zeros, 0, zeros.length, offset);
    }
    closeSync(file);
    for (const node of [n1, n2]) {
      await until(`${node.name} sees that LUN 2 is blank`, async () => {
        const { counts, state } = await lunTwo(node);
        return !counts && state === "blank";
      });
    }
    await staysWithN1();
    assert.match(done(await n2.cli("status")), /lun2.*blank/);
  });

  it("counts again after `lun replace`, on both nodes, with the lease as it was", async () => {
    const { version } = JSON.parse(done(await n1.cli("lease", "show", "a", "--json"))) as {
      readonly version: string;
    };
    const before = (await n1.status()).cluster.epoch;
    assert.match(done(await n2.cli("lun", "replace", luns[1] ?? "")), /LUN 2 is now .*lun2/);
    for (const node of [n1, n2]) {
      await until(`LUN 2 counts on ${node.name}`, async () => {
        const { counts, state } = await lunTwo(node);
        return counts && state === "ok";
      });
      assert(BigInt((await node.status()).cluster.epoch) > BigInt(before));
    }
    await staysWithN1();
    const after = JSON.parse(done(await n2.cli("lease", "show", "a", "--json"))) as {
      readonly version: string;
    };
    assert.equal(after.version, version);
    done(await n1.cli("lease", "release", "a"));
    done(await n2.cli("lease", "acquire", "a", "--wait", "5"));
  });
});
