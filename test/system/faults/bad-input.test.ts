/**
 * What is not the cluster's region, or not what it was: the command says what it found, where, and what to do. Nothing is
 * started and nothing is written. The records themselves are tested in test/unit; here it is what a person sees.
 */
import assert from "node:assert/strict";
import {
  closeSync,
  copyFileSync,
  cpSync,
  existsSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";

import { geometryOf } from "../../../lib/format/geometry.js";
import { superblockOffsets } from "../../../lib/format/superblock.js";
import { type Ran, sharedha } from "../../helpers/nodes.js";
import { must, Workspace } from "../../helpers/workspace.js";
import { expectDone, expectError, skipUnlessRoot } from "./harness.js";

const MIB = 1024 * 1024;
const VERSION_OFFSET = 8;
const NAME_BYTES_OFFSET = 100;

describe("bad input at the command line", function () {
  this.timeout(20_000);
  const workspace = new Workspace("bad-input");
  let stateDirs = 0;
  let single = "";
  let trio: readonly string[] = [];
  let pristine: readonly (readonly [path: string, bytes: Buffer])[] = [];

  before(async () => {
    [single = ""] = await init("single");
    trio = await init("trio", 3);
    pristine = [single, ...trio].map((path) => [path, readFileSync(path)]);
  });

  // In place: a file keeps its inode, by which the region knows its LUNs.
  afterEach(() => {
    for (const [path, bytes] of pristine) {
      writeFileSync(path, bytes);
    }
  });

  after(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  /** A first join in a state directory of its own; it must end before anything was started. */
  async function join(...paths: readonly string[]): Promise<Ran> {
    const stateDir = workspace.path(`state${++stateDirs}`);
    const words = ["join", ...paths, "--node", "n1", "--watchdog", "guard", "--json"];
    const ran = await sharedha([...words, "--state-dir", stateDir]);
    assert(!existsSync(`${stateDir}/node.json`), "a join that was refused leaves no node.json");
    return ran;
  }

  async function init(name: string, count = 1, ...args: readonly string[]): Promise<string[]> {
    const paths = Array.from({ length: count }, (_, index) => workspace.path(`${name}${index}`));
    const words = ["init", ...paths, "--cluster", name, "--profile", "fast"];
    expectDone(await sharedha([...words, ...args]));
    return paths;
  }

  /** Writes into both copies of the superblock of a file that is a region as a whole. */
  function patchSuperblocks(path: string, at: number, change: (byte: number) => number): void {
    const bytes = readFileSync(path);
    const file = openSync(path, "r+");
    try {
      for (const offset of superblockOffsets(geometryOf(512))) {
        writeSync(file, Uint8Array.of(change(bytes[offset + at] ?? 0)), 0, 1, offset + at);
      }
    } finally {
      closeSync(file);
    }
  }

  function one(paths: readonly string[], index = 0): string {
    const path = paths[index];
    assert(path !== undefined);
    return path;
  }

  it("refuses a path that does not exist", async () => {
    const path = workspace.path("nothing");
    const error = expectError(await join(path), {
      exitCode: 2,
      code: "ERR_NO_SUCH_DEVICE",
      message: /nothing/,
    });
    assert.match(error.message, /does not exist|no such/i);
  });

  it("refuses a file that is no region, and a blank one", async () => {
    const text = workspace.path("text");
    writeFileSync(text, "People's data.\n".repeat(100_000));
    const expected = { exitCode: 2, code: "ERR_NOT_A_REGION", message: /\/text: / } as const;
    expectError(await join(text), expected);
    const blank = workspace.path("blank");
    writeFileSync(blank, new Uint8Array(8 * MIB));
    const error = expectError(await join(blank), { ...expected, message: /\/blank: .*blank/ });
    assert.match(error.hint, /sharedha init/);
  });

  it("refuses to dump what holds no record that it knows", async () => {
    const path = workspace.path("letters");
    writeFileSync(path, "abcdefgh".repeat(65_536));
    const ran = await sharedha(["dump", path, "--json"]);
    expectError(ran, { exitCode: 2, code: "ERR_NOT_A_REGION", message: /\/letters/ });
  });

  it("refuses an empty file", async () => {
    const path = workspace.path("empty");
    writeFileSync(path, "");
    const ran = await join(path);
    expectError(ran, { exitCode: 2, code: "ERR_TRUNCATED", message: /\/empty.* 0 bytes/ });
  });

  it("refuses a directory and a character device", async () => {
    const code = "ERR_NOT_A_DEVICE";
    expectError(await join(workspace.dir), { exitCode: 2, code, message: /faults|bad-input/ });
    expectError(await join("/dev/null"), { exitCode: 2, code, message: /\/dev\/null/ });
  });

  it("refuses a region of another cluster among the LUNs, and names both clusters", async () => {
    const ran = await join(one(trio, 0), one(trio, 1), single);
    // Two LUNs would do for a quorum, but at the first join the third one is a mistake and not a fault.
    const message = /single0.*belongs to cluster single/;
    expectError(ran, { exitCode: 3, code: "ERR_LUN_NOT_COUNTED", message });
    const most = await join(one(trio, 0), single, workspace.path("away"));
    const code = "ERR_OTHER_CLUSTER";
    const error = expectError(most, { exitCode: 2, code, message: /single0.*cluster single/ });
    assert.match(error.hint, /one cluster/);
  });

  it("refuses fewer LUNs than the cluster has", async () => {
    const ran = await join(one(trio));
    const error = expectError(ran, { exitCode: 2, code: "ERR_LUN_COUNT", message: /3 LUNs; 1/ });
    assert.match(error.hint, /every LUN/);
  });

  it("refuses a region of a newer version, also when only one of three LUNs has it", async () => {
    patchSuperblocks(single, VERSION_OFFSET, () => 9);
    const expected = { exitCode: 2, code: "ERR_NEWER_VERSION" } as const;
    const error = expectError(await join(single), { ...expected, message: /newer version 9/ });
    assert.match(error.hint, /[Uu]pgrade/);
    patchSuperblocks(one(trio, 2), VERSION_OFFSET, () => 9);
    expectError(await join(...trio), { ...expected, message: /trio2: .*newer version 9/ });
    const again = await sharedha(["init", single, "--force", "--profile", "fast", "--json"]);
    expectError(again, { ...expected, message: /newer version 9/ });
  });

  it("refuses a truncated region, and says how much is there", async () => {
    truncateSync(single, 5 * MIB);
    const ran = await join(single);
    expectError(ran, { exitCode: 2, code: "ERR_TRUNCATED", message: /\/single0: .*5242880/ });
  });

  it("uses the second copy of a damaged superblock, and refuses when both are damaged", async () => {
    const path = single;
    const intact = readFileSync(path);
    const firstOnly = Buffer.from(intact);
    firstOnly[NAME_BYTES_OFFSET] = (intact[NAME_BYTES_OFFSET] ?? 0) ^ 1;
    writeFileSync(path, firstOnly);
    const dumped = await sharedha(["dump", path, "--area", "superblock"]);
    expectDone(dumped);
    assert.match(dumped.stdout, /checksum/);
    patchSuperblocks(path, NAME_BYTES_OFFSET, (byte) => byte ^ 2);
    const ran = await join(path);
    const error = expectError(ran, {
      exitCode: 2,
      code: "ERR_REGION_DAMAGED",
      message: /\/single0: .*checksum/,
    });
    assert.match(error.hint, /sharedha dump/);
  });

  it("refuses the same LUN given twice, by two names of one file", async () => {
    must("ln", ["-s", one(trio, 0), workspace.path("alias")]);
    const expected = { exitCode: 2, code: "ERR_SAME_LUN_TWICE", message: /same device/ } as const;
    expectError(await join(one(trio, 0), workspace.path("alias"), one(trio, 2)), expected);
    const fresh = ["fresh0", "fresh1"].map((name) => workspace.path(name));
    const [first = "", second = ""] = fresh;
    const args = ["init", first, second, first, "--cluster", "fresh", "--profile", "fast"];
    expectError(await sharedha([...args, "--json"]), expected);
    assert(!existsSync(first) && !existsSync(second), "what init made it takes away again");
  });

  it("refuses a clone, alone and beside the original", async () => {
    const copy = workspace.path("copy");
    cpSync(one(trio, 0), copy);
    const beside = await join(one(trio, 0), copy, one(trio, 2));
    const twice = {
      exitCode: 2,
      code: "ERR_SAME_LUN_TWICE",
      message: /copy of the other/,
    } as const;
    expectError(beside, twice);
    const message = /copy.* is a copy of LUN 1/;
    const instead = await join(copy, one(trio, 1), one(trio, 2));
    expectError(instead, { exitCode: 3, code: "ERR_LUN_NOT_COUNTED", message });
    const singleCopy = workspace.path("single-copy");
    cpSync(single, singleCopy);
    const error = expectError(await join(singleCopy), { exitCode: 2, code: "ERR_CLONE", message });
    assert.match(error.hint, /original/);
  });

  it("refuses LUNs whose contents were swapped", async () => {
    const [first, second] = [readFileSync(one(trio, 0)), readFileSync(one(trio, 1))];
    // Written in place: the files keep their inodes, as LUNs keep their numbers.
    writeFileSync(one(trio, 0), second);
    writeFileSync(one(trio, 1), first);
    const ran = await join(...trio);
    expectError(ran, { exitCode: 2, code: "ERR_LUNS_SWAPPED", message: /trio[01].*LUN [12]/ });
  });

  it("names the file system that init would destroy, and writes nothing", async () => {
    const path = workspace.path("data.img");
    writeFileSync(path, new Uint8Array(64 * MIB));
    must("mkfs.ext4", ["-q", "-L", "family", path]);
    const before = readFileSync(path);
    const ran = await sharedha(["init", path, "--profile", "fast", "--json"]);
    const error = expectError(ran, {
      exitCode: 1,
      code: "ERR_DEVICE_HAS_DATA",
      message: /data\.img.*ext4/,
    });
    assert.match(error.hint, /--force/);
    assert(before.equals(readFileSync(path)), "not a byte has changed");
    const again = await sharedha(["init", single, "--profile", "fast", "--json"]);
    expectError(again, { exitCode: 1, code: "ERR_DEVICE_HAS_DATA", message: /cluster single/ });
  });

  it("refuses a device whose sectors are larger than the region's records", async function () {
    skipUnlessRoot(this);
    const device = must("losetup", ["--find", "--show", "--sector-size", "4096", single]).trim();
    workspace.defer(`detach ${device}`, () => {
      must("losetup", ["--detach", device]);
    });
    const ran = await join(device);
    const message = /sectors of 512 bytes, the device has 4096/;
    const error = expectError(ran, { exitCode: 2, code: "ERR_SECTOR_SIZE", message });
    assert.match(error.hint, /sector size/);
    const args = ["init", device, "--force", "--sector-size", "512", "--profile", "fast", "--json"];
    const made = await sharedha(args);
    expectError(made, { exitCode: 2, code: "ERR_SECTOR_SIZE", message: /sectors of 4096 bytes/ });
  });

  it("refuses a mounted device even with --force", async function () {
    skipUnlessRoot(this);
    const path = workspace.path("mounted.img");
    writeFileSync(path, new Uint8Array(64 * MIB));
    must("mkfs.ext4", ["-q", path]);
    const device = workspace.loop(path);
    const dir = workspace.path("mounted");
    must("mkdir", [dir]);
    must("mount", [device, dir]);
    workspace.defer(`umount ${dir}`, () => {
      must("umount", [dir]);
    });
    const ran = await sharedha(["init", device, "--force", "--profile", "fast", "--json"]);
    expectError(ran, { exitCode: 1, code: "ERR_DEVICE_BUSY", message: /\/dev\/loop.*(use|busy)/ });
  });

  it("refuses a state directory that others may write to", async () => {
    const dir = workspace.path("everybody");
    must("mkdir", ["-m", "0777", dir]);
    must("chmod", ["0777", dir]);
    const ran = await sharedha(["join", single, "--state-dir", dir, "--json"]);
    expectError(ran, { exitCode: 2, code: "ERR_STATE_DIR", message: /everybody/ });
  });

  it("refuses a configuration with a mistake, and says where", async () => {
    const toml = workspace.path("bad.toml");
    writeFileSync(toml, '[group.web]\nmount = { path = "/srv", typo = "ext4" }\n');
    const path = workspace.path("configured");
    const ran = await sharedha(["init", path, "--config", toml, "--json"]);
    expectError(ran, { exitCode: 2, code: "ERR_CONFIG", message: /group\.web\.mount/ });
    assert(!existsSync(path));
  });

  it("refuses names and numbers that no cluster has", async () => {
    const cases = [
      ["join", single, "--node", "a/b"],
      ["join", single, "--host-id", "65"],
      ["join", single, "--host-id", "x"],
      ["init", workspace.path("two-a"), workspace.path("two-b")],
      ["lease", "acquire"],
      ["reserve", "web", "--wait", "soon"],
      ["no-such-command"],
    ];
    for (const words of cases) {
      const ran = await sharedha([
        ...words,
        "--json",
        "--state-dir",
        workspace.path("names-state"),
      ]);
      assert.equal(ran.exitCode, 2, `${words.join(" ")}: ${ran.stderr}`);
      assert.match(ran.stderr, /^sharedha: .+\n {2}remedy: .{10}/);
    }
  });

  it("says that there is no daemon", async () => {
    const dir = workspace.path("lonely");
    for (const words of [["status"], ["lease", "acquire", "x"], ["reserve", "web"], ["leave"]]) {
      const ran = await sharedha([...words, "--json", "--state-dir", dir]);
      expectError(ran, { exitCode: 3, code: "ERR_NO_DAEMON", message: /lonely/ });
    }
  });

  it("dumps a copy of any region without a word of doubt about whole records", async () => {
    const path = single;
    const copy = workspace.path("dumped-copy");
    copyFileSync(path, copy);
    const [original, copied] = [await sharedha(["dump", path]), await sharedha(["dump", copy])];
    expectDone(copied);
    assert.equal(original.stdout.replaceAll(path, ""), copied.stdout.replaceAll(copy, ""));
  });
});
