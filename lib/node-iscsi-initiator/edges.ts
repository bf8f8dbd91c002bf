/** What the operations work with: the real machine, or what a test gives. */
import { type ShareHaError } from "../errors.js";
import { type DiskRoots } from "./disk.js";
import { placeFields, placeText, type Place } from "./exit-code.js";
import { callIscsiadm, redact, type CallOptions, type Runner } from "./iscsiadm.js";
import { iscsiError, isIscsiError } from "./iscsi-error.js";
import { type Parsed, parseVersion } from "./parse.js";
import { type Network } from "./reach.js";

export interface Edges {
  readonly run: Runner;
  readonly network: Network;
  readonly roots: DiskRoots;
  readonly databaseDirs: readonly string[];
}

/** Every call has an end; iscsiadm itself waits up to 30 s for the lock of its database. */
export const TIMEOUTS = {
  record: 35_000,
  probe: 5_000,
  discovery: 30_000,
  /** With one retry a target that does not answer takes 17 s. */
  login: 30_000,
  /** How long a session that somebody else is making may take to be logged in, or a lost one to come back. */
  settle: 10_000,
  logout: 20_000,
  /** The logout after a login that was given up: iscsid has to give up first, with one retry after 17 s (seen). */
  cleanUp: 25_000,
  rescan: 30_000,
  disk: 10_000,
} as const;

export interface OperationOptions {
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export async function readVersion(edges: Edges, options: CallOptions): Promise<Parsed<string>> {
  const place: Place = { verb: "asking for the version of open-iscsi" };
  const { stdout } = await callIscsiadm(edges.run, place, ["--version"], options);
  return parseVersion(stdout);
}

/** @throws ERR_ISCSI_OUTPUT with the line and the version that printed it */
export async function requireKnown<T>(edges: Edges, place: Place, parsed: Parsed<T>): Promise<T> {
  if (parsed.kind === "ok") {
    return parsed.value;
  }
  throw await outputError(edges, place, parsed.line);
}

async function outputError(edges: Edges, place: Place, line: string): Promise<ShareHaError> {
  const version = await versionText(edges);
  const shown = JSON.stringify(redact(line).slice(0, 200));
  return iscsiError(
    "ERR_ISCSI_OUTPUT",
    `${placeText(place)}: iscsiadm ${version} printed a line that is not known: ${shown}`,
    {
      hint: "This version of open-iscsi prints another form; report the line. Nothing was guessed from it.",
      fields: { ...placeFields(place), version },
    },
  );
}

async function versionText(edges: Edges): Promise<string> {
  try {
    const parsed = await readVersion(edges, { timeoutMs: TIMEOUTS.record });
    return parsed.kind === "ok" ? parsed.value : "of unknown version";
  } catch (error) {
    // The line is what matters; that the version cannot be had either is said in its place.
    if (isIscsiError(error)) {
      return "of unknown version";
    }
    throw error;
  }
}
