import assert from "node:assert/strict";

import fc from "fast-check";

import { judgeDevice } from "../../../lib/doctor/rules/device-rules.js";
import { judgeLatency, summaryOf } from "../../../lib/doctor/rules/latency-rules.js";
import { failoverMs } from "../../../lib/doctor/rules/iscsi-rules.js";
import { judgePaths } from "../../../lib/doctor/rules/path-rules.js";
import {
  judgeIdentity,
  judgeRegion,
  judgeTogether,
} from "../../../lib/doctor/rules/region-rules.js";
import { judgeReservations } from "../../../lib/doctor/rules/reservation-rules.js";
import { type DoctorFinding } from "../../../lib/doctor/doctor-finding.js";
import { type LunLook } from "../../../lib/doctor/lun-facts.js";
import {
  CAPABLE,
  disk,
  diskPath,
  lun,
  probe,
  scsi,
  session,
  superblock,
  the,
  troubles,
  yardstick,
} from "./samples.js";

const UNREADY = { region: undefined, latency: undefined, hosts: undefined, vmPause: undefined };

describe("doctor: a device", () => {
  it("nothing is wrong with a healthy one", () => {
    const findings = judgeDevice(lun());
    assert.deepEqual(troubles(findings), []);
    assert.deepEqual(
      findings.map(({ check }) => check),
      ["direct-io", "sectors", "cache"],
    );
    for (const { subject } of findings) {
      assert.equal(subject, "/dev/sda");
    }
  });

  it("one that cannot be opened says why, without its name twice", () => {
    const trouble = {
      code: "ERR_NO_SUCH_DEVICE",
      message: "/dev/sda does not exist",
      hint: "Check.",
    };
    const findings = judgeDevice(lun({ ...UNREADY, trouble, probe: undefined, disk: undefined }));
    const { text, remedy } = the(findings, "critical device");
    assert.deepEqual([text, remedy], ["does not exist", "Check."]);
  });

  it("one that refuses direct I/O, also when only the second opening shows it", () => {
    const content = {
      kind: "failed",
      code: "ERR_DIRECT_IO",
      reason: "no O_DIRECT",
      remedy: "ext4",
    } as const;
    const region = { content, window: { offset: 0, length: 0 }, isOpen: false };
    const { text } = the(judgeDevice(lun({ ...UNREADY, region })), "critical direct-io");
    assert.equal(text, "no O_DIRECT");
  });

  it("one that hangs, and a look that dies, are findings", () => {
    const late = lun({ ...UNREADY, end: { kind: "late", timeoutMs: 22_000 } });
    const finding = the(judgeDevice(late), "critical device");
    assert.deepEqual([finding.figure, finding.unit], [22_000, "ms"]);
    const dead = lun({ ...UNREADY, end: { kind: "failed", why: "SIGKILL" } });
    assert.match(the(judgeDevice(dead), "warning device").text, /SIGKILL/);
  });

  it("a configuration that cannot be read is no trouble of the device", () => {
    const trouble = { code: "ERR_CONFIG_DOCUMENT", message: "not JSON", hint: "Apply one." };
    assert.deepEqual(troubles(judgeDevice(lun({ trouble }))), ["warning region"]);
  });

  it("its place in /sys that cannot be read", () => {
    const findings = judgeDevice(lun({ disk: { kind: "failed", why: "EIO" } }));
    assert.match(the(findings, "warning device").text, /EIO/);
  });

  it("sectors of other sizes, and a region that straddles physical ones", () => {
    const odd = judgeDevice(lun({ probe: probe({ sectorSize: 520 }) }));
    assert.equal(the(odd, "critical sectors").figure, 520);
    const region = { ...lun().region!, window: { offset: 512 * 63, length: 1 } };
    assert.equal(the(judgeDevice(lun({ region })), "warning sectors").figure, 3_584);
    const shifted = lun({ disk: { kind: "ok", value: disk({ alignmentOffset: 512 }) } });
    assert.equal(the(judgeDevice(shifted), "warning sectors").figure, 512);
  });

  it("a cache that the kernel was told not to flush", () => {
    const silenced = lun({ disk: { kind: "ok", value: disk({ writeCache: "write through" }) } });
    assert.match(the(judgeDevice(silenced), "critical cache").remedy!, /sda\/queue\/write_cache/);
    const through = disk({
      writeCache: "write through",
      paths: [diskPath({ cacheType: "write through" })],
    });
    assert.deepEqual(troubles(judgeDevice(lun({ disk: { kind: "ok", value: through } }))), []);
  });

  it("a volatile cache that cannot be flushed; one that is not volatile need not be", () => {
    const flush = { kind: "unsupported", why: "illegal request (20/00)" } as const;
    const deaf = { scsi: { sda: scsi({ flush }) } };
    assert.match(the(judgeDevice(lun(deaf)), "critical cache").text, /SYNCHRONIZE CACHE/);
    const paths = [diskPath({ cacheType: "write through" })];
    const value = disk({ writeCache: "write through", paths });
    assert.deepEqual(troubles(judgeDevice(lun({ ...deaf, disk: { kind: "ok", value } }))), []);
  });

  it("FUA or a flush is named; a kernel that does not tell is a warning", () => {
    const cacheOf = (change: Parameters<typeof disk>[0]): DoctorFinding =>
      judgeDevice(lun({ disk: { kind: "ok", value: disk(change) } })).at(-1)!;
    assert.match(cacheOf({ fua: true }).text, /FUA/);
    assert.match(cacheOf({ fua: false }).text, /flushes/);
    assert.equal(cacheOf({ writeCache: undefined }).level, "warning");
  });

  it("a file has neither sectors nor a cache of its own", () => {
    const file = lun({ probe: probe({ isBlock: false }), disk: undefined, scsi: {} });
    assert.deepEqual(
      judgeDevice(file).map(({ check, level }) => `${level} ${check}`),
      ["ok direct-io", "ok cache"],
    );
  });
});

