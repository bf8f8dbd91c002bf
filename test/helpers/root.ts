import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** The root of the checkout: compiled files live one level deeper than their sources. */
export function findRoot(): string {
  let dir = import.meta.dirname;
  while (!existsSync(join(dir, "package-lock.json"))) {
    const parent = dirname(dir);
    if (parent === dir) {
      throw new Error(`no package-lock.json above ${import.meta.dirname}`);
    }
    dir = parent;
  }
  return dir;
}
