import assert from "node:assert/strict";

import { doctorText } from "../../../lib/cli/doctor-text.js";
import { wrap } from "../../../lib/cli/text.js";
import {
  diagnosis,
  type DoctorFinding,
  type DoctorReport,
  levelOf,
} from "../../../lib/doctor/doctor-finding.js";
import { summaryOf } from "../../../lib/doctor/rules/latency-rules.js";
import { yardstick } from "../doctor/samples.js";

const plain = (_style: unknown, text: string): string => text;

function report(
  findings: readonly DoctorFinding[],
  change: Partial<DoctorReport> = {},
): DoctorReport {
  return {
    level: levelOf(findings),
    profile: yardstick("default"),
    paths: ["/dev/sda"],
    findings,
    latency: [],
    ...change,
  };
}

const fine = diagnosis("kernel", "ok", "Linux 6.1", "It matters.");
const info = diagnosis("reservations", "info", "a file", "It matters.", { subject: "/dev/sda" });
const bad = diagnosis("iscsi", "warning", "I/O waits for 2 min", "It may land late.", {
  subject: "/dev/sda",
  remedy: "sharedha iscsi timers iqn.x --profile default",
});
const worst = diagnosis("systemd", "critical", "takes it", "It pets.", {
  remedy: "RuntimeWatchdogSec=0",
});

describe("doctor's text", () => {
  it("says in one line that all is well, then what was looked at", () => {
    assert.equal(
      doctorText(report([fine], { paths: [] }), plain, 0),
      "doctor all is well\n" +
        "judged by profile default: h 500 ms, d 1.0 s, T 3.0 s, W 5.0 s\n\n" +
        "this machine\n  ok  kernel  Linux 6.1\n\n" +
        "No LUN was looked at: sharedha doctor PATH...\n",
    );
  });

  it("puts what is wrong first, the worst on top, with reason and remedy", () => {
    const text = doctorText(report([fine, info, bad, worst]), plain, 0);
    assert.equal(
      text.slice(0, text.indexOf("this machine")),
      "doctor 1 critical, 1 warning\n" +
        "judged by profile default: h 500 ms, d 1.0 s, T 3.0 s, W 5.0 s\n\n" +
        "critical  systemd: takes it\n" +
        "          why: It pets.\n" +
        "          fix: RuntimeWatchdogSec=0\n\n" +
        "warning   iscsi of /dev/sda: I/O waits for 2 min\n" +
        "          why: It may land late.\n" +
        "          fix: sharedha iscsi timers iqn.x --profile default\n\n" +
        "note      reservations of /dev/sda: a file\n\n",
    );
  });

  it("draws every bucket, and a single slow read can be seen", () => {
    const samples = [...Array.from({ length: 499 }, () => 0.15), 90];
    const text = doctorText(
      report([fine], { latency: [summaryOf("/dev/sda", samples)] }),
      plain,
      0,
    );
    assert.match(text, /500 direct reads of \/dev\/sda\n/);
    assert.match(text, / {2}up to {3}0\.2 ms {2}#{40} {3}499\n/);
    assert.match(text, / {2}up to {4}50 ms {2} {40} {5}0\n {2}up to {3}100 ms {2}# {39} {5}1\n/);
  });

  it("wraps at the terminal's width, but never wider than 100, and keeps control characters out", () => {
    const long = diagnosis("region", "warning", `${"word ".repeat(60)}\u001b[2J`, "Why.", {
      remedy: "x",
    });
    for (const [columns, limit] of [
      [0, 100],
      [72, 72],
      [300, 100],
      [10, 60],
    ] as const) {
      const text = doctorText(report([long]), plain, columns);
      // The footer is one line of its own.
      const lines = text.split("\n").filter((line) => line.startsWith(" "));
      assert.ok(Math.max(...lines.map((line) => line.length)) <= limit, `${columns}`);
      assert.ok(!text.includes("\u001b"));
    }
  });

  it("breaks at blanks only, so that a command can be copied", () => {
    assert.deepEqual(wrap("a bb ccc", 4), ["a bb", "ccc"]);
    assert.deepEqual(wrap("/a/path/that/is/long x", 4), ["/a/path/that/is/long", "x"]);
    assert.deepEqual(wrap("", 4), [""]);
  });
});
