/**
 * Writes CHAP lines into a record of open-iscsi's database. iscsiadm itself takes a value as an argument only, which
 * every user of the machine can read in /proc; so the file is changed instead, whole or not at all, mode 0600. It was made
 * by iscsiadm before, and iscsiadm keeps our lines when it writes the record again (seen with 2.1.8).
 *
 * Where a record is (2.1.8): DIR/nodes/TARGET/ADDRESS,PORT,TPGT/IFACE, or the file DIR/nodes/TARGET/ADDRESS,PORT when the
 * portal group is not known; DIR/send_targets/ADDRESS,PORT/st_config. DIR is /etc/iscsi, or /var/lib/iscsi on others.
 */
import { randomBytes } from "node:crypto";
import { constants } from "node:fs";
import { open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

import { formatPortal, plainAddress, type Portal } from "./address.js";
import { type Place, placeFields, placeText } from "./exit-code.js";
import { iscsiError } from "./iscsi-error.js";

export const DATABASE_DIRS: readonly string[] = ["/etc/iscsi", "/var/lib/iscsi"];

const RECORD_BYTES_MAX = 64 * 1024;

/** The files of one node: one per interface. @throws ERR_ISCSI_NO_RECORD, ERR_ISCSI_DATABASE */
export async function nodeRecordFiles(
  databaseDirs: readonly string[],
  target: string,
  portal: Portal,
): Promise<readonly string[]> {
  const place: Place = { verb: "record of", target, portal };
  const found: string[] = [];
  for (const dir of databaseDirs.map((root) => join(root, "nodes", target))) {
    for (const name of await namesIn(dir, place)) {
      if (isNameOf(name, portal)) {
        const path = join(dir, name);
        const isDirectory = (await stat(path)).isDirectory();
        const names = isDirectory ? await namesIn(path, place) : [];
        found.push(...(isDirectory ? names.map((iface) => join(path, iface)) : [path]));
      }
    }
  }
  if (found.length === 0) {
    throw noRecordError(target, portal);
  }
  return found;
}

export function noRecordError(target: string, portal?: Portal): Error {
  const place: Place = { verb: "record of", target, ...(portal === undefined ? {} : { portal }) };
  const where = portal === undefined ? "PORTAL" : formatPortal(portal);
  return iscsiError(
    "ERR_ISCSI_NO_RECORD",
    `${placeText(place)} does not exist: it was never discovered here`,
    { hint: `Discover it: \`sharedha iscsi discover ${where}\`.`, fields: placeFields(place) },
  );
}

/** @returns undefined when the portal was never asked */
export async function discoveryRecordFile(
  databaseDirs: readonly string[],
  portal: Portal,
): Promise<string | undefined> {
  const place: Place = { verb: "discovery record of", portal };
  for (const dir of databaseDirs.map((root) => join(root, "send_targets"))) {
    const name = (await namesIn(dir, place)).find((one) => isNameOf(one, portal));
    if (name !== undefined) {
      return join(dir, name, "st_config");
    }
  }
  return undefined;
}

async function namesIn(dir: string, place: Place): Promise<readonly string[]> {
  try {
    return (await readdir(dir)).filter((name) => !name.startsWith("."));
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT") {
      return [];
    }
    throw databaseError(place, dir, error);
  }
}

/** `ADDRESS,PORT[,TPGT]`, an IPv6 address without brackets. */
function isNameOf(name: string, portal: Portal): boolean {
  const [address = "", port] = name.split(",");
  return plainAddress(address) === plainAddress(portal.address) && Number(port) === portal.port;
}

/**
 * Sets or removes lines of `name = value`; all other lines stay as they are. Reads the file again afterwards, because
 * iscsiadm writes records without waiting for us.
 * @throws ERR_ISCSI_DATABASE
 */
export async function changeRecordFile(
  path: string,
  place: Place,
  changes: Readonly<Record<string, string | undefined>>,
): Promise<void> {
  let text: string;
  try {
    const before = await readFile(path);
    if (before.length > RECORD_BYTES_MAX) {
      throw new Error(`it has ${before.length} bytes`);
    }
    text = changeRecord(before.toString("utf8"), changes);
    await writeWhole(path, text);
    if ((await readFile(path, "utf8")) === text) {
      return;
    }
  } catch (error) {
    throw databaseError(place, path, error);
  }
  throw databaseError(place, path, new Error("another program changed it at the same time"));
}

/** @returns undefined for a record that has no such line, or `<empty>` in it */
export function recordValue(text: string, name: string): string | undefined {
  const line = text.split("\n").find((one) => nameOfLine(one) === name);
  const value = line?.slice(line.indexOf("=") + 1).trim();
  return value === "" || value === "<empty>" ? undefined : value;
}

/** Exported for its tests. The first line of a name is replaced, new ones go before the end of the record. */
export function changeRecord(
  text: string,
  changes: Readonly<Record<string, string | undefined>>,
): string {
  const rest = new Map(Object.entries(changes));
  const lines = text.split("\n").flatMap((line) => {
    const name = nameOfLine(line);
    if (name === undefined || !(name in changes)) {
      return [line];
    }
    const value = rest.get(name);
    rest.delete(name);
    return value === undefined ? [] : [`${name} = ${value}`];
  });
  const end = lines.findLastIndex((line) => line.startsWith("# END RECORD"));
  if (end === -1) {
    throw new Error("it has no end of record");
  }
  const added = [...rest].flatMap(([name, value]) =>
    value === undefined ? [] : [`${name} = ${value}`],
  );
  return lines.toSpliced(end, 0, ...added).join("\n");
}

function nameOfLine(line: string): string | undefined {
  const at = line.indexOf("=");
  return at === -1 || line.startsWith("#") ? undefined : line.slice(0, at).trim();
}

async function writeWhole(path: string, text: string): Promise<void> {
  // Not beside the record: iscsiadm takes every file there for one. The database is one file system.
  const root = path.slice(0, path.search(/\/(nodes|send_targets)\//));
  const temporary = join(root, `.sharedha.${randomBytes(6).toString("hex")}`);
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const file = await open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
    await file.close();
    await rename(temporary, path);
  } catch (error) {
    await file.close();
    await rm(temporary, { force: true });
    throw error;
  }
}

function databaseError(place: Place, path: string, cause: unknown): Error {
  const why = cause instanceof Error ? cause.message : String(cause);
  return iscsiError("ERR_ISCSI_DATABASE", `${placeText(place)}: ${path} cannot be used: ${why}`, {
    hint: "Run as root; look at the file, or delete the record and discover again.",
    fields: { ...placeFields(place), path },
    cause,
  });
}
