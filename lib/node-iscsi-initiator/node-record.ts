/** The records of open-iscsi's node database: one target at one portal each. */
import { formatPortal, isSamePortal, type Portal } from "./address.js";
import { type ChapCredentials, checkChap, nodeChapLines } from "./chap.js";
import { type Edges, type OperationOptions, requireKnown, TIMEOUTS } from "./edges.js";
import { type Place } from "./exit-code.js";
import { callIscsiadm } from "./iscsiadm.js";
import { iscsiError } from "./iscsi-error.js";
import { samePortals } from "./known-portal.js";
import { parseRecords, parseTargetPortals, type RecordValues, type TargetPortal } from "./parse.js";
import { changeRecordFile, nodeRecordFiles, noRecordError } from "./record-file.js";

const NOTHING_FOUND = 21;

export interface NodeKey {
  readonly target: string;
  readonly portal: Portal;
}

export function nodeArgs({ target, portal }: NodeKey): readonly string[] {
  return ["-m", "node", "-T", target, "-p", formatPortal(portal)];
}

/** One per target and portal, whatever the number of interfaces. */
export async function listNodes(
  edges: Edges,
  options: OperationOptions,
  place: Place = { verb: "listing the node records" },
): Promise<readonly TargetPortal[]> {
  const { exitCode, stdout } = await callIscsiadm(edges.run, place, ["-m", "node"], {
    timeoutMs: options.timeoutMs ?? TIMEOUTS.record,
    signal: options.signal,
    accept: [NOTHING_FOUND],
  });
  const all =
    exitCode === NOTHING_FOUND ? [] : await requireKnown(edges, place, parseTargetPortals(stdout));
  return all.filter(
    (one, index) =>
      all.findIndex(
        (other) => other.target === one.target && isSamePortal(other.portal, one.portal),
      ) === index,
  );
}

/**
 * The portals that a target has records for; with `wanted` the one that it is, also by a host name.
 * @throws ERR_ISCSI_NO_RECORD
 */
export async function nodePortals(
  edges: Edges,
  target: string,
  wanted: Portal | undefined,
  options: OperationOptions,
): Promise<readonly Portal[]> {
  const place: Place = {
    verb: "listing the records of",
    target,
    ...(wanted === undefined ? {} : { portal: wanted }),
  };
  const portals = (await listNodes(edges, options, place))
    .filter((node) => node.target === target)
    .map(({ portal }) => portal);
  const chosen = wanted === undefined ? portals : await samePortals(edges, portals, wanted);
  if (chosen.length === 0) {
    throw noRecordError(target, wanted);
  }
  return chosen;
}

/** @throws ERR_ISCSI_NO_RECORD */
export async function readNode(
  edges: Edges,
  key: NodeKey,
  options: OperationOptions,
): Promise<RecordValues> {
  const place: Place = { verb: "record of", ...key };
  const { exitCode, stdout } = await callIscsiadm(edges.run, place, nodeArgs(key), {
    timeoutMs: options.timeoutMs ?? TIMEOUTS.record,
    signal: options.signal,
    accept: [NOTHING_FOUND],
  });
  const [record] =
    exitCode === NOTHING_FOUND ? [] : await requireKnown(edges, place, parseRecords(stdout));
  if (record === undefined) {
    throw noRecordError(key.target, key.portal);
  }
  return record;
}

/**
 * Sets what differs, and reads it back: iscsiadm takes a number that it cannot read for 0.
 * @returns the values before, of those that were changed
 */
export async function updateNode(
  edges: Edges,
  key: NodeKey,
  values: Readonly<Record<string, string>>,
  options: OperationOptions,
): Promise<ReadonlyMap<string, string | undefined>> {
  const place: Place = { verb: "record of", ...key };
  for (const [name, value] of Object.entries(values)) {
    checkValue(place, name, value);
  }
  const before = await readNode(edges, key, options);
  const changes = Object.entries(values).filter(([name, value]) => before.get(name) !== value);
  if (changes.length === 0) {
    return new Map();
  }
  const pairs = changes.flatMap(([name, value]) => ["-n", name, "-v", value]);
  await callIscsiadm(edges.run, place, [...nodeArgs(key), "-o", "update", ...pairs], {
    timeoutMs: options.timeoutMs ?? TIMEOUTS.record,
    signal: options.signal,
  });
  const after = await readNode(edges, key, options);
  const lost = changes.find(([name, value]) => after.get(name) !== value);
  if (lost !== undefined) {
    throw iscsiError(
      "ERR_ISCSI_DATABASE",
      `record of ${key.target} at ${formatPortal(key.portal)}: ${lost[0]} is ${after.get(lost[0]) ?? "empty"} after it was set to ${lost[1]}`,
      {
        hint: "This open-iscsi takes another form of the value, or another program changes the record; see iscsid.conf.",
        fields: { target: key.target, portal: formatPortal(key.portal), parameter: lost[0] },
      },
    );
  }
  return new Map(changes.map(([name]) => [name, before.get(name)]));
}

/** Arguments can be read by every user of the machine, so nothing secret may become one. */
function checkValue(place: Place, name: string, value: string): void {
  if (/password/i.test(name)) {
    throw iscsiError("ERR_ISCSI_SECRET", `${name} is not set as a parameter`, {
      hint: "Secrets are set with setChap, which keeps them off command lines.",
    });
  }
  if (!/^(node|iface)\.[\w.[\]]+$/.test(name) || !/^[!-~]([ -~]{0,253}[!-~])?$/.test(value)) {
    throw iscsiError("ERR_ISCSI_ARGUMENT", `${place.verb} cannot have ${name} = ${value}`, {
      hint: "Names are as in `iscsiadm -m node -T TARGET -p PORTAL`; values are one printable line.",
    });
  }
}

/** null: no authentication. @throws ERR_ISCSI_SECRET, ERR_ISCSI_NO_RECORD, ERR_ISCSI_DATABASE */
export async function setNodeChap(
  edges: Edges,
  key: NodeKey,
  chap: ChapCredentials | null,
): Promise<void> {
  if (chap !== null) {
    checkChap(chap);
  }
  const place: Place = { verb: "record of", ...key };
  for (const file of await nodeRecordFiles(edges.databaseDirs, key.target, key.portal)) {
    await changeRecordFile(file, place, nodeChapLines(chap));
  }
}

/** @returns `absent` when there was no record */
export async function deleteNode(
  edges: Edges,
  key: NodeKey,
  options: OperationOptions,
): Promise<"deleted" | "absent"> {
  const place: Place = { verb: "deleting the record of", ...key };
  const { exitCode } = await callIscsiadm(edges.run, place, [...nodeArgs(key), "-o", "delete"], {
    timeoutMs: options.timeoutMs ?? TIMEOUTS.record,
    signal: options.signal,
    accept: [NOTHING_FOUND],
  });
  return exitCode === NOTHING_FOUND ? "absent" : "deleted";
}
