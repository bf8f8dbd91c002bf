/** Bugs in evidence (41-49), and those that the simulator found (104-). */
import { type OptionsOverride } from "../options.js";
import { type PlantedBug } from "./entry.js";

const EVIDENCE = "lib/fence/evidence.js";
const GROUP = "test/sim/group-mount.js";

const TAKEOVERS: OptionsOverride = {
  only: true,
  kind: "hardware",
  profile: "fast",
  luns: 1,
  hosts: 3,
  leases: 1,
  mixedTimers: false,
  latencyMs: 2,
  holdMs: 2_000,
  thinkMs: 20,
  sharedShare: 0,
  tryShare: 0,
  timeoutShare: 0,
  phase1Ms: 30_000,
  faults: { cutHost: 6 },
  ops: { teardownHang: 1 },
};

export const EVIDENCE_BUGS: readonly PlantedBug[] = [
  {
    number: "44",
    title: "a failed write counts as done (here: a renewal)",
    mutations: [
      {
        file: "lib/lease/heartbeat.js",
        find: 'const timing = result.kind === "done" ? result.timings[0] : undefined;',
        replace:
          'const timing = result.kind === "done" ? result.timings[0] : { startedMs: nowMs, completedMs: nowMs };',
      },
    ],
    options: { ...TAKEOVERS, faults: { readOnlyPath: 10 } },
    seedsMax: 200,
  },
  {
    number: "47",
    title: "armed is ignored, by the ballot and by the evidence",
    mutations: [
      { file: EVIDENCE, find: "if (!record.armed) {", replace: "if (false) {" },
      {
        file: "test/sim/pulse-actor.js",
        find: "watchdog.start(timings.watchdogMs, this.node.watchdogHolders);",
        replace: "",
      },
    ],
    options: TAKEOVERS,
    seedsMax: 100,
  },
  {
    number: "49",
    title: "a confirmation applies to the next generation",
    mutations: [{ file: EVIDENCE, find: "confirmation.generation === generation &&", replace: "" }],
    options: { ...TAKEOVERS, phase1Ms: 40_000, faults: { cutHost: 10, crash: 6 }, holdMs: 500 },
    seedsMax: 300,
  },
  {
    number: "104",
    title:
      "only who takes over waits for what the target holds, not who comes after one that never mounted",
    mutations: [
      {
        file: GROUP,
        find: "this.#drain();\n    }\n    /** After a restart",
        replace:
          "if (evidence.length > 0) this.#drain(); else this.#mount();\n    }\n    /** After",
      },
    ],
    options: { ...TAKEOVERS, faults: { crash: 6, killDaemon: 20 }, ops: { heldData: 0.5 } },
    seedsMax: 300,
  },
];
