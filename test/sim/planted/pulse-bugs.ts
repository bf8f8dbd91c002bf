/** Bugs in time, petting and joining (1-22). */
import { type OptionsOverride } from "../options.js";
import { type PlantedBug } from "./entry.js";

const HEARTBEAT = "lib/lease/heartbeat.js";
const JOIN = "lib/lease/delta-lease.js";
const TIMINGS = "lib/lease/timings.js";
const PULSE = "test/sim/pulse-actor.js";

/** A path that goes away under a holder whose teardown hangs: only the watchdog ends its hold. */
const LAST_MOMENT: OptionsOverride = {
  only: true,
  kind: "hardware",
  profile: "fast",
  luns: 1,
  hosts: 3,
  leases: 1,
  mixedTimers: false,
  latencyMs: 2,
  holdMs: 5_000,
  thinkMs: 20,
  sharedShare: 0,
  tryShare: 0,
  timeoutShare: 0,
  faults: { cutHost: 4, cutPath: 6 },
  ops: { teardownHang: 1 },
};

const JOINS: OptionsOverride = {
  only: true,
  kind: "hardware",
  profile: "fast",
  luns: 1,
  hosts: 4,
  mixedTimers: false,
  faults: { crash: 6, leave: 6 },
};

export const PULSE_BUGS: readonly PlantedBug[] = [
  {
    number: "1",
    title: "pet while the stamp is younger than T (level)",
    mutations: [
      {
        file: PULSE,
        find: "const device = this.devices[lun];",
        replace:
          "const device = this.devices[lun]; if (heartbeat?.armed && this.node.machine.bootMs() - heartbeat.renewedAtMs < this.node.timings.ttlMs) this.node.machine.watchdog.pet();",
      },
    ],
    options: LAST_MOMENT,
    seedsMax: 200,
  },
  {
    number: "2",
    title: "a late completion pets",
    mutations: [
      {
        file: HEARTBEAT,
        find: "if (timing.completedMs - timing.startedMs > this.#terms.timings.deadlineMs)",
        replace: "if (false)",
      },
      {
        file: HEARTBEAT,
        find: "const petUntilMs = oldestMs + windowMs;",
        replace: "const petUntilMs = nowMs + windowMs;",
      },
      {
        file: "test/sim/sim-device.js",
        find: "const deadlineAtMs = this.#process.machine.bootMs() + deadlineMs;",
        replace: "const deadlineAtMs = this.#process.machine.bootMs() + 1e9;",
      },
    ],
    options: {
      ...LAST_MOMENT,
      profile: "default",
      phase1Ms: 40_000,
      holdMs: 20_000,
      faults: { lastGasp: 6 },
    },
    seedsMax: 200,
  },
  {
    number: "3",
    title: "no look at the clock after the pet",
    mutations: [
      {
        file: "lib/pulse/petter.js",
        find: "if (nowMs <= verdict.resetAfterMs) {",
        replace: "if (nowMs <= Infinity) {",
      },
    ],
    options: { ...LAST_MOMENT, ops: { teardownHang: 1, stall: 0.02 } },
    seedsMax: 200,
  },
  {
    number: "4",
    title: "several LUNs: pet on a majority renewed at any time",
    mutations: [
      {
        file: HEARTBEAT,
        find: "nowMs - ms <= windowMs",
        replace: "nowMs - ms <= 1e9",
      },
      {
        file: HEARTBEAT,
        find: "const petUntilMs = oldestMs + windowMs;",
        replace: "const petUntilMs = nowMs + windowMs;",
      },
      {
        file: HEARTBEAT,
        find: "if (!this.#armed || !this.#recheckDone()) {",
        replace: "if (!this.#armed) {",
      },
    ],
    options: {
      ...LAST_MOMENT,
      profile: "default",
      phase1Ms: 40_000,
      holdMs: 20_000,
      luns: 3,
      faults: { cutHost: 4 },
    },
    seedsMax: 200,
  },
  {
    number: "5",
    title: "the renewed timestamp is in whole seconds",
    mutations: [
      {
        file: HEARTBEAT,
        find: "this.#timestamp += 1n;",
        replace:
          "this.tick = (this.tick ?? 0) + 1; this.#timestamp += this.tick % 5 === 0 ? 1n : 0n;",
      },
    ],
    options: { ...LAST_MOMENT, faults: { lastGasp: 6 } },
    seedsMax: 200,
  },
  {
    number: "6",
    title: "age up to now instead of the start of the newest read",
    mutations: [
      {
        file: "lib/fence/evidence.js",
        find: ": judgeExpired(host, generation, record.host, policy);",
        replace:
          ": judgeExpired({ ...host, unchangedMs: host.unchangedMs + nowMs - host.lastSeenMs }, generation, record.host, policy);",
      },
    ],
    options: { ...LAST_MOMENT, faults: { cutHost: 6, pausePulse: 20 } },
    seedsMax: 100,
  },
  {
    number: "7",
    title: "a failed read keeps the age running",
    mutations: [
      {
        file: PULSE,
        find: 'if (result.kind === "done") {\n            this.#hosts = [];',
        replace:
          'if (result.kind === "done") { (this.last ??= [])[lun] = result.reads[0]; } else if (this.last?.[lun]) { const now = this.node.machine.bootMs(); result = { kind: "done", reads: [this.last[lun]], timings: [{ startedMs: now, completedMs: now }] }; }\n        if (result.kind === "done") {\n            this.#hosts = [];',
      },
    ],
    options: {
      ...LAST_MOMENT,
      luns: 3,
      phase1Ms: 30_000,
      holdMs: 10_000,
      faults: { errorPath: 20 },
    },
    seedsMax: 200,
  },
  {
    number: "8",
    title: "no look at the gap before a renewal: loss is not sticky",
    mutations: [
      {
        file: HEARTBEAT,
        find: "if (gap > this.#terms.timings.ttlMs) {\n            return this.#lose(`no renewal counted",
        replace: "if (false) {\n            return this.#lose(`no renewal counted",
      },
      {
        file: HEARTBEAT,
        find: "if (gap > this.#terms.timings.ttlMs) {\n            return this.#lose(`a renewal completed",
        replace: "if (false) {\n            return this.#lose(`a renewal completed",
      },
    ],
    options: { ...LAST_MOMENT, faults: { pausePulse: 6, cutHost: 4 } },
    seedsMax: 100,
  },
  {
    number: "9",
    title: "W from the own configuration instead of the victim's record",
    mutations: [
      {
        file: "lib/fence/evidence.js",
        find: "watchdogMs: record.watchdogMs,\n    };",
        replace: "watchdogMs: 2000,\n    };",
      },
    ],
    options: { ...LAST_MOMENT, mixedTimers: true },
    seedsMax: 200,
  },
  {
    number: "10",
    title: "d left out of the bound",
    mutations: [
      {
        file: TIMINGS,
        find: "timings.watchdogMs + timings.deadlineMs + slackMs(timings)",
        replace: "timings.watchdogMs",
      },
    ],
    options: { ...LAST_MOMENT, faults: { lastGasp: 6 } },
    seedsMax: 300,
  },
  {
    number: "10h",
    title: "h left out of the bound with several LUNs",
    mutations: [
      {
        file: TIMINGS,
        find: "return lunCount > 1 ? oneLun + timings.intervalMs : oneLun;",
        replace: "return lunCount > 1 ? timings.watchdogMs : oneLun;",
      },
    ],
    options: { ...LAST_MOMENT, luns: 3, faults: { lastGasp: 6 } },
    seedsMax: 400,
  },
  {
    number: "11",
    title: "no keeper: the kernel's own pet at the unclean last close",
    mutations: [{ file: "test/sim/node.js", find: '["pulse", "keeper"]', replace: '["pulse"]' }],
    options: { ...LAST_MOMENT, faults: { cutHost: 6, killPulse: 40 } },
    seedsMax: 400,
  },
  {
    number: "12",
    title: "a second I/O to a hung LUN",
    mutations: [
      {
        file: "test/sim/sim-device.js",
        find: "this.stuck = true;",
        replace: "this.stuck = false; this.#out = undefined;",
      },
    ],
    options: { ...LAST_MOMENT, ops: { hang: 0.002 } },
    seedsMax: 50,
  },
  {
    number: "13",
    title: "the daemon is silent: pulse goes on for ever",
    mutations: [
      {
        file: HEARTBEAT,
        find: "silentMs > RESTART_GRACE_MS",
        replace: "silentMs > Infinity",
      },
    ],
    options: { ...LAST_MOMENT, phase1Ms: 30_000, faults: { silentDaemon: 6 } },
    seedsMax: 100,
  },
  {
    number: "14",
    title: "pulse lets go = it disarms",
    mutations: [
      {
        file: PULSE,
        find: "heartbeat.mayRenew(nowMs);\n        if (this.#checkLoss()) {",
        replace:
          'if (heartbeat.mayRenew(nowMs).kind === "no") this.node.machine.watchdog.off();\n        if (this.#checkLoss()) {',
      },
    ],
    options: { ...LAST_MOMENT, phase1Ms: 30_000, faults: { silentDaemon: 6 } },
    seedsMax: 100,
  },
  {
    number: "15",
    title: "skip the verification before a renewal",
    mutations: [
      { file: HEARTBEAT, find: "if (problem !== undefined) {", replace: "if (false) {" },
      { file: HEARTBEAT, find: "if (isOwn && luns.total === 1) {", replace: "if (false) {" },
    ],
    options: { ...LAST_MOMENT, faults: { rollback: 10 } },
    seedsMax: 100,
  },
  {
    number: "16",
    title: "the same generation again at join",
    mutations: [
      {
        file: JOIN,
        find: "(slot.newest?.leader.ownerGeneration ?? 0n) + 1n",
        replace: "((slot.newest?.leader.ownerGeneration ?? 0n) || 1n)",
      },
    ],
    options: JOINS,
    seedsMax: 20,
  },
  {
    number: "17",
    title: "no wait after the join's write",
    mutations: [
      {
        file: JOIN,
        find: "yield* sleep(joinWaitMs(timings, slot.newest));",
        replace: "",
      },
    ],
    options: { ...JOINS, latencyMs: 10 },
    seedsMax: 50,
  },
  {
    number: "18",
    title: "the joiner does not look at the time from its read to its write",
    mutations: [
      {
        file: JOIN,
        find: "if (read.nowMs - readStartedMs >= JOIN_READ_TO_WRITE_MS) {",
        replace: "if (false) {",
      },
      { file: JOIN, find: "if (isLate) {", replace: "if (false) {" },
    ],
    options: {
      ...JOINS,
      faults: { crash: 20, pausePulse: 10 },
      ops: { stall: 0.08 },
    },
    seedsMax: 300,
  },
  {
    number: "19",
    title: "the own record overwritten during the join: carry on",
    mutations: [
      {
        file: JOIN,
        find: "if (intact.length < majorityOf(luns)) {",
        replace: "if (false) {",
      },
    ],
    options: { ...JOINS, latencyMs: 10 },
    seedsMax: 50,
  },
  {
    number: "20",
    title: "an older generation counts as dead",
    mutations: [
      {
        file: "lib/fence/evidence.js",
        find: "if (current < generation) {",
        replace:
          'if (current < generation) { return evidence("released", host.hostId, generation, ""); }\n    if (false) {',
      },
    ],
    options: {
      ...LAST_MOMENT,
      phase1Ms: 30_000,
      holdMs: 2_000,
      faults: { rollbackDeep: 60, cutHost: 12, crash: 6 },
      ops: {},
    },
    expect: "still has it mounted",
    seedsMax: 100,
  },
  {
    number: "21",
    title: "a zero sector counts as free",
    mutations: [
      {
        file: JOIN,
        find: 'return { kind: "damaged", hostId: slot.hostId, reason: slot.reason };',
        replace: 'return chosen(slot, "free");',
      },
    ],
    options: { ...LAST_MOMENT, phase1Ms: 20_000, faults: { zeroSector: 30, twin: 1 }, ops: {} },
    expect: "which n1.1 has been before",
    seedsMax: 100,
  },
  {
    number: "22",
    title: "fast rejoin by the name alone",
    mutations: [
      {
        file: JOIN,
        find: "host.machineIdHash === terms.identity.machineIdHash &&",
        replace: "",
      },
      {
        file: JOIN,
        find: "return (terms.lastMembership?.hostId === slot.hostId &&",
        replace: "return true || (terms.lastMembership?.hostId === slot.hostId &&",
      },
      {
        file: JOIN,
        find: "return terms.unchangedMs(slot.hostId, record) >= rebootAfterMs",
        replace: "return true",
      },
    ],
    options: { ...LAST_MOMENT, faults: { twin: 1 } },
    seedsMax: 50,
  },
  {
    number: "108",
    title:
      "an own record of another boot is taken at once: the machine may be a copy of one that runs",
    mutations: [
      {
        file: JOIN,
        find: "return terms.unchangedMs(slot.hostId, record) >= rebootAfterMs",
        replace: "return true",
      },
    ],
    options: { ...LAST_MOMENT, faults: { clone: 1 } },
    seedsMax: 50,
  },
];
