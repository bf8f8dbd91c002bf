/** What every command gets: where it speaks, whose state directory it works on, and the clock for ages. */
import { resolve } from "node:path";

import { ControlClient } from "../net/control-client.js";
// `import { type ... }` would load the module, with everything that it needs.
import type { Initiator } from "../node-iscsi-initiator/index.js";
import { painter, type Paint, type Terminal } from "./terminal.js";

export interface CommonOptions {
  readonly json?: boolean;
  readonly stateDir?: string;
}

export interface Context {
  readonly terminal: Terminal;
  readonly isJson: boolean;
  readonly stateDir: string;
  readonly paint: Paint;
  readonly client: ControlClient;
  /** open-iscsi of this machine; loaded when it is needed. */
  initiator(): Promise<Initiator>;
  nowMs(): number;
}

/** What tests put in the machine's place. */
export interface Edges {
  readonly initiator?: Initiator;
}

export const DEFAULT_STATE_DIR = "/var/lib/sharedha";

export function createContext(
  options: CommonOptions,
  terminal: Terminal,
  env: Readonly<Record<string, string | undefined>>,
  edges: Edges = {},
): Context {
  const isJson = options.json === true;
  const fromEnv = env["SHAREDHA_STATE_DIR"];
  const chosen =
    options.stateDir ?? (fromEnv === undefined || fromEnv === "" ? DEFAULT_STATE_DIR : fromEnv);
  const stateDir = resolve(chosen);
  return {
    terminal,
    isJson,
    stateDir,
    paint: painter(terminal.isColourful && !isJson),
    client: new ControlClient({ stateDir }),
    initiator: async () => {
      if (edges.initiator !== undefined) {
        return edges.initiator;
      }
      const module = await import("../node-iscsi-initiator/index.js");
      return new module.Initiator();
    },
    nowMs: () => Date.now(),
  };
}

/** The result: one JSON value in one line, or the text for people. */
export function report(context: Context, value: unknown, text: () => string): void {
  context.terminal.out(context.isJson ? `${JSON.stringify(value)}\n` : text());
}
