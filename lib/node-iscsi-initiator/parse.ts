/**
 * What iscsiadm 2.1 prints, as values. A line that is not known is an answer of its own, never skipped: a program that
 * guesses at the output of another version logs in to the wrong disk one day.
 */
import { isIPv6 } from "node:net";

import { plainAddress, type Portal } from "./address.js";

export type Parsed<T> =
  | { readonly kind: "ok"; readonly value: T }
  /** `line`: the first one that is not known. */
  | { readonly kind: "unknown"; readonly line: string };

/** A target at one of its portals: what discovery answers, and what a node record is about. */
export interface TargetPortal {
  readonly target: string;
  readonly portal: Portal;
  /** Target portal group tag (RFC 7143, 4.2.1), 0 to 65535; undefined when the record does not know it. */
  readonly tpgt: number | undefined;
}

/** Lines without any text and warnings that are known to be none of the answer's. */
function linesOf(text: string): readonly string[] {
  return text.split("\n").filter((line) => line.trim() !== "");
}

/**
 * `10.77.0.9:3260,1 iqn.2026-11.lab:data`, IPv6 in brackets, one per line: `-m discovery`, `-m discoverydb --discover` and
 * `-m node`.
 */
export function parseTargetPortals(text: string): Parsed<readonly TargetPortal[]> {
  const value: TargetPortal[] = [];
  for (const line of linesOf(text)) {
    const one = parseTargetPortal(line);
    if (one === undefined) {
      return { kind: "unknown", line };
    }
    value.push(one);
  }
  return { kind: "ok", value };
}

/** -1 as an unsigned number is how iscsiadm prints an unknown tag. */
const TPGT_UNKNOWN = 4_294_967_295;

function parseTargetPortal(line: string): TargetPortal | undefined {
  const match = /^(?:\[([^\]\s]+)\]|([^\s:[\]]+)):(\d{1,5}),(-1|\d{1,10}) ([\x21-\x7e]+)$/.exec(
    line,
  );
  const [, ipv6, host, portText, tagText, target] = match ?? [];
  const port = Number(portText);
  const tag = Number(tagText);
  const isKnown =
    target !== undefined &&
    (ipv6 === undefined || isIPv6(ipv6)) &&
    port >= 1 &&
    port <= 65_535 &&
    (tag <= 65_535 || tag === TPGT_UNKNOWN);
  if (!isKnown) {
    return undefined;
  }
  return {
    target,
    portal: { address: plainAddress(ipv6 ?? host ?? ""), port },
    tpgt: tag < 0 || tag === TPGT_UNKNOWN ? undefined : tag,
  };
}

/** The parameters of one record by name; values are texts, undefined for `<empty>`. Secrets are `********` there. */
export type RecordValues = ReadonlyMap<string, string | undefined>;

/** One or more records, each between `# BEGIN RECORD 2.1.8` and `# END RECORD`. */
export function parseRecords(text: string): Parsed<readonly RecordValues[]> {
  const records: RecordValues[] = [];
  let current: Map<string, string | undefined> | undefined;
  for (const line of linesOf(text)) {
    if (/^# BEGIN RECORD \S+$/.test(line) && current === undefined) {
      current = new Map();
    } else if (line === "# END RECORD" && current !== undefined) {
      records.push(current);
      current = undefined;
    } else {
      const match = /^([a-zA-Z][a-zA-Z0-9_.[\]]*) = (.*)$/.exec(line);
      if (match === null || current === undefined) {
        return { kind: "unknown", line };
      }
      const [, name = "", value = ""] = match;
      current.set(name, value === "<empty>" ? undefined : value);
    }
  }
  return current === undefined
    ? { kind: "ok", value: records }
    : { kind: "unknown", line: "(the record has no end)" };
}

/** `iscsiadm version 2.1.8`, RHEL: `6.2.1.4`. */
export function parseVersion(text: string): Parsed<string> {
  const [line = "", ...more] = linesOf(text);
  const match = /^iscsiadm version (\d+(?:\.\d+)+(?:[-.][A-Za-z0-9.]+)?)$/.exec(line);
  return match?.[1] === undefined || more.length > 0
    ? { kind: "unknown", line: match === null ? line : (more[0] ?? "") }
    : { kind: "ok", value: match[1] };
}
