import assert from "node:assert/strict";

import { Members, type MemberSettings } from "../../../lib/daemon/members.js";
import { ShareHaError } from "../../../lib/errors.js";
import { type DeltaSector } from "../../../lib/format/delta-sector.js";
import { type HostRecord } from "../../../lib/format/host-record.js";
import { type LeaderRecord } from "../../../lib/format/leader-record.js";
import { vacantRecord } from "../../../lib/lease/delta-lease.js";
import { expiredAfterMs, PROFILES, sanlockHostDeadMs } from "../../../lib/lease/timings.js";
import { type MemberBody } from "../../../lib/net/api.js";
import { type BeatHost } from "../../../lib/pulse/messages.js";
import { geometry, SPACE } from "../lease/samples.js";

const SELF = 1;
const OTHER = 2;
const MACHINE = 99n;
const DAY_MS = 86_400_000;
const BOUND_MS = expiredAfterMs(PROFILES.default, 1);

function record(
  hostId: number,
  host: Partial<HostRecord> = {},
  leader: Partial<LeaderRecord> = {},
): DeltaSector {
  const vacant = vacantRecord(geometry, SPACE, PROFILES.default, 1);
  assert(vacant.host !== undefined);
  return {
    ...vacant,
    leader: {
      ...vacant.leader,
      ownerId: BigInt(hostId),
      ownerGeneration: 4n,
      resourceName: `n${hostId}`,
      timestamp: 42n,
      ...leader,
    },
    host: { ...vacant.host, watchdog: "hardware", armed: true, joinEvidence: "free", ...host },
  };
}

/** A sanlock daemon's: nothing of ours in it. */
function foreign(leader: Partial<LeaderRecord> = {}): DeltaSector {
  return {
    ...record(OTHER, {}, { ioTimeout: 1, ...leader }),
    host: undefined,
    hostState: "absent",
  };
}

function seen(shown: DeltaSector | undefined, unchangedMs: number, hostId = OTHER): BeatHost {
  const trouble = shown === undefined ? "its checksum is wrong" : undefined;
  return { hostId, record: shown, trouble, unchangedMs, lastSeenMs: 1_000 };
}

class Bench {
  nowMs = 1_000;
  looks = 0;
  readonly members: Members;

  constructor(hosts: readonly BeatHost[], settings: Partial<MemberSettings> = {}) {
    this.members = new Members({
      clock: { bootMs: () => this.nowMs },
      settings: () => ({
        lunCount: 1,
        timings: PROFILES.default,
        machineIdHash: MACHINE,
        vmPauseNever: false,
        acceptGuard: false,
        foreignWatchdog: false,
        foreignUnprotected: false,
        dataIsLocal: false,
        ...settings,
      }),
      observe: () => {
        this.looks++;
        return Promise.resolve();
      },
    });
    this.note(...hosts);
  }

  note(...hosts: readonly BeatHost[]): void {
    const all = [seen(record(SELF), 0, SELF), ...hosts];
    this.members.note(
      { renewedAtMs: 1, armed: true, lost: undefined, luns: [], hosts: all, outboxes: [] },
      SELF,
    );
  }

  get other(): MemberBody {
    const found = this.members.bodies().find((each) => each.hostId === OTHER);
    assert(found !== undefined);
    return found;
  }
}

function codeOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    assert(error instanceof ShareHaError);
    assert.match(error.hint, /\w{3,}/);
    return error.code;
  }
  return "nothing was thrown";
}

interface Case {
  readonly what: string;
  readonly host: BeatHost;
  readonly settings?: Partial<MemberSettings>;
  readonly state: MemberBody["state"];
  readonly expiresAfterMs: number | null;
  readonly whyNoExpiry: RegExp | null;
}

