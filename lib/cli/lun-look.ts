/** Health without a daemon: opens the LUNs of node.json for reading and looks at the lockspace twice. */
import { type LunsLook } from "../health/lun-checks.js";
import { ShareHaError } from "../errors.js";
import { compareLooks, type LockspaceRead, readLockspace } from "../region/lockspace-look.js";
import { openRegion, type Region } from "../region/open-region.js";
import { currentPaths } from "../san/current-paths.js";
import { type NodeFile } from "./node-file.js";

export async function lookAtLuns(file: NodeFile): Promise<LunsLook> {
  const base = { node: file.node, luns: [], hosts: undefined, windowMs: 0, trouble: undefined };
  let region: Region;
  try {
    region = await openRegion({ paths: currentPaths(file), readOnly: true });
  } catch (error) {
    if (!(error instanceof ShareHaError)) {
      throw error;
    }
    return { ...base, trouble: { message: error.message, hint: error.hint } };
  }
  try {
    const { timings, luns } = region;
    const windowMs = 2 * timings.intervalMs + timings.deadlineMs;
    const before = await readLockspaces(region);
    await new Promise((resolve) => setTimeout(resolve, windowMs));
    const after = await readLockspaces(region);
    return {
      ...base,
      windowMs,
      luns: luns.map((lun, index) => {
        const failure = after[index]?.failure ?? before[index]?.failure ?? null;
        return {
          path: lun.path,
          counts: lun.counts && failure === null,
          state: failure === null ? lun.state : "failed",
          why: failure ?? lun.why ?? null,
        };
      }),
      hosts: hasMajority(after) ? compareLooks(region.maxHosts, before, after) : undefined,
    };
  } finally {
    await region.close();
  }
}

async function readLockspaces(region: Region): Promise<readonly LockspaceRead[]> {
  const { timings } = region;
  return Promise.all(
    region.luns.map(async (lun): Promise<LockspaceRead> =>
      lun.counts
        ? await readLockspace(lun.device, region, timings.deadlineMs)
        : { sectors: [], failure: null },
    ),
  );
}

function hasMajority(reads: readonly LockspaceRead[]): boolean {
  return reads.filter((read) => read.sectors.length > 0).length > reads.length / 2;
}
