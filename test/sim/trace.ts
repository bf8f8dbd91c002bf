/** The last lines of a run for people, and a hash over all of it to prove that a replay is the same run. */
const LINES_MAX = 60;

export class Trace {
  readonly #lines: string[] = [];
  #hash = 0x811c9dc5;
  /** Set for a replay that is read as it goes. */
  print: ((line: string) => void) | undefined;

  /** One thing that happened, at true time `atMs`. */
  note(atMs: number, line: string): void {
    const text = `${atMs.toFixed(3).padStart(12)}  ${line}`;
    for (let index = 0; index < text.length; index++) {
      this.mix(text.charCodeAt(index));
    }
    this.#lines.push(text);
    if (this.#lines.length > 2 * LINES_MAX) {
      this.#lines.splice(0, LINES_MAX);
    }
    this.print?.(text);
  }

  /** A number that goes into the hash only: disk operations are too many for lines. */
  mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ (value | 0), 0x01000193);
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, "0");
  }

  get lines(): readonly string[] {
    return this.#lines.slice(-LINES_MAX);
  }
}
