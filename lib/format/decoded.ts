/**
 * What a parser of bytes from a shared disk returns. A parser never throws, whatever the bytes are, and never allocates
 * by a length it has not checked: the bytes may come from a failing disk, from another program or from an enemy.
 *
 * - `ok`: the record is whole and of a version this program understands.
 * - `empty`: every byte is zero; nobody has written here since the region was made.
 * - `foreign`: another kind of record, or a version this program must not interpret. Never overwrite it.
 * - `corrupt`: our kind of record, but damaged (checksum, or a field outside its range).
 */
export type Decoded<T> =
  | { readonly kind: "ok"; readonly value: T }
  | { readonly kind: "empty" }
  | { readonly kind: "foreign"; readonly reason: string }
  | { readonly kind: "corrupt"; readonly reason: string };

/** The three outcomes that carry no record. */
export type Undecoded = Exclude<Decoded<never>, { readonly kind: "ok" }>;

export const EMPTY: Undecoded = Object.freeze({ kind: "empty" });

export function decodedOk<T>(value: T): Decoded<T> {
  return { kind: "ok", value };
}

export function foreign(reason: string): Undecoded {
  return { kind: "foreign", reason };
}

export function corrupt(reason: string): Undecoded {
  return { kind: "corrupt", reason };
}
