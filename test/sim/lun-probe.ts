/** What a node finds when it looks at its paths to the LUNs, for the real judgement of lib/lease/lun-set.ts. */
import { type Superblock } from "../../lib/format/superblock.js";
import { type FoundLun } from "../../lib/lease/lun-set.js";
import { type Medium } from "./medium.js";
import { type SimOptions } from "./options.js";

const CLUSTER = "00000000-0000-4000-8000-000000000001";

/** @param paths which LUN each path of the node leads to; two that lead to one are a mistake of the cabling */
export function findLuns(
  options: SimOptions,
  media: readonly Medium[],
  paths: readonly number[],
): readonly FoundLun[] {
  return paths.map((lun, path) => {
    const medium = media[lun]!;
    return {
      path: `/dev/path${path + 1}`,
      wwid: `wwid-${lun}`,
      content:
        medium.identity === undefined
          ? { kind: "blank" }
          : { kind: "superblock", superblock: superblockOf(options, lun) },
    };
  });
}

function superblockOf(options: SimOptions, lun: number): Superblock {
  const luns = Array.from({ length: options.luns }, (_, index) => ({
    uuid: `00000000-0000-4000-8000-00000000010${index}`,
    wwid: `wwid-${index}`,
    incarnation: 1n,
  }));
  const own = luns[lun]!;
  return {
    incompatible: 0,
    compatible: 0,
    clusterName: "sim",
    clusterUuid: CLUSTER,
    clusterId: 1,
    sectorSize: 512,
    areaSize: 1024 * 1024,
    maxHosts: options.maxHosts,
    areaCount: 6 + options.leases,
    lunIndex: lun,
    lunCount: options.luns,
    lunUuid: own.uuid,
    wwid: own.wwid,
    incarnation: own.incarnation,
    epoch: 1n,
    luns,
    ...options.timings,
    profile: options.profile,
    createdAtUnix: 0,
    dataStart: 0,
    dataLength: 0,
  };
}
