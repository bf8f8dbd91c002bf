/** `sharedha doctor` as it is run: on real devices and files, on ones that hang, and on what is no LUN at all. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { type DoctorFinding, type DoctorReport } from "../../lib/doctor/doctor-finding.js";
import { PROFILES } from "../../lib/lease/timings.js";
import { createFaultyLun, type FaultyLun, whyNoFaultyLun } from "../helpers/hanging-lun.js";
import { whyNotRoot, Workshop } from "../helpers/loop-image.js";
import { findRoot } from "../helpers/root.js";
import { skipIf } from "../helpers/skip.js";

const MIB = 1024 * 1024;
const SHAREDHA = join(findRoot(), "dist/bin/sharedha.js");

interface Ran {
  readonly exitCode: number | null;
  readonly out: string;
  readonly err: string;
  readonly ms: number;
}

/** Resolves when the process has ended, and not when it has printed everything. */
async function sharedha(args: readonly string[]): Promise<Ran> {
  const startMs = performance.now();
  const child = spawn(process.execPath, [SHAREDHA, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const exitCode = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  return { exitCode, out, err, ms: performance.now() - startMs };
}

function digest(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

describe("sharedha doctor", function () {
  this.timeout(60_000);
  let shop: Workshop;

  before(function () {
    skipIf(this, whyNotRoot());
  });
  beforeEach(() => {
    shop = new Workshop();
  });
  afterEach(() => {
    shop.dispose();
  });

  const stateDir = (): string => join(shop.directory, "state");

  async function init(path: string, ...options: readonly string[]): Promise<void> {
    const { exitCode, err } = await sharedha(["init", path, "--cluster", "clinic", ...options]);
    assert.equal(exitCode, 0, err);
  }

  /** Runs it with --json, and holds the report to what docs/cli.md promises of it. */
  async function doctor(
    ...args: readonly string[]
  ): Promise<DoctorReport & { readonly ms: number }> {
    const { exitCode, out, err, ms } = await sharedha([
      "doctor",
      ...args,
      "--json",
      "--state-dir",
      stateDir(),
    ]);
    assert.equal(err, "");
    const report = JSON.parse(out) as DoctorReport;
    assert.deepEqual(Object.keys(report), ["level", "profile", "paths", "findings", "latency"]);
    assert.equal(exitCode, { ok: 0, info: 0, warning: 1, critical: 2, unknown: 3 }[report.level]);
    for (const finding of report.findings) {
      assert.ok(finding.text !== "" && finding.why !== "", JSON.stringify(finding));
      const isProblem = finding.level === "warning" || finding.level === "critical";
      assert.ok(!isProblem || (finding.remedy ?? "") !== "", JSON.stringify(finding));
    }
    return { ...report, ms };
  }

  function of(report: DoctorReport, path: string): Readonly<Record<string, DoctorFinding>> {
    return Object.fromEntries(
      report.findings.filter(({ subject }) => subject === path).map((one) => [one.check, one]),
    );
  }

  it("of a loop device with a region: everything is looked at, and not a byte is written", async () => {
    const file = shop.file("disk.img", 64 * MIB);
    const device = shop.loop(file);
    await init(device, "--profile", "default");
    const before = digest(file);
    const report = await doctor(device, "--profile", "fast");
    assert.equal(digest(file), before);
    assert.ok(report.ms < 15_000, `${report.ms} ms`);
    assert.deepEqual(report.profile, { profile: "fast", timings: PROFILES.fast, source: "option" });
    const seen = of(report, device);
    assert.deepEqual(Object.keys(seen).sort(), [
      "cache",
      "direct-io",
      "identity",
      "latency",
      "members",
      "region",
      "reservations",
      "sectors",
    ]);
    assert.equal(seen["direct-io"]!.level, "ok");
    assert.equal(seen["sectors"]!.level, "ok");
    assert.match(seen["region"]!.text, /region of cluster clinic, profile default/);
    assert.equal(seen["reservations"]!.level, "info");
    assert.match(seen["members"]!.text, /^nobody renewed within 2 s/);
    const [latency] = report.latency;
    assert.equal(latency!.path, device);
    assert.ok(latency!.count > 50 && latency!.maxMs >= latency!.p50Ms && latency!.p50Ms > 0);
    const machine = report.findings.filter(({ subject }) => subject === null);
    for (const check of [
      "kernel",
      "node.js",
      "clock",
      "virtual",
      "realtime",
      "memory",
      "sysrq",
      "tools",
      "systemd",
    ]) {
      assert.ok(
        machine.some((one) => one.check === check),
        check,
      );
    }
  });

  it("of a regular file takes the region's own profile, and the configuration's word about pauses", async () => {
    const config = join(shop.directory, "config.toml");
    writeFileSync(config, 'vm_pause = "never"\n');
    const file = shop.file("lun.img", 32 * MIB);
    await init(file, "--profile", "fast", "--config", config);
    const report = await doctor(file);
    assert.deepEqual([report.profile.profile, report.profile.source], ["fast", "region"]);
    assert.match(of(report, file)["cache"]!.text, /^a file/);
    const virtual = report.findings.find(({ check }) => check === "virtual")!;
    assert.notEqual(virtual.level, "warning", virtual.text);
  });

  it("sees a member renew", async () => {
    const file = shop.file("lun.img", 32 * MIB);
    await init(file);
    const joined = await sharedha([
      "join",
      file,
      "--node",
      "n1",
      "--watchdog",
      "none",
      "--state-dir",
      stateDir(),
    ]);
    assert.equal(joined.exitCode, 0, joined.err);
    try {
      // Without a path: those of node.json.
      const report = await doctor();
      assert.deepEqual(report.paths, [file]);
      const members = of(report, file)["members"]!;
      assert.match(members.text, /^n1 renewed within/);
      assert.equal(members.figure, 1);
    } finally {
      const left = await sharedha(["leave", "--state-dir", stateDir()]);
      assert.equal(left.exitCode, 0, left.err);
    }
  });

  it("of paths that are no LUNs, and of garbage, says what each is", async () => {
    const garbage = shop.file("garbage", 0);
    writeFileSync(garbage, Buffer.alloc(3 * MIB, "garbage!"));
    const empty = shop.file("empty", 0);
    const odd = shop.file("odd", 1_000);
    const missing = join(shop.directory, "missing");
    const report = await doctor(garbage, empty, odd, missing, shop.directory, "/dev/null");
    assert.equal(report.level, "critical");
    assert.match(of(report, garbage)["region"]!.text, /no region/);
    assert.equal(of(report, garbage)["region"]!.level, "info");
    assert.match(of(report, empty)["device"]!.text, /0 bytes/);
    const small = report.findings.find((one) => one.subject === odd && one.level === "warning")!;
    assert.deepEqual([small.check, small.figure, small.warningLimit], ["region", 1_000, 8 * MIB]);
    assert.match(of(report, missing)["device"]!.text, /^does not exist$/);
    assert.match(of(report, shop.directory)["device"]!.text, /no block device and no file/);
    assert.match(of(report, "/dev/null")["device"]!.text, /no block device and no file/);
  });

  it("notices one LUN by two paths, and a copy of a region", async () => {
    const file = shop.file("lun.img", 32 * MIB);
    await init(file);
    const device = shop.loop(file);
    const copy = shop.file("copy.img", 0);
    copyFileSync(file, copy);
    const report = await doctor(file, device, copy);
    const critical = report.findings
      .filter(({ level }) => level === "critical")
      .map(({ subject, text }) => `${subject ?? ""}: ${text}`);
    assert.equal(critical.length, 3, critical.join("\n"));
    assert.match(
      critical[0]!,
      /copy\.img: carries the region .* made on file:\d+; this device is file:\d+/,
    );
    assert.match(critical[1]!, /loop\d+: the same LUN as .*lun\.img/);
    assert.match(critical[2]!, /copy\.img: .*one is a copy of the other/);
  });

  it("for people begins with what is wrong and ends with what is fine", async () => {
    const { exitCode, out, err } = await sharedha([
      "doctor",
      "/nowhere",
      "--state-dir",
      stateDir(),
    ]);
    assert.equal(exitCode, 2);
    assert.equal(err, "");
    assert.match(
      out,
      /^doctor \d+ critical.*\njudged by profile default: [^]*critical {2}device of \/nowhere: does not exist\n {10}why: [^]*fix: [^]*\nthis machine\n {2}ok {2}/,
    );
    const widest = Math.max(...out.split("\n").map((line) => line.length));
    assert.ok(widest <= 100, `${widest} columns`);
  });

  it("keeps the exit code of bad usage, and looks at nothing then", async () => {
    const many = Array.from({ length: 9 }, (_, index) => `/nowhere/${index}`);
    for (const [args, pattern] of [
      [many, /9 paths are more than 8/],
      [["--profile", "slow"], /fast, default, multipath/],
    ] as const) {
      const { exitCode, out } = await sharedha([
        "doctor",
        ...args,
        "--json",
        "--state-dir",
        stateDir(),
      ]);
      assert.equal(exitCode, 2);
      const { error } = JSON.parse(out) as { error: { code: string; message: string } };
      assert.equal(error.code, "ERR_USAGE");
      assert.match(error.message, pattern);
    }
    mkdirSync(stateDir());
    writeFileSync(join(stateDir(), "node.json"), "{");
    const { exitCode, err } = await sharedha(["doctor", "--state-dir", stateDir()]);
    assert.equal(exitCode, 3);
    assert.match(err, /node\.json cannot be used/);
  });

  describe("of a LUN with a fault", () => {
    let lun: FaultyLun;

    beforeEach(async function () {
      skipIf(this, whyNoFaultyLun());
      lun = await createFaultyLun({ sizeBytes: 32 * MIB });
      await init(lun.path);
    });
    afterEach(async () => {
      await lun.close();
    });

    it("that hangs: ends all the same, while the device still hangs", async () => {
      await lun.hang();
      const report = await doctor(lun.path);
      assert.ok(report.ms < 30_000, `${report.ms} ms`);
      assert.equal(of(report, lun.path)["device"]!.level, "critical");
      assert.match(of(report, lun.path)["device"]!.text, /did not answer within/);
      assert.ok((await lun.counts()).held > 0, "it hangs still");
      // The machine has been looked at as if nothing were wrong.
      assert.ok(report.findings.some(({ check }) => check === "kernel"));
    });

    it("that begins to hang while it is measured: tells what it saw before", async () => {
      const running = doctor(lun.path);
      await new Promise((resolve) => setTimeout(resolve, 1_500));
      await lun.hang();
      const report = await running;
      assert.ok(report.ms < 30_000, `${report.ms} ms`);
      const latency = report.findings.filter(({ check }) => check === "latency");
      assert.match(latency[0]!.text, /a read did not come back within 5 s/);
      assert.ok(report.latency[0]!.count > 0);
      assert.match(of(report, lun.path)["region"]!.text, /cluster clinic/);
    });

    it("that fails every read: says with what error", async () => {
      await lun.failWith("EIO", { reads: true });
      const report = await doctor(lun.path);
      assert.match(of(report, lun.path)["device"]!.text, /EIO/);
      assert.equal(report.level, "critical");
    });
  });
});
