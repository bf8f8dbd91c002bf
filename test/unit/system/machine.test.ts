import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Worker } from "node:worker_threads";

import { ShareHaError } from "../../../lib/errors.js";
import {
  detectVirtuality,
  hash64,
  readBootId,
  readMachineId,
  readProductUuid,
} from "../../../lib/system/machine.js";
import { fileMappings, type LockedMemory, lockFileMappings } from "../../../lib/system/realtime.js";
import { machineIdHash } from "../../../lib/pulse/identity.js";
import { openStateDir, writeFileAtomic } from "../../../lib/system/state-dir.js";

function code(expected: string): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShareHaError, String(error));
    assert.equal(error.code, expected, error.message);
    return true;
  };
}

let root: string;

/** A root directory of its own for every test of the enclosing describe. */
function useRoot(): void {
  beforeEach(() => {
    root = `${mkdtempSync(join(tmpdir(), "sharedha-machine-"))}/`;
  });
  afterEach(() => {
    rmSync(root, { recursive: true });
  });
}

function put(path: string, text: string): void {
  mkdirSync(dirname(root + path), { recursive: true });
  writeFileSync(root + path, text);
}

describe("machine", () => {
  useRoot();

  it("has a boot id that stays the same until the next boot", () => {
    assert.match(readBootId(), /^[0-9a-f]{8}-/);
    assert.equal(readBootId(), readBootId());
    put("proc/sys/kernel/random/boot_id", "nonsense\n");
    assert.throws(() => readBootId(root), code("ERR_PROC_FORMAT"));
  });

  it("has a machine id, or none while it is unset", () => {
    assert.equal(readMachineId(root), undefined);
    put("etc/machine-id", "uninitialized\n");
    assert.equal(readMachineId(root), undefined);
    put("var/lib/dbus/machine-id", `${"b".repeat(32)}\n`);
    assert.equal(readMachineId(root), "b".repeat(32));
    put("etc/machine-id", `${"a".repeat(32)}\n`);
    assert.equal(readMachineId(root), "a".repeat(32));
  });

  it("has the firmware's id, where that says something", () => {
    assert.equal(readProductUuid(root), undefined);
    put("sys/class/dmi/id/product_uuid", "4C4C4544-0043-3010-8052-B4C04F564231\n");
    assert.equal(readProductUuid(root), "4c4c4544-0043-3010-8052-b4c04f564231");
    for (const nothing of ["00000000-0000-0000-0000-000000000000", "Not Settable", ""]) {
      put("sys/class/dmi/id/product_uuid", `${nothing}\n`);
      assert.equal(readProductUuid(root), undefined, nothing);
    }
    put("sys/class/dmi/id/product_uuid", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF\n");
    assert.equal(readProductUuid(root), undefined);
  });

  it("is told from a copy of its disk by the firmware's id", () => {
    const machineId = "a".repeat(32);
    const hashes = [
      undefined,
      "4c4c4544-0043-3010-8052-b4c04f564231",
      "4c4c4544-0043-3010-8052-b4c04f564232",
    ].map((uuid) => machineIdHash(machineId, uuid));
    assert.equal(new Set(hashes).size, 3);
    assert.equal(hashes[0], hash64(machineId));
  });

  it("is virtual by the CPU's flag, by Xen, by DMI or by the device tree, else not", () => {
    put("proc/cpuinfo", "processor : 0\nflags : fpu sse hypervisors\n");
    put("sys/class/dmi/id/sys_vendor", "Dell Inc.\n");
    assert.equal(detectVirtuality(root).virtual, false);
    put("proc/device-tree/hypervisor/compatible", "linux,kvm\0");
    assert.deepEqual(detectVirtuality(root), { virtual: true, reason: "device tree: linux,kvm" });
    put("sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009) QEMU\n");
    assert.match(detectVirtuality(root).reason, /^DMI /);
    put("sys/hypervisor/type", "xen\n");
    assert.match(detectVirtuality(root).reason, /xen/);
    put("proc/cpuinfo", "processor : 0\nflags\t\t: fpu hypervisor sse\n");
    assert.match(detectVirtuality(root).reason, /flag/);
  });

  it("hashes ids to 64 bits as SHA-256 does", () => {
    // printf abc | sha256sum: ba7816bf8f01cfea...
    assert.equal(hash64("abc"), 0xeacf018fbf1678ban);
    assert.notEqual(hash64("a"), hash64("b"));
  });
});

describe("state directory", () => {
  useRoot();

  it("is made for the owner alone, with an id that stays", () => {
    const path = join(root, "a/b");
    const first = openStateDir(path);
    assert.equal(statSync(path).mode & 0o777, 0o700);
    assert.match(first.stateId, /^[0-9a-f]{32}$/);
    assert.deepEqual(openStateDir(path), first);
    assert.notEqual(openStateDir(join(root, "other")).stateId, first.stateId);
    assert.deepEqual(readdirSync(path), ["state-id"]);
  });

  it("gives one id to all who come at once", async () => {
    const module = new URL("../../../lib/system/state-dir.js", import.meta.url).href;
    const path = join(root, "race");
    mkdirSync(path, { mode: 0o700 });
    const source = `
      import(${JSON.stringify(module)}).then(({ openStateDir }) => {
        require("node:worker_threads").parentPort.postMessage(openStateDir(${JSON.stringify(path)}).stateId);
      });`;
    const ids = await Promise.all(
      Array.from(
        { length: 4 },
        async () =>
          await new Promise<unknown>((resolve, reject) => {
            const worker = new Worker(source, { eval: true, execArgv: [] });
            worker.once("message", resolve);
            worker.once("error", reject);
          }),
      ),
    );
    assert.equal(new Set(ids).size, 1);
    assert.deepEqual(readdirSync(path), ["state-id"]);
  });

  it("refuses a link, a file, one that others may write, and a damaged id", () => {
    const path = join(root, "dir");
    openStateDir(path);
    symlinkSync(path, join(root, "link"));
    writeFileSync(join(root, "file"), "");
    assert.throws(() => openStateDir(join(root, "link")), code("ERR_STATE_DIR"));
    assert.throws(() => openStateDir(join(root, "file")), code("ERR_STATE_DIR"));
    chmodSync(path, 0o770);
    assert.throws(() => openStateDir(path), code("ERR_STATE_DIR"));
    chmodSync(path, 0o700);
    writeFileSync(join(path, "state-id"), "x");
    assert.throws(() => openStateDir(path), code("ERR_STATE_ID"));
  });

  it("replaces a file whole, and leaves nothing beside it when that fails", () => {
    const path = join(root, "file");
    writeFileAtomic(path, "one");
    writeFileAtomic(path, Buffer.from("two"), 0o640);
    assert.equal(readFileSync(path, "latin1"), "two");
    assert.equal(statSync(path).mode & 0o777, 0o640);
    mkdirSync(join(root, "occupied"));
    assert.throws(() => {
      writeFileAtomic(join(root, "occupied"), "x");
    }, /EISDIR/);
    assert.deepEqual(readdirSync(root).sort(), ["file", "occupied"]);
  });
});

describe("memory locking", () => {
  it("takes only readable mappings that have a file", () => {
    const maps = [
      "55d0a000-55d0c000 r--p 00000000 08:01 1234    /usr/bin/node",
      "55d0c000-55d0d000 ---p 00000000 08:01 1234    /usr/bin/node",
      "7f000000-7f100000 rw-p 00000000 00:00 0       [heap]",
      "7f200000-7f201000 r-xp 00001000 08:01 99      /lib/with space.so (deleted)",
      "",
    ].join("\n");
    assert.deepEqual(fileMappings(maps), [
      { address: 0x55d0a000n, length: 0x2000 },
      { address: 0x7f200000n, length: 0x1000 },
    ]);
    assert.throws(() => fileMappings("garbage"), code("ERR_PROC_FORMAT"));
  });

  it("tells what it locked and what was refused, and the kernel agrees", () => {
    const module = new URL("../../../lib/system/realtime.js", import.meta.url).href;
    const source = `
      import { readFileSync } from "node:fs";
      import { lockFileMappings } from ${JSON.stringify(module)};
      const result = lockFileMappings();
      const status = readFileSync("/proc/self/status", "latin1");
      console.log(JSON.stringify({ ...result, status }));`;
    const output = execFileSync(process.execPath, ["--input-type=module", "-e", source], {
      encoding: "utf8",
    });
    const result = JSON.parse(output) as LockedMemory & { status: string };
    const lockedKib = Number(/^VmLck:\s+(\d+) kB/m.exec(result.status)?.[1]);
    assert.equal(lockedKib * 1024, result.lockedBytes);
    const refusals = Object.values(result.refused).reduce((sum, count) => sum + count, 0);
    assert.ok(result.lockedBytes > 1024 * 1024 || refusals > 0);
  });

  it("refuses without a crash where there is nothing mapped", () => {
    const result = lockFileMappings("1000-2000 r--p 00000000 08:01 1 /x\n");
    assert.deepEqual(result, { lockedBytes: 0, refused: { ENOMEM: 1 } });
  });
});
