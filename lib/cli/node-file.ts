/** node.json in the state directory: what this node is told at `join`, read by daemon and pulse. */
import { readFileSync, unlinkSync } from "node:fs";
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import { misfit, objectShape } from "../net/shape.js";
import { type IscsiLun, misfitOfIscsi } from "../san/iscsi-lun.js";

export type WatchdogChoice = "auto" | "hardware" | "guard" | "none";

export interface NodeFile {
  /** Absolute paths of the LUNs; of those in `iscsi`, where they were at the last join. */
  readonly paths: readonly string[];
  /** The LUNs that were given as iscsi://...; absent: none. */
  readonly iscsi?: readonly IscsiLun[];
  readonly node: string;
  /** Absent: any free one, the former one preferred. */
  readonly hostId?: number;
  readonly watchdog: WatchdogChoice;
}

const SHAPE = objectShape<Pick<NodeFile, "paths" | "node" | "watchdog">>({
  paths: { list: "string" },
  node: "string",
  watchdog: { oneOf: ["auto", "hardware", "guard", "none"] },
});

export function nodeFilePath(stateDir: string): string {
  return join(stateDir, "node.json");
}

/** @returns undefined when there is none. @throws ERR_NODE_FILE when it is damaged */
export function readNodeFile(stateDir: string): NodeFile | undefined {
  const path = nodeFilePath(stateDir);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT") {
      return undefined;
    }
    throw nodeFileError(path, error instanceof Error ? error.message : String(error), error);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw nodeFileError(path, "it is not JSON", error);
  }
  const trouble = misfit(value, SHAPE, "node.json");
  if (trouble !== undefined) {
    throw nodeFileError(path, trouble);
  }
  const file = value as NodeFile;
  const iscsiTrouble = misfitOfIscsi(file.iscsi);
  if (iscsiTrouble !== undefined) {
    throw nodeFileError(path, iscsiTrouble);
  }
  if (file.hostId !== undefined && !Number.isInteger(file.hostId)) {
    throw nodeFileError(path, "hostId is no whole number");
  }
  return file;
}

export function removeNodeFile(stateDir: string): void {
  try {
    unlinkSync(nodeFilePath(stateDir));
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) {
      throw error;
    }
  }
}

function nodeFileError(path: string, why: string, cause?: unknown): ShareHaError {
  return new ShareHaError("ERR_NODE_FILE", `${path} cannot be used: ${why}`, {
    hint: "Run `sharedha join PATH...` again: it writes the file anew.",
    fields: { path },
    cause,
  });
}
