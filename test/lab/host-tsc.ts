/**
 * The frequency of this host's time stamp counter, which the emulated machines have too. Their kernels are told
 * (`tsc_early_khz`), because what they would measure in the first milliseconds of a boot is wrong on a busy host: guests were
 * seen whose clocks ran 1.3 times and 58 times too fast, and every timeout in them with it.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { built, cacheDir, inputsKey, type Progress } from "./cache.js";
import { type Vm } from "./vm.js";

/** The error of this is far below the 1 % within which the guest's kernel then corrects it by itself. */
const MEASURE_MS = 6_000;

/** Another boot of the host may be on another processor. */
export function hostBootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
}

function key(): string {
  return inputsKey([hostBootId()], [import.meta.filename]);
}

/** Undefined before `ensureTscKhz`. */
export function tscKhz(): number | undefined {
  const file = join(cacheDir(), `tsc-${key()}`, "khz");
  return existsSync(file) ? Number(readFileSync(file, "latin1")) : undefined;
}

/** Measured by a machine that knows nothing yet: by what its kernel believes, and how wrong its clock then is. */
export async function ensureTscKhz(vm: Vm, say: Progress): Promise<void> {
  await built("tsc", key(), say, async (dir) => {
    await vm.makeDisks();
    await vm.boot({ forSnapshot: true });
    const [text = ""] = await vm.steps([{ do: "read", path: "/proc/cpuinfo" }]);
    const [, believedMhz] = /^cpu MHz\s*: ([\d.]+)$/m.exec(text) ?? [];
    const khz = Math.round(1_000 * Number(believedMhz) * (await vm.clockRate(MEASURE_MS)));
    await vm.powerCut();
    if (!Number.isSafeInteger(khz) || khz <= 0) {
      throw new Error(`the time stamp counter has ${khz} kHz, with ${believedMhz ?? "?"} MHz`);
    }
    writeFileSync(join(dir, "khz"), `${khz}\n`);
  });
}
