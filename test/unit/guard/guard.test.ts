import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import { type Socket } from "node:net";

import fc from "fast-check";

import { GuardDeadline } from "../../../lib/guard/deadline.js";
import { expire, type ExpiryEdges } from "../../../lib/guard/expiry.js";
import { GuardServer, protectOf } from "../../../lib/guard/guard-server.js";
import { type Protected } from "../../../lib/pulse/messages.js";
import { noSuchMount } from "../../helpers/mount-target.js";

describe("guard's deadline", () => {
  it("once expired it takes no pet, no arming and no disarming any more", () => {
    const deadline = new GuardDeadline();
    assert.equal(deadline.pet(0, 1_000), false, "a pet does not arm");
    assert.equal(deadline.arm(0, 1_000), true);
    assert.equal(deadline.pet(999, 2_000), true);
    assert.equal(deadline.isExpired(1_999), false);
    assert.equal(deadline.isExpired(2_000), true);
    assert.equal(deadline.pet(2_000, 9_000), false);
    assert.equal(deadline.arm(2_000, 9_000), false);
    assert.equal(deadline.disarm(2_000), false);
    assert.equal(deadline.isExpired(0), true, "also if the clock were to go back");
  });

  it("expires at the latest time that was allowed before, whatever the order of pets", () => {
    const pet = fc.record({ gap: fc.nat(400), ahead: fc.integer({ min: -500, max: 5_000 }) });
    fc.assert(
      fc.property(fc.array(pet), (pets) => {
        const deadline = new GuardDeadline();
        deadline.arm(0, 1_000);
        let nowMs = 0;
        let latestMs = 1_000;
        for (const { gap, ahead } of pets) {
          nowMs += gap;
          if (nowMs < latestMs) {
            deadline.pet(nowMs, nowMs + ahead);
            latestMs = Math.max(latestMs, nowMs + ahead);
          } else {
            assert.equal(deadline.pet(nowMs, nowMs + ahead), false);
          }
          assert.equal(deadline.isExpired(nowMs), nowMs >= latestMs);
        }
      }),
    );
  });

  it("never sleeps past its time, and looks at the clock again after half a second (suspend)", () => {
    const deadline = new GuardDeadline();
    assert.equal(deadline.sleepMs(0), undefined);
    deadline.arm(0, 10_000);
    assert.equal(deadline.sleepMs(0), 500);
    assert.equal(deadline.sleepMs(9_900.5), 100);
    assert.equal(deadline.sleepMs(20_000), 0);
    assert.equal(deadline.sleepMs(9_500), 250, "until it is near");
    assert.equal(deadline.isNear(9_749), false);
    assert.equal(deadline.isNear(9_750), true);
    assert.equal(deadline.sleepMs(9_750), 250, "until it is there");
    assert.equal(deadline.arm(0, 1e12), false, "garbage");
    assert.equal(deadline.arm(0, NaN), false, "garbage");
  });
});

