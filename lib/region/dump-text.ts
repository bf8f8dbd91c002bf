/**
 * A dump as text: sanlock's areas as its own program prints them, ours as "name: field=value ...".
 */
import { type FieldValue } from "../format/region-dump.js";
import { type Dump, type DumpedArea } from "./dump.js";
import { SANLOCK_HEADLINE } from "./sanlock-lines.js";

/** Text for people. Ends with a newline. */
export function renderDump(dump: Dump): string {
  const lines = [
    `${dump.path}: ${layoutName(dump)}, sectors of ${dump.sectorSize} bytes, areas of ${dump.areaSize} bytes` +
      (dump.regionOffset === 0 ? "" : `, at byte ${dump.regionOffset} of the device`),
  ];
  let hasHeadline = false;
  for (const area of dump.areas) {
    if (area.sanlockLines.length > 0) {
      lines.push(...(hasHeadline ? [] : ["", SANLOCK_HEADLINE]), ...area.sanlockLines);
      hasHeadline = true;
    }
    const own = area.records.filter((record) => !isShownBySanlock(area, record.state));
    if (own.length > 0) {
      lines.push("", `area ${area.index} (${area.use}) at ${area.offset}`);
      hasHeadline = false;
    }
    for (const record of own) {
      const what =
        record.reason ?? (record.state === "ok" ? fieldsText(record.fields) : record.state);
      const mark =
        record.state === "corrupt" || record.state === "foreign"
          ? `${record.state.toUpperCase()}: `
          : "";
      lines.push(`${pad(record.offset)} ${record.name}: ${mark}${what}`);
      if (record.hex !== undefined) {
        lines.push(...hexLines(record.offset, record.hex));
      }
    }
  }
  return `${lines.join("\n")}\n`;
}

function layoutName(dump: Dump): string {
  return dump.layout === "sharedha"
    ? "a sharedha region"
    : `plain sanlock (${dump.layout.replace("sanlock-", "")} first)`;
}

/** A whole record of sanlock's own areas stands in its lines; damage and raw bytes do not. */
function isShownBySanlock(area: DumpedArea, state: string): boolean {
  const isSanlock = area.use === "lockspace" || area.use === "lease" || area.use === "rindex";
  return isSanlock && state === "ok" && area.records.every((record) => record.hex === undefined);
}

function fieldsText(fields: FieldValue): string {
  if (Array.isArray(fields)) {
    return `[${fields.map((field: FieldValue) => fieldsText(field)).join(", ")}]`;
  }
  return typeof fields === "object"
    ? Object.entries(fields)
        .map(
          ([name, value]) =>
            `${name}=${typeof value === "object" ? `{${fieldsText(value)}}` : String(value)}`,
        )
        .join(" ")
    : String(fields);
}

function hexLines(offset: number, hex: string): readonly string[] {
  const lines: string[] = [];
  const width = 64;
  for (let at = 0; at < hex.length; at += width) {
    const row = hex.slice(at, at + width);
    if (/[^0]/.test(row)) {
      lines.push(`  ${pad(offset + at / 2)} ${row}`);
    }
  }
  return lines;
}

function pad(offset: number): string {
  return offset.toString().padStart(8, "0");
}
