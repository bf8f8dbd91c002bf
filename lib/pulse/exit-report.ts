/**
 * How pulse ends. The daemon starts it detached and is not its parent when it ends, so the reason is also left in
 * `pulse-exit.json`, and on standard output, as one JSON line.
 *
 * | code | kind           | meaning                                                     | what the daemon does            |
 * | ---- | -------------- | ----------------------------------------------------------- | ------------------------------- |
 * | 0    | left           | left record written, watchdog or guard disarmed             | nothing                         |
 * | 2    | usage          | wrong arguments, or no valid node.json                       | shows it                        |
 * | 3    | fault          | region, LUNs or sockets cannot be used                       | shows it, may try again         |
 * | 4    | refused        | cannot join: taken, full, damaged, no evidence, no watchdog (`code`) | shows it                |
 * | 5    | lost           | the generation is lost and everything of it was torn down    | starts a new pulse at once      |
 * | 6    | not-resumed    | the generation cannot be carried on                          | loss: teardown, then a new pulse |
 * | 70   | defect         | an exception that nobody expected                            | as 6                            |
 */
import { join } from "node:path";

import { writeFileAtomic } from "../system/state-dir.js";
import { readJsonFile } from "./state-file.js";

export const PULSE_EXIT = {
  left: 0,
  usage: 2,
  fault: 3,
  refused: 4,
  lost: 5,
  "not-resumed": 6,
  defect: 70,
} as const;

export type PulseExitKind = keyof typeof PULSE_EXIT;

export interface PulseExit {
  readonly kind: PulseExitKind;
  /** Stable, `ERR_...`; "" when left. */
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  /** What the ended pulse was, where it was anything. */
  readonly hostId?: number;
  readonly generation?: bigint;
  /**
   * Nothing of that generation is mounted, running or in flight any more: a later pulse of the same boot may take the
   * host id again although the record still says armed.
   */
  readonly torndown: boolean;
}

export const PULSE_EXIT_FILE = "pulse-exit.json";

export function exitBody(exit: PulseExit, bootIdHash: bigint): string {
  const { generation, ...rest } = exit;
  const body = {
    ...rest,
    ...(generation === undefined ? {} : { generation: String(generation) }),
    bootIdHash: String(bootIdHash),
    at: new Date().toISOString(),
  };
  return JSON.stringify(body);
}

export function writeExit(stateDir: string, exit: PulseExit, bootIdHash: bigint): void {
  const body = exitBody(exit, bootIdHash);
  writeFileAtomic(join(stateDir, PULSE_EXIT_FILE), `${body}\n`);
  process.stdout.write(`${body}\n`);
}

/**
 * The generation of which an earlier pulse of this boot said that nothing is left; undefined when there is none, or the
 * file is damaged (then nothing is proven).
 */
export function readTornDown(
  stateDir: string,
  bootIdHash: bigint,
): { readonly hostId: number; readonly generation: bigint } | undefined {
  let found: unknown;
  try {
    found = readJsonFile(stateDir, PULSE_EXIT_FILE);
  } catch {
    return undefined;
  }
  if (typeof found !== "object" || found === null) {
    return undefined;
  }
  const { torndown, hostId, generation, bootIdHash: boot } = found as Record<string, unknown>;
  const isProof =
    torndown === true &&
    typeof hostId === "number" &&
    typeof generation === "string" &&
    /^\d{1,20}$/.test(generation) &&
    boot === String(bootIdHash);
  return isProof ? { hostId, generation: BigInt(generation) } : undefined;
}
