/**
 * The one error type of the project. Expected outcomes (held, refused, timed out) are returned values; an error is a
 * surprise, and it always says what happened (`message`), a stable `code` to match on, and what to do (`hint`).
 */
export class ShareHaError extends Error {
  readonly code: string;
  readonly hint: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;

  /**
   * @param code stable, upper case, `ERR_...`; documented in docs/formats.md (records) and README.md (commands)
   * @param message one sentence: what was wrong with what
   * @param options.hint the remedy, a sentence or a command
   * @param options.fields figures a program may want (never secrets)
   */
  constructor(
    code: string,
    message: string,
    options: {
      readonly hint: string;
      readonly fields?: Readonly<Record<string, string | number | boolean>>;
      readonly cause?: unknown;
    },
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ShareHaError";
    this.code = code;
    this.hint = options.hint;
    this.fields = options.fields ?? {};
  }
}
