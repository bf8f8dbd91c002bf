/**
 * The configuration document: what a configuration slot on the LUN holds as text. JSON around the TOML that people write,
 * with who wrote it when, so that every change can be traced and undone.
 */
import { z } from "zod";

import { ShareHaError } from "../errors.js";
import { type Stamp } from "../format/stamp.js";

export interface ConfigDocument {
  /** As people edit it. */
  readonly toml: string;
  /** Uuids of the LUNs of the set at the time of the write, in order; for people who look at a dump. */
  readonly luns: readonly string[];
  /** Name of the node; "init" for the first. */
  readonly updatedBy: string;
  /** ISO 8601, by that node's clock; nothing decides on it. */
  readonly updatedAt: string;
  /** Stamp of the document that this one took the place of. */
  readonly previous: string | undefined;
}

const DocumentSchema = z.strictObject({
  toml: z.string(),
  luns: z.array(z.string()),
  updatedBy: z.string(),
  updatedAt: z.string(),
  previous: z.string().optional(),
});

export function encodeDocument(document: ConfigDocument): string {
  return JSON.stringify(document);
}

/** @throws ERR_CONFIG_DOCUMENT: the slot's checksum is right, so another program or version wrote it */
export function decodeDocument(text: string): ConfigDocument {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw documentError("it is not JSON", error);
  }
  const parsed = DocumentSchema.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw documentError(
      `${issue?.path.join(".") ?? ""}: ${issue?.message ?? "unknown form"}`,
      parsed.error,
    );
  }
  return { ...parsed.data, previous: parsed.data.previous };
}

/** What `init` writes. */
export function firstDocument(toml: string): string {
  const updatedAt = new Date().toISOString();
  return encodeDocument({ toml, luns: [], updatedBy: "init", updatedAt, previous: undefined });
}

/** As the control API shows it: "LVER.GENERATION". */
export function stampText(stamp: Stamp): string {
  return `${stamp.lver}.${stamp.generation}`;
}

/** @returns undefined for anything `stampText` does not give */
export function parseStamp(text: string): Stamp | undefined {
  const match = /^(\d{1,20})\.(\d{1,20})$/.exec(text);
  return match?.[1] === undefined || match[2] === undefined
    ? undefined
    : { lver: BigInt(match[1]), generation: BigInt(match[2]) };
}

function documentError(why: string, cause: unknown): ShareHaError {
  return new ShareHaError(
    "ERR_CONFIG_DOCUMENT",
    `The configuration on the LUN cannot be understood: ${why}.`,
    {
      hint: "A newer version of sharedha may have written it: upgrade this node. Look at it with: sharedha dump PATH.",
      cause,
    },
  );
}
