/** One seed, from its options to its verdict. */
import { type FailureKind, SimFailure } from "./failure.js";
import { drawOptions, type OptionsOverride, type SimOptions } from "./options.js";
import { World } from "./world.js";

export interface SeedReport {
  readonly seed: number;
  readonly options: SimOptions;
  readonly failure: { readonly kind: FailureKind; readonly message: string } | undefined;
  readonly lines: readonly string[];
  readonly hash: string;
  readonly diskOps: number;
  readonly grants: number;
  readonly takeovers: number;
  readonly resets: number;
  readonly virtualMs: number;
}

export function runSeed(
  seed: number,
  override: OptionsOverride = {},
  print?: (line: string) => void,
): SeedReport {
  const options = drawOptions(seed, override);
  const world = new World(structuredClone(options));
  world.trace.print = print;
  let failure: SeedReport["failure"];
  try {
    world.run();
  } catch (error) {
    failure =
      error instanceof SimFailure
        ? { kind: error.kind, message: error.message }
        : {
            kind: "crash",
            message: error instanceof Error ? (error.stack ?? error.message) : String(error),
          };
    world.note(`${failure.kind}: ${failure.message}`);
  }
  return {
    seed,
    options,
    failure,
    lines: world.trace.lines,
    hash: world.trace.hash,
    diskOps: world.diskOps,
    grants: world.checker.grants,
    takeovers: world.checker.takeovers,
    resets: world.checker.resets,
    virtualMs: world.scheduler.now,
  };
}
