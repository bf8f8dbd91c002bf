import { ShareHaError } from "../errors.js";

export interface ErrorPlace {
  readonly hint: string;
  readonly fields?: Readonly<Record<string, string | number | boolean>>;
  readonly cause?: unknown;
}

/** Every code of this module, for those who match on them. docs/iscsi.md says what each means. */
export type IscsiErrorCode = `ERR_ISCSI${string}`;

export function iscsiError(code: IscsiErrorCode, message: string, place: ErrorPlace): ShareHaError {
  return new ShareHaError(code, message, place);
}

export function isIscsiError(error: unknown, ...codes: readonly IscsiErrorCode[]): boolean {
  return (
    error instanceof ShareHaError &&
    (codes.length === 0 ? error.code.startsWith("ERR_ISCSI") : codes.some((c) => c === error.code))
  );
}
