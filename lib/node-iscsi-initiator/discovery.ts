/** SendTargets discovery (RFC 7143, appendix C): asks a portal which targets there are, and makes their node records. */
import { readFile } from "node:fs/promises";

import { formatPortal, type Portal } from "./address.js";
import { chapError } from "./chap-error.js";
import { type ChapCredentials, checkChap, discoveryChapLines } from "./chap.js";
import { type Edges, type OperationOptions, requireKnown, TIMEOUTS } from "./edges.js";
import { type Place } from "./exit-code.js";
import { callIscsiadm } from "./iscsiadm.js";
import { isIscsiError, iscsiError } from "./iscsi-error.js";
import { parseTargetPortals, type TargetPortal } from "./parse.js";
import { changeRecordFile, discoveryRecordFile, recordValue } from "./record-file.js";
import { reachPortal } from "./reach.js";

export interface DiscoverOptions extends OperationOptions {
  /** For the discovery itself; kept in the portal's discovery record. null: without. Undefined: as the record says. */
  readonly chap?: ChapCredentials | null | undefined;
}

const AUTH_FAILED = 24;
const NOTHING_FOUND = 21;

/**
 * Records that exist stay as they are: without `-o new` iscsiadm would put iscsid.conf's timers back and throw CHAP secrets
 * away (seen with 2.1.8).
 */
export async function discover(
  edges: Edges,
  asked: Portal,
  options: DiscoverOptions,
): Promise<readonly TargetPortal[]> {
  const { timeoutMs = TIMEOUTS.discovery, signal, chap } = options;
  if (chap !== undefined && chap !== null) {
    checkChap(chap);
  }
  const [portal = asked] = await reachPortal(edges.network, asked, {
    timeoutMs: Math.min(timeoutMs, TIMEOUTS.probe),
    signal,
  });
  const place: Place = { verb: "discovery at", portal };
  if (chap !== undefined) {
    await setDiscoveryChap(edges, portal, chap, { signal });
  }
  const args = [...discoveryArgs(portal), "-o", "new", "--discover"];
  const { exitCode, stdout } = await callIscsiadm(edges.run, place, args, {
    timeoutMs,
    signal,
    accept: [AUTH_FAILED, NOTHING_FOUND],
  });
  if (exitCode === AUTH_FAILED) {
    throw chapError(place, await discoveryAuth(edges, portal));
  }
  return exitCode === NOTHING_FOUND
    ? []
    : await requireKnown(edges, place, parseTargetPortals(stdout));
}

function discoveryArgs(portal: Portal): readonly string[] {
  return ["-m", "discoverydb", "-t", "sendtargets", "-p", formatPortal(portal)];
}

/** `-o new` alone makes a record, and makes an existing one anew, without its CHAP lines: only where there is none. */
async function setDiscoveryChap(
  edges: Edges,
  portal: Portal,
  chap: ChapCredentials | null,
  options: OperationOptions,
): Promise<void> {
  const place: Place = { verb: "discovery record of", portal };
  const find = (): Promise<string | undefined> => discoveryRecordFile(edges.databaseDirs, portal);
  let file = await find();
  if (file === undefined) {
    await callIscsiadm(edges.run, place, [...discoveryArgs(portal), "-o", "new"], {
      timeoutMs: TIMEOUTS.record,
      signal: options.signal,
    });
    file = await find();
  }
  if (file === undefined) {
    throw iscsiError(
      "ERR_ISCSI_DATABASE",
      `the discovery record of ${formatPortal(portal)} is not where this version looks for it`,
      {
        hint: `open-iscsi keeps its records elsewhere than in ${edges.databaseDirs.join(" or ")}; report it with \`iscsiadm --version\`.`,
        fields: { portal: formatPortal(portal) },
      },
    );
  }
  await changeRecordFile(file, place, discoveryChapLines(chap));
}

async function discoveryAuth(edges: Edges, portal: Portal): Promise<string | undefined> {
  const file = await discoveryRecordFile(edges.databaseDirs, portal);
  return file === undefined
    ? undefined
    : recordValue(await readFile(file, "utf8"), "discovery.sendtargets.auth.authmethod");
}

/**
 * Asks again, without touching any record, whether a portal still offers a target.
 * @returns undefined when it does not answer that
 */
export async function isOffered(
  edges: Edges,
  portal: Portal,
  target: string,
  options: OperationOptions,
): Promise<boolean | undefined> {
  const place: Place = { verb: "discovery at", portal };
  const args = [...discoveryArgs(portal), "-o", "nonpersistent", "--discover"];
  try {
    const { exitCode, stdout } = await callIscsiadm(edges.run, place, args, {
      timeoutMs: options.timeoutMs ?? TIMEOUTS.discovery,
      signal: options.signal,
      accept: [NOTHING_FOUND],
    });
    if (exitCode === NOTHING_FOUND) {
      return false;
    }
    const parsed = parseTargetPortals(stdout);
    return parsed.kind === "ok" ? parsed.value.some((one) => one.target === target) : undefined;
  } catch (error) {
    if (isIscsiError(error)) {
      return undefined;
    }
    throw error;
  }
}
