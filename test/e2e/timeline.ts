/** What happened when, as the host saw it; printed after each test, so that a failure can be read like a report. */
export class Timeline {
  readonly #startedMs = performance.now();
  readonly #marks: { readonly atMs: number; readonly text: string }[] = [];

  /** @returns performance.now() */
  mark(text: string): number {
    const atMs = performance.now();
    this.#marks.push({ atMs, text });
    return atMs;
  }

  print(): void {
    for (const { atMs, text } of this.#marks.splice(0)) {
      const at = ((atMs - this.#startedMs) / 1000).toFixed(2).padStart(9);
      process.stdout.write(`      ${at} s  ${text}\n`);
    }
  }
}
