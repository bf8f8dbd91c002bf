import { ShareHaError } from "../errors.js";
import { describeRun, run } from "./process.js";

/** Our own partition type: the lock region of a sharedha cluster. Never to be changed. */
export const LOCK_PARTITION_TYPE = "5348A10C-7D2E-4C61-9B1F-3E0A5C8D7F42";
export const LOCK_PARTITION_NAME = "sharedha-lock";
/** "Linux filesystem data" of the Discoverable Partitions Specification. */
export const DATA_PARTITION_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
export const DATA_PARTITION_NAME = "sharedha-data";

const TIMEOUT_MS = 30_000;
const ALIGNMENT = 1024 * 1024;

/** Bytes from the start of the device. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

export interface GptLayout {
  readonly lock?: Extent;
  readonly data?: Extent;
}

/**
 * Writes a new partition table with a lock and a data partition and reads it back; signatures of what was there before are
 * wiped. A regular file gets 512 byte sectors, whatever is asked. Does not wait for partition devices: not every kernel
 * makes them, and a partition is reached by its offset or by a loop device there.
 * @param options.lockBytes length of the lock partition, a multiple of 1 MiB
 * @throws ERR_GPT
 */
export async function writeGpt(
  path: string,
  options: { readonly lockBytes: number; readonly sectorSize: 512 | 4096 },
): Promise<Required<GptLayout>> {
  const { lockBytes, sectorSize } = options;
  if (!Number.isSafeInteger(lockBytes) || lockBytes <= 0 || lockBytes % ALIGNMENT !== 0) {
    throw gptError(path, `a lock partition of ${lockBytes} bytes is no multiple of 1 MiB`);
  }
  const script = [
    "label: gpt",
    `start=${ALIGNMENT / sectorSize}, size=${lockBytes / sectorSize}, type=${LOCK_PARTITION_TYPE}, name="${LOCK_PARTITION_NAME}"`,
    `type=${DATA_PARTITION_TYPE}, name="${DATA_PARTITION_NAME}"`,
    "",
  ].join("\n");
  const args = ["--quiet", "--wipe", "always", "--wipe-partitions", "always", "--", path];
  const result = await run(`sfdisk ${path}`, "sfdisk", args, {
    timeoutMs: TIMEOUT_MS,
    input: script,
  });
  if (result.kind !== "ok") {
    throw gptError(path, describeRun(result));
  }
  const { lock, data } = await readGpt(path);
  if (lock?.offset !== ALIGNMENT || lock.length !== lockBytes || data === undefined) {
    throw gptError(path, "the partition table read back is not the one written");
  }
  return { lock, data };
}

/**
 * Our partitions on a device; empty when there is no GPT, or none of ours on it.
 * @throws ERR_GPT when the table cannot be read, or names one of the partitions twice
 */
export async function readGpt(path: string): Promise<GptLayout> {
  const result = await run(`sfdisk --json ${path}`, "sfdisk", ["--json", "--", path], {
    timeoutMs: TIMEOUT_MS,
  });
  if (
    result.kind === "exit" &&
    result.stderr.includes("does not contain a recognized partition table")
  ) {
    return {};
  }
  if (result.kind !== "ok") {
    throw gptError(path, describeRun(result));
  }
  return layoutOf(path, parseJson(path, result.stdout));
}

/** What `sfdisk --json` printed, as far as it concerns us. Exported for tests. */
export function layoutOf(path: string, document: unknown): GptLayout {
  const table = member(document, "partitiontable");
  if (member(table, "label") !== "gpt") {
    return {};
  }
  const sectorSize = member(table, "sectorsize");
  const partitions = member(table, "partitions") ?? [];
  if ((sectorSize !== 512 && sectorSize !== 4096) || !Array.isArray(partitions)) {
    throw gptError(path, `sfdisk printed an unknown form (sector size ${String(sectorSize)})`);
  }
  const find = (type: string, name: string): Extent | undefined => {
    const found = partitions.filter(
      (partition: unknown) =>
        String(member(partition, "type")).toUpperCase() === type &&
        member(partition, "name") === name,
    );
    if (found.length > 1) {
      throw gptError(path, `it has ${found.length} partitions named ${name}`);
    }
    return found.length === 0 ? undefined : extentOf(path, found[0], sectorSize);
  };
  const lock = find(LOCK_PARTITION_TYPE, LOCK_PARTITION_NAME);
  const data = find(DATA_PARTITION_TYPE, DATA_PARTITION_NAME);
  return {
    ...(lock === undefined ? {} : { lock }),
    ...(data === undefined ? {} : { data }),
  };
}