const CASES: readonly Case[] = [
  {
    what: "one that renews, with an armed hardware watchdog",
    host: seen(record(OTHER), 400),
    state: "live",
    expiresAfterMs: BOUND_MS,
    whyNoExpiry: null,
  },
  {
    what: "one that renews and is not armed: what would be needed once it holds something",
    host: seen(record(OTHER, { armed: false }), 400),
    state: "live",
    expiresAfterMs: BOUND_MS,
    whyNoExpiry: null,
  },
  {
    what: "a silent one before its bound",
    host: seen(record(OTHER), BOUND_MS - 1),
    state: "silent",
    expiresAfterMs: BOUND_MS,
    whyNoExpiry: null,
  },
  {
    what: "a silent one at its bound",
    host: seen(record(OTHER), BOUND_MS),
    state: "expired",
    expiresAfterMs: null,
    whyNoExpiry: null,
  },
  {
    what: "silent for a day, without a watchdog",
    host: seen(record(OTHER, { watchdog: "none" }), DAY_MS),
    state: "silent",
    expiresAfterMs: null,
    whyNoExpiry: /^it runs without a watchdog/,
  },
  {
    what: "silent for a day, not armed",
    host: seen(record(OTHER, { armed: false }), DAY_MS),
    state: "silent",
    expiresAfterMs: null,
    whyNoExpiry: /^its watchdog was not armed/,
  },
  {
    what: "silent for a day, with a guard, elsewhere",
    host: seen(record(OTHER, { watchdog: "guard" }), DAY_MS),
    settings: { dataIsLocal: true },
    state: "silent",
    expiresAfterMs: null,
    whyNoExpiry: /^it is protected by a guard process only/,
  },
  {
    what: "with a guard on this machine, and data that is not all here",
    host: seen(record(OTHER, { watchdog: "guard", machineIdHash: MACHINE }), DAY_MS),
    state: "silent",
    expiresAfterMs: null,
    whyNoExpiry: /^it is protected by a guard process only/,
  },
  {
    what: "with a guard on this machine, and all data here",
    host: seen(record(OTHER, { watchdog: "guard", machineIdHash: MACHINE }), DAY_MS),
    settings: { dataIsLocal: true },
    state: "expired",
    expiresAfterMs: null,
    whyNoExpiry: null,
  },
  {
    what: "with a guard that the configuration accepts",
    host: seen(record(OTHER, { watchdog: "guard" }), DAY_MS),
    settings: { acceptGuard: true },
    state: "expired",
    expiresAfterMs: null,
    whyNoExpiry: null,
  },
  {
    what: "a virtual machine",
    host: seen(record(OTHER, { virtual: true }), DAY_MS),
    state: "silent",
    expiresAfterMs: null,
    whyNoExpiry: /^it is a virtual machine/,
  },
  {
    what: "a virtual machine that is never paused",
    host: seen(record(OTHER, { virtual: true }), DAY_MS),
    settings: { vmPauseNever: true },
    state: "expired",
    expiresAfterMs: null,
    whyNoExpiry: null,
  },
  {
    what: "one whose part of the record is damaged",
    host: seen({ ...record(OTHER), host: undefined, hostState: "corrupt" }, DAY_MS),
    state: "silent",
    expiresAfterMs: null,
    whyNoExpiry: /is damaged$/,
  },
  {
    what: "one whose record cannot be read",
    host: seen(undefined, DAY_MS),
    state: "unreadable",
    expiresAfterMs: null,
    whyNoExpiry: /^its host record cannot be read: its checksum is wrong$/,
  },
  {
    what: "one that has left",
    host: seen(record(OTHER, {}, { timestamp: 0n }), 0),
    state: "left",
    expiresAfterMs: null,
    whyNoExpiry: null,
  },
  {
    what: "a sanlock daemon that renews",
    host: seen(foreign(), 100),
    state: "foreign",
    expiresAfterMs: null,
    whyNoExpiry: /^it is a sanlock daemon/,
  },
  {
    what: "a silent sanlock daemon, with watchdogs that a human vouches for",
    host: seen(foreign(), DAY_MS),
    settings: { foreignWatchdog: true },
    state: "expired",
    expiresAfterMs: sanlockHostDeadMs(1),
    whyNoExpiry: null,
  },
];

describe("members (DESIGN section 8: what is known of each host, in words)", () => {
  for (const { what, host, settings, state, expiresAfterMs: bound, whyNoExpiry } of CASES) {
    it(what, () => {
      const bench = new Bench([host], settings);
      const { other } = bench;
      assert.equal(other.state, state);
      assert.equal(other.expiresAfterMs, bound);
      if (whyNoExpiry === null) {
        assert.equal(other.whyNoExpiry, null);
      } else {
        assert.match(other.whyNoExpiry ?? "", whyNoExpiry);
      }
      const hasEvidence = bench.members.evidenceFor(OTHER, 4n) !== undefined;
      assert.equal(hasEvidence, state === "expired" || state === "left");
      bench.members.close();
    });
  }

  it("says of what an expiry is made, with figures", () => {
    const { members } = new Bench([seen(record(OTHER), 6_543)]);
    const evidence = members.evidenceFor(OTHER, 4n);
    assert.equal(evidence?.kind, "expired");
    assert.equal(evidence.detail, "record unchanged for 6543 ms, bound 6500 ms, watchdog 5000 ms");
  });

  it("nobody has seen it: no verdict, no evidence, no name but its number", () => {
    const { members } = new Bench([]);
    assert.equal(members.verdict(OTHER, 4n), undefined);
    assert.equal(members.evidenceFor(OTHER, 4n), undefined);
    assert.equal(members.isLive(OTHER, 4n), false);
    assert.equal(members.nameOf(OTHER), "host 2");
  });

  it("a ticket counts only for the generation that renews", () => {
    const { members } = new Bench([seen(record(OTHER), 100)]);
    assert.deepEqual(
      [3n, 4n, 5n].map((generation) => members.isLive(OTHER, generation)),
      [false, true, false],
    );
  });

  it("of itself it says the slowest LUN's latency, and that it is live", () => {
    const { members } = new Bench([]);
    const own = seen(record(SELF), 60_000, SELF);
    const luns = [3, undefined, 7].map((latencyMs) => ({
      state: "ok" as const,
      why: undefined,
      latencyMs,
    }));
    const beat = { renewedAtMs: 1, armed: true, lost: undefined, hosts: [own], outboxes: [], luns };
    members.note(beat, SELF);
    const [body] = members.bodies();
    assert.deepEqual([body?.latencyMs, body?.state, body?.isSelf], [7, "live", true]);
  });
});

