/**
 * A file system that somebody else has shut down already (the guard, another node's cut) is as good as one that the daemon
 * cuts itself: the node tears down and becomes a member again. xfs refuses even to be opened then.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";

import { type LeaseBody } from "../../lib/net/api.js";
import { cutMount } from "../../lib/system/cut-mount.js";
import { topMount } from "../../lib/system/filesystem.js";
import { type Ran, sharedha, TestNode } from "../helpers/nodes.js";
import { must, Workspace } from "../helpers/workspace.js";
import { mountTarget } from "../helpers/mount-target.js";
import { skipIf } from "../helpers/skip.js";
import { whyNotRoot } from "../helpers/loop-image.js";

const FREE = { ext4: "64M", xfs: "320M" } as const;
/** Beside the region, in the LUN of the node. */
const LUN_SIZE = { ext4: "128M", xfs: "400M" } as const;

async function until(
  what: string,
  isTrue: () => boolean | Promise<boolean>,
  withinMs = 20_000,
): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!(await isTrue())) {
    assert(performance.now() < untilMs, `${what}: not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function done(ran: Ran): void {
  assert.equal(ran.exitCode, 0, `exit ${ran.exitCode}\n${ran.stdout}${ran.stderr}`);
}

/** Keeps the mount busy until it is killed. */
function sitIn(workspace: Workspace, directory: string): () => boolean {
  const script = "setInterval(() => undefined, 1000)";
  const child = spawn(process.execPath, ["--eval", script], { cwd: directory, stdio: "ignore" });
  workspace.defer("end the user of the mount", () => {
    child.kill("SIGKILL");
  });
  return () => child.exitCode === null && child.signalCode === null;
}

for (const type of ["ext4", "xfs"] as const) {
  describe(`a file system that is shut down already: ${type}`, function () {
    this.timeout(90_000);
    let workspace: Workspace;

    before(function () {
      skipIf(this, whyNotRoot());
    });

    beforeEach(() => {
      workspace = new Workspace("dead");
    });

    afterEach(async () => {
      assert.deepEqual(await workspace.clean(), []);
    });

    it("can be cut again, and a mount that is in order is not taken for one", () => {
      const image = workspace.path("image");
      const directory = workspace.path("mount");
      mkdirSync(directory);
      must("truncate", ["--size", FREE[type], image]);
      must(`mkfs.${type}`, [type === "ext4" ? "-F" : "-f", "-q", image]);
      must("mount", ["-o", "loop", image, directory]);
      workspace.defer("unmount", () => {
        must("umount", [directory]);
      });
      writeFileSync(`${directory}/file`, "written before");
      for (const round of [1, 2, 3]) {
        const { kind, why } = cutMount(mountTarget(directory));
        assert.equal(kind, "cut", `round ${round}: ${why}`);
        assert.throws(() => {
          writeFileSync(`${directory}/file`, "written after");
        }, /EIO/);
      }
    });

    async function nodeWithGroup(): Promise<{ node: TestNode; directory: string }> {
      const lun = workspace.path("lun");
      const directory = workspace.path("data");
      const config = workspace.path("cluster.toml");
      writeFileSync(
        config,
        `[group.data]\ndevice = "lun"\nmount = { path = "${directory}", type = "${type}" }\n`,
      );
      const words = ["init", lun, "--cluster", "dead", "--size", LUN_SIZE[type], "--mkfs", type];
      done(await sharedha([...words, "--config", config]));
      const node = new TestNode(workspace, { name: "n1", luns: [lun], watchdog: "guard" });
      workspace.defer("unmount what is left", () => {
        if (topMount(directory) !== undefined) {
          must("umount", [directory]);
        }
      });
      done(await node.join());
      done(await node.cli("reserve", "data"));
      return { node, directory };
    }

    async function generationOf(node: TestNode): Promise<bigint> {
      return BigInt((await node.status()).node.generation ?? "0");
    }

    async function reservesAgain(node: TestNode, before: bigint, directory: string): Promise<void> {
      await until(
        "a member again",
        async () => (await node.status()).node.state === "joined",
        30_000,
      );
      assert((await generationOf(node)) > before);
      assert.equal(topMount(directory), undefined);
      const lease = (await node.call("GET", "/v1/leases/group:data")) as LeaseBody;
      assert.equal(lease.heldHere, false);
      done(await node.cli("reserve", "data", "--wait", "10"));
      writeFileSync(`${directory}/again`, "works");
      done(await node.cli("release", "data"));
    }

    it("the daemon notices a loss after somebody has shut it down, with a user on it", async () => {
      const { node, directory } = await nodeWithGroup();
      const before = await generationOf(node);
      const isSitting = sitIn(workspace, directory);
      assert.equal(cutMount(mountTarget(directory)).kind, "cut");
      node.signal("SIGSTOP", "pulse");
      try {
        await until("unmounted", () => topMount(directory) === undefined, 10_000);
        assert.equal(isSitting(), false);
      } finally {
        node.signal("SIGCONT", "pulse");
      }
      if (!node.processes().some((one) => one.role === "daemon")) {
        done(await node.join());
      }
      await reservesAgain(node, before, directory);
    });

    it("the guard has ended the daemon, and could not unmount: the next daemon does", async () => {
      const { node, directory } = await nodeWithGroup();
      const before = await generationOf(node);
      // The guard kills whoever uses it; only a mount below, which is nobody's, keeps it busy.
      const below = `${directory}/below`;
      const isBelowMounted = (): boolean => topMount(below) !== undefined;
      mkdirSync(below);
      must("mount", ["-t", "tmpfs", "none", below]);
      workspace.defer("unmount what is below", () => {
        if (isBelowMounted()) {
          must("umount", [below]);
        }
      });
      const isSitting = sitIn(workspace, directory);
      node.signal("SIGSTOP", "daemon", "pulse");
      await until("the guard has acted", () => existsSync(`${node.stateDir}/guard-expired.json`));
      await until("nothing of the node runs", () => node.processes().length === 0);
      assert.equal(isSitting(), false);
      assert(topMount(directory) !== undefined, "the mount below keeps it mounted");
      must("umount", [below]);
      done(await node.join());
      await reservesAgain(node, before, directory);
    });
  });
}
