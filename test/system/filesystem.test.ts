import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";

import { ShareHaError } from "../../lib/errors.js";
import { cutMount, shutdownMount } from "../../lib/system/cut-mount.js";
import {
  flushDeviceBuffers,
  fsckFilesystem,
  type FilesystemType,
  makeFilesystem,
  mountFilesystem,
  topMount,
  unmount,
} from "../../lib/system/filesystem.js";
import { cutForeignMounts, findMountsOf } from "../../lib/system/foreign-mounts.js";
import { identifyFile } from "../../lib/system/loop.js";
import { findMounts, ownMountNamespace } from "../../lib/system/mounts.js";
import { whyNotRoot, Workshop } from "../helpers/loop-image.js";
import { mountTarget } from "../helpers/mount-target.js";
import { identifyBlockDevice } from "../../lib/system/mounted-filesystem.js";
import { skipIf } from "../helpers/skip.js";

const MIB = 1024 * 1024;

function code(expected: string, message = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShareHaError, String(error));
    assert.equal(error.code, expected, error.message);
    assert.match(error.message, message);
    return true;
  };
}

describe("file systems", function () {
  this.timeout(60_000);
  let shop: Workshop;
  const children: ChildProcess[] = [];

  before(function () {
    skipIf(this, whyNotRoot());
  });
  beforeEach(() => {
    shop = new Workshop();
  });
  afterEach(async () => {
    for (const child of children.splice(0)) {
      if (child.exitCode === null && child.signalCode === null) {
        const exit = once(child, "exit");
        child.kill("SIGKILL");
        await exit;
      }
    }
    shop.dispose();
  });

  async function prepare(type: FilesystemType): Promise<{ file: string; device: string }> {
    const file = shop.file("image", (type === "xfs" ? 320 : 32) * MIB);
    const device = shop.loop(file);
    await makeFilesystem(device, type, "web");
    return { file, device };
  }

  for (const type of ["ext4", "xfs"] as const) {
    it(`${type}: after a shutdown nothing dirty reaches the file, and every access fails`, async () => {
      const { file, device } = await prepare(type);
      const path = shop.mountPoint("mnt");
      const mount = await mountFilesystem({ device, path, type, options: "noatime" });
      assert.equal(mount.source, device);
      assert.match(mount.options, /noatime/);
      const kept = openSync(join(path, "kept"), "w");
      writeSync(kept, "KEPT-".repeat(1000));
      fsyncSync(kept);
      const dirty = openSync(join(path, "dirty"), "w");
      writeSync(dirty, "DIRTY-MARK-".repeat(10_000));
      shutdownMount(mount);
      assert.throws(() => writeSync(dirty, "more"), /EIO|EROFS|EUCLEAN/);
      assert.throws(() => {
        fsyncSync(dirty);
      }, /EIO|EROFS|EUCLEAN/);
      closeSync(kept);
      closeSync(dirty);
      assert.equal(await unmount(path), "unmounted");
      flushDeviceBuffers(device);
      const bytes = readFileSync(file);
      assert.equal(bytes.includes("DIRTY-MARK-DIRTY-MARK"), false);
      assert.equal(bytes.includes("KEPT-KEPT-"), true);
      const check = await fsckFilesystem(device, type, "full");
      assert.ok(check.kind === "clean" || check.kind === "corrected", JSON.stringify(check));
      await mountFilesystem({ device, path, type });
      assert.equal(readFileSync(join(path, "kept"), "latin1"), "KEPT-".repeat(1000));
      assert.equal(await unmount(path), "unmounted");
    });
  }

  it("without a shutdown the same dirty data do reach the file (the check above can fail)", async () => {
    const { file, device } = await prepare("ext4");
    const path = shop.mountPoint("mnt");
    await mountFilesystem({ device, path, type: "ext4" });
    writeFileSync(join(path, "dirty"), "DIRTY-MARK-".repeat(10_000));
    assert.equal(await unmount(path), "unmounted");
    flushDeviceBuffers(device);
    assert.equal(readFileSync(file).includes("DIRTY-MARK-DIRTY-MARK"), true);
  });

  it("refuses to shut down what is no such file system", () => {
    const proc = topMount("/proc");
    assert.ok(proc !== undefined);
    assert.throws(
      () => {
        shutdownMount(proc);
      },
      code("ERR_FS_SHUTDOWN", /^proc at \/proc cannot be shut down/),
    );
    assert.throws(
      () => {
        shutdownMount(proc, "/no/such/path");
      },
      code("ERR_FS_SHUTDOWN", /cannot be opened/),
    );
  });

  it("a mount that has vanished meanwhile: refused, and the file system below goes on", async () => {
    const below = await prepare("ext4");
    const lower = shop.mountPoint("mnt");
    await mountFilesystem({ device: below.device, path: lower, type: "ext4" });
    const path = join(lower, "sub");
    mkdirSync(path);
    const above = shop.file("above", 32 * MIB);
    const device = shop.loop(above);
    await makeFilesystem(device, "ext4");
    const vanished = await mountFilesystem({ device, path, type: "ext4" });
    assert.equal(await unmount(path), "unmounted");
    assert.throws(
      () => {
        shutdownMount(vanished);
      },
      code("ERR_FS_SHUTDOWN", /and not mount/),
    );
    writeFileSync(join(path, "file"), "still writable");
    assert.equal(cutMount({ path, device: identifyBlockDevice(device) }).kind, "not-mounted");
    // The same device again is another mount: its number alone would not tell.
    const again = await mountFilesystem({ device, path, type: "ext4" });
    assert.equal(again.devMajorMinor, vanished.devMajorMinor);
    assert.throws(
      () => {
        shutdownMount({ ...again, devMajorMinor: "7:99999" });
      },
      code("ERR_FS_SHUTDOWN", /of device/),
    );
    writeFileSync(join(path, "file"), "still writable");
    assert.equal(cutMount(mountTarget(path)).kind, "cut");
    assert.throws(() => {
      writeFileSync(join(path, "other"), "x");
    }, /EIO|EROFS/);
    assert.equal(await unmount(path), "unmounted");
    writeFileSync(join(lower, "file"), "still writable");
    assert.equal(await unmount(lower), "unmounted");
  });

  it("another namespace's mount that has vanished: what its path leads to now is not shut down", async () => {
    const below = await prepare("ext4");
    const lower = shop.mountPoint("mnt");
    await mountFilesystem({ device: below.device, path: lower, type: "ext4" });
    const path = join(lower, "sub");
    mkdirSync(path);
    const above = shop.file("above", 32 * MIB);
    const device = shop.loop(above);
    await makeFilesystem(device, "ext4");
    const node = await frozenNode(device, path);
    const [seen] = findMountsOf(identifyFile(above));
    assert.ok(seen !== undefined);
    execFileSync("nsenter", ["--mount", `--target=${node.pid}`, "umount", path]);
    assert.throws(
      () => {
        shutdownMount(seen, `/proc/${seen.pid}/root${seen.mountPoint}`);
      },
      code("ERR_FS_SHUTDOWN", /and not mount/),
    );
    writeFileSync(join(path, "file"), "still writable");
  });

  it("tells what is wrong with a mount, and that nothing is mounted", async () => {
    const device = shop.loop(shop.file("empty", 8 * MIB));
    const path = shop.mountPoint("mnt");
    await assert.rejects(mountFilesystem({ device, path, type: "ext4" }), code("ERR_MOUNT"));
    assert.equal(await unmount(path), "not-mounted");
    assert.equal((await fsckFilesystem(device, "ext4")).kind, "failed");
    assert.equal((await fsckFilesystem(device, "xfs", "full")).kind, "damaged");
    await assert.rejects(makeFilesystem(device, "xfs"), code("ERR_MKFS"));
  });

  it("names who keeps a mount busy: by open file, working directory and mapping", async () => {
    const { device } = await prepare("ext4");
    const path = shop.mountPoint("mnt");
    await mountFilesystem({ device, path, type: "ext4" });
    const fd = openSync(join(path, "held"), "w");
    const holder = spawn("sleep", ["60"], { stdio: ["ignore", "ignore", "ignore", fd] });
    closeSync(fd);
    const sitter = spawn("sleep", ["60"], { cwd: path, stdio: "ignore" });
    execFileSync("cp", ["/bin/sleep", join(path, "program")]);
    const mapper = spawn(join(path, "program"), ["60"], { stdio: "ignore", cwd: "/" });
    children.push(holder, sitter, mapper);
    // spawn returns after the child's exec, so cwd and mappings are in place.
    await assert.rejects(unmount(path), (error) => {
      code("ERR_MOUNT_BUSY", new RegExp(`sleep \\(pid ${holder.pid}: file 3\\)`))(error);
      assert.match(String(error), new RegExp(`sleep \\(pid ${sitter.pid}: cwd\\)`));
      assert.match(String(error), new RegExp(`program \\(pid ${mapper.pid}: mapping\\)`));
      return true;
    });
    assert.equal(await unmount(path, { lazy: true }), "unmounted");
    assert.equal(await unmount(path), "not-mounted");
  });

  it("repairs what can be repaired without a person, and reports what cannot", async () => {
    const { device } = await prepare("ext4");
    assert.equal((await fsckFilesystem(device, "ext4")).kind, "clean");
    // The error flag of the superblock (s_state, offset 1024 + 58) makes e2fsck -p look through everything.
    execFileSync("debugfs", ["-w", "-R", "set_super_value state 2", device], { stdio: "ignore" });
    assert.equal((await fsckFilesystem(device, "ext4")).kind, "corrected");
    assert.equal((await fsckFilesystem(device, "ext4")).kind, "clean");
    execFileSync("debugfs", ["-w", "-R", "clri <2>", device], { stdio: "ignore" });
    const check = await fsckFilesystem(device, "ext4", "full");
    assert.equal(check.kind, "damaged", JSON.stringify(check));
  });

  /** A process in a mount namespace of its own that has mounted `device` there and then stops like a frozen node. */
  async function frozenNode(device: string, path: string): Promise<ChildProcess> {
    const script = `mount -t ext4 ${device} ${path} && echo data > ${path}/f && echo ready && exec sleep 300`;
    const child = spawn("unshare", ["--mount", "--propagation", "private", "sh", "-c", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    children.push(child);
    const [output] = (await once(child.stdout, "data")) as [Buffer];
    assert.equal(output.toString(), "ready\n");
    child.kill("SIGSTOP");
    return child;
  }

  it("cuts a frozen node's file system in another mount namespace, through a loop over a loop", async () => {
    const { file, device } = await prepare("ext4");
    const backing = identifyFile(file);
    const path = shop.mountPoint("mnt");
    const outer = shop.loop(device);
    const node = await frozenNode(outer, path);
    assert.equal(
      findMounts().some((mount) => mount.mountPoint === path),
      false,
    );
    const [seen, ...others] = findMountsOf(backing);
    assert.equal(others.length, 0);
    assert.equal(seen?.mountPoint, path);
    assert.notEqual(seen.namespace, ownMountNamespace());
    const outcomes = cutForeignMounts(backing).map(({ kind }) => kind);
    assert.deepEqual(outcomes, ["cut"]);
    assert.throws(() => {
      writeFileSync(`/proc/${node.pid}/root${path}/g`, "x");
    }, /EIO|EROFS/);
  });

  it("leaves other files' mounts alone, and its own file system that another namespace shows too", async () => {
    const { file, device } = await prepare("ext4");
    const path = shop.mountPoint("mnt");
    const other = shop.file("other", 8 * MIB);
    await frozenNode(device, path);
    assert.deepEqual(cutForeignMounts(identifyFile(other)), []);
    await mountFilesystem({ device, path, type: "ext4" });
    const outcomes = cutForeignMounts(identifyFile(file)).map(({ kind }) => kind);
    assert.deepEqual(outcomes, ["own"]);
    writeFileSync(join(path, "still"), "writable");
    assert.equal(await unmount(path), "unmounted");
  });
});
