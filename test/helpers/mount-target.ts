import assert from "node:assert/strict";

import { topMount } from "../../lib/system/filesystem.js";
import { identifyBlockDevice, type MountTarget } from "../../lib/system/mounted-filesystem.js";

/** What is mounted at this path now. */
export function mountTarget(path: string): MountTarget {
  const mount = topMount(path);
  assert(mount !== undefined, `nothing is mounted at ${path}`);
  return { path, device: identifyBlockDevice(mount.source) };
}

/** A mount that was announced and is nowhere. */
export function noSuchMount(path: string): MountTarget {
  return { path, device: { majorMinor: "7:1048575", sequence: "1" } };
}
