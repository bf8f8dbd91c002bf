/**
 * The command line of sharedha without its start: under emulation, starting Node takes as long as most commands. A JSON array
 * of arguments for each line of standard input; a line of JSON for each answer (`Answer`), in order.
 */
import { createInterface } from "node:readline";

import { main } from "../../../lib/cli/main.js";

export interface Answer {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

async function answer(argv: readonly string[]): Promise<Answer> {
  let stdout = "";
  let stderr = "";
  const exitCode = await main(argv, {
    out: (text) => {
      stdout += text;
    },
    err: (text) => {
      stderr += text;
    },
    isColourful: false,
    isTty: false,
    canAsk: false,
    columns: 0,
    rows: 0,
  });
  return { exitCode, stdout, stderr };
}

for await (const line of createInterface({ input: process.stdin })) {
  const said = await answer(JSON.parse(line) as readonly string[]);
  process.stdout.write(`${JSON.stringify(said)}\n`);
}
