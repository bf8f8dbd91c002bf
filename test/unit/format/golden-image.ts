import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";

/** Images of real sanlock; see fixtures/README.md. */

const LIMIT = 16 * 1024 * 1024;

/** The decompressed image of fixtures/sanlock/<name>.img.xz. */
export function goldenImage(name: string): Uint8Array {
  const path = join(fixturesFolder(), "sanlock", `${name}.img.xz`);
  return new Uint8Array(execFileSync("xz", ["-dc", path], { maxBuffer: LIMIT }));
}

/** Offsets of the sectors that are not all zero. */
export function usedSectors(image: Uint8Array, sectorSize: number): number[] {
  const offsets: number[] = [];
  for (let at = 0; at < image.length; at += sectorSize) {
    if (image.subarray(at, at + sectorSize).some((byte) => byte !== 0)) {
      offsets.push(at);
    }
  }
  return offsets;
}

// Compiled tests lie deeper than their sources, or elsewhere; so look upwards, then in the working directory.
function fixturesFolder(): string {
  for (let folder = import.meta.dirname; folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, "fixtures", "README.md"))) {
      return join(folder, "fixtures");
    }
  }
  return join(process.cwd(), "fixtures");
}
