/** Bugs in the ballot, the quorum of LUNs and the queue (23-40), and those that the simulator found (101-). */
import { type OptionsOverride } from "../options.js";
import { type PlantedBug } from "./entry.js";

const BALLOT = "lib/lease/ballot.js";
const VIEW = "lib/lease/lease-view.js";
const QUEUE = "lib/lease/queue.js";
const WAIT = "lib/lease/wait.js";
const PROCEDURE = "lib/lease/procedure.js";

/** Everybody wants the lease all the time, and operations overlap. */
const CONTENTION: OptionsOverride = {
  only: true,
  kind: "hardware",
  profile: "fast",
  luns: 1,
  hosts: 4,
  leases: 1,
  mixedTimers: false,
  latencyMs: 5,
  holdMs: 20,
  thinkMs: 10,
  sharedShare: 0,
  tryShare: 0.5,
  timeoutShare: 0,
  ops: { slow: 0.02 },
};

const SHARED: OptionsOverride = { ...CONTENTION, sharedShare: 0.6, holdMs: 200 };
const QUORUM: OptionsOverride = {
  ...CONTENTION,
  luns: 3,
  faults: { cutPath: 30, errorPath: 20, killDaemon: 6 },
  ops: { slow: 0.02, error: 0.05 },
};
const ORDERLY: OptionsOverride = {
  ...CONTENTION,
  tryShare: 0,
  holdMs: 100,
  ops: {},
};

