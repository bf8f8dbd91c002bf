/**
 * A portal that was given by a host name, as the kernel and the node records have it: by its address. Where something is
 * looked up by its portal, a name that is compared as a text finds nothing, and "nothing to log out of" would be a lie.
 */
import { isIP } from "node:net";

import { isSamePortal, plainAddress, type Portal } from "./address.js";
import { type Edges } from "./edges.js";
import { resolvePortal } from "./reach.js";

/**
 * @param known the portals among which it is looked for
 * @returns those that it is: as they are written there, or by one of its addresses; none when it is none of them
 * @throws ERR_ISCSI_NAME_UNRESOLVED
 */
export async function samePortals(
  edges: Edges,
  known: readonly Portal[],
  wanted: Portal,
): Promise<readonly Portal[]> {
  const exact = known.filter((portal) => isSamePortal(portal, wanted));
  if (exact.length > 0 || isIP(wanted.address) !== 0) {
    return exact;
  }
  const addresses = await resolvePortal(edges.network, wanted);
  return known.filter((portal) =>
    addresses.some((address) => isSamePortal(portal, { address, port: wanted.port })),
  );
}

/** The first of them; where there is none, the first address of the name. @throws ERR_ISCSI_NAME_UNRESOLVED */
export async function knownPortal(
  edges: Edges,
  known: readonly Portal[],
  wanted: Portal,
): Promise<Portal> {
  const [same] = await samePortals(edges, known, wanted);
  if (same !== undefined || isIP(wanted.address) !== 0) {
    return same ?? wanted;
  }
  const [address = wanted.address] = await resolvePortal(edges.network, wanted);
  return { address: plainAddress(address), port: wanted.port };
}
