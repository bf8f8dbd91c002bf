/** The lab in mocha: machines for one `describe`, and what they said when a test has failed. */
import { afterEach, after, before } from "mocha";

import { imagesFromEnvironment, Lab } from "./lab.js";
import { type VmName } from "./settings.js";

const CONSOLE_CHARS = 1_500;

/** The lab that `make e2e` has prepared; its machines are off. Stopped after the tests of the surrounding `describe`. */
export function openLab(): Lab {
  const lab = new Lab(imagesFromEnvironment());
  afterEach(function () {
    const { currentTest } = this;
    if (currentTest?.state === "failed") {
      process.stdout.write(`--- ${currentTest.err?.stack ?? "no error"}\n`);
      for (const vm of lab.runningVms()) {
        process.stdout.write(`--- console of ${vm.name}\n${vm.console.slice(-CONSOLE_CHARS)}\n`);
      }
    }
  });
  after(async () => {
    await lab.stop();
  });
  return lab;
}

/** Machines with blank disks and a configured target. Nobody is logged in. */
export function useLab(options: { readonly vms: readonly VmName[] }): Lab {
  const lab = openLab();
  before(async () => {
    await lab.start(options.vms, "snapshot", () => undefined);
  });
  return lab;
}
