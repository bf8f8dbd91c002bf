import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { must, Workspace } from "../helpers/workspace.js";
import { skipIf } from "../helpers/skip.js";

const WORLD = fileURLToPath(new URL("iscsiadm-world.js", import.meta.url));
const PROGRAMS = ["iscsiadm", "tgtd", "tgtadm", "unshare", "ip", "python3"];

function whatIsMissing(): string | undefined {
  if (process.getuid?.() !== 0) {
    return "needs root";
  }
  const path = `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`.split(":");
  const missing = PROGRAMS.filter((name) => !path.some((dir) => existsSync(`${dir}/${name}`)));
  return missing.length === 0
    ? undefined
    : `${missing.join(", ")} not installed (Debian packages: open-iscsi tgt python3)`;
}

const missing = whatIsMissing();
const DATA = "iqn.2026-11.lab:data";
const FOUR = { target: DATA, portal: { address: "127.0.0.1", port: 3260 }, tpgt: 1 };
const SIX = { target: DATA, portal: { address: "::1", port: 3260 }, tpgt: 1 };

describe(`the real iscsiadm and a real target${missing === undefined ? "" : ` (skipped: ${missing})`}`, function () {
  this.timeout(60_000);
  let seen: Record<string, unknown>;

  before(async function () {
    skipIf(this, missing);
    const space = new Workspace("iscsiadm");
    try {
      const flags = ["--mount", "--net", "--propagation", "private"];
      const text = must("unshare", [...flags, process.execPath, WORLD, space.dir]);
      seen = JSON.parse(text) as Record<string, unknown>;
    } finally {
      assert.deepEqual(await space.clean(), []);
    }
  });

  it("discovery over IPv4 and IPv6 makes records that are listed", () => {
    assert.deepEqual(seen["found"], [[FOUR], [SIX]]);
    assert.deepEqual(seen["nodes"], [FOUR, SIX]);
    assert.match(String(seen["version"]), /^\d+\.\d+/);
  });

  it("timers are set in one record and not in the other, also the one that means never", () => {
    const change = { timer: "replacementTimeout", from: 120, effective: "record" };
    assert.deepEqual(seen["changes"], [{ ...change, portal: FOUR.portal, to: 3 }]);
    assert.deepEqual(seen["never"], [{ ...change, portal: SIX.portal, to: -1 }]);
  });

  it("CHAP that was written into the record's file is what iscsiadm has, and survives its updates and discoveries", () => {
    assert.deepEqual(seen["shown"], {
      "node.session.auth.authmethod": "CHAP",
      "node.session.auth.username": "labuser",
      "node.session.auth.password": "********",
      "node.session.auth.username_in": "labtarget",
      "node.session.auth.password_in": "********",
      "node.session.auth.chap_algs": "MD5",
    });
    const record = seen["record"] as readonly string[];
    assert.ok(record.includes("node.session.auth.password = lab secret = #1234"));
    assert.ok(record.includes("node.session.auth.password_in = targetsecret1"));
    assert.ok(record.includes("node.startup = automatic"));
    assert.equal(seen["mode"], 0o600);
    assert.deepEqual(
      (seen["beside"] as readonly string[]).filter((name) => name.startsWith(".")),
      [],
    );
  });

  it("CHAP of the discovery: missing, wrong, right, kept, removed", () => {
    assert.deepEqual(seen["discoveryChap"], {
      missing: "ERR_ISCSI_CHAP_MISSING",
      wrong: "ERR_ISCSI_CHAP_WRONG",
      right: "none",
      kept: "none",
      removed: "ERR_ISCSI_CHAP_MISSING",
    });
  });

  it("a value that iscsiadm turns into 0, a parameter that it does not know, a port where nobody listens", () => {
    assert.deepEqual(seen["bad"], {
      zero: "ERR_ISCSI_DATABASE",
      unknown: "ERR_ISCSI_ARGUMENT",
      refused: "ERR_ISCSI_UNREACHABLE",
    });
  });

  it("deleting a record twice is no error", () => {
    assert.deepEqual(seen["deleted"], ["deleted", "absent"]);
    assert.deepEqual(seen["left"], [SIX]);
  });
});