describe("a human's word that a node is off", () => {
  const SILENT = seen(record(OTHER, { watchdog: "none" }), PROFILES.default.ttlMs);

  it("is refused for one that renews, for oneself, for one that left and for one that is not", () => {
    const { members } = new Bench([
      seen(record(OTHER), PROFILES.default.ttlMs - 1),
      seen(record(3, {}, { timestamp: 0n }), DAY_MS, 3),
    ]);
    const codes = ["n2", "2", "n1", "n3", "n4"].map((name) =>
      codeOf(() => members.confirmOff(name)),
    );
    assert.deepEqual(codes, [
      "ERR_HOST_ALIVE",
      "ERR_HOST_ALIVE",
      "ERR_HOST_ALIVE",
      "ERR_HOST_LEFT",
      "ERR_NO_SUCH_HOST",
    ]);
  });

  it("is evidence for this generation, for ten minutes, and not once it renews again", () => {
    const bench = new Bench([SILENT]);
    const { members } = bench;
    assert.equal(members.evidenceFor(OTHER, 4n), undefined);
    const { validSeconds, generation } = members.confirmOff("n2");
    assert.deepEqual([validSeconds, generation], [600, 4n]);
    assert.equal(members.evidenceFor(OTHER, 4n)?.kind, "confirmed");
    assert.equal(members.evidenceFor(OTHER, 5n), undefined, "a later generation of the lease");
    bench.nowMs += 599_999;
    assert.equal(members.evidenceFor(OTHER, 4n)?.kind, "confirmed");
    bench.nowMs += 1;
    assert.equal(members.evidenceFor(OTHER, 4n), undefined, "ten minutes are over");
    members.confirmOff("2");
    bench.note(seen(record(OTHER, { watchdog: "none" }), 0));
    assert.equal(members.evidenceFor(OTHER, 4n), undefined, "it renews");
  });
});

describe("sanlock daemons beside us (hazard H22)", () => {
  const LIVE = seen(foreign(), 100);

  it("are no problem when they have gone", () => {
    assert.equal(
      new Bench([seen(foreign({ timestamp: 0n }), 0)]).members.foreignProblem(),
      undefined,
    );
  });

  it("are no problem beside hardware watchdogs on one LUN", () => {
    const { members } = new Bench([LIVE]);
    assert.equal(members.foreignProblem(), undefined);
    assert.deepEqual(
      members.foreignHosts().map((host) => host.hostId),
      [OTHER],
    );
  });

  it("cannot be had with several LUNs, whatever a human accepts", () => {
    const { members } = new Bench([LIVE], { lunCount: 3, foreignUnprotected: true });
    assert.equal(
      members.foreignProblem(),
      "sanlock daemons (n2) lock one LUN only, and this cluster decides on 3",
    );
  });

  it("cannot be had beside a member without a hardware watchdog, unless a human accepts it", () => {
    const weak = seen(record(3, { watchdog: "guard" }), 100, 3);
    const why = new Bench([LIVE, weak]).members.foreignProblem();
    assert.match(why ?? "", /^sanlock daemons \(n2\) take over .* n3 has no hardware one$/);
    const { members } = new Bench([LIVE, weak], { foreignUnprotected: true });
    assert.equal(members.foreignProblem(), undefined);
  });
});

function lookedAt(bench: Bench): number {
  return bench.looks;
}

describe("the next look at a silent host", () => {
  it("comes when its bound has passed, and only then", async () => {
    const bench = new Bench([seen(record(OTHER), BOUND_MS - 20)]);
    bench.nowMs = 1_000;
    assert.equal(bench.members.evidenceFor(OTHER, 4n), undefined);
    // Timers that fire before the clock says so look at the clock and wait again.
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.equal(bench.looks, 0, "the clock stands still");
    bench.nowMs = 1_021;
    for (let round = 0; round < 400 && lookedAt(bench) === 0; round++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    bench.members.close();
    assert.equal(bench.looks, 1);
  });

  it("is not made for one that renews, and not after close", async () => {
    const bench = new Bench([seen(record(OTHER), 100)]);
    assert.equal(bench.members.evidenceFor(OTHER, 4n), undefined);
    bench.note(seen(record(OTHER), BOUND_MS - 1));
    assert.equal(bench.members.evidenceFor(OTHER, 4n), undefined);
    bench.members.close();
    bench.nowMs = 100_000;
    await new Promise((resolve) => setTimeout(resolve, 30));
    assert.equal(bench.looks, 0);
  });
});
