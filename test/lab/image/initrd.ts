/** The initramfs: busybox, the early modules and the guest's own scripts and agent. Not compressed: unpacking is slow. */
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { findRoot } from "../../helpers/root.js";
import { built, inputsKey, type Progress } from "../cache.js";
import { tool } from "../tool.js";
import { EARLY_MODULES, type RootImage } from "./root.js";

export interface Initrd {
  readonly key: string;
  readonly file: string;
}

export async function initrd(image: RootImage, say: Progress): Promise<Initrd> {
  const scripts = join(findRoot(), "test/lab/guest");
  const shell = readdirSync(scripts).filter((name) => name.endsWith(".sh"));
  const compiled = join(import.meta.dirname, "..");
  const files = [
    ...shell.map((name) => join(scripts, name)),
    ...["frames.js", "guest/agent.js", "image/initrd.js"].map((name) => join(compiled, name)),
  ];
  const key = inputsKey([image.key], files);
  const dir = await built("initrd", key, say, async (target) => {
    const tree = mkdtempSync(join(tmpdir(), "sharedha-initrd-"));
    try {
      cpSync(image.early, tree, { recursive: true });
      writeFileSync(join(tree, "modules/order"), `${EARLY_MODULES.join("\n")}\n`);
      cpSync(join(scripts, "init.sh"), join(tree, "init"));
      chmodSync(join(tree, "init"), 0o755);
      mkdirSync(join(tree, "lab/guest"), { recursive: true });
      for (const name of ["boot.sh", "services.sh"]) {
        cpSync(join(scripts, name), join(tree, "lab", name));
        chmodSync(join(tree, "lab", name), 0o755);
      }
      cpSync(join(compiled, "frames.js"), join(tree, "lab/frames.js"));
      cpSync(join(compiled, "guest/agent.js"), join(tree, "lab/guest/agent.js"));
      writeFileSync(join(tree, "lab/package.json"), `{ "type": "module" }\n`);
      await pack(tree, join(target, "initrd.img"));
    } finally {
      rmSync(tree, { recursive: true });
    }
  });
  return { key, file: join(dir, "initrd.img") };
}

async function pack(tree: string, target: string): Promise<void> {
  const names = (await tool("find", [tree, "-printf", "%P\\n"]))
    .split("\n")
    .filter((name) => name !== "");
  await tool(
    "cpio",
    ["--create", "--format=newc", "--quiet", `--directory=${tree}`, `--file=${target}`],
    {
      input: `${names.join("\n")}\n`,
    },
  );
}
