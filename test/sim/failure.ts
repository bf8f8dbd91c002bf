/** What a run can end with besides being clean. Exit codes as in TigerBeetle's simulator. */
export const EXIT_CODES = { safety: 129, liveness: 128, crash: 127 } as const;
export type FailureKind = keyof typeof EXIT_CODES;

export class SimFailure extends Error {
  readonly kind: FailureKind;

  constructor(kind: FailureKind, message: string) {
    super(message);
    this.name = "SimFailure";
    this.kind = kind;
  }
}