export const PAXOS_BUGS: readonly PlantedBug[] = [
  {
    number: "23",
    title: "skip the look after phase 2",
    mutations: [{ file: BALLOT, find: "if (higher2 !== undefined) {", replace: "if (false) {" }],
    options: CONTENTION,
    seedsMax: 100,
  },
  {
    number: "24",
    title: "do not adopt the value with the highest bal",
    mutations: [
      { file: BALLOT, find: "acceptedValue(phase1.view, lver) ?? {", replace: "undefined ?? {" },
    ],
    options: CONTENTION,
    seedsMax: 100,
  },
  {
    number: "25",
    title: "adopt the value with the lowest bal",
    mutations: [
      { file: BALLOT, find: "block.dblock.bal > best.bal", replace: "block.dblock.bal < best.bal" },
    ],
    options: {
      ...CONTENTION,
      tryShare: 1,
      latencyMs: 10,
      faults: { killDaemon: 10, pauseDaemon: 20 },
      ops: { slow: 0.1 },
    },
    seedsMax: 600,
  },
  {
    number: "26",
    title: "the flags of a host's block are ignored",
    mutations: [
      {
        file: "lib/format/dblock.js",
        find: "shared: (getU32(view, MODE_OFFSET) & MODE_SHARED) !== 0,",
        replace: "shared: false,",
      },
    ],
    options: SHARED,
    seedsMax: 50,
  },
  {
    number: "27",
    title: "reads num_hosts instead of num_hosts + 2 sectors",
    mutations: [
      {
        file: "lib/format/geometry.js",
        find: "return (LEASE_HEAD_SECTORS + maxHosts) * g.sectorSize;",
        replace: "return maxHosts * g.sectorSize;",
      },
    ],
    options: { ...CONTENTION, maxHosts: 4 },
    seedsMax: 100,
  },
  {
    number: "28",
    title: "the leader is written before phase 2 is complete",
    mutations: [
      {
        file: BALLOT,
        find: "const phase2 = yield* phase(terms, sequence + 1n, block);",
        replace:
          "if (value.inp === BigInt(self.hostId)) yield* io([writeLeaderOp(address, leaderFor(terms, lver, value))]);\n    const phase2 = yield* phase(terms, sequence + 1n, block);",
      },
    ],
    options: CONTENTION,
    seedsMax: 200,
  },
  {
    number: "29",
    title: "release with I/O outstanding",
    mutations: [
      {
        file: "test/sim/group-mount.js",
        find: "if (mount.inFlight > 0) {",
        replace: "if (false) {",
      },
    ],
    // What has reached the target is waited for by the next holder; what waits in the machine for its path is not.
    options: { ...ORDERLY, luns: 3, faults: { cutPath: 6 } },
    seedsMax: 50,
  },
  {
    number: "30",
    title: "give up after phase 2 and forget it",
    mutations: [
      {
        file: "lib/lease/acquire.js",
        find: "if (!this.#isOpen || this.#lver === undefined || isFinal(outcome.kind)) {",
        replace: "if (true) {",
      },
    ],
    options: {
      ...CONTENTION,
      hosts: 4,
      latencyMs: 10,
      tryShare: 0.2,
      timeoutShare: 0.7,
      faults: { errorPath: 20 },
      ops: { error: 0.1 },
    },
    seedsMax: 300,
  },
  {
    number: "31",
    title: "commit without looking at T again",
    mutations: [
      {
        file: PROCEDURE,
        find: "return !turn.standing.lost && turn.nowMs - turn.standing.renewedAtMs < turn.standing.ttlMs;",
        replace: "return true;",
      },
    ],
    options: {
      ...CONTENTION,
      tryShare: 0,
      faults: { pauseNode: 60, pauseDaemon: 30, pausePulse: 60 },
    },
    seedsMax: 300,
  },
  {
    number: "32",
    title: "a blank LUN counts",
    mutations: [
      {
        file: "lib/lease/lun-set.js",
        find: 'const counts = claim?.state === "ok" || claim?.state === "stale";',
        replace: "const counts = true;",
      },
      {
        file: VIEW,
        find: 'return "the leader sector is all zero";',
        replace:
          'return { kind: "paxos", numHosts: 0n, maxHosts: 0n, lver: 0n, timestamp: 0n, ownerId: 0n, ownerGeneration: 0n, writeId: 0n, spaceName: address.spaceName, resourceName: address.resourceName };',
      },
    ],
    options: { ...QUORUM, faults: { cutPath: 30, lunBlank: 10 } },
    seedsMax: 300,
  },
  {
    number: "33",
    title: "the next lver from one LUN",
    mutations: [
      { file: VIEW, find: "leaders.reduce(laterLeader)", replace: "leaders[0]" },
      {
        file: VIEW,
        find: "if (block !== undefined) {",
        replace: "if (false) {",
      },
    ],
    options: QUORUM,
    seedsMax: 200,
  },
  {
    number: "34",
    title: "a majority of the LUNs that can be reached",
    mutations: [
      {
        file: PROCEDURE,
        find: "return Math.floor(luns.total / 2) + 1;",
        replace: "return 1;",
      },
    ],
    options: QUORUM,
    seedsMax: 50,
  },
  {
    number: "35",
    title: "the same LUN counts twice",
    mutations: [
      {
        file: "lib/lease/lun-set.js",
        find: "const twice = findTwice(found);",
        replace: "const twice = undefined;",
      },
    ],
    options: { ...QUORUM, doubled: true },
    seedsMax: 100,
  },
  {
    number: "36",
    title: "expired on one LUN suffices",
    mutations: [
      {
        file: "lib/lease/observer.js",
        find: "Math.floor(this.#lunCount / 2) + 1",
        replace: "1",
      },
    ],
    options: { ...QUORUM, holdMs: 5_000, faults: { cutPath: 30 }, ops: {} },
    seedsMax: 100,
  },
  {
    number: "37",
    title: "the turn goes to a waiter that is dead",
    mutations: [
      {
        file: QUEUE,
        find: "if (isLive(ticket.hostId, ticket.generation) && !isSpent(ticket, view)) {",
        replace: "if (!isSpent(ticket, view)) {",
      },
    ],
    options: { ...ORDERLY, hosts: 3, thinkMs: 300, faults: { crash: 4 }, phase1Ms: 30_000 },
    seedsMax: 300,
  },
  {
    number: "39",
    title: "a notice only, no polling",
    mutations: [
      {
        file: WAIT,
        find: "const ms = Math.min(POLL_MS_MAX, base + patience);",
        replace: "const ms = ahead === 0 ? base + patience : 60_000;",
      },
    ],
    options: ORDERLY,
    seedsMax: 50,
  },
  {
    number: "40",
    title: "shared overtakes exclusive for ever",
    mutations: [
      {
        file: QUEUE,
        find: "mine?.shared === true && ahead.every((ticket) => ticket.shared) ? [] : ahead",
        replace: "mine?.shared === true ? [] : ahead",
      },
    ],
    options: { ...ORDERLY, sharedShare: 0.7 },
    seedsMax: 100,
  },
  {
    number: "101",
    title: "an lver below that of a block: a leader that went back on a majority",
    mutations: [
      {
        file: VIEW,
        find: "if (block !== undefined) {",
        replace: "if (false) {",
      },
    ],
    options: {
      ...QUORUM,
      holdMs: 5,
      thinkMs: 20,
      sharedShare: 0.7,
      latencyMs: 0.5,
      ops: { stall: 0.005 },
      faults: { cutHost: 2, crash: 2 },
    },
    seedsMax: 400,
  },
  {
    number: "102",
    title: "a used-up ticket stays in the outbox",
    mutations: [
      {
        file: WAIT,
        find: 'if (successor === undefined && !own.some((entry) => entry.kind === "ticket")) {',
        replace: "if (successor === undefined) {",
      },
    ],
    options: { ...ORDERLY, tryShare: 0.3, sharedShare: 0.3, hosts: 3, thinkMs: 100, holdMs: 20 },
    seedsMax: 200,
  },
  {
    number: "103",
    title: "a release that reached a minority counts as done",
    mutations: [
      {
        file: "lib/daemon/lease-adoption.js",
        find: "halfReleased(address, look.view, self) ?? ",
        replace: "",
      },
    ],
    options: {
      ...QUORUM,
      hosts: 2,
      latencyMs: 2,
      holdMs: 50,
      thinkMs: 6_000,
      sharedShare: 0.8,
      tryShare: 0,
      phase1Ms: 30_000,
      faults: { lunBlank: 2, errorPath: 20 },
      ops: { error: 0.1 },
    },
    seedsMax: 2000,
  },
  {
    number: "107",
    title: "shared: the leader is freed before SHARED is on a majority",
    mutations: [
      {
        file: "lib/lease/acquire.js",
        find: "if (luns.total === 1) {",
        replace: "if (true) {",
      },
    ],
    options: {
      ...QUORUM,
      hosts: 3,
      latencyMs: 0.5,
      holdMs: 50,
      sharedShare: 0.7,
      tryShare: 0.2,
      faults: { cutPath: 6 },
      ops: { slow: 0.03 },
    },
    seedsMax: 300,
  },
  {
    number: "106",
    title: "a shared waiter holds back as if whoever is first could share",
    mutations: [
      {
        file: WAIT,
        find: "terms.shared && ahead > 0 ? judgeLease({ ...terms, shared: false }, outcome) : mine",
        replace: "mine",
      },
    ],
    options: { ...ORDERLY, sharedShare: 0.7, holdMs: 3_000, phase1Ms: 30_000 },
    seedsMax: 100,
  },
];
