/**
 * Whose record counts when the LUNs show different ones for a host id. A join that failed leaves its record on some LUNs,
 * under the very generation that another joiner has won on a majority: which timestamp is higher says nothing then.
 */
import { type DeltaSector } from "../format/delta-sector.js";

export interface RecordChoice {
  /** The newest of the highest generation; of its owner, where several claim that generation and one has a majority. */
  readonly newest: DeltaSector | undefined;
  /** Several claim the highest generation, and none of them has a majority of the LUNs. */
  readonly contested: boolean;
}

/** @param records one per LUN that was read; @param lunCount all LUNs, read or not */
export function chooseRecord(records: readonly DeltaSector[], lunCount: number): RecordChoice {
  const generation = records.reduce(
    (highest, { leader }) => (leader.ownerGeneration > highest ? leader.ownerGeneration : highest),
    -1n,
  );
  const claims = new Map<string, DeltaSector[]>();
  for (const record of records) {
    if (record.leader.ownerGeneration === generation) {
      const owner = ownerOf(record);
      claims.set(owner, [...(claims.get(owner) ?? []), record]);
    }
  }
  const all = [...claims.values()];
  const winner =
    all.length === 1 ? all[0] : all.find((claim) => claim.length > Math.floor(lunCount / 2));
  const candidates = winner ?? all.flat();
  return {
    newest: candidates.reduce<DeltaSector | undefined>(
      (best, record) => (best === undefined || isLater(record, best) ? record : best),
      undefined,
    ),
    contested: winner === undefined && all.length > 1,
  };
}

function ownerOf({ leader, host }: DeltaSector): string {
  return JSON.stringify([
    leader.resourceName,
    String(host?.machineIdHash),
    String(host?.stateIdHash),
  ]);
}

/** Higher generation; within one, "left" is the last word, and otherwise the timestamp counts up. */
export function isLater(one: DeltaSector, other: DeltaSector): boolean {
  const [a, b] = [one.leader, other.leader];
  if (a.ownerGeneration !== b.ownerGeneration) {
    return a.ownerGeneration > b.ownerGeneration;
  }
  if (a.timestamp === 0n || b.timestamp === 0n) {
    return a.timestamp === 0n && b.timestamp !== 0n;
  }
  return a.timestamp > b.timestamp;
}