describe("guard's expiry", () => {
  const protect: Protected = {
    mounts: ["/a", "/b", "/c"].map(noSuchMount),
    processes: [
      { pid: 10, startTime: "1" },
      { pid: 11, startTime: "2" },
    ],
  };

  function edges(
    steps: string[],
    outcomes: Record<string, "cut" | "not-mounted" | "failed">,
  ): ExpiryEdges {
    return {
      bootMs: () => steps.length,
      cut: async (targets) => {
        const paths = targets.map(({ path }) => path);
        steps.push(`cut ${paths.join(" ")}`);
        return await Promise.resolve(
          paths.map((path) => ({ kind: outcomes[path] ?? "cut", why: "" })),
        );
      },
      users: () => [],
      kill: ({ pid }) => {
        steps.push(`kill ${pid}`);
        return "sent";
      },
      killSession: ({ pid }) => {
        steps.push(`kill session ${pid}`);
        return "sent";
      },
      unmount: async (path) => {
        steps.push(`unmount ${path}`);
        return await Promise.resolve("unmounted");
      },
      pause: async () => {
        await Promise.resolve();
      },
    };
  }

  const KILLED = ["kill 10", "kill 11"];
  const SESSIONS_KILLED = ["kill session 10", "kill session 11"];

  it("kills who is known, cuts, kills what they started, and unmounts what was cut (H3)", async () => {
    const steps: string[] = [];
    await expire(protect, 0, edges(steps, {}));
    assert.deepEqual(steps, [
      ...KILLED,
      "cut /a /b /c",
      ...SESSIONS_KILLED,
      "unmount /a",
      "unmount /b",
      "unmount /c",
    ]);
  });

  it("kills the users that were found in time before the cut, and those found meanwhile after it", async () => {
    const steps: string[] = [];
    const found = [{ pid: 20, startTime: "5" }];
    const of = edges(steps, {});
    const cut: ExpiryEdges["cut"] = async (paths, boundMs) => {
      found.push({ pid: 21, startTime: "6" });
      return await of.cut(paths, boundMs);
    };
    const report = await expire(protect, 0, { ...of, users: () => found, cut });
    assert.deepEqual(steps.slice(0, 8), [
      "kill 20",
      ...KILLED,
      "cut /a /b /c",
      ...SESSIONS_KILLED,
      "kill 20",
      "kill 21",
    ]);
    assert.deepEqual(
      report.killedFirst.map(({ pid }) => pid),
      [20, 10, 11],
    );
  });

  it("cuts after 20 ms however many there are to kill first, and kills all of them afterwards", async () => {
    let nowMs = 1_000;
    let cutAtMs: number | undefined;
    let killed = 0;
    const many = Array.from({ length: 500 }, (_, index) => ({ pid: 30 + index, startTime: "7" }));
    const of = edges([], {});
    await expire(protect, 0, {
      ...of,
      bootMs: () => nowMs,
      users: () => many,
      kill: () => {
        killed += cutAtMs === undefined ? 0 : 1;
        nowMs += 1;
        return "sent";
      },
      cut: async (paths, boundMs) => {
        cutAtMs ??= nowMs;
        return await of.cut(paths, boundMs);
      },
    });
    assert.equal(cutAtMs, 1_020);
    assert.equal(killed, 500);
  });

  it("never unmounts what was not cut, because that would write", async () => {
    const steps: string[] = [];
    const report = await expire(protect, 0, edges(steps, { "/a": "failed", "/b": "not-mounted" }));
    assert.deepEqual(steps, [
      ...KILLED,
      "cut /a /b /c",
      ...SESSIONS_KILLED,
      "cut /a /b",
      "unmount /c",
    ]);
    assert.match(report.mounts[0]?.unmounted ?? "", /would write/);
    assert.equal(report.mounts[1]?.unmounted, "not-mounted");
    assert.equal(report.mounts[2]?.unmounted, "unmounted");
  });

  it("a mount(8) that finishes after the first cut is cut as well", async () => {
    const steps: string[] = [];
    const outcomes: Record<string, "cut" | "not-mounted"> = { "/a": "not-mounted" };
    const of = edges(steps, outcomes);
    const killSession: ExpiryEdges["killSession"] = (process) => {
      outcomes["/a"] = "cut";
      return of.killSession(process);
    };
    const report = await expire({ ...protect, mounts: [noSuchMount("/a")] }, 0, {
      ...of,
      killSession,
    });
    assert.equal(report.mounts[0]?.outcome, "cut");
    assert.equal(report.mounts[0].unmounted, "unmounted");
  });

  it("refuses to protect what can only be a mistake", () => {
    for (const bad of [
      null,
      {},
      { mounts: [noSuchMount("/")], processes: [] },
      { mounts: [noSuchMount("relative")], processes: [] },
      { mounts: ["/x"], processes: [] },
      { mounts: [{ path: "/x" }], processes: [] },
      { mounts: [{ path: "/x", device: { majorMinor: "7", sequence: "1" } }], processes: [] },
      { mounts: [{ path: "/x", device: { majorMinor: "7:1", sequence: 1 } }], processes: [] },
      { mounts: [], processes: [{ pid: 1, startTime: "0" }] },
      { mounts: [], processes: [{ pid: 5, startTime: 7 }] },
      { mounts: new Array(1_001).fill(noSuchMount("/x")), processes: [] },
    ]) {
      assert.throws(() => protectOf(bad));
    }
  });
});

/** A socket in memory: what was written, and a way to feed lines. */
class FakeSocket extends EventEmitter {
  readonly written: string[] = [];
  readonly writableLength = 0;
  destroyed = false;
  writableEnded = false;
  write(text: string): boolean {
    this.written.push(text);
    return true;
  }
  end(): void {
    this.writableEnded = true;
  }
  destroy(): void {
    this.destroyed = true;
    this.emit("close");
  }
  feed(message: unknown): void {
    this.emit("data", Buffer.from(`${JSON.stringify(message)}\n`));
  }
}

