/** Which watchdog a pulse uses, and how it is taken up: fresh after a join, or from the pulse that died. */
import { accessSync, constants } from "node:fs";
import { fileURLToPath } from "node:url";

import { ShareHaError } from "../errors.js";
import { decodeDeltaSector } from "../format/delta-sector.js";
import { protectOf } from "../guard/guard-server.js";
import { type Identity } from "../lease/delta-lease.js";
import { type Clock } from "../port/clock.js";
import { type Region } from "../region/open-region.js";
import { chooseWatchdog } from "../system/watchdog.js";
import { openResetTrigger, systemWatchdogs } from "../system/watchdog-sys.js";
import { GuardPetter } from "./guard-petter.js";
import { HardwarePetter } from "./hardware-petter.js";
import { type ProcessId, type Protected } from "./messages.js";
import { createNoPetter, type Petter } from "./petter.js";
import { type KeeperState, type PulseState, readProtected, savePulseState } from "./saved-state.js";

/** A guard of an earlier generation that is just acting is waited for this long. */
const SETTLE_MS = 5_000;
const SETTLE_POLL_MS = 100;
const RESET_TRIGGER = "/proc/sysrq-trigger";

export interface PetterGround {
  readonly stateDir: string;
  readonly bootIdHash: bigint;
  readonly self: ProcessId;
  readonly clock: Clock;
  readonly log: (message: string) => void;
  /** As in node.json. */
  readonly wanted: "auto" | "hardware" | "guard" | "none";
}

export interface WatchdogKindAndDevice {
  readonly kind: Identity["watchdog"];
  readonly device: string | undefined;
}

/** @throws ERR_WATCHDOG: hardware was asked for and there is none that serves */
export function watchdogOf(ground: PetterGround, region: Region): WatchdogKindAndDevice {
  const { wanted } = ground;
  if (wanted === "guard" || wanted === "none") {
    return { kind: wanted, device: undefined };
  }
  const choice = chooseWatchdog("auto", Math.round(region.timings.watchdogMs / 1_000));
  const noReset = choice.kind === "chosen" ? whyNoReset() : undefined;
  if (choice.kind === "chosen" && noReset === undefined) {
    return { kind: "hardware", device: choice.facts.device };
  }
  const refusals = choice.kind === "chosen" ? [] : choice.refusals;
  const why = noReset ?? refusals.map(({ message }) => message).join("; ");
  if (wanted === "hardware") {
    throw new ShareHaError(
      "ERR_WATCHDOG",
      why === "" ? "this machine has no watchdog device" : why,
      {
        hint: "Load a driver (modprobe softdog for the kernel's own), or choose --watchdog guard, which is weaker.",
        // An earlier generation of this node may still have it, until its keeper has ended.
        fields: { inUse: refusals.some(({ code }) => code === "ERR_WATCHDOG_IN_USE") },
      },
    );
  }
  ground.log(`no hardware watchdog (${why === "" ? "no device" : why}); using the guard`);
  return { kind: "guard", device: undefined };
}

/** A petter that was stopped at the wrong moment has to reset the machine itself (DESIGN section 4). */
function whyNoReset(): string | undefined {
  try {
    accessSync(RESET_TRIGGER, constants.W_OK);
    return undefined;
  } catch (error) {
    return `${RESET_TRIGGER} cannot be written: ${error instanceof Error ? error.message : String(error)}`;
  }
}

export function kindOfRecord(region: Region, saved: PulseState): WatchdogKindAndDevice {
  const decoded = decodeDeltaSector(region.geometry, saved.record);
  const kind = decoded.kind === "ok" ? decoded.value.host?.watchdog : undefined;
  if (kind === undefined || kind === "vacant") {
    return { kind: "none", device: undefined };
  }
  return { kind, device: saved.keeper?.device };
}

export interface OpenPetter {
  readonly petter: Petter;
  /** After a join: whatever an earlier generation left armed has nothing to protect any more. */
  settle(): Promise<void>;
  /** After a resume of an armed generation. */
  resume(basisMs: number): Promise<void>;
}

export async function openPetter(
  ground: PetterGround,
  region: Region,
  watchdog: WatchdogKindAndDevice,
  state: PulseState,
  onMissing: (why: string) => void,
): Promise<OpenPetter> {
  const { watchdogMs } = region.timings;
  switch (watchdog.kind) {
    case "none": {
      const nothing = async (): Promise<void> => {
        await Promise.resolve();
      };
      return { petter: createNoPetter(watchdogMs), settle: nothing, resume: nothing };
    }
    case "hardware":
      return openHardware(ground, watchdogMs, watchdog.device, state, onMissing);
    case "guard":
      return await openGuard(ground, region, onMissing);
  }
}

function openHardware(
  ground: PetterGround,
  watchdogMs: number,
  device: string | undefined,
  state: PulseState,
  onRefused: (why: string) => void,
): OpenPetter {
  const { log, stateDir } = ground;
  const known =
    device ??
    (() => {
      const choice = chooseWatchdog("auto", Math.round(watchdogMs / 1_000));
      return choice.kind === "chosen" ? choice.facts.device : "/dev/watchdog0";
    })();
  const petter = new HardwarePetter({
    device: known,
    watchdogMs,
    sys: systemWatchdogs,
    reset: openResetTrigger(RESET_TRIGGER),
    log,
    save: (keeper: KeeperState | undefined) => {
      savePulseState(stateDir, { ...state, keeper });
    },
    onRefused,
  });
  return {
    petter,
    settle: async () => {
      await Promise.resolve();
    },
    resume: async () => {
      if (state.keeper === undefined) {
        throw new Error("no keeper of the watchdog is known");
      }
      petter.adopt(state.keeper);
      await Promise.resolve();
    },
  };
}

async function openGuard(
  ground: PetterGround,
  region: Region,
  onMissing: (why: string) => void,
): Promise<OpenPetter> {
  const { stateDir, bootIdHash, clock, log, self } = ground;
  const petter = new GuardPetter({
    stateDir,
    program: fileURLToPath(new URL("../../bin/sharedha-guard.js", import.meta.url)),
    watchdogMs: region.timings.watchdogMs,
    log,
    onMissing,
    silentMaxMs: region.timings.ttlMs,
    bootMs: () => clock.bootMs(),
  });
  await petter.open();
  const protectSelf = async (protect: Protected): Promise<void> => {
    await petter.protect({ mounts: protect.mounts, processes: [...protect.processes, self] });
  };
  return {
    petter,
    settle: async () => {
      await disarmOld(petter, clock);
      await protectSelf({ mounts: [], processes: [] });
    },
    resume: async (basisMs) => {
      const saved = readProtected(stateDir, bootIdHash);
      await protectSelf(saved === undefined ? { mounts: [], processes: [] } : protectOf(saved));
      await petter.arm(basisMs);
    },
  };
}

/** A guard that expires right now refuses, acts and ends; then a new one is started and disarmed. */
async function disarmOld(petter: GuardPetter, clock: Clock): Promise<void> {
  const giveUpAtMs = clock.bootMs() + SETTLE_MS;
  for (;;) {
    try {
      await petter.disarm();
      return;
    } catch (error) {
      if (clock.bootMs() > giveUpAtMs) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, SETTLE_POLL_MS));
    }
  }
}
