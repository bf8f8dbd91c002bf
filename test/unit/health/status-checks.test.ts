import assert from "node:assert/strict";

import fc from "fast-check";

import {
  exitCodeOfLevel,
  type Finding,
  type HealthReport,
  worstLevel,
} from "../../../lib/health/finding.js";
import { healthPluginLine, healthText } from "../../../lib/health/health-text.js";
import {
  healthOfNobody,
  healthWithoutDaemon,
  type LunsLook,
} from "../../../lib/health/lun-checks.js";
import { healthOfStatus } from "../../../lib/health/status-checks.js";
import { type MemberBody, type StatusBody } from "../../../lib/net/api.js";
import { leaseBody, memberBody, statusBody } from "../cli/fake-daemon.js";

const plain = (_level: unknown, text: string): string => text;

function assess(change: Partial<StatusBody> = {}, version = "0.1.0", answerMs = 3): HealthReport {
  return healthOfStatus(statusBody(change), version, answerMs);
}

function bad(report: HealthReport): readonly Finding[] {
  return report.findings.filter((one) => one.level !== "ok");
}

/** The one thing that is not well, and nothing else. */
function only(report: HealthReport): Finding {
  const found = bad(report);
  assert.equal(found.length, 1, JSON.stringify(found, undefined, 1));
  const [one] = found;
  assert.ok(one !== undefined);
  assert.ok(one.remedy !== null && one.remedy !== "", "what is not well has a remedy");
  assert.equal(report.level, one.level);
  return one;
}

const holder = { hostId: 2, name: "n2", generation: "1", shared: false, since: null };
const self = memberBody({ isSelf: true, latencyMs: 2.5, armed: true });
const other = (change: Partial<MemberBody>): readonly MemberBody[] => [
  self,
  memberBody({ hostId: 2, name: "n2", generation: "1", ...change }),
  memberBody({ hostId: 3, name: "n3", generation: "1" }),
];

