/** Runs seeds until one fails: `child.js OPTIONS SEEDS_MAX`. The last line is the verdict as JSON. */
import { type OptionsOverride } from "../options.js";
import { runSeed } from "../run-seed.js";

const override = JSON.parse(process.argv[2] ?? "{}") as OptionsOverride;
const seedsMax = Number(process.argv[3] ?? "100");
const expected = process.argv[4] ?? "";

process.stdout.write(`${JSON.stringify(firstFailure())}\n`);

function firstFailure(): { seeds?: number; message: string } {
  for (let seed = 1; seed <= seedsMax; seed++) {
    const { failure } = runSeed(seed, override);
    if (failure?.kind === "crash" && !failure.message.includes("Assertion")) {
      throw new Error(`seed ${seed}: ${failure.message}`);
    }
    if (failure?.message.includes(expected) === true) {
      return { seeds: seed, message: `${failure.kind}: ${failure.message.split("\n")[0]}` };
    }
  }
  return { message: "not caught" };
}
