/**
 * What every VM boots: the kernel, one read-only root image that all share, and the parts of the initramfs. Made from
 * Debian's archive: on Debian the host's own release by its own package sources, elsewhere (Ubuntu) the one named here.
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { join } from "node:path";

import { built, inputsKey, type Progress } from "../cache.js";
import { GUEST_MODULES, GUEST_PACKAGES } from "../settings.js";
import { tool } from "../tool.js";
import { copyModules, extractVmlinux, fetchKernel, type Kernel } from "./kernel.js";

const RELEASE_ELSEWHERE = "bookworm";
/** The first of these that there is: the host's sources, of whatever form. */
const SOURCES = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
const UNUSED = ["man", "doc", "locale", "info"];
const ROOT_MIB = 900;

/** In the order in which the initramfs has to load them: there is no modprobe yet. */
export const EARLY_MODULES = [
  ...["virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci"],
  ...["virtio_blk", "crc32c_generic", "crc16", "mbcache", "jbd2", "ext4", "overlay"],
];

export interface RootImage {
  readonly key: string;
  readonly vmlinux: string;
  readonly root: string;
  /** busybox and the early modules. */
  readonly early: string;
}

export async function rootImage(say: Progress): Promise<RootImage> {
  const recipe = ["root.js", "kernel.js"].map((name) => join(import.meta.dirname, name));
  const settings = JSON.stringify([GUEST_PACKAGES, GUEST_MODULES, process.version, release()]);
  const key = inputsKey([settings], recipe);
  const dir = await built("image", key, say, async (target) => {
    await buildImage(target, say);
  });
  return {
    key,
    vmlinux: join(dir, "vmlinux"),
    root: join(dir, "root.img"),
    early: join(dir, "early"),
  };
}

async function buildImage(dir: string, say: Progress): Promise<void> {
  const tree = join(dir, "tree");
  say("  packages");
  await makeTree(tree);
  await addNode(tree);
  say("  kernel");
  const kernel = await fetchKernel(dir, tree);
  for (const path of ["var/lib/apt/lists", "var/cache/apt"]) {
    rmSync(join(tree, path), { recursive: true });
  }
  await extractVmlinux(kernel, join(dir, "vmlinux"));
  say("  image");
  await copyModules(kernel, GUEST_MODULES, tree);
  await makeEarly(kernel, tree, join(dir, "early"));
  await makeExt4(tree, join(dir, "root.img"), ROOT_MIB);
  rmSync(tree, { recursive: true });
  rmSync(join(dir, "kernel"), { recursive: true });
}

async function makeTree(tree: string): Promise<void> {
  const excludes = UNUSED.map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);
  await tool(
    "mmdebstrap",
    [
      ...["--quiet", "--mode=root", "--variant=minbase", `--include=${GUEST_PACKAGES.join(",")}`],
      ...excludes,
      // For the kernel's package.
      "--skip=cleanup/apt/lists",
      ...[release(), tree, ...sources()],
    ],
    { timeoutMs: 900_000 },
  );
}

/** What the guests run. */
function release(): string {
  const host = readFileSync("/etc/os-release", "utf8");
  const codename = /^VERSION_CODENAME=(\w+)$/m.exec(host)?.[1];
  return isDebian(host) && codename !== undefined ? codename : RELEASE_ELSEWHERE;
}

function isDebian(osRelease: string): boolean {
  return /^ID=debian$/m.test(osRelease);
}

/** @returns none: mmdebstrap's own, which are Debian's archive */
function sources(): readonly string[] {
  if (!isDebian(readFileSync("/etc/os-release", "utf8"))) {
    return [];
  }
  const path = SOURCES.find((one) => existsSync(one) && readFileSync(one, "utf8").trim() !== "");
  if (path === undefined) {
    throw new Error(`none of ${SOURCES.join(", ")} names a package archive`);
  }
  return [path];
}

/** The host's own Node, and the command that the guests' users type. */
async function addNode(tree: string): Promise<void> {
  const node = join(tree, "usr/local/bin/node");
  copyFileSync(process.execPath, node);
  chmodSync(node, 0o755);
  try {
    await tool("chroot", [tree, "/usr/local/bin/node", "--version"]);
  } catch (error) {
    throw new Error(
      `${process.execPath} does not run in the guests: it needs libraries of this machine. Use a Node.js that is one file, as nodejs.org and NodeSource build it.`,
      { cause: error },
    );
  }
  symlinkSync("/opt/sharedha/dist/bin/sharedha.js", join(tree, "usr/local/bin/sharedha"));
  mkdirSync(join(tree, "opt/sharedha"), { recursive: true });
  mkdirSync(join(tree, "state"));
}

async function makeEarly(kernel: Kernel, tree: string, target: string): Promise<void> {
  mkdirSync(join(target, "bin"), { recursive: true });
  mkdirSync(join(target, "modules"));
  copyFileSync(join(tree, "bin/busybox"), join(target, "bin/busybox"));
  chmodSync(join(target, "bin/busybox"), 0o755);
  for (const name of EARLY_MODULES) {
    const args = ["--basedir", kernel.tree, "-k", kernel.release, "-F", "filename", name];
    const file = (await tool("modinfo", args)).trim();
    copyFileSync(file, join(target, "modules", `${name}.ko`));
  }
}

/** A file system with what is in `tree`, made without mounting anything. */
export async function makeExt4(tree: string, image: string, sizeMiB: number): Promise<void> {
  rmSync(image, { force: true });
  await tool("truncate", ["-s", `${sizeMiB}M`, image]);
  const features = "^has_journal,^metadata_csum,^64bit";
  await tool(
    "mkfs.ext4",
    ["-q", "-F", "-O", features, "-m", "0", "-N", "60000", "-d", tree, image],
    {
      timeoutMs: 300_000,
    },
  );
}
