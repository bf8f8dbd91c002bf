import assert from "node:assert/strict";

import { tearDown, type TeardownEdges, USERS_BOUND_MS } from "../../../lib/daemon/teardown.js";
import { type MountTarget } from "../../../lib/system/mounted-filesystem.js";
import { noSuchMount } from "../../helpers/mount-target.js";

function pathsOf(targets: readonly MountTarget[]): string {
  return targets.map(({ path }) => path).join(" ");
}

const USER = { pid: 4712, startTime: "2" };

function edges(log: string[], changes: Partial<TeardownEdges> = {}): TeardownEdges {
  let nowMs = 0;
  return {
    bootMs: () => (nowMs += 1),
    cut: (targets) => {
      log.push(`cut ${pathsOf(targets)}`);
      return Promise.resolve(targets.map(() => ({ kind: "cut" as const, why: "" })));
    },
    usersOf: (targets) => {
      log.push(`users of ${pathsOf(targets)}`);
      return Promise.resolve([USER]);
    },
    kill: ({ pid }) => {
      log.push(`kill ${pid}`);
    },
    unmount: (path) => {
      log.push(`unmount ${path}`);
      return Promise.resolve("unmounted");
    },
    detach: (path) => {
      log.push(`detach ${path}`);
      return Promise.resolve();
    },
    useOf: () => undefined,
    pause: (ms) => {
      nowMs += ms;
      return Promise.resolve();
    },
    ...changes,
  };
}

const PLAN = { mounts: ["/srv/a", "/srv/b"].map(noSuchMount), boundMs: 2_000 };

describe("tearDown", () => {
  it("kills the users, cuts every data path at once, kills who came meanwhile, and unmounts (DESIGN 8)", async () => {
    const log: string[] = [];
    const report = await tearDown(PLAN, edges(log));
    assert.deepEqual(log, [
      "users of /srv/a /srv/b",
      "kill 4712",
      "cut /srv/a /srv/b",
      "users of /srv/a",
      "kill 4712",
      "unmount /srv/a",
      "detach /srv/a",
      "users of /srv/b",
      "kill 4712",
      "unmount /srv/b",
      "detach /srv/b",
    ]);
    assert.deepEqual(report.left, []);
  });

  it("waits an eighth of W - T at most for those who are to be killed before the cut", async () => {
    for (const [boundMs, expectedMs] of [
      [800, 100],
      [60_000, USERS_BOUND_MS],
    ] as const) {
      const bounds: number[] = [];
      const usersOf: TeardownEdges["usersOf"] = (_, usersBoundMs) => {
        bounds.push(usersBoundMs);
        return Promise.resolve([]);
      };
      await tearDown({ ...PLAN, boundMs }, edges([], { usersOf }));
      assert.equal(bounds[0], expectedMs);
      assert.ok(bounds.every((each) => each <= USERS_BOUND_MS));
    }
  });

  it("never unmounts what could not be cut: that would write what is dirty", async () => {
    const log: string[] = [];
    const cut: TeardownEdges["cut"] = (paths) =>
      Promise.resolve(paths.map(() => ({ kind: "failed" as const, why: "EIO" })));
    const report = await tearDown(PLAN, edges(log, { cut }));
    assert.deepEqual(log, ["users of /srv/a /srv/b", "kill 4712"]);
    assert.equal(report.left.length, 2);
  });

  it("gives up at its bound and says what is left", async () => {
    const log: string[] = [];
    const report = await tearDown(
      PLAN,
      edges(log, { unmount: () => Promise.resolve("target is busy") }),
    );
    assert.equal(report.left.length, 2);
    assert.match(report.left[0] ?? "", /\/srv\/a is cut, but still mounted: target is busy/);
    assert.ok(report.tookMs < 3_000);
  });

  it("is not over while something keeps the device or the file system alive", async () => {
    const useOf: TeardownEdges["useOf"] = (path) =>
      path === "/srv/b" ? "/dev/loop7 is still mounted on this machine" : undefined;
    for (const kind of ["cut", "not-mounted"] as const) {
      const cut: TeardownEdges["cut"] = (targets) =>
        Promise.resolve(targets.map(() => ({ kind, why: "" })));
      const report = await tearDown(PLAN, edges([], { cut, useOf }));
      assert.deepEqual(report.left, ["/dev/loop7 is still mounted on this machine"]);
    }
  });

  it("does nothing to a path on which nothing is mounted", async () => {
    const log: string[] = [];
    const cut: TeardownEdges["cut"] = (paths) =>
      Promise.resolve(paths.map(() => ({ kind: "not-mounted" as const, why: "" })));
    const report = await tearDown(PLAN, edges(log, { cut }));
    assert.ok(!log.some((line) => line.startsWith("unmount")));
    assert.deepEqual(report.left, []);
  });
});
