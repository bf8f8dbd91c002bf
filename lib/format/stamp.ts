/**
 * The order of slots that several hosts write under one lease: the version of the lease at the time of the write, then
 * the number of the write (DESIGN section 3). The highest valid stamp is current.
 */
export interface Stamp {
  /** lease version under which the slot was written */
  readonly lver: bigint;
  /** +1 with every write */
  readonly generation: bigint;
}

export const ZERO_STAMP: Stamp = Object.freeze({ lver: 0n, generation: 0n });

/** Negative when a is older than b, positive when newer, 0 when they are the same. */
export function compareStamps(a: Stamp, b: Stamp): number {
  if (a.lver !== b.lver) {
    return a.lver < b.lver ? -1 : 1;
  }
  if (a.generation !== b.generation) {
    return a.generation < b.generation ? -1 : 1;
  }
  return 0;
}

/** The item with the highest stamp; the first of equals; undefined when there is none. */
export function newestStamped<T extends { readonly stamp: Stamp }>(
  items: Iterable<T>,
): T | undefined {
  let newest: T | undefined;
  for (const item of items) {
    if (newest === undefined || compareStamps(item.stamp, newest.stamp) > 0) {
      newest = item;
    }
  }
  return newest;
}
