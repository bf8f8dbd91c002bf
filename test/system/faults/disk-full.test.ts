/** No room: for the node's own files, and for a region that is a file. Nothing that was held is lost. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";

import { sharedha, type TestNode } from "../../helpers/nodes.js";
import { must } from "../../helpers/workspace.js";
import {
  Cluster,
  expectDone,
  expectError,
  generationOf,
  heldVersion,
  skipUnlessRoot,
} from "./harness.js";

describe("a full disk", function () {
  this.timeout(40_000);
  let cluster: Cluster;

  before(async function () {
    skipUnlessRoot(this);
    cluster = await Cluster.make("full");
  });

  after(async () => {
    await (cluster as Cluster | undefined)?.clean();
  });

  function mounted(name: string, words: readonly string[]): string {
    const dir = cluster.workspace.path(name);
    mkdirSync(dir, { mode: 0o700 });
    must("mount", [...words, dir]);
    cluster.workspace.defer(`umount ${dir}`, () => {
      must("umount", [dir]);
    });
    return dir;
  }

  /** Takes all the room that is left. */
  function fill(path: string): void {
    const piece = Buffer.alloc(4096, 1);
    for (let pieces = 0; pieces < 100_000; pieces++) {
      try {
        writeFileSync(path, piece, { flag: "a" });
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
        return;
      }
    }
    assert.fail("it is never full");
  }

  it("state directory: a join says that there is no room, and succeeds when there is", async () => {
    const dir = mounted("small", ["-t", "tmpfs", "-o", "size=256k,mode=0700", "none"]);
    fill(`${dir}/filler`);
    const stateDir = `${dir}/state`;
    const words = ["join", ...cluster.luns, "--node", "n3", "--watchdog", "guard"];
    const ran = await sharedha([...words, "--state-dir", stateDir, "--json"]);
    assert.notEqual(ran.exitCode, 0);
    assert.match(ran.stderr, /ENOSPC|no space/i);
    assert.match(ran.stderr, /remedy: /);
    rmSync(`${dir}/filler`);
    const node = cluster.node("n3", { stateDir });
    expectDone(await node.join());
    expectDone(await node.cli("leave"));
  });

  it("state directory of a member: what it holds stays, what is refused says why", async () => {
    const dir = mounted("member", ["-t", "tmpfs", "-o", "size=512k,mode=0700", "none"]);
    const node = await cluster.joined("n4", { stateDir: dir });
    expectDone(await node.cli("lease", "create", "kept"));
    expectDone(await node.cli("lease", "create", "wanted"));
    expectDone(await node.cli("lease", "acquire", "kept"));
    const [version, generation] = [await heldVersion(node, "kept"), await generationOf(node)];
    fill(`${dir}/filler`);
    await takeOrSayWhy(node);
    assert.equal(await heldVersion(node, "kept"), version);
    assert.equal(await generationOf(node), generation);
    const released = await node.cli("lease", "release", "kept");
    rmSync(`${dir}/filler`);
    if (released.exitCode !== 0) {
      expectDone(await node.cli("lease", "release", "kept"));
    }
    expectDone(await node.cli("lease", "acquire", "wanted"));
    expectDone(await node.cli("lease", "release", "wanted"));
    expectDone(await node.cli("leave"));
  });

  /** A lease is noted before it is granted, so that the next daemon finds it: without room it must not be granted. */
  async function takeOrSayWhy(node: TestNode): Promise<void> {
    const ran = await node.cli("lease", "acquire", "wanted");
    if (ran.exitCode === 0) {
      assert.notEqual(await heldVersion(node, "wanted"), undefined);
      expectDone(await node.cli("lease", "release", "wanted"));
    } else {
      assert.match(ran.stderr, /ENOSPC|no space/i);
      assert.equal(await heldVersion(node, "wanted"), undefined);
    }
  }

  it("region: init refuses a file for which there is no room, new or sparse, and leaves no half region", async () => {
    const dir = mounted("tiny", ["-t", "tmpfs", "-o", "size=8m", "none"]);
    const fresh = `${dir}/fresh`;
    const words = ["--size", "32M", "--profile", "fast", "--json"];
    const ran = await sharedha(["init", fresh, ...words]);
    expectError(ran, { exitCode: 3, code: "ERR_DISK_FULL", message: /fresh/ });
    assert(!existsSync(fresh));
    const sparse = `${dir}/sparse`;
    writeFileSync(sparse, "");
    truncateSync(sparse, 32 * 1024 * 1024);
    const made = await sharedha(["init", sparse, "--profile", "fast", "--json"]);
    assert.notEqual(made.exitCode, 0);
    assert.match(made.stderr, /ENOSPC|no space|full/i);
    assert.equal(readFileSync(sparse).subarray(0, 512).equals(Buffer.alloc(512)), true);
    const join = await sharedha([
      "join",
      sparse,
      "--json",
      "--state-dir",
      cluster.workspace.path("s"),
    ]);
    expectError(join, { exitCode: 2, code: "ERR_NOT_A_REGION", message: /sparse/ });
  });
});
