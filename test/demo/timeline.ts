/** The demo's account of what happened, with milliseconds since its start. */
const startedMs = performance.now();

export function tell(who: string, text: string): void {
  const ms = (performance.now() - startedMs).toFixed(0).padStart(6);
  for (const [index, line] of text.trimEnd().split("\n").entries()) {
    const head = index === 0 ? `${ms} ms  ${who.padEnd(4)}` : " ".repeat(14);
    process.stdout.write(`${head} ${line}\n`);
  }
}

export function secondsSinceStart(): number {
  return (performance.now() - startedMs) / 1000;
}
