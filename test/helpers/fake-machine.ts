import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

import { SystemTree } from "../../lib/system/system-tree.js";

/** A /sys, /proc and /etc of its own in a temporary directory, filled file by file. */
export class FakeMachine {
  readonly root = mkdtempSync(join(tmpdir(), "sharedha-machine-"));
  readonly tree = new SystemTree(this.root);

  file(path: string, text: string, mode = 0o644): this {
    mkdirSync(dirname(join(this.root, path)), { recursive: true });
    writeFileSync(join(this.root, path), `${text}\n`);
    chmodSync(join(this.root, path), mode);
    return this;
  }

  files(directory: string, files: Readonly<Record<string, string>>): this {
    for (const [name, text] of Object.entries(files)) {
      this.file(`${directory}/${name}`, text);
    }
    return this;
  }

  directory(path: string): this {
    mkdirSync(join(this.root, path), { recursive: true });
    return this;
  }

  /** @param target a path of the machine */
  link(path: string, target: string): this {
    mkdirSync(dirname(join(this.root, path)), { recursive: true });
    symlinkSync(join(this.root, target), join(this.root, path));
    return this;
  }

  /** A link that leads nowhere in the tree, as /proc/PID/fd has them. */
  linkText(path: string, text: string): this {
    mkdirSync(dirname(join(this.root, path)), { recursive: true });
    symlinkSync(text, join(this.root, path));
    return this;
  }

  /** A SCSI disk as the kernel shows it; `bus` is what lies between /sys/devices and the SCSI address. */
  scsiDisk(
    name: string,
    bus: string,
    number: string,
    files: Readonly<Record<string, string>>,
  ): this {
    const address = "0:0:0:0";
    const device = `/sys/devices/${bus}/${address}`;
    const disk = `${device}/block/${name}`;
    return this.files(disk, { dev: number, "queue/write_cache": "write back", "queue/fua": "0" })
      .files(device, { state: "running", vendor: "LIO-ORG", model: "IBLOCK", ...files })
      .file(`${device}/scsi_disk/${address}/cache_type`, "write back")
      .link(`${disk}/device`, device)
      .link(`/sys/class/block/${name}`, disk)
      .link(`/sys/dev/block/${number}`, disk);
  }

  dispose(): void {
    rmSync(this.root, { recursive: true });
  }
}
