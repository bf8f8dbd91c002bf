/** Runs the command line inside the test's own process, with a terminal that remembers. */
import { type Edges } from "../../../lib/cli/context.js";
import { main } from "../../../lib/cli/main.js";
import { type Terminal } from "../../../lib/cli/terminal.js";

export interface Ran {
  readonly exitCode: number;
  readonly out: string;
  readonly err: string;
}

export async function runMain(
  argv: readonly string[],
  options: {
    readonly env?: Readonly<Record<string, string>>;
    readonly terminal?: Partial<Terminal>;
    readonly edges?: Edges;
  } = {},
): Promise<Ran> {
  let out = "";
  let err = "";
  const terminal: Terminal = {
    out: (text) => {
      out += text;
    },
    err: (text) => {
      err += text;
    },
    isColourful: false,
    isTty: false,
    canAsk: false,
    columns: 0,
    rows: 0,
    ...options.terminal,
  };
  const exitCode = await main(argv, terminal, options.env ?? {}, options.edges);
  return { exitCode, out, err };
}