function extentOf(path: string, partition: unknown, sectorSize: number): Extent {
  const start = member(partition, "start");
  const size = member(partition, "size");
  if (!isSectorCount(start) || !isSectorCount(size)) {
    throw gptError(path, `a partition has no sane start or size`);
  }
  return { offset: start * sectorSize, length: size * sectorSize };
}

function isSectorCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value * 4096) && value > 0;
}

function member(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined;
}

function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw gptError(path, `not JSON: ${text.slice(0, 100)} (${String(error)})`);
  }
}

export type SignatureProbe =
  | { readonly kind: "clean" }
  /** Each entry names a kind and, where it has one, its label and place: "ext4 filesystem "web" at 0x438". */
  | { readonly kind: "found"; readonly what: readonly string[] };

/**
 * Whether a device holds anything that libblkid knows: file systems, partition tables, RAID, LVM, swap, crypto. Two
 * programs are asked, since each stays silent in cases (ambiguous probes) where the other speaks.
 * @throws ERR_PROBE when either cannot look: never "clean" by silence
 */
export async function probeSignatures(path: string): Promise<SignatureProbe> {
  const options = { timeoutMs: TIMEOUT_MS };
  const wipefs = await run(`wipefs ${path}`, "wipefs", ["--no-act", "--json", "--", path], options);
  if (wipefs.kind !== "ok") {
    throw probeError(path, `wipefs: ${describeRun(wipefs)}`);
  }
  const what = wipefs.stdout.trim() === "" ? [] : wipefsFindings(path, wipefs.stdout);
  const blkidArgs = ["--probe", "--output", "export", "--", path];
  const blkid = await run(`blkid ${path}`, "blkid", blkidArgs, options);
  // blkid(8): 2 is nothing found, 8 an ambivalent result, which is something.
  if (blkid.kind === "ok") {
    what.push(...blkidFindings(blkid.stdout, what));
  } else if (blkid.kind === "exit" && blkid.exitCode === 8) {
    what.push("several contradicting signatures");
  } else if (!(blkid.kind === "exit" && blkid.exitCode === 2)) {
    throw probeError(path, `blkid: ${describeRun(blkid)}`);
  }
  return what.length === 0 ? { kind: "clean" } : { kind: "found", what };
}

function wipefsFindings(path: string, text: string): string[] {
  const signatures = member(parseJson(path, text), "signatures");
  if (!Array.isArray(signatures)) {
    throw probeError(path, `wipefs printed an unknown form: ${text.slice(0, 100)}`);
  }
  return signatures.map((signature: unknown) => {
    const label = member(signature, "label");
    const name = typeof label === "string" && label !== "" ? ` "${label}"` : "";
    return `${String(member(signature, "type"))}${name} at ${String(member(signature, "offset"))}`;
  });
}

/** Only kinds that wipefs has not named already. */
function blkidFindings(text: string, known: readonly string[]): string[] {
  const kinds = [...text.matchAll(/^(?:TYPE|PTTYPE)=(.+)$/gm)].map((match) => match[1] ?? "");
  return kinds.filter((kind) => !known.some((entry) => entry.startsWith(kind)));
}

function gptError(path: string, why: string): ShareHaError {
  return new ShareHaError("ERR_GPT", `the partition table of ${path}: ${why}`, {
    hint: "The device must not be in use; sfdisk (package fdisk) must be installed. See sfdisk --list.",
    fields: { path },
  });
}

function probeError(path: string, why: string): ShareHaError {
  return new ShareHaError("ERR_PROBE", `${path} cannot be searched for data: ${why}`, {
    hint: "wipefs and blkid (package util-linux) must be installed, and the device readable.",
    fields: { path },
  });
}