describe("doctor: latency", () => {
  const judge = (
    samples: readonly number[],
    profile: "fast" | "default" | "multipath" = "default",
  ): string => {
    const findings = judgeLatency(
      "/dev/sda",
      { samples, end: undefined, readBytes: 512 },
      yardstick(profile),
    );
    assert.equal(findings.length, 1);
    return findings[0]!.level;
  };
  const mostly = (ms: number, ...rest: readonly number[]): readonly number[] => [
    ...Array.from({ length: 500 - rest.length }, () => ms),
    ...rest,
  ];

  it("is held against d and T of the profile", () => {
    assert.equal(judge(mostly(1)), "ok");
    assert.equal(judge(mostly(1, 999)), "ok");
    assert.equal(judge(mostly(1, 1_000)), "warning");
    assert.equal(judge(mostly(499)), "ok");
    assert.equal(judge(mostly(500)), "warning");
    assert.equal(judge(mostly(1_000)), "critical");
    assert.equal(judge(mostly(1, 2_999)), "warning");
    assert.equal(judge(mostly(1, 3_000)), "critical");
    assert.equal(judge(mostly(1, 3_000), "multipath"), "ok");
    assert.equal(judge(mostly(1, 600), "fast"), "warning");
  });

  it("names the profile that fits, and how to get it", () => {
    const [finding] = judgeLatency(
      "/dev/sda",
      { samples: mostly(300, 1_500), end: undefined, readBytes: 512 },
      yardstick("fast"),
    );
    assert.equal(finding!.level, "critical");
    assert.match(finding!.text, /profile multipath fits/);
    assert.match(finding!.remedy!, /--profile multipath/);
    assert.deepEqual([finding!.figure, finding!.limit, finding!.warningLimit], [1_500, 1_000, 500]);
    const [quick] = judgeLatency(
      "/dev/sda",
      { samples: mostly(1), end: undefined, readBytes: 512 },
      yardstick("default"),
    );
    assert.match(quick!.text, /profile fast fits/);
    const [slow] = judgeLatency(
      "/dev/sda",
      { samples: mostly(6_000), end: undefined, readBytes: 512 },
      yardstick("multipath"),
    );
    assert.match(slow!.text, /no profile fits/);
  });

  it("a read that failed or did not come back is critical, with what was measured before", () => {
    const late = judgeLatency(
      "/dev/sda",
      { samples: [1], end: { kind: "late", afterMs: 5_000 }, readBytes: 512 },
      yardstick("default"),
    );
    assert.deepEqual(
      late.map(({ level }) => level),
      ["critical", "ok"],
    );
    const failed = judgeLatency(
      "/dev/sda",
      { samples: [], end: { kind: "failed", why: "EIO" }, readBytes: 512 },
      yardstick("default"),
    );
    assert.match(the(failed, "critical latency").text, /EIO/);
  });

  it("percentiles and histogram hold every sample once, whatever they are", () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 20_000, noNaN: true }), { minLength: 1, maxLength: 600 }),
        (samples) => {
          const { count, p50Ms, p99Ms, p999Ms, maxMs, histogram } = summaryOf("x", samples);
          assert.equal(count, samples.length);
          assert.equal(maxMs, Math.max(...samples));
          assert.ok(p50Ms <= p99Ms && p99Ms <= p999Ms && p999Ms <= maxMs);
          assert.equal(
            histogram.reduce((sum, bucket) => sum + bucket.count, 0),
            samples.length,
          );
          assert.ok(histogram[0]!.count > 0 && histogram.at(-1)!.count > 0);
        },
      ),
    );
  });
});