describe("health with the daemon", () => {
  it("finds nothing in a healthy cluster, and looks at everything", () => {
    const report = assess();
    assert.equal(report.level, "ok");
    assert.deepEqual(bad(report), []);
    assert.deepEqual(
      new Set(report.findings.map((one) => one.check)),
      new Set([
        "daemon",
        "node",
        "heartbeat",
        "latency",
        "members",
        "quorum",
        "watchdog",
        "leases",
        "groups",
        "versions",
      ]),
    );
  });

  const heartbeat: readonly (readonly [number | null, string])[] = [
    [0, "ok"],
    [1_499, "ok"],
    [1_500, "warning"],
    [2_999, "warning"],
    [3_000, "critical"],
    [null, "critical"],
  ];
  for (const [heartbeatMs, level] of heartbeat) {
    it(`own heartbeat of ${heartbeatMs} ms is ${level}`, () => {
      const report = assess({ heartbeatMs });
      assert.equal(report.level, level);
      if (level !== "ok") {
        const one = only(report);
        assert.deepEqual(
          [one.check, one.figure, one.limit, one.warningLimit],
          ["heartbeat", heartbeatMs, 3_000, 1_500],
        );
      }
    });
  }

  const latency = [
    [499, "ok"],
    [500, "warning"],
    [999, "warning"],
    [1_000, "critical"],
  ] as const;
  for (const [latencyMs, level] of latency) {
    it(`a heartbeat that takes ${latencyMs} ms of 1000 is ${level}`, () => {
      const report = assess({
        members: [{ ...self, latencyMs }, memberBody({ hostId: 2, name: "n2", generation: "1" })],
      });
      assert.equal(report.level, level);
      assert.ok(level === "ok" || only(report).check === "latency");
    });
  }

  const members: readonly (readonly [Partial<MemberBody>, string, RegExp])[] = [
    [{ state: "live", unchangedMs: 2_999 }, "ok", /./],
    [{ state: "live", unchangedMs: 3_000 }, "warning", /heartbeat is 3 s old/],
    [
      { state: "silent", unchangedMs: 4_000 },
      "warning",
      /n2 \(host 2\) is silent for 4 s, taken over after 6.5 s/,
    ],
    [
      { state: "silent", expiresAfterMs: null, whyNoExpiry: "no watchdog" },
      "warning",
      /time alone proves nothing: no watchdog/,
    ],
    [{ state: "expired", unchangedMs: 9_000 }, "critical", /n2 \(host 2\) is dead: silent for 9 s/],
    [{ state: "unreadable" }, "critical", /cannot be read/],
    [{ state: "foreign" }, "ok", /./],
    [{ state: "left" }, "ok", /./],
  ];
  for (const [change, level, text] of members) {
    it(`member ${JSON.stringify(change)} is ${level}`, () => {
      const report = assess({ members: other(change) });
      assert.equal(report.level, level);
      if (level !== "ok") {
        const one = only(report);
        assert.deepEqual([one.check, one.subject], ["members", "n2"]);
        assert.match(one.text, text);
      }
    });
  }

  it("a silent member that time alone does not prove dead wants a human's word", () => {
    const one = only(assess({ members: other({ state: "silent", expiresAfterMs: null }) }));
    assert.match(one.remedy ?? "", /sharedha fence n2 --confirm-off/);
  });

  it("the last live member is a warning: nobody can take over", () => {
    assert.match(
      only(assess({ members: [self] })).text,
      /1 of 1 members live: nobody can take over/,
    );
  });

  const lun = (
    path: string,
    change: Partial<StatusBody["luns"][number]> = {},
  ): StatusBody["luns"][number] => ({
    path,
    uuid: path,
    counts: true,
    state: "ok",
    why: null,
    latencyMs: 1,
    ...change,
  });

  it("one LUN of three away is a warning, two are critical", () => {
    const one = assess({
      luns: [lun("/a"), lun("/b"), lun("/c", { state: "failed", counts: false, why: "EIO" })],
    });
    assert.equal(one.level, "warning");
    assert.match(
      bad(one)
        .map(({ text }) => text)
        .join("; "),
      /2 of 3 LUNs usable, 2 needed; \/c is failed, it does not count: EIO/,
    );
    const two = assess({
      luns: [lun("/a"), lun("/b", { state: "stuck" }), lun("/c", { state: "failed" })],
    });
    assert.equal(two.level, "critical");
  });

  it("a blank LUN is replaced, not repaired", () => {
    const report = assess({
      luns: [lun("/a"), lun("/b"), lun("/c", { state: "blank", counts: false })],
    });
    assert.match(bad(report).at(-1)?.remedy ?? "", /sharedha lun replace \/c/);
  });

  it("a watchdog that is not armed while something is held is critical", () => {
    const one = only(
      assess({ watchdog: { kind: "guard", device: null, armed: false, note: null } }),
    );
    assert.deepEqual([one.check, one.level], ["watchdog", "critical"]);
    const idle = assess({
      watchdog: { kind: "guard", device: null, armed: false, note: null },
      leases: [],
      groups: [],
    });
    assert.equal(idle.level, "ok");
  });

  it("no watchdog is a warning", () => {
    assert.equal(
      only(assess({ watchdog: { kind: "none", device: null, armed: false, note: null } })).check,
      "watchdog",
    );
  });

  it("a lease of a dead holder is critical, of one in an older generation a warning", () => {
    const leases = [leaseBody({ holders: [holder], queue: ["n1"] })];
    const dead = bad(assess({ leases, members: other({ state: "expired" }) })).filter(
      ({ check }) => check === "leases",
    );
    assert.deepEqual(
      dead.map(({ level, subject }) => [level, subject]),
      [
        ["critical", null],
        ["critical", "backup"],
      ],
    );
    const old = bad(assess({ leases, members: other({ generation: "2" }) }));
    assert.deepEqual(
      old.map(({ level, subject }) => [level, subject]),
      [
        ["warning", null],
        ["warning", "backup"],
      ],
    );
    assert.match(old[1]?.text ?? "", /n2 \(host 2\) in generation 1, which is no member now/);
  });

  const [web] = statusBody().groups;
  assert.ok(web !== undefined);
  const groups: readonly (readonly [Partial<StatusBody["groups"][number]>, string])[] = [
    [{ state: "up" }, "ok"],
    [{ state: "failed", why: "fsck" }, "critical"],
    [{ state: "down", holder: null }, "warning"],
    [{ state: "down" }, "critical"],
    [{ state: "starting" }, "warning"],
    [{ state: "held-elsewhere", holder }, "ok"],
    [{ state: "held-elsewhere", holder: { ...holder, generation: "9" } }, "warning"],
    [{ state: "held-elsewhere", holder: null }, "unknown"],
  ];
  for (const [change, level] of groups) {
    it(`group ${JSON.stringify(change)} is ${level}`, () => {
      const report = assess({ groups: [{ ...web, ...change }] });
      assert.equal(report.level, level);
      assert.ok(level === "ok" || only(report).subject === "web");
    });
  }

  it("node states, versions and a slow answer are told", () => {
    const node = statusBody().node;
    assert.equal(assess({ node: { ...node, state: "lost", why: "T" } }).level, "critical");
    assert.equal(assess({ node: { ...node, state: "joining" } }).level, "warning");
    assert.equal(assess({ node: { ...node, state: "leaving" } }).level, "warning");
    assert.equal(only(assess({}, "0.2.0")).check, "versions");
    assert.equal(only(assess({}, "0.1.0", 1_000)).check, "daemon");
  });

  it("whatever is not ok has a remedy, for every combination of states", () => {
    const states = fc.constantFrom<MemberBody["state"]>(
      "live",
      "silent",
      "expired",
      "left",
      "foreign",
      "unreadable",
    );
    const age = fc.integer({ min: 0, max: 20_000 });
    fc.assert(
      fc.property(states, age, fc.option(age), (state, unchangedMs, expiresAfterMs) => {
        const report = assess({
          members: other({ state, unchangedMs, expiresAfterMs }),
          leases: [leaseBody({ holders: [holder] })],
          groups: [{ ...web, state: "held-elsewhere", holder }],
        });
        for (const one of report.findings) {
          assert.equal(one.level === "ok", one.remedy === null, JSON.stringify(one));
        }
        assert.equal(report.level, worstLevel(report.findings.map(({ level }) => level)));
      }),
    );
  });
});

