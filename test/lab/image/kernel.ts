/** The guests' kernel: Debian's own, uncompressed, so that no guest spends ten seconds on unpacking it under emulation. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { run } from "../../../lib/system/process.js";
import { tool } from "../tool.js";

const XZ_MAGIC = Buffer.from([0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]);
const ELF_MAGIC = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);

export interface Kernel {
  readonly release: string;
  /** Where its /boot and /lib/modules have been unpacked. */
  readonly tree: string;
}

/**
 * Fetches and unpacks the package that `linux-image-amd64` stands for, from where the packages of the guests' root came.
 * @param root the guests' root, still with its lists of packages
 */
export async function fetchKernel(dir: string, root: string): Promise<Kernel> {
  const there = ["-o", `Dir=${root}`, "-o", `Dir::State::status=${root}/var/lib/dpkg/status`];
  const depends = await tool("apt-cache", [...there, "depends", "linux-image-amd64"]);
  const name = /^\s*Depends: (linux-image-\S+)$/m.exec(depends)?.[1];
  if (name === undefined) {
    throw new Error("the archive of the guests' packages has no linux-image-amd64");
  }
  // apt-get drops its privileges for a download, and then may not write into a folder of root's.
  const options = [...there, "-o", "APT::Sandbox::User=root"];
  await tool("env", ["-C", dir, "apt-get", ...options, "download", name], { timeoutMs: 300_000 });
  const deb = readdirSync(dir).find((one) => one.endsWith(".deb"));
  if (deb === undefined) {
    throw new Error(`apt-get fetched no ${name}`);
  }
  const tree = join(dir, "kernel");
  await tool("dpkg-deb", ["-x", join(dir, deb), tree], { timeoutMs: 120_000 });
  rmSync(join(dir, deb));
  // Debian 13 and later have /usr/lib only.
  const base = existsSync(join(tree, "lib/modules")) ? tree : join(tree, "usr");
  const [release] = readdirSync(join(base, "lib/modules"));
  if (release === undefined) {
    throw new Error(`${name} has no modules`);
  }
  await tool("depmod", ["-b", base, release]);
  return { release, tree: base };
}

/** The ELF image inside of vmlinuz; QEMU enters it by its PVH note. */
export async function extractVmlinux(kernel: Kernel, target: string): Promise<void> {
  const vmlinuz = readFileSync(join(kernel.tree, "boot", `vmlinuz-${kernel.release}`));
  const start = vmlinuz.indexOf(XZ_MAGIC);
  if (start < 0) {
    throw new Error(`vmlinuz-${kernel.release} is not compressed with xz`);
  }
  const packed = `${target}.xz`;
  writeFileSync(packed, vmlinuz.subarray(start));
  // What follows the payload makes xz complain; whether it worked is seen in the result.
  await run(
    "unpack vmlinuz",
    "xz",
    ["--decompress", "--single-stream", "--force", "--keep", packed],
    {
      timeoutMs: 120_000,
    },
  );
  rmSync(packed);
  if (!existsSync(target) || !readFileSync(target).subarray(0, 4).equals(ELF_MAGIC)) {
    throw new Error(`vmlinuz-${kernel.release} does not hold an ELF image`);
  }
}

/** Copies the named modules with all that they depend on. @returns nothing; unknown names are an error */
export async function copyModules(
  kernel: Kernel,
  names: readonly string[],
  targetTree: string,
): Promise<void> {
  const source = join(kernel.tree, "lib/modules", kernel.release);
  const target = join(targetTree, "lib/modules", kernel.release);
  const files = new Set<string>();
  for (const name of names) {
    const args = [
      "--dirname",
      kernel.tree,
      "--set-version",
      kernel.release,
      "--show-depends",
      name,
    ];
    for (const line of (await tool("modprobe", args)).split("\n")) {
      const file = /^insmod (\S+)/.exec(line)?.[1];
      if (file !== undefined) {
        files.add(file.slice(source.length + 1));
      }
    }
  }
  for (const file of [...files, "modules.order", "modules.builtin", "modules.builtin.modinfo"]) {
    await tool("install", ["-D", "-m", "644", join(source, file), join(target, file)]);
  }
  await tool("depmod", ["-b", targetTree, kernel.release]);
}