describe("doctor: reservations", () => {
  const judge = (change: Partial<LunLook>): readonly DoctorFinding[] =>
    judgeReservations(lun(change));
  const withCapabilities = (change: object): Partial<LunLook> => ({
    scsi: { sda: scsi({ reservations: { kind: "ok", value: { ...CAPABLE, ...change } } }) },
  });

  it("a target with all of them is fine", () => {
    assert.deepEqual(troubles(judge({})), []);
    assert.match(judge({})[0]!.text, /WE EA WERO EARO WEAR EAAR/);
  });

  it("what is no SCSI disk has the region's", () => {
    const file = { scsi: {}, probe: probe({ isBlock: false }), disk: undefined };
    assert.match(the(judge(file), "info reservations").text, /^a file: /);
    assert.match(the(judge({ scsi: {} }), "info reservations").text, /^no SCSI disk: /);
    const unsupported = scsi({ reservations: { kind: "unsupported", why: "illegal request" } });
    assert.match(
      the(judge({ scsi: { sda: unsupported } }), "info reservations").text,
      /region only/,
    );
  });

  it("a target that forgets them at a restart (tgt)", () => {
    const findings = judge(withCapabilities({ persistThroughPowerLossCapable: false }));
    assert.match(the(findings, "warning reservations").text, /PTPL_C 0/);
  });

  it("a target without a type that many nodes can share", () => {
    const findings = judge(withCapabilities({ types: ["WE", "EA"] }));
    assert.match(the(findings, "warning reservations").text, /only WE, EA/);
    assert.deepEqual(troubles(judge(withCapabilities({ types: undefined }))), []);
    assert.deepEqual(troubles(judge(withCapabilities({ types: ["WERO"] }))), []);
  });

  it("two paths that answer differently; what every registration changes is no difference", () => {
    const second = (change: object): Partial<LunLook> => ({
      scsi: { sda: scsi(), ...renamed(withCapabilities(change)) },
    });
    const renamed = ({ scsi: looks }: Partial<LunLook>): LunLook["scsi"] => ({
      sdb: looks!["sda"]!,
    });
    assert.match(
      the(judge(second({ allTargetPorts: false })), "critical reservations").text,
      /sda and sdb/,
    );
    assert.deepEqual(troubles(judge(second({ persistThroughPowerLossActive: true }))), []);
  });

  it("an old reservation, a path that does not answer, what a target had to report", () => {
    assert.match(
      the(
        judge({ scsi: { sda: scsi({ reservations: { kind: "conflict" } }) } }),
        "critical reservations",
      ).text,
      /SPC-2/,
    );
    const silent = { kind: "failed", why: "no answer within 12000 ms" } as const;
    assert.match(the(judge({ scsi: { sda: silent } }), "warning reservations").text, /12000 ms/);
    const reported = judge({ scsi: { sda: scsi({ attentions: ["unit attention (2a/03)"] }) } });
    assert.match(the(reported, "info reservations").text, /2a\/03/);
    assert.equal(reported.at(-1)!.level, "ok");
  });
});

