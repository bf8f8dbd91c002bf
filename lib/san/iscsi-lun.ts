/**
 * A LUN that is reached by iSCSI, as node.json keeps it: the way to it and the disk that it is. The path to the device is
 * beside it in `paths`, and is only where the disk was found last (current-paths.ts).
 */
import { listOf, misfit, objectShape, oneOf } from "../net/shape.js";

export interface IscsiLun {
  /** Its entry in `paths`. */
  readonly path: string;
  /** `iscsi://10.0.0.9:3260/iqn.2026-11.example:data/0` */
  readonly url: string;
  /** What the disk calls itself (`naa...`): another one behind the same address is refused. */
  readonly wwid: string;
  /** Which portals of the target to log in to: that of the address, or all of them (dm-multipath). */
  readonly portals: "one" | "all";
}

/** The LUNs in node.json. */
export interface LunPaths {
  readonly paths: readonly string[];
  readonly iscsi?: readonly IscsiLun[] | undefined;
}

const SHAPE = listOf(
  objectShape<IscsiLun>({
    path: "string",
    url: "string",
    wwid: "string",
    portals: oneOf("one", "all"),
  }),
);

/** As `formatIscsiUrl` writes it; here without its module, which would make every command slower to start. */
const ADDRESS = /^iscsi:\/\/[^/]+:\d+\/[^/]+\/\d+$/;

/** What is wrong with the `iscsi` of a node.json; undefined when nothing is. */
export function misfitOfIscsi(value: unknown): string | undefined {
  if (value === undefined) {
    return undefined;
  }
  const trouble = misfit(value, SHAPE, "iscsi");
  if (trouble !== undefined) {
    return trouble;
  }
  const bad = (value as readonly IscsiLun[]).findIndex(({ url }) => !ADDRESS.test(url));
  return bad === -1 ? undefined : `iscsi[${bad}].url is no address of a LUN`;
}
