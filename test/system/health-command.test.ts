/**
 * `sharedha health` with real nodes: the exit code and the findings in each level, its three formats and `--cron`, with the
 * daemon and without it.
 */
import assert from "node:assert/strict";
import { renameSync } from "node:fs";

import { type Finding, type HealthReport } from "../../lib/health/finding.js";
import { type Ran, sharedha, type TestNode } from "../helpers/nodes.js";
import { Cluster, expectDone, until } from "./faults/harness.js";

/** "members/n2 critical", for everything that is not well. */
function troubles(report: HealthReport): readonly string[] {
  return report.findings
    .filter((one) => one.level !== "ok")
    .map((one) => `${one.check}${one.subject === null ? "" : `/${one.subject}`} ${one.level}`)
    .sort();
}

function find(report: HealthReport, check: string, subject: string | null): Finding {
  const found = report.findings.find((one) => one.check === check && one.subject === subject);
  assert(found !== undefined, `no finding ${check} ${subject ?? ""}`);
  return found;
}

describe("sharedha health", function () {
  this.timeout(60_000);
  let cluster: Cluster;
  let n1: TestNode;
  let n2: TestNode;

  before(async () => {
    // T = 3 s: a busy machine's late heartbeats are not what is looked at here.
    cluster = await Cluster.make("health", { profile: "default" });
  });

  after(async () => {
    await cluster.clean();
  });

  async function healthOf(node: TestNode, exitCode: number): Promise<HealthReport> {
    return parsed(await node.cli("health", "--format", "json"), exitCode);
  }

  function parsed(ran: Ran, exitCode: number): HealthReport {
    assert.equal(ran.exitCode, exitCode, `${ran.stdout}${ran.stderr}`);
    assert.equal(ran.stderr, "");
    const report = JSON.parse(ran.stdout) as HealthReport;
    for (const one of report.findings) {
      assert.equal(one.remedy === null, one.level === "ok", `${one.text}: ${one.remedy ?? "?"}`);
    }
    return report;
  }

  /** A busy machine may be late for a moment, which is a warning of its own. */
  async function untilTroublesAre(
    node: TestNode,
    exitCode: number,
    expected: readonly string[],
  ): Promise<HealthReport> {
    let last: readonly string[] = [];
    return await until(`health says ${expected.join(", ")}`, 25_000, async () => {
      const ran = await node.cli("health", "--json");
      const report = JSON.parse(ran.stdout) as HealthReport;
      last = troubles(report);
      if (last.join() !== [...expected].sort().join()) {
        return undefined;
      }
      return parsed(ran, exitCode);
    }).catch((error: unknown) => {
      throw new Error(`it said last: ${last.join(", ")}`, { cause: error });
    });
  }

  it("is unknown on a machine that has never joined, and says so in every format", async () => {
    const stranger = cluster.node("stranger");
    const report = await healthOf(stranger, 3);
    assert.deepEqual([report.level, report.source], ["unknown", "none"]);
    assert.deepEqual(troubles(report), ["node unknown"]);
    assert.match(find(report, "node", null).text, /no member .*state-stranger/);
    const line = await stranger.cli("health", "--format", "plugin");
    assert.equal(line.exitCode, 3);
    assert.match(line.stdout, /^SHAREDHA UNKNOWN - this node is no member[^|\n]*\n$/);
    const cron = await stranger.cli("health", "--cron");
    assert.equal(cron.exitCode, 3);
    assert.match(cron.stdout, /^health unknown\n {2}unknown +node +this node is no member/);
    assert.match(cron.stdout, /remedy: Join with/);
  });

  it("warns of a member that is alone, with exit code 1, also for cron", async () => {
    n1 = await cluster.joined("n1");
    const report = await untilTroublesAre(n1, 1, ["members warning"]);
    assert.deepEqual([report.level, report.source], ["warning", "daemon"]);
    const total = find(report, "members", null);
    assert.match(total.text, /1 of 1 members live: nobody can take over/);
    assert.deepEqual([total.figure, total.warningLimit, total.limit], [1, 2, 1]);
    const cron = await n1.cli("health", "--cron");
    assert.equal(cron.exitCode, 1);
    assert.match(cron.stdout, /^health warning\n[^]* {2}warning +members +1 of 1 members live/);
  });

  it("is well with two members: exit code 0, nothing for cron, figures for a plugin", async () => {
    n2 = await cluster.joined("n2");
    const report = await untilTroublesAre(n1, 0, []);
    assert.deepEqual([report.level, report.source], ["ok", "daemon"]);
    assert.match(find(report, "members", "n2").text, /n2 \(host \d+\) is live/);
    assert.equal(find(report, "heartbeat", null).limit, 3_000);
    const cron = await untilDone("--cron");
    assert.deepEqual([cron.stdout, cron.stderr], ["", ""]);
    const { stdout: line } = await untilDone("--format", "plugin");
    assert.match(line, /^SHAREDHA OK - n1 is a member, [^|\n]* \| [^\n]*\n$/);
    assert.match(line, / 'heartbeat'=[\d.]+ms;1500;3000;0 /);
    assert.match(line, / 'quorum'=1;1:;1:;0 /);
    const { stdout: text } = await untilDone();
    assert.match(text, /^health ok\n/);
    assert.match(text, /^ {2}ok +quorum +1 of 1 LUN usable, 1 needed$/m);
  });

  async function untilDone(...args: readonly string[]): Promise<Ran> {
    return await until(`health ${args.join(" ")} ends with 0`, 20_000, async () => {
      const ran = await n1.cli("health", ...args);
      return ran.exitCode === 0 && ran;
    });
  }

  it("is critical when a holder has died: exit code 2, with the lease and the node named", async () => {
    expectDone(await n2.cli("lease", "create", "job"));
    expectDone(await n2.cli("lease", "acquire", "job"));
    // Daemon first: it would start a new pulse.
    n2.signal("SIGKILL", "daemon");
    n2.signal("SIGKILL");
    const expected = ["leases critical", "leases/job critical", "members warning"];
    const report = await untilTroublesAre(n1, 2, [...expected, "members/n2 critical"]);
    assert.equal(report.level, "critical");
    assert.match(find(report, "leases", "job").text, /job is held by n2 .*which is dead/);
    assert.match(find(report, "members", "n2").text, /n2 .*is dead: silent for/);
    const line = await n1.cli("health", "--format", "plugin");
    assert.equal(line.exitCode, 2);
    assert.match(line.stdout, /^SHAREDHA CRITICAL - [^|\n]*n2 [^|\n]*is dead/);
    const cron = await n1.cli("health", "--cron");
    assert.equal(cron.exitCode, 2);
    assert.match(cron.stdout, /^health critical\n/);
  });

  it("reads the LUNs when the daemon has ended, and sees who still renews", async () => {
    n1.signal("SIGTERM", "daemon");
    await until("the daemon has ended", 10_000, () => {
      return !n1.processes().some((one) => one.role === "daemon");
    });
    const report = await healthOf(n1, 2);
    assert.deepEqual([report.level, report.source], ["critical", "luns"]);
    assert.match(find(report, "daemon", null).text, /no sharedhad answers/);
    assert.match(find(report, "quorum", null).text, /1 of 1 LUNs readable/);
    assert.match(find(report, "members", "n1").text, /n1 .*renews although its daemon is gone/);
    assert.match(find(report, "members", "n2").text, /n2 .*did not renew within 2 s/);
    assert.equal(find(report, "watchdog", null).level, "unknown");
  });

  it("goes on without any process of the node, and without its LUN", async () => {
    n1.signal("SIGKILL");
    await until("all of n1 has ended", 10_000, () => n1.processes().length === 0);
    const cron = await n1.cli("health", "--cron");
    assert.equal(cron.exitCode, 2);
    assert.match(cron.stdout, /^ {2}warning +members +n1 \(host \d+\) did not renew within 2 s$/m);
    const [lun = ""] = cluster.luns;
    renameSync(lun, `${lun}.away`);
    const args = ["health", "--state-dir", n1.stateDir, "--format", "plugin"];
    const line = await sharedha(args);
    assert.equal(line.exitCode, 2);
    assert.match(line.stdout, /^SHAREDHA CRITICAL - no sharedhad answers[^|\n]*, [^|\n]*\/lun1/);
  });
});