describe("health without the daemon", () => {
  const why = { message: "no sharedhad answers", hint: "start it" };
  const look: LunsLook = {
    node: "n1",
    luns: [{ path: "/a", counts: true, state: "ok", why: null }],
    hosts: [
      { hostId: 1, name: "n1", state: "unchanged" },
      { hostId: 2, name: "n2", state: "changed" },
      { hostId: 3, name: "n3", state: "free" },
    ],
    windowMs: 2_000,
    trouble: undefined,
  };
  const levels = (report: HealthReport): readonly string[] =>
    report.findings.map(({ check, subject, level }) => `${check} ${subject ?? "-"} ${level}`);

  it("is critical for this node, and shows who lives", () => {
    const report = healthWithoutDaemon(why, look);
    assert.equal(report.level, "critical");
    assert.deepEqual(levels(report), [
      "daemon - critical",
      "quorum - ok",
      "members n1 warning",
      "members n2 ok",
      "watchdog - unknown",
      "groups - unknown",
    ]);
  });

  it("does not call members dead that it cannot see", () => {
    const luns = ["/a", "/b", "/c"].map((path) => ({
      path,
      counts: path === "/a",
      state: "failed",
      why: "EIO",
    }));
    const report = healthWithoutDaemon(why, { ...look, luns, hosts: undefined });
    assert.ok(levels(report).includes("quorum - critical"));
    assert.ok(levels(report).includes("members - unknown"));
  });

  it("a region that cannot be opened is told with its remedy", () => {
    const trouble = { message: "/a is no region", hint: "sharedha init /a" };
    const report = healthWithoutDaemon(why, { ...look, trouble });
    assert.equal(report.findings.at(1)?.text, "/a is no region");
    assert.equal(report.findings.at(1)?.remedy, "sharedha init /a");
  });

  it("a machine that is no member is unknown", () => {
    assert.equal(exitCodeOfLevel(healthOfNobody("/var/lib/sharedha").level), 3);
  });
});

describe("health text and plugin line", () => {
  it("prints level, check, sentence and remedy", () => {
    const text = healthText(assess({ heartbeatMs: 1_600 }), plain);
    assert.match(text, /^health warning\n {2}ok {8}daemon {5}/m);
    assert.match(
      text,
      /\n {2}warning {3}heartbeat {2}own heartbeat 1.6 s ago, the node is lost at 3 s\n +remedy: Look at/,
    );
  });

  it("is one line that a plugin host understands", () => {
    const ok = healthPluginLine(assess());
    assert.match(
      ok,
      /^SHAREDHA OK - n1 is a member, own heartbeat 130 ms ago, 2 of 2 members live, 1 of 1 LUN usable, 1 needed, 1 of 1 leases held \| /,
    );
    assert.match(ok, /'heartbeat'=130ms;1500;3000;0/);
    assert.match(ok, /'members'=2;2:;1:;0/);
    assert.match(ok, /'members n2'=120ms;3000;6500;0/);
    const lost = healthPluginLine(
      assess({ node: { ...statusBody().node, state: "lost", why: "a|b\nc" } }),
    );
    assert.match(lost, /^SHAREDHA CRITICAL - n1 has lost its membership: a\/b c \| /);
  });

  it("no name can break the line or its figures", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (name) => {
        const line = healthPluginLine(assess({ members: other({ name }) }));
        assert.equal(line.indexOf("\n"), line.length - 1);
        assert.equal(line.split("|").length, 2);
        const [, figures = ""] = line.split(" | ");
        const rest = figures.trimEnd().replace(/'[^']*'=[\d.]+(ms)?;[\d.]*:?;[\d.]*:?;0( |$)/g, "");
        assert.equal(rest, "");
      }),
    );
  });
});

describe("levels", () => {
  it("critical counts more than warning, warning more than unknown, unknown more than ok", () => {
    assert.equal(worstLevel(["ok", "unknown"]), "unknown");
    assert.equal(worstLevel(["unknown", "warning"]), "warning");
    assert.equal(worstLevel(["critical", "warning", "unknown"]), "critical");
    assert.deepEqual(
      (["ok", "warning", "critical", "unknown"] as const).map(exitCodeOfLevel),
      [0, 1, 2, 3],
    );
  });
});