describe("guard's server", () => {
  let nowMs: number;
  let expired: Protected[];
  let done: string[];
  let ahead: string[];
  let socket: FakeSocket;
  beforeEach(() => {
    nowMs = 0;
    expired = [];
    done = [];
    ahead = [];
    socket = new FakeSocket();
    const server = new GuardServer({
      clock: { bootMs: () => nowMs },
      self: { pid: 2, startTime: "3" },
      onNear: ({ mounts }) => {
        ahead.push(`near ${mounts.map(({ path }) => path).join(" ")}`);
      },
      onPutOff: () => {
        ahead.push("put off");
      },
      onExpired: (protect) => {
        expired.push(protect);
      },
      prepare: async () => {
        await Promise.resolve();
      },
      onDone: (why) => {
        done.push(why);
      },
    });
    server.accept(socket as unknown as Socket);
  });
  afterEach(() => {
    nowMs = 1e9;
    // Its timers end with it: expired, or told to exit.
    socket.feed({ id: 99, op: "disarm" });
    socket.feed({ id: 100, op: "exit" });
  });

  it("stopped past its time with pets in its socket, it acts before it takes the first of them", () => {
    socket.feed({ id: 1, op: "arm", expiresAtMs: 1_000 });
    const mounts = [noSuchMount("/srv/web")];
    socket.feed({ id: 2, op: "protect", protect: { mounts, processes: [] } });
    nowMs = 1_001;
    socket.feed({ id: 0, op: "pet", expiresAtMs: 5_000 });
    assert.deepEqual(expired, [{ mounts, processes: [] }]);
    assert.match(socket.written.at(-1) ?? "", /"id":0,"ok":false.*expired/);
    socket.feed({ id: 3, op: "disarm" });
    assert.match(socket.written.at(-1) ?? "", /"id":3,"ok":false.*expired/);
    socket.feed({ id: 4, op: "exit" });
    assert.match(socket.written.at(-1) ?? "", /"id":4,"ok":false.*expired/);
    assert.equal(expired.length, 1, "it acts once");
    assert.deepEqual(done, []);
  });

  it("petted in time it goes on; it exits only disarmed and with no mount to protect", async () => {
    socket.feed({ id: 1, op: "arm", expiresAtMs: 1_000 });
    nowMs = 900;
    socket.feed({ id: 8, op: "pet", expiresAtMs: 2_000 });
    assert.match(socket.written.at(-1) ?? "", /"id":8,"ok":true.*"armed":true/);
    nowMs = 1_500;
    socket.feed({ id: 2, op: "exit" });
    assert.match(socket.written.at(-1) ?? "", /"ok":false/);
    socket.feed({ id: 3, op: "disarm" });
    socket.feed({ id: 9, op: "pet", expiresAtMs: 3_000 });
    assert.match(socket.written.at(-1) ?? "", /"id":9,"ok":false/, "a pet arms nothing");
    socket.feed({ id: 4, op: "protect", protect: { mounts: [noSuchMount("/x")], processes: [] } });
    await new Promise((resolve) => setImmediate(resolve));
    socket.feed({ id: 5, op: "exit" });
    assert.match(socket.written.at(-1) ?? "", /"id":5,"ok":false/);
    socket.feed({ id: 6, op: "protect", protect: { mounts: [], processes: [] } });
    await new Promise((resolve) => setImmediate(resolve));
    socket.feed({ id: 7, op: "exit" });
    assert.deepEqual(done, ["pulse left"]);
    assert.deepEqual(expired, []);
  });

  it("says once that its time is near, and that this is void when a pet, an arming or other mounts came", () => {
    socket.feed({ id: 1, op: "protect", protect: { mounts: [noSuchMount("/a")], processes: [] } });
    socket.feed({ id: 2, op: "arm", expiresAtMs: 2_000 });
    assert.deepEqual(ahead, []);
    nowMs = 1_000;
    socket.feed({ id: 3, op: "pet", expiresAtMs: 2_100 });
    assert.deepEqual(ahead, [], "petted in time");
    nowMs = 1_900;
    socket.feed({ id: 4, op: "pet", expiresAtMs: 2_050 });
    assert.deepEqual(ahead, [], "a pet that moves nothing begins nothing");
    socket.feed({ id: 5, op: "pet", expiresAtMs: 2_110 });
    assert.deepEqual(ahead, ["near /a"]);
    socket.feed({ id: 6, op: "pet", expiresAtMs: 2_110 });
    socket.feed({ id: 7, op: "hello" });
    assert.deepEqual(ahead, ["near /a"], "what was found stays");
    socket.feed({ id: 8, op: "protect", protect: { mounts: [noSuchMount("/b")], processes: [] } });
    assert.deepEqual(ahead, ["near /a", "put off", "near /b"]);
    socket.feed({ id: 9, op: "pet", expiresAtMs: 5_000 });
    assert.deepEqual(ahead.slice(3), ["put off"]);
    assert.deepEqual(expired, []);
    nowMs = 5_000;
    socket.feed({ id: 10, op: "pet", expiresAtMs: 9_000 });
    assert.deepEqual(ahead.slice(4), [], "too late to begin with anything: it acts");
    assert.equal(expired.length, 1);
  });

  it("wakes up by itself when its time is near, and then at its time", async () => {
    const startedMs = performance.now();
    const clock = setInterval(() => (nowMs = performance.now() - startedMs), 1);
    try {
      socket.feed({
        id: 1,
        op: "protect",
        protect: { mounts: [noSuchMount("/a")], processes: [] },
      });
      socket.feed({ id: 2, op: "arm", expiresAtMs: 350 });
      while (ahead.length === 0 && nowMs < 5_000) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assert.deepEqual(expired, []);
      assert.ok(nowMs >= 100 && nowMs < 350, `near at ${nowMs}`);
      while (expired.length === 0 && nowMs < 5_000) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      assert.ok(nowMs >= 350);
      assert.deepEqual(ahead, ["near /a"]);
      assert.equal(expired.length, 1);
    } finally {
      clearInterval(clock);
    }
  });

  it("garbage ends the connection and does not move its time", () => {
    socket.feed({ id: 1, op: "arm", expiresAtMs: 1_000 });
    socket.feed({ id: 2, op: "pet" });
    assert.equal(socket.destroyed, true);
    nowMs = 1_000;
    socket.emit("close");
    assert.equal(expired.length, 1);
  });
});
