/**
 * The build under test as a disk: what `npm pack` would install, plus the programs that tests run in the guests. It is no
 * part of the snapshots, so a changed build costs a second and not a boot.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join, relative } from "node:path";

import { findRoot } from "../../helpers/root.js";
import { built, inputsKey, type Progress } from "../cache.js";
import { tool } from "../tool.js";
import { makeExt4 } from "./root.js";

/** Fixed: a restored VM must find a disk of the size that it was saved with. */
const APP_MIB = 128;
const PARTS = ["dist/bin", "dist/lib", "dist/test/e2e/guest"];

export interface AppImage {
  readonly key: string;
  readonly file: string;
}

export async function appImage(say: Progress): Promise<AppImage> {
  const root = findRoot();
  const modules = await productionModules(root);
  const files = PARTS.flatMap((part) => filesBelow(join(root, part)));
  const key = inputsKey(
    modules.map((module) => relative(root, module)),
    [...files, join(root, "package-lock.json"), join(import.meta.dirname, "app.js")],
  );
  const dir = await built("app", key, say, async (target) => {
    const tree = join(target, "tree");
    for (const path of [...PARTS.map((part) => join(root, part)), ...modules]) {
      const to = join(tree, relative(root, path));
      mkdirSync(dirname(to), { recursive: true });
      cpSync(path, to, { recursive: true, filter: (from) => !from.endsWith(".map") });
    }
    cpSync(join(root, "package.json"), join(tree, "package.json"));
    await makeExt4(tree, join(target, "app.img"), APP_MIB);
    rmSync(tree, { recursive: true });
  });
  return { key, file: join(dir, "app.img") };
}

function filesBelow(dir: string): string[] {
  if (!existsSync(dir)) {
    return [];
  }
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.endsWith(".map"))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/** Outermost only: a package's own node_modules come with it. */
async function productionModules(root: string): Promise<readonly string[]> {
  const listed = await tool("npm", ["--prefix", root, "ls", "--omit=dev", "--parseable", "--all"]);
  const paths = listed.split("\n").filter((path) => path.includes("/node_modules/"));
  return paths.filter((path) => path.split("/node_modules/").length === 2).sort();
}
