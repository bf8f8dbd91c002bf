import { readFileSync } from "node:fs";

/** Of package.json, the one place where it is written: beside lib in the sources, above dist when compiled. */
function readVersion(): string {
  for (const up of ["../..", "../../.."]) {
    const file = new URL(`${up}/package.json`, import.meta.url);
    try {
      const value: unknown = JSON.parse(readFileSync(file, "utf8"));
      if (typeof value === "object" && value !== null && "version" in value) {
        return String(value.version);
      }
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) {
        throw error;
      }
    }
  }
  return "unknown";
}

export const VERSION = readVersion();
