import assert from "node:assert/strict";
import fc from "fast-check";

import {
  parseClusterConfig,
  requireClusterConfig,
  timingsOf,
} from "../../../lib/region/cluster-config.js";
import { PROFILES } from "../../../lib/lease/timings.js";
import { ShareHaError } from "../../../lib/errors.js";

function problems(text: string): readonly string[] {
  const result = parseClusterConfig(text);
  assert(result.kind === "invalid", "it was accepted");
  return result.problems.map(({ path, what }) => `${path}: ${what}`);
}

describe("cluster-config", () => {
  it("has safe defaults: virtual machines may be paused, a guard proves nothing, no foreign hosts", () => {
    assert.deepEqual(requireClusterConfig(""), {
      vmPause: "possible",
      acceptGuard: false,
      foreignWatchdog: false,
      foreignUnprotected: false,
      timers: {},
      groups: [],
    });
  });

  it("reads DESIGN 10's group as far as this version goes", () => {
    const config = requireClusterConfig(`
      vm_pause = "never"
      [timers]
      ttl_ms = 4000
      [group.web]
      device = "lun"
      mount = { path = "/srv/web", type = "ext4", options = "noatime" }
      nodes = ["n1", "n2"]
    `);
    assert.equal(config.vmPause, "never");
    assert.deepEqual(config.groups, [
      {
        name: "web",
        device: "lun",
        mount: { path: "/srv/web", type: "ext4", options: "noatime" },
        nodes: ["n1", "n2"],
      },
    ]);
    assert.equal(timingsOf(PROFILES.default, config).ttlMs, 4_000);
  });

  it("refuses an unknown key and names the known ones", () => {
    assert.deepEqual(problems('[group.web]\nip = ["192.0.2.1/24"]\nservices = []'), [
      'group.web: unknown key "ip", "services"; known are device, mount, nodes',
    ]);
    assert.match(problems("wm_pause = 1")[0] ?? "", /known are vm_pause, accept_guard/);
    assert.match(
      problems('[group.a.mount]\npath = "/srv/a"\ntype = "ext4"\nfsck = 1')[0] ?? "",
      /known are path, type, options/,
    );
  });

  it("says what is wrong, where, and how it is right", () => {
    assert.deepEqual(problems('accept_guard = "yes"'), ["accept_guard: it must be true or false"]);
    assert.deepEqual(problems('[group.a]\nmount = { path = "/srv/a", type = "btrfs" }'), [
      "group.a.mount.type: it must be one of ext4, xfs",
    ]);
    assert.deepEqual(problems("[timers]\nttl_ms = 4"), ["timers.ttl_ms: it must be at least 50"]);
    assert.deepEqual(problems("[timers]\nttl_ms = 4.5"), [
      "timers.ttl_ms: it must be a whole number",
    ]);
    assert.match(problems("[group.a\n")[0] ?? "", /^: line 1, column \d+: /);
    const result = parseClusterConfig('[group.a]\nnodes = "n1"');
    assert(result.kind === "invalid" && result.problems[0]?.example === 'nodes = ["n1", "n2"]');
  });

  it("refuses timers that do not go together", () => {
    const config = requireClusterConfig("[timers]\nttl_ms = 1000");
    assert.throws(
      () => timingsOf(PROFILES.default, config),
      (error: unknown) => error instanceof ShareHaError && error.code === "ERR_TIMINGS",
    );
  });

  it("never throws, whatever the text", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.json()), (text) => {
        const result = parseClusterConfig(text);
        assert(result.kind === "ok" || result.problems.length > 0);
      }),
    );
    assert.equal(parseClusterConfig("#".repeat(100_000)).kind, "invalid");
  });
});