describe("doctor: paths and sessions", () => {
  const judge = (
    value: ReturnType<typeof disk>,
    change: Partial<LunLook> = {},
  ): readonly DoctorFinding[] =>
    judgePaths(lun({ disk: { kind: "ok", value }, ...change }), yardstick("default"));

  it("one path with fitting timers is fine", () => {
    const findings = judge(disk());
    assert.deepEqual(troubles(findings), []);
    assert.deepEqual(
      findings.map(({ check }) => check),
      ["paths", "iscsi", "iscsi"],
    );
  });

  it("a second path without a map, a path in place of its map, a path that is down", () => {
    assert.match(
      the(judge(disk({ strayPaths: ["sdb"] })), "warning paths").text,
      /^sdb leads to the same LUN/,
    );
    assert.match(
      the(judge(disk({ maps: ["mpatha"] })), "critical paths").remedy!,
      /\/dev\/mapper\/mpatha/,
    );
    const down = disk({ paths: [diskPath({ state: "transport-offline" })] });
    assert.match(the(judge(down), "critical paths").text, /transport-offline/);
  });

  it("the stock timers of open-iscsi wait far beyond T", () => {
    const stock = session({ recoverySeconds: 120, pingIntervalSeconds: 5, pingTimeoutSeconds: 5 });
    const findings = judge(disk({ paths: [diskPath({ iscsi: stock })] }));
    assert.deepEqual(troubles(findings), ["warning iscsi", "warning iscsi"]);
    assert.deepEqual(
      findings
        .filter(({ level }) => level === "warning")
        .map(({ figure, warningLimit, remedy }) => [figure, warningLimit, remedy]),
      [
        [
          10_000,
          3_000,
          "sharedha iscsi timers iqn.2026-01.lab:san --profile default; then, while nothing uses its disks, sharedha iscsi logout iqn.2026-01.lab:san and login iqn.2026-01.lab:san",
        ],
        [120_000, 3_000, "sharedha iscsi timers iqn.2026-01.lab:san --profile default"],
      ],
    );
  });

  it("the quickest timers there are fit also the profile whose T is shorter", () => {
    const fast = judgePaths(lun(), yardstick("fast"));
    assert.deepEqual(troubles(fast), []);
  });

  it("pings that are off, recovery for ever, timers that are not told, a session that is down", () => {
    const of = (change: Parameters<typeof session>[0]): readonly DoctorFinding[] =>
      judge(disk({ paths: [diskPath({ iscsi: session(change) })] }));
    assert.match(the(of({ pingIntervalSeconds: 0 }), "warning iscsi").text, /pings are off/);
    assert.match(the(of({ recoverySeconds: null }), "warning iscsi").text, /for ever/);
    assert.match(
      the(of({ pingTimeoutSeconds: null }), "warning iscsi").text,
      /could not be looked at/,
    );
    assert.match(the(of({ state: "FAILED" }), "critical iscsi").text, /FAILED/);
  });

  it("what waits exactly as long as allowed still fits", () => {
    const exact = session({ recoverySeconds: 3, pingIntervalSeconds: 2, pingTimeoutSeconds: 1 });
    assert.deepEqual(troubles(judge(disk({ paths: [diskPath({ iscsi: exact })] }))), []);
  });

  it("a dead path gives up after the sum of its timers, or never when one of them is off", () => {
    assert.equal(
      failoverMs(session({ recoverySeconds: 5, pingIntervalSeconds: 2, pingTimeoutSeconds: 3 })),
      10_000,
    );
    assert.equal(failoverMs(session({ recoverySeconds: 0 })), 2_000);
    for (const off of [
      { recoverySeconds: null },
      { pingIntervalSeconds: 0 },
      { pingIntervalSeconds: null },
      { pingTimeoutSeconds: 0 },
      { pingTimeoutSeconds: null },
    ]) {
      assert.equal(failoverMs(session(off)), Infinity, JSON.stringify(off));
    }
  });

  it("a file, a virtio disk and what could not be probed have no paths to judge", () => {
    assert.deepEqual(judgePaths(lun({ disk: undefined }), yardstick("default")), []);
    assert.deepEqual(judge(disk({ paths: [] })), []);
    const failed = { kind: "failed", why: "EIO" } as const;
    assert.deepEqual(judgePaths(lun({ disk: failed }), yardstick("default")), []);
  });

  const map = { name: "dm-0", map: "mpatha" };
  const facts = {
    queuesIfNoPath: false,
    pathsUsable: { "8:0": true, "8:16": true },
    queueing: "-",
    pollingSeconds: 5,
    problems: [],
  };
  const fc1 = diskPath({ transport: "fc", iscsi: undefined, fastIoFailSeconds: 1 });
  const fc2 = { ...fc1, name: "sdb", number: "8:16" };
  const mapped = (
    paths: readonly ReturnType<typeof diskPath>[],
    change: Partial<typeof facts> | { queueing: undefined } = {},
    profile: "default" | "multipath" = "default",
  ): readonly DoctorFinding[] =>
    judgePaths(
      lun({
        disk: { kind: "ok", value: disk({ multipath: map, paths }) },
        multipath: { kind: "ok", value: { ...facts, ...change } },
      }),
      yardstick(profile),
    );

  it("two paths of a map that fail over in time are fine", () => {
    assert.deepEqual(troubles(mapped([fc1, fc2])), []);
  });

  it("one path only, one that device-mapper has failed, one that is offline, none", () => {
    assert.match(the(mapped([fc1]), "warning paths").text, /1 of 1/);
    const failed = mapped([fc1, fc2], { pathsUsable: { "8:0": true, "8:16": false } });
    assert.deepEqual(troubles(failed), ["warning paths", "warning paths"]);
    assert.match(failed[1]!.text, /sdb has failed/);
    const offline = mapped([fc1, { ...fc2, state: "offline" }]);
    assert.match(offline[1]!.text, /sdb is offline/);
    assert.deepEqual(troubles(offline), ["warning paths", "warning paths"]);
    assert.equal(mapped([{ ...fc1, state: "offline" }])[0]!.level, "critical");
  });

  it("a map that queues without a path: for ever, for a time, and within T", () => {
    const queues = { queuesIfNoPath: true };
    assert.match(
      the(mapped([fc1, fc2], queues), "warning paths").text,
      /for ever.*queue_if_no_path/,
    );
    const twelve = the(mapped([fc1, fc2], { ...queues, queueing: "12 chk" }), "warning paths");
    assert.deepEqual([twelve.figure, twelve.warningLimit], [60_000, 3_000]);
    assert.deepEqual(troubles(mapped([fc1, fc2], { ...queues, queueing: "2 sec" })), []);
    assert.deepEqual(troubles(mapped([fc1, fc2], { ...queues, queueing: "3 sec" })), [
      "warning paths",
    ]);
    assert.deepEqual(
      troubles(mapped([fc1, fc2], { ...queues, queueing: "2 chk", pollingSeconds: 1 })),
      [],
    );
  });

  it("a path that gives up later than T allows: FC and iSCSI", () => {
    // T 3 s, h 0.5 s, d 1 s: up to 1.5 s fit, from 2.5 s on the node is lost.
    const of = (seconds: number | null): string =>
      mapped([{ ...fc1, name: "sdx", fastIoFailSeconds: seconds }, fc2]).find(({ text }) =>
        text.startsWith("sdx gives up"),
      )!.level;
    assert.equal(of(1), "ok");
    assert.equal(of(1.5), "ok");
    assert.equal(of(2.5), "critical");
    assert.equal(of(2), "warning");
    assert.equal(of(3), "critical");
    assert.equal(of(null), "critical");
    const iscsi = mapped([diskPath(), fc2]);
    const late = the(iscsi, "critical paths");
    assert.deepEqual([late.figure, late.limit, late.warningLimit], [3_000, 2_500, 1_500]);
    // No timer of whole seconds fits T of 3 s; with 15 s the timers are what is wrong.
    assert.match(late.remedy!, /^sharedha init \/dev\/sda --profile multipath/);
    const stock = diskPath({ iscsi: session({ recoverySeconds: 120 }) });
    const slow = the(mapped([stock, fc2], {}, "multipath"), "critical paths");
    assert.equal(slow.remedy, "sharedha iscsi timers iqn.2026-01.lab:san --profile multipath");
    assert.match(
      the(mapped([fc1, { ...fc2, fastIoFailSeconds: 20 }], {}, "multipath"), "critical paths")
        .remedy!,
      /^fast_io_fail_tmo 9 /,
    );
    assert.deepEqual(troubles(mapped([diskPath(), fc2], {}, "multipath")), []);
  });

  it("what dmsetup and multipathd did not tell is said", () => {
    const findings = mapped([fc1, fc2], { problems: ["multipathd: not installed"] as never[] });
    assert.match(the(findings, "warning paths").text, /not installed/);
    const failed = judge(disk({ multipath: map, paths: [fc1, fc2] }), {
      multipath: { kind: "failed", why: "EPERM" },
    });
    assert.match(the(failed, "warning paths").text, /EPERM/);
  });
});

