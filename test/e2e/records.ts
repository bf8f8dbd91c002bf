/**
 * The proof that nothing was lost and nobody wrote beside anybody: records that a node's writer was told are on the disk
 * (guest/writer.ts), against the records that are there in the end.
 */

export interface Acknowledged {
  readonly record: number;
  readonly node: string;
  readonly version: number;
  /** When the host heard of it; performance.now(). */
  readonly atMs: number;
}

interface Record {
  readonly record: number;
  readonly node: string;
  readonly version: number;
}

/** @returns undefined for anything that no writer writes */
export function parseRecord(line: string): Record | undefined {
  const match = /^(\d{1,9}) (\w{1,16}) (\d{1,19})$/.exec(line);
  return match === null
    ? undefined
    : { record: Number(match[1]), node: match[2] ?? "", version: Number(match[3]) };
}

/**
 * - the records on the disk are 1, 2, 3 ... without a gap or a double, so nobody overwrote anybody;
 * - versions only grow, and each has one node: no writer came back after another had begun;
 * - every acknowledged record is there, written by that node under that version;
 * - no writer was told of a record of its own after the host had heard of one of a later version.
 * @returns what is wrong, a sentence each; empty when all is well
 */
export function judgeRecords(
  text: string,
  acknowledged: readonly Acknowledged[],
): readonly string[] {
  const lines = text === "" ? [] : text.replace(/\n$/, "").split("\n");
  const found = lines.map(parseRecord);
  return [
    ...judgeRow(lines, found),
    ...judgeVersions(found),
    ...judgePresence(found, acknowledged),
    ...judgeOrder(acknowledged),
  ];
}

function judgeRow(lines: readonly string[], found: readonly (Record | undefined)[]): string[] {
  const wrong = found.findIndex((one, index) => one?.record !== index + 1);
  return wrong < 0 ? [] : [`line ${wrong + 1} reads "${(lines[wrong] ?? "").slice(0, 80)}"`];
}

function judgeVersions(found: readonly (Record | undefined)[]): string[] {
  const problems: string[] = [];
  let before: Record | undefined;
  for (const one of found) {
    if (one !== undefined && before !== undefined) {
      if (one.version < before.version) {
        problems.push(`record ${one.record} of version ${one.version} follows ${before.version}`);
      } else if (one.version === before.version && one.node !== before.node) {
        problems.push(`version ${one.version} has two writers, ${before.node} and ${one.node}`);
      }
    }
    before = one;
  }
  return problems;
}

function judgePresence(
  found: readonly (Record | undefined)[],
  acknowledged: readonly Acknowledged[],
): string[] {
  const lost = acknowledged.filter(({ record, node, version }) => {
    const there = found[record - 1];
    return there?.record !== record || there.node !== node || there.version !== version;
  });
  const [first] = lost;
  return first === undefined
    ? []
    : [
        `${lost.length} of ${acknowledged.length} acknowledged records are lost, the first is ` +
          `${first.record} of ${first.node}, version ${first.version}`,
      ];
}

function judgeOrder(acknowledged: readonly Acknowledged[]): string[] {
  const began = new Map<number, number>();
  for (const { version, atMs } of acknowledged) {
    began.set(version, Math.min(atMs, began.get(version) ?? Infinity));
  }
  const late = acknowledged.find(({ version, atMs }) =>
    [...began].some(([other, beganMs]) => other > version && beganMs < atMs),
  );
  return late === undefined
    ? []
    : [`${late.node} wrote record ${late.record} (version ${late.version}) after a later version`];
}
