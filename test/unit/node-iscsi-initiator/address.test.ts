import assert from "node:assert/strict";

import fc from "fast-check";

import {
  formatIscsiUrl,
  formatPortal,
  isSamePortal,
  parseIscsiUrl,
  parsePortal,
  parseTargetName,
} from "../../../lib/node-iscsi-initiator/address.js";
import { ShareHaError } from "../../../lib/errors.js";
import { failure } from "./fixture.js";

describe("portal", () => {
  it("has port 3260 unless it says another", () => {
    assert.deepEqual(parsePortal("10.77.0.9"), { address: "10.77.0.9", port: 3260 });
    assert.deepEqual(parsePortal("10.77.0.9:3261"), { address: "10.77.0.9", port: 3261 });
    assert.deepEqual(parsePortal("SAN.example:1"), { address: "san.example", port: 1 });
  });

  it("takes IPv6 with and without brackets, and writes it in one spelling", () => {
    const plain = { address: "fd00::9", port: 3260 };
    assert.deepEqual(parsePortal("fd00::9"), plain);
    assert.deepEqual(parsePortal("[fd00::9]"), plain);
    assert.deepEqual(parsePortal("[FD00:0:0::0009]:3261"), { ...plain, port: 3261 });
    assert.equal(formatPortal(parsePortal("[fd00:0::9]")), "[fd00::9]:3260");
    assert.equal(formatPortal(parsePortal("[fe80::1%eth0]:3260")), "[fe80::1%eth0]:3260");
    assert.ok(isSamePortal(plain, { address: "FD00:0000::9", port: 3260 }));
  });

  for (const bad of [
    "",
    ":3260",
    "10.77.0.9:",
    "10.77.0.9:0",
    "10.77.0.9:65536",
    "10.77.0.9:1x",
    "10.77.0.256",
    "10.77.0.9,1",
    "[10.77.0.9]:3260",
    "[fd00::9",
    "fd00::9]:3260",
    "[]:3260",
    "san example",
    "-p",
    "san/x",
    "a\nb",
    "é",
    "a".repeat(254),
  ]) {
    it(`refuses ${JSON.stringify(bad.slice(0, 20))}`, () => {
      assert.throws(() => parsePortal(bad), failure("ERR_ISCSI_PORTAL", /\[IPV6\]:PORT/));
    });
  }

  it("is the same after it was written and read again, whatever the text was", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.ipV4(), fc.ipV6(), fc.domain()),
        fc.nat(70_000),
        (host, port) => {
          for (const text of [host, `${host}:${port}`, `[${host}]:${port}`]) {
            const portal = portalOrError(text);
            if (portal !== undefined) {
              assert.deepEqual(parsePortal(formatPortal(portal)), portal);
            }
          }
        },
      ),
    );
  });
});

function portalOrError(text: string): { address: string; port: number } | undefined {
  try {
    return parsePortal(text);
  } catch (error) {
    assert.ok(error instanceof ShareHaError);
    return undefined;
  }
}

describe("target name", () => {
  it("is iqn, eui or naa, in lower case", () => {
    for (const name of [
      "iqn.2026-11.lab:data",
      "iqn.1992-01.com.example",
      "iqn.2001-05.com.example:a-b.c:d_e",
      "eui.02004567a425678d",
      "naa.52004567ba64678d",
      `naa.${"6".repeat(32)}`,
    ]) {
      assert.equal(parseTargetName(name.toUpperCase()), name);
    }
  });

  for (const bad of [
    "",
    "data",
    "iqn.2026.lab:data",
    "iqn.2026-13.lab:data",
    "iqn.2026-11.lab:",
    "iqn.2026-11.:x",
    "iqn.2026-11.lab:a b",
    "iqn.2026-11.lab:a/b",
    "iqn.2026-11.lab:../../etc",
    "iqn.2026-11.lab\n:x",
    "eui.1",
    "naa.5200",
    `iqn.2026-11.lab:${"x".repeat(224)}`,
  ]) {
    it(`refuses ${JSON.stringify(bad.slice(0, 24))}`, () => {
      assert.throws(
        () => parseTargetName(bad),
        failure("ERR_ISCSI_TARGET_NAME", /discover PORTAL/),
      );
    });
  }
});

describe("iscsi:// address", () => {
  it("names portal, target and LUN, and has one spelling", () => {
    const url = parseIscsiUrl("ISCSI://10.77.0.9/iqn.2026-11.LAB:data/1");
    assert.deepEqual(url, {
      portal: { address: "10.77.0.9", port: 3260 },
      target: "iqn.2026-11.lab:data",
      lun: 1,
    });
    assert.equal(formatIscsiUrl(url), "iscsi://10.77.0.9:3260/iqn.2026-11.lab:data/1");
    assert.equal(
      formatIscsiUrl(parseIscsiUrl("iscsi://[fd00::9]:3261/iqn.2026-11.lab:data/0")),
      "iscsi://[fd00::9]:3261/iqn.2026-11.lab:data/0",
    );
  });

  it("says what is wrong with another one", () => {
    for (const [bad, code] of [
      ["iscsi://10.77.0.9/iqn.2026-11.lab:data", "ERR_ISCSI_URL"],
      ["iscsi://10.77.0.9/iqn.2026-11.lab:data/x", "ERR_ISCSI_URL"],
      ["iscsi://10.77.0.9/iqn.2026-11.lab:data/16384", "ERR_ISCSI_URL"],
      ["iscsi://user:secret@10.77.0.9/iqn.2026-11.lab:data/0", "ERR_ISCSI_URL"],
      ["iscsi://10.77.0.999/iqn.2026-11.lab:data/0", "ERR_ISCSI_PORTAL"],
      ["iscsi://10.77.0.9/data/0", "ERR_ISCSI_TARGET_NAME"],
    ] as const) {
      assert.throws(() => parseIscsiUrl(bad), failure(code));
    }
  });
});
