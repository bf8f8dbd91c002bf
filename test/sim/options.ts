/** What one run is: drawn from its seed. Swarm testing (Groce 2012): each fault is wholly off in most runs, heavy in some. */
import { PROFILES, type ProfileName, type Timings } from "../../lib/lease/timings.js";
import { SimRandom } from "./random.js";

/** Mean number of times per minute and host (or per LUN), 0 = never in this run. */
export interface FaultRates {
  /** SIGSTOP of pulse, of the daemon, of all processes of a node. */
  pausePulse: number;
  pauseDaemon: number;
  pauseNode: number;
  killPulse: number;
  killDaemon: number;
  /** The daemon lives but does not answer. */
  silentDaemon: number;
  /** Power cut. */
  crash: number;
  /** The hypervisor stops the VM: its clocks and its watchdog stand still. */
  vmStop: number;
  suspend: number;
  /** One host's path to one LUN, or one host's paths to all. */
  cutPath: number;
  cutHost: number;
  /** All paths of a host die, and the last write's answer takes about as long as it may. */
  lastGasp: number;
  errorPath: number;
  /** A LUN that nobody reaches; it comes back as it was. */
  readOnlyPath: number;
  lunAway: number;
  lunBlank: number;
  /** A sector of the lockspace goes back in time (a target that lost acknowledged writes). */
  rollback: number;
  /** The same to before its generation, or to zero: beyond what a cluster on one LUN can bear, so never drawn. */
  rollbackDeep: number;
  zeroSector: number;
  leave: number;
  /** A second machine with the same name and host id tries to join. */
  twin: number;
  /**
   * The same with a copy of the first one's disk: its machine id, its state directory. Never drawn: a copy that starts
   * while its original is paused cannot be told from a reboot (docs/design.md section 6).
   */
  clone: number;
}

/** Probability per disk operation. */
export interface OpFaults {
  hang: number;
  error: number;
  slow: number;
  torn: number;
  /** Probability of a stall of the process at any wake-up. */
  stall: number;
  /** Data writes that wait inside the target. */
  heldData: number;
  /** Teardowns that never end: an unmount that hangs. The watchdog has the last word. */
  teardownHang: number;
}

export type NodeKind = "hardware" | "guard" | "none" | "virtual";

export interface SimOptions {
  readonly seed: number;
  readonly profile: ProfileName;
  readonly timings: Timings;
  readonly hosts: number;
  readonly maxHosts: number;
  readonly luns: 1 | 3 | 5;
  readonly leases: number;
  readonly kind: NodeKind;
  /** Every other node has a watchdog of twice the time. */
  readonly mixedTimers: boolean;
  /** One node's second path leads to the first LUN. */
  readonly doubled: boolean;
  readonly driftPpm: number;
  readonly phase1Ms: number;
  readonly latencyMs: number;
  readonly holdMs: number;
  readonly thinkMs: number;
  readonly sharedShare: number;
  readonly tryShare: number;
  readonly timeoutShare: number;
  readonly faults: FaultRates;
  readonly ops: OpFaults;
}

/** A planted bug's test draws from here; anything not named is drawn as usual. */
export type OptionsOverride = Partial<
  Omit<SimOptions, "seed" | "faults" | "ops" | "timings"> & {
    readonly faults: Partial<FaultRates>;
    readonly ops: Partial<OpFaults>;
    /** All faults that are not named are off. */
    readonly only: boolean;
  }
>;

