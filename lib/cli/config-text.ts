import { readFileSync } from "node:fs";

import { ShareHaError } from "../errors.js";

/** The daemon takes bodies of 64 KiB; a text that large is no configuration. */
const TEXT_BYTES_MAX = 48 * 1024;

/** @param file a path, or `-` for standard input. @throws ERR_CONFIG_FILE */
export function readConfigText(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file === "-" ? 0 : file);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new ShareHaError("ERR_CONFIG_FILE", `${file} cannot be read: ${why}`, {
      hint: "Give the path of a TOML file, or - for standard input.",
      fields: { file },
      cause: error,
    });
  }
  if (bytes.length > TEXT_BYTES_MAX) {
    throw new ShareHaError(
      "ERR_CONFIG_FILE",
      `${file} has ${bytes.length} bytes, at most ${TEXT_BYTES_MAX} fit`,
      {
        hint: "Give the TOML file of the cluster's configuration.",
        fields: { file },
      },
    );
  }
  return bytes.toString("utf8");
}
