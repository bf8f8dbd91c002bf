/**
 * A LUN that has become something else: `sharedha lun replace` takes it back only with --force when there is data on it, and
 * with --force too nothing that is in use.
 */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";

import { type TestNode } from "../../helpers/nodes.js";
import { must, type Workspace } from "../../helpers/workspace.js";
import { Cluster, expectDone, expectError, skipUnlessRoot, until } from "./harness.js";

const MIB = 1024 * 1024;

describe("lun replace onto a device that is not blank", function () {
  this.timeout(60_000);
  let cluster: Cluster | undefined;
  let n1: TestNode;
  let n2: TestNode;
  let second = "";

  before(async () => {
    // T = 3 s: nobody loses for want of a busy machine's time.
    cluster = await Cluster.make("replace", { luns: 3, profile: "default" });
    [n1, n2] = await Promise.all([cluster.joined("n1"), cluster.joined("n2")]);
    second = cluster.luns[1] ?? "";
  });

  after(async () => {
    await cluster?.clean();
  });

  function workspace(): Workspace {
    assert(cluster !== undefined);
    return cluster.workspace;
  }

  async function countsOn(node: TestNode, path: string, counts: boolean): Promise<void> {
    await until(`${path} on ${node.name}: counts ${counts}`, 15_000, async () =>
      (await node.status()).luns.some((lun) => lun.path === path && lun.counts === counts),
    );
  }

  function blank(name: string, bytes = 32 * MIB): string {
    const path = workspace().path(name);
    writeFileSync(path, new Uint8Array(bytes));
    return path;
  }

  it("is refused while every LUN counts", async () => {
    const ran = await n1.cli("lun", "replace", blank("spare"), "--force", "--json");
    expectError(ran, { exitCode: 1, code: "ERR_REPLACE_NOT_POSSIBLE", message: /none is to be/ });
  });

  it("refuses a file system without --force, names it, and writes nothing", async () => {
    // In place: a file keeps its inode, by which the region knows its LUNs.
    writeFileSync(second, new Uint8Array(readFileSync(second).length));
    must("mkfs.ext4", ["-q", "-F", "-L", "family", second]);
    await countsOn(n1, second, false);
    await countsOn(n2, second, false);
    const before = readFileSync(second);
    const ran = await n1.cli("lun", "replace", second, "--json");
    const error = expectError(ran, {
      exitCode: 1,
      code: "ERR_DEVICE_HAS_DATA",
      message: /lun2 holds data: ext4 "family"/,
    });
    assert.match(error.hint, /the same command with --force/);
    assert(before.equals(readFileSync(second)), "not a byte has changed");
  });

  it("refuses what can never be a LUN of this set as bad input, also with --force", async () => {
    const [first = ""] = cluster?.luns ?? [];
    const cases = [
      [first, "ERR_SAME_LUN_TWICE", /lun1/],
      [blank("small", 4 * MIB), "ERR_LUN_TOO_SMALL", /small/],
      [workspace().path("nothing"), "ERR_NO_SUCH_DEVICE", /nothing/],
      ["/dev/null", "ERR_NOT_A_DEVICE", /\/dev\/null/],
    ] as const;
    for (const [path, code, message] of cases) {
      const ran = await n1.cli("lun", "replace", path, "--force", "--json");
      expectError(ran, { exitCode: 2, code, message });
    }
  });

  it("refuses a region on which another cluster lives, also with --force", async () => {
    const other = await Cluster.make("other");
    try {
      const stranger = await other.joined("stranger");
      const [theirs = ""] = other.luns;
      const ran = await n1.cli("lun", "replace", theirs, "--force", "--json");
      const message = /lun1 is in use: host 1 \(stranger\)/;
      expectError(ran, { exitCode: 1, code: "ERR_LIVE_HEARTBEATS", message });
      assert.equal((await stranger.status()).node.state, "joined");
    } finally {
      await other.clean();
    }
  });

  it("refuses a mounted device, also with --force", async function () {
    skipUnlessRoot(this);
    const image = blank("mounted.img", 64 * MIB);
    must("mkfs.ext4", ["-q", image]);
    const device = workspace().loop(image);
    const dir = workspace().path("mounted");
    must("mkdir", [dir]);
    must("mount", [device, dir]);
    try {
      const ran = await n1.cli("lun", "replace", device, "--force", "--json");
      expectError(ran, { exitCode: 1, code: "ERR_DEVICE_BUSY", message: /exclusive use/ });
    } finally {
      must("umount", [dir]);
    }
  });

  it("takes the file system's place with --force, and both nodes count it", async () => {
    expectDone(await n1.cli("lun", "replace", second, "--force"));
    await countsOn(n1, second, true);
    await countsOn(n2, second, true);
    expectDone(await n2.cli("lease", "create", "job"));
    expectDone(await n2.cli("lease", "acquire", "job"));
    expectDone(await n2.cli("lease", "release", "job"));
  });
});