export function drawOptions(seed: number, override: OptionsOverride = {}): SimOptions {
  const random = new SimRandom(seed);
  const profile = override.profile ?? random.pick<ProfileName>(["fast", "fast", "fast", "default"]);
  const timings = PROFILES[profile];
  const luns = override.luns ?? random.pick([1, 1, 1, 1, 1, 3, 3, 3, 3, 5] as const);
  const kind =
    override.kind ??
    random.pick<NodeKind>(["hardware", "hardware", "hardware", "guard", "none", "virtual"]);
  const faults = drawFaults(random, luns, kind);
  const ops = drawOpFaults(random, kind);
  const isFast = profile === "fast";
  const base: SimOptions = {
    seed,
    profile,
    timings,
    luns,
    kind,
    hosts: random.pick([2, 2, 3, 3, 3, 4]),
    maxHosts: 5,
    leases: random.pick([1, 1, 1, 2]),
    mixedTimers: random.chance(0.15),
    doubled: luns > 1 && random.chance(0.1),
    driftPpm: random.pick([0, 200, 200, 2000]),
    phase1Ms: isFast ? 10_000 : 25_000,
    latencyMs: random.pick([0.5, 2, 5, 10]),
    holdMs: random.pick([5, 200, 600]) * (isFast ? 1 : 2),
    thinkMs: random.pick([20, 300, 1_500, 3_000]),
    sharedShare: random.pick([0, 0, 0.3, 0.7]),
    tryShare: random.pick([0, 0.2]),
    timeoutShare: random.pick([0, 0.2]),
    faults,
    ops,
  };
  return applyOverride(base, override);
}

function applyOverride(base: SimOptions, override: OptionsOverride): SimOptions {
  const { only, faults, ops, ...rest } = override;
  const quiet = only === true;
  return {
    ...base,
    ...rest,
    faults: { ...(quiet ? NO_FAULTS : base.faults), ...faults },
    ops: { ...(quiet ? NO_OP_FAULTS : base.ops), ...ops },
  };
}

const NO_FAULTS: FaultRates = {
  pausePulse: 0,
  pauseDaemon: 0,
  pauseNode: 0,
  killPulse: 0,
  killDaemon: 0,
  silentDaemon: 0,
  crash: 0,
  vmStop: 0,
  suspend: 0,
  cutPath: 0,
  cutHost: 0,
  lastGasp: 0,
  errorPath: 0,
  readOnlyPath: 0,
  lunAway: 0,
  lunBlank: 0,
  rollback: 0,
  rollbackDeep: 0,
  zeroSector: 0,
  leave: 0,
  twin: 0,
  clone: 0,
};

const NO_OP_FAULTS: OpFaults = {
  hang: 0,
  error: 0,
  slow: 0,
  torn: 0,
  stall: 0,
  heldData: 0,
  teardownHang: 0,
};

function drawOpFaults(random: SimRandom, kind: NodeKind): OpFaults {
  return {
    hang: random.chance(0.25) ? random.between(0.0001, 0.002) : 0,
    error: random.chance(0.25) ? random.between(0.0005, 0.02) : 0,
    slow: random.chance(0.3) ? random.between(0.001, 0.02) : 0,
    torn: random.chance(0.3) ? 0.3 : 0,
    stall: random.chance(0.3) ? random.between(0.0005, 0.01) : 0,
    heldData: random.chance(0.25) ? 0.1 : 0,
    teardownHang: kind === "hardware" && random.chance(0.4) ? 0.5 : 0,
  };
}

function drawFaults(random: SimRandom, luns: number, kind: NodeKind): FaultRates {
  const rate = (chance: number, high: number): number =>
    random.chance(chance) ? random.between(high / 8, high) : 0;
  return {
    pausePulse: rate(0.35, 6),
    pauseDaemon: rate(0.35, 6),
    pauseNode: rate(0.35, 6),
    killPulse: rate(0.3, 6),
    killDaemon: rate(0.35, 6),
    silentDaemon: rate(0.15, 2),
    crash: rate(0.4, 4),
    vmStop: kind === "virtual" ? rate(0.6, 6) : 0,
    suspend: rate(0.1, 3),
    cutPath: rate(0.35, 6),
    cutHost: rate(0.3, 4),
    lastGasp: rate(0.25, 4),
    errorPath: rate(0.25, 4),
    readOnlyPath: rate(0.2, 3),
    lunAway: luns > 1 ? rate(0.4, 4) : rate(0.2, 2),
    lunBlank: luns > 1 ? rate(0.2, 1.5) : 0,
    rollback: luns === 1 ? rate(0.08, 1) : 0,
    rollbackDeep: 0,
    zeroSector: 0,
    leave: rate(0.3, 4),
    twin: rate(0.15, 4),
    clone: 0,
  };
}