describe("doctor: identity and region", () => {
  it("what could not be looked at has no identity and no region to judge", () => {
    const dead = lun({ probe: undefined, ...UNREADY });
    assert.deepEqual(
      [...judgeIdentity(dead), ...judgeRegion(dead), ...judgeReservations(dead)],
      [],
    );
    assert.deepEqual(judgeRegion(lun(UNREADY)), []);
    assert.deepEqual(judgeTogether([dead, dead, lun(UNREADY)]), []);
  });

  it("a LUN with its own name and region is fine", () => {
    assert.deepEqual(troubles(judgeIdentity(lun())), []);
    assert.match(judgeIdentity(lun())[0]!.text, /36001405ab0+, 256 MiB/);
    assert.match(
      judgeRegion(lun())[0]!.text,
      /region of cluster office, profile default, uuid 1111/,
    );
  });

  it("a disk without a name, and one that only this machine has", () => {
    const nameless = lun({ probe: probe({ wwid: "dev:252:16" }) });
    assert.deepEqual(troubles(judgeIdentity(nameless)), ["warning identity"]);
    const local = disk({ paths: [diskPath({ transport: "ata", iscsi: undefined })] });
    const ata = lun({ disk: { kind: "ok", value: local } });
    assert.match(the(judgeIdentity(ata), "warning identity").text, /other nodes cannot see it/);
  });

  it("a copy of a region on another LUN is critical; an unnamed one cannot be compared", () => {
    const copy = lun({ probe: probe({ wwid: "36001other" }) });
    assert.match(
      the(judgeRegion(copy), "critical region").text,
      /made on 36001405ab.*is 36001other/,
    );
    assert.deepEqual(troubles(judgeRegion(lun({ probe: probe({ wwid: "dev:8:0" }) }))), [
      "info members",
    ]);
  });

  it("no region, another's data, a newer one, a damaged one, one cut off, one that cannot be read", () => {
    const of = (content: NonNullable<LunLook["region"]>["content"]): readonly string[] =>
      troubles(judgeRegion(lun({ region: { ...lun().region!, content } })));
    const reason = "r";
    const coded = { code: "ERR_LUN_READ", reason, remedy: "x" };
    assert.deepEqual(of({ kind: "blank" }), ["info region"]);
    assert.deepEqual(of({ kind: "foreign", reason }), ["info region"]);
    assert.deepEqual(of({ kind: "newer", reason }), ["critical region"]);
    assert.deepEqual(of({ kind: "corrupt", reason }), ["critical region"]);
    assert.deepEqual(of({ kind: "unusable", ...coded }), ["critical region"]);
    assert.deepEqual(of({ kind: "failed", ...coded }), ["warning region"]);
    assert.deepEqual(of({ kind: "failed", ...coded, code: "ERR_PERMISSION" }), []);
  });

  it("a device that is too small for a region", () => {
    const of = (sizeBytes: number, sectorSize = 512): readonly string[] =>
      troubles(
        judgeRegion(
          lun({
            probe: probe({ sizeBytes, sectorSize }),
            region: { ...lun().region!, content: { kind: "blank" } },
          }),
        ),
      );
    assert.deepEqual(of(8 * 2 ** 20), ["info region"]);
    assert.deepEqual(of(8 * 2 ** 20 - 1), ["warning region", "info region"]);
    assert.deepEqual(of(64 * 2 ** 20 - 1, 4_096), ["warning region", "info region"]);
    assert.deepEqual(troubles(judgeRegion(lun({ probe: probe({ sizeBytes: 1 }) }))), [
      "info members",
    ]);
  });

  it("who renews is named, who does not too, and damage is critical", () => {
    const hosts = {
      hosts: [
        { hostId: 1, name: "n1", state: "changed" },
        { hostId: 2, name: "n2", state: "unchanged" },
        { hostId: 3, name: "n3", state: "free" },
        { hostId: 4, name: "host-4", state: "unreadable" },
      ],
      windowMs: 2_000,
      failure: null,
    } as const;
    const findings = judgeRegion(lun({ hosts }));
    const members = the(findings, "info members");
    assert.match(members.text, /^n1 renewed within 2 s.*; n2 did not$/);
    assert.equal(members.figure, 1);
    assert.match(the(findings, "critical members").text, /host 4/);
    const failed = judgeRegion(lun({ hosts: { hosts: [], windowMs: 2_000, failure: "EIO" } }));
    assert.match(the(failed, "warning members").text, /EIO/);
  });

  it("one LUN by two paths, and a copy beside its original", () => {
    const other = lun({ path: "/dev/sdb" });
    const twice = the(judgeTogether([lun(), other]), "critical identity");
    assert.deepEqual(
      [twice.subject, twice.text],
      ["/dev/sdb", "the same LUN as /dev/sda (36001405ab00000000000000000000000)"],
    );
    const copy = lun({ path: "/dev/sdb", probe: probe({ wwid: "36002" }) });
    assert.match(the(judgeTogether([lun(), copy]), "critical identity").text, /copy of the other/);
    assert.deepEqual(judgeTogether([lun()]), []);
  });

  it("LUNs of two clusters, a set that is not whole, and one that is", () => {
    const place = (n: number): { uuid: string; wwid: string; incarnation: bigint } => ({
      uuid: `1111111${n}-1111-4111-8111-111111111111`,
      wwid: `3600${n}`,
      incarnation: 1n,
    });
    const luns = [place(0), place(1), place(2)];
    const member = (n: number, change: Partial<ReturnType<typeof superblock>> = {}): LunLook =>
      lun({
        path: `/dev/sd${n}`,
        probe: probe({ wwid: `3600${n}` }),
        region: {
          ...lun().region!,
          content: {
            kind: "superblock",
            superblock: superblock({
              lunCount: 3,
              luns,
              lunIndex: n,
              lunUuid: luns[n]!.uuid,
              wwid: `3600${n}`,
              ...change,
            }),
          },
        },
      });
    assert.deepEqual(judgeTogether([member(0), member(1), member(2)]), []);
    assert.deepEqual(troubles(judgeTogether([member(0), member(1)])), ["info region"]);
    const stranger = member(1, {
      clusterUuid: "33333333-3333-4333-8333-333333333333",
      clusterName: "other",
    });
    assert.match(the(judgeTogether([member(0), stranger]), "warning region").text, /cluster other/);
    const blank = {
      ...member(2),
      region: { ...lun().region!, content: { kind: "blank" } as const },
    };
    assert.match(
      the(judgeTogether([member(0), member(1), blank]), "warning region").text,
      /does not count/,
    );
    const blank1 = {
      ...member(1),
      region: { ...lun().region!, content: { kind: "blank" } as const },
    };
    assert.match(
      the(judgeTogether([member(0), blank1, blank]), "critical region").text,
      /Only 1 of 3/,
    );
  });
});
