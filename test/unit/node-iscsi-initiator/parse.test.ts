import assert from "node:assert/strict";

import fc from "fast-check";

import {
  parseRecords,
  parseTargetPortals,
  parseVersion,
} from "../../../lib/node-iscsi-initiator/parse.js";
import { recorded, recordedFile } from "./fixture.js";

const DATA = "iqn.2026-11.lab:data";

describe("iscsiadm's lists", () => {
  it("discovery: portals, tags and targets", () => {
    assert.deepEqual(parseTargetPortals(recorded("03-discovery-st").stdout), {
      kind: "ok",
      value: ["san", "chap"].map((name) => ({
        target: `iqn.2026-01.lab:${name}`,
        portal: { address: "10.77.0.9", port: 3260 },
        tpgt: 1,
      })),
    });
  });

  it("node records: IPv4, IPv6, and one whose portal group is not known", () => {
    const { stdout } = recorded("58-node-no-tpgt");
    const list = stdout.split("\n").slice(1).join("\n");
    assert.deepEqual(parseTargetPortals(list), {
      kind: "ok",
      value: [
        { target: DATA, portal: { address: "127.0.0.1", port: 3260 }, tpgt: 1 },
        { target: DATA, portal: { address: "::1", port: 3260 }, tpgt: 1 },
        {
          target: "iqn.2026-11.lab:manual",
          portal: { address: "fe80::1", port: 3261 },
          tpgt: undefined,
        },
      ],
    });
  });

  it("an empty answer is an empty list", () => {
    assert.deepEqual(parseTargetPortals(""), { kind: "ok", value: [] });
  });

  for (const line of [
    "New discovery record for [127.0.0.1,3260] added.",
    "10.77.0.9:3260 iqn.2026-11.lab:data",
    "10.77.0.9:3260,1 iqn.2026-11.lab:data (offline)",
    "[10.77.0.9]:3260,1 iqn.2026-11.lab:data",
    "10.77.0.9:99999,1 iqn.2026-11.lab:data",
    "10.77.0.9:3260,70000 iqn.2026-11.lab:data",
    "tcp: [1] 10.77.0.9:3260,1 iqn.2026-11.lab:data (non-flash)",
  ]) {
    it(`a line that is not known is said to be: ${line}`, () => {
      const text = `${recorded("03-discovery-st").stdout}${line}\n`;
      assert.deepEqual(parseTargetPortals(text), { kind: "unknown", line });
    });
  }
});

describe("node records", () => {
  it("hold every parameter, empty ones as undefined", () => {
    const parsed = parseRecords(recorded("07-node-show").stdout);
    assert.ok(parsed.kind === "ok");
    const [record] = parsed.value;
    assert.equal(parsed.value.length, 1);
    assert.ok(record);
    assert.equal(record.get("node.name"), "iqn.2026-01.lab:san");
    assert.equal(record.get("node.session.timeo.replacement_timeout"), "120");
    assert.equal(record.get("node.conn[0].timeo.noop_out_interval"), "5");
    assert.equal(record.get("node.session.auth.username"), undefined);
    assert.equal(record.has("node.session.auth.username"), true);
    assert.equal(record.size, 107);
  });

  it("come one after the other", () => {
    const parsed = parseRecords(recorded("54-node-two-records").stdout);
    assert.ok(parsed.kind === "ok");
    assert.deepEqual(
      parsed.value.map((record) => record.get("node.conn[0].address")),
      ["127.0.0.1", "::1"],
    );
  });

  it("the file on disk has the same form", () => {
    const parsed = parseRecords(recordedFile("60-node-record-file"));
    assert.ok(parsed.kind === "ok");
    assert.equal(parsed.value[0]?.get("node.startup"), "automatic");
  });

  it("a value may have blanks, equal signs and hashes", () => {
    const parsed = parseRecords("# BEGIN RECORD 2.1.8\nnode.x = a = b # c\n# END RECORD\n");
    assert.ok(parsed.kind === "ok");
    assert.equal(parsed.value[0]?.get("node.x"), "a = b # c");
  });

  for (const [text, line] of [
    ["node.name = x\n", "node.name = x"],
    ["# BEGIN RECORD 2.1.8\nwhat\n# END RECORD\n", "what"],
    ["# BEGIN RECORD 2.1.8\n# BEGIN RECORD 2.1.8\n", "# BEGIN RECORD 2.1.8"],
    ["# BEGIN RECORD 2.1.8\nnode.name = x\n", "(the record has no end)"],
  ] as const) {
    it(`not known: ${JSON.stringify(text)}`, () => {
      assert.deepEqual(parseRecords(text), { kind: "unknown", line });
    });
  }
});

describe("version", () => {
  it("is that of Debian and of RHEL", () => {
    const { stdout } = recorded("00-version");
    assert.deepEqual(parseVersion(stdout.split("\n")[0] ?? ""), { kind: "ok", value: "2.1.8" });
    assert.deepEqual(parseVersion("iscsiadm version 6.2.1.4\n"), { kind: "ok", value: "6.2.1.4" });
  });

  it("is nothing else", () => {
    assert.deepEqual(parseVersion("iscsiadm 3\n"), { kind: "unknown", line: "iscsiadm 3" });
    assert.equal(parseVersion(recorded("00-version").stdout).kind, "unknown");
    assert.deepEqual(parseVersion(""), { kind: "unknown", line: "" });
  });
});

describe("parsers and arbitrary text", () => {
  const text = fc.oneof(
    fc.string({ maxLength: 4_000 }),
    fc.uint8Array({ maxLength: 4_000 }).map((bytes) => Buffer.from(bytes).toString("utf8")),
    // Near misses: recorded text with one piece replaced.
    fc
      .tuple(
        fc.constantFrom("03-discovery-st", "07-node-show", "58-node-no-tpgt", "14-nothing"),
        fc.nat(2_000),
        fc.nat(20),
        fc.string({ maxLength: 20 }),
      )
      .map(([name, at, length, piece]) => {
        const whole = name === "14-nothing" ? "x".repeat(3_000) : recorded(name).stdout;
        return whole.slice(0, at) + piece + whole.slice(at + length);
      }),
  );

  it("never throw, and take no longer than the text is long", () => {
    fc.assert(
      fc.property(text, (input) => {
        for (const parse of [parseTargetPortals, parseRecords, parseVersion]) {
          const startMs = performance.now();
          const parsed = parse(input);
          assert.ok(performance.now() - startMs < 1_000);
          if (parsed.kind === "unknown") {
            assert.ok(input.includes(parsed.line) || parsed.line.startsWith("(the record"));
          }
        }
      }),
      { numRuns: 500 },
    );
  });
});
