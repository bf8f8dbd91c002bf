import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { renderStatus } from "../../../lib/cli/status-text.js";
import { type AcquiredBody, type ReservedBody } from "../../../lib/net/api.js";
import {
  type FakeDaemon,
  leaseBody,
  memberBody,
  refusal,
  startFakeDaemon,
  statusBody,
} from "./fake-daemon.js";
import { type Ran, runMain } from "./run-main.js";

const plain = (_style: unknown, text: string): string => text;
const NOW = Date.parse("2026-11-23T20:03:05.000Z");

describe("status text", () => {
  it("shows the whole cluster in tables", () => {
    const text = renderStatus(statusBody(), plain, NOW);
    assert.equal(
      text,
      `Cluster    office, configuration epoch 1
Node       n1 (host 1, generation 3) joined
Heartbeat  130 ms ago, every 500 ms, deadline 1.0 s, lost after 3.0 s (profile default)
Watchdog   hardware /dev/watchdog0, armed, fires after 5.0 s

Members
  HOST  NODE  STATE  GENERATION   HEARTBEAT  LATENCY  WATCHDOG         TAKEN OVER
     1  n1    live            3  120 ms ago   2.5 ms  hardware, armed  after 6.5 s of silence
     2  n2    live            1  120 ms ago        -  hardware         after 6.5 s of silence

Groups
  GROUP  STATE  HOLDER       SINCE          DEVICE  MOUNT            QUEUE
  web    up     n1 (host 1)  3 min 5 s ago  lun     /srv/web (ext4)  n2

Leases
  LEASE      VERSION  HOLDER       MODE       SINCE          QUEUE
  group:web       12  n1 (host 1)  exclusive  3 min 5 s ago  n2

Quorum  1 of 1 LUN count, 1 needed
  LUN       STATE  COUNTS  LATENCY
  /dev/sdb  ok     yes      1.2 ms
`,
    );
  });

  it("says what is not possible now, why, and what would unblock it", () => {
    const text = renderStatus(
      statusBody({
        node: {
          name: "n1",
          hostId: null,
          generation: null,
          state: "joining",
          why: "host id 1 is taken",
        },
        heartbeatMs: null,
        watchdog: { kind: "guard", device: null, armed: false, note: "weaker than hardware" },
        members: [
          memberBody({ expiresAfterMs: null, whyNoExpiry: "no watchdog", state: "silent" }),
        ],
        hindrances: [
          { what: "take-over of web", why: "n2 has no watchdog", remedy: "sharedha fence n2" },
        ],
      }),
      plain,
      NOW,
    );
    assert.match(text, /Node {7}n1 joining: host id 1 is taken\n/);
    assert.match(text, /Heartbeat {2}no heartbeat yet,/);
    assert.match(
      text,
      /guard, not armed \(nothing is held\), fires after 5.0 s\n {11}weaker than hardware\n/,
    );
    assert.match(text, /not by time alone\n {2}n1: no watchdog\n/);
    assert.match(text, /take-over of web: n2 has no watchdog\n {4}remedy: sharedha fence n2\n/);
  });

  it("no text from the disk can steer the terminal", () => {
    const evil = "\u001b[31m\n";
    const base = statusBody();
    const text = renderStatus(
      {
        ...base,
        cluster: { ...base.cluster, name: evil },
        node: { ...base.node, name: evil, why: evil },
        members: [
          memberBody({ name: evil, generation: evil, expiresAfterMs: null, whyNoExpiry: evil }),
        ],
        leases: [leaseBody({ name: evil, version: evil, queue: [evil] })],
        groups: base.groups.map((group) => ({ ...group, name: evil, device: evil, why: evil })),
        luns: base.luns.map((lun) => ({ ...lun, path: evil, why: evil })),
        hindrances: [{ what: evil, why: evil, remedy: evil }],
        watchdog: { kind: "guard", device: evil, armed: true, note: evil },
      },
      plain,
      NOW,
    );
    assert.equal(text.includes("\u001b"), false);
  });
});

describe("commands", () => {
  let daemon: FakeDaemon;
  beforeEach(async () => {
    daemon = await startFakeDaemon();
  });
  afterEach(() => daemon.close());
  const run = (...argv: readonly string[]): Promise<Ran> =>
    runMain([...argv, "--state-dir", daemon.stateDir]);

  const granted: AcquiredBody = {
    name: "backup",
    version: "18446744073709551615",
    shared: false,
    evidence: [{ kind: "expired", hostId: 2, detail: "unchanged for 6.6 s" }],
    waitedMs: 6_612,
  };

  it("status --json is the daemon's answer", async () => {
    daemon.routes.set("GET /v1/status", () => ({ body: statusBody() }));
    const { out } = await run("status", "--json");
    assert.deepEqual(JSON.parse(out), statusBody());
  });

  it("lease acquire asks for what was said and tells version and evidence", async () => {
    daemon.routes.set("POST /v1/leases/backup/acquire", () => ({ body: granted }));
    const ran = await run("lease", "acquire", "backup", "--shared", "--wait", "2.5");
    assert.deepEqual(daemon.calls[0]?.body, {
      shared: true,
      waitMs: 2_500,
      bindToConnection: false,
    });
    assert.equal(
      ran.out,
      "acquired backup: exclusive, version 18446744073709551615 after 6.6 s\n" +
        "  taken over with evidence 'expired' of host 2: unchanged for 6.6 s\n",
    );
    await run("lease", "acquire", "backup", "--wait", "forever");
    assert.deepEqual(daemon.calls[1]?.body, {
      shared: false,
      waitMs: null,
      bindToConnection: false,
    });
    await run("lease", "acquire", "backup");
    assert.deepEqual(daemon.calls[2]?.body, { shared: false, waitMs: 0, bindToConnection: false });
  });

  it("a wait tells a human whom it waits for", async () => {
    daemon.routes.set("POST /v1/leases/backup/acquire", () => "never");
    const seen = new Promise<void>((resolve) => {
      daemon.routes.set("GET /v1/leases/backup", () => {
        resolve();
        return {
          body: leaseBody({
            holders: [{ hostId: 2, name: "n2", generation: "1", shared: false, since: null }],
            queue: ["n3", "n1"],
          }),
        };
      });
    });
    const running = run("lease", "acquire", "backup", "--wait", "30");
    await seen;
    await new Promise((resolve) => setTimeout(resolve, 100));
    daemon.calls[0]?.socket.destroy();
    const { exitCode, err } = await running;
    assert.equal(exitCode, 3);
    assert.match(err, /^waiting for backup: held by n2; queue: n3, n1\n/);
  });

  it("reserve without a name takes the only group; it tells mount and steps", async () => {
    const body: ReservedBody = {
      ...granted,
      name: "group:web",
      group: "web",
      mountPath: "/srv/web",
      steps: [
        { step: "lease", ms: 3.2 },
        { step: "fsck", ms: 1_240 },
      ],
    };
    daemon.routes.set("POST /v1/groups/-/reserve", () => ({ body }));
    const { out } = await run("reserve", "--wait", "1");
    assert.deepEqual(daemon.calls[0]?.body, { waitMs: 1_000 });
    assert.match(out, /^reserved web\n {2}lease group:web: exclusive, version /);
    assert.match(out, /\n {2}mounted on \/srv\/web\n {2}steps: lease 3.2 ms, fsck 1.2 s\n$/);
  });

  it("release, lease create, delete, list and show speak in sentences", async () => {
    daemon.routes.set("POST /v1/groups/web/release", () => ({ body: { released: true } }));
    daemon.routes.set("POST /v1/leases/backup/release", () => ({ body: { released: true } }));
    daemon.routes.set("POST /v1/leases/backup/create", () => ({ body: { lease: leaseBody() } }));
    daemon.routes.set("POST /v1/leases/backup/delete", () => ({ body: { lease: leaseBody() } }));
    daemon.routes.set("GET /v1/leases", () => ({ body: { leases: [] } }));
    daemon.routes.set("GET /v1/leases/backup", () => ({ body: leaseBody({ queue: ["n2"] }) }));
    assert.equal((await run("release", "web")).out, "released web\n");
    assert.equal((await run("lease", "release", "backup")).out, "released backup\n");
    assert.equal(
      (await run("lease", "create", "backup")).out,
      "created backup in area 7, version 12\n",
    );
    assert.equal((await run("lease", "delete", "backup")).out, "deleted backup\n");
    assert.match((await run("lease", "list")).out, /^no leases; /);
    assert.equal(
      (await run("lease", "show", "backup")).out,
      "backup  version 12, area 7\n  free\n  waiting: n2\n",
    );
  });

  it("events prints page after page until there is no more", async () => {
    daemon.routes.set("GET /v1/events", ({ path }) => {
      const after = Number(new URL(path, "http://x").searchParams.get("after"));
      const event = { at: "2026-11-23T20:00:00.000Z", bootMs: 1, event: "joined", fields: {} };
      const events = after >= 3 ? [] : [{ ...event, seq: after + 1, text: `number ${after + 1}` }];
      return { body: { events, next: Math.min(3, after + 1) } };
    });
    const { out } = await run("events", "--json");
    const seqs = out
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as { seq: number }).seq);
    assert.deepEqual(seqs, [1, 2, 3]);
    assert.match((await run("events")).out, /joined {8}number 1\n.*number 2\n.*number 3\n$/);
  });

  it("fence --confirm-off --yes does not ask, and hands a refusal on", async () => {
    daemon.routes.set("POST /v1/hosts/n2/confirm-off", () => ({
      body: { hostId: 2, generation: "7", validSeconds: 600 },
    }));
    const { out } = await run("fence", "n2", "--confirm-off", "--yes");
    assert.equal(out, "confirmed: n2 (host 2, generation 7) is off; valid for 10 min\n");
    daemon.routes.set("POST /v1/hosts/n2/confirm-off", () =>
      refusal(409, "ERR_HOST_ALIVE", "n2 renews"),
    );
    assert.equal((await run("fence", "n2", "--confirm-off", "--yes")).exitCode, 1);
  });

  it("config diff tells by its exit code; apply sends the stamp it saw; the same text changes nothing", async () => {
    const file = join(daemon.stateDir, "new.toml");
    writeFileSync(file, "a = 1\nb = 3\n");
    daemon.routes.set("GET /v1/config", () => ({ body: { toml: "a = 1\nb = 2\n", stamp: "7/1" } }));
    daemon.routes.set("PUT /v1/config", () => ({ body: { toml: "a = 1\nb = 3\n", stamp: "8/1" } }));
    daemon.routes.set("POST /v1/config/undo", () => ({ body: { toml: "a = 1\n", stamp: "9/1" } }));
    assert.deepEqual(await run("config", "diff", file), {
      exitCode: 1,
      out: "- b = 2\n+ b = 3\n",
      err: "",
    });
    const applied = await run("config", "apply", file);
    assert.equal(applied.out, "- b = 2\n+ b = 3\napplied, stamp 8/1\n");
    assert.deepEqual(daemon.calls.at(-1)?.body, { toml: "a = 1\nb = 3\n", stamp: "7/1" });
    assert.equal((await run("config", "undo")).out, "- b = 2\nundone, stamp 9/1\n");
    assert.deepEqual(daemon.calls.at(-1)?.body, { stamp: "7/1" });
    writeFileSync(file, "a = 1\nb = 2\n");
    assert.equal((await run("config", "diff", file)).exitCode, 0);
    assert.equal((await run("config", "apply", file)).out, "nothing to change\n");
    assert.equal(daemon.calls.filter(({ method }) => method === "PUT").length, 1);
    assert.equal((await run("config", "apply", "/nowhere")).exitCode, 2);
  });

  it("leave forgets the node only when the daemon has left", async () => {
    const file = join(daemon.stateDir, "node.json");
    writeFileSync(file, "{}");
    daemon.routes.set("POST /v1/leave", () => refusal(409, "ERR_BUSY", "web is held"));
    assert.equal((await run("leave")).exitCode, 1);
    assert.equal(readFileSync(file, "utf8"), "{}");
    daemon.routes.set("POST /v1/leave", () => ({ body: { left: true } }));
    assert.equal((await run("leave")).out, "left the cluster\n");
    assert.throws(() => readFileSync(file), { code: "ENOENT" });
  });

  it("join twice: the same is already done, anything else is refused", async () => {
    const node = { paths: ["/dev/sdb"], node: "n1", watchdog: "auto" };
    writeFileSync(join(daemon.stateDir, "node.json"), JSON.stringify(node));
    daemon.routes.set("GET /v1/status", () => ({ body: statusBody() }));
    const same = await run("join", "/dev/sdb");
    assert.equal(same.exitCode, 0, same.err);
    assert.equal(
      same.out,
      "already joined office as n1: host 1, generation 3\nwatchdog hardware /dev/watchdog0, 5.0 s\n",
    );
    for (const argv of [
      ["/dev/sdc"],
      ["/dev/sdb", "--node", "n9"],
      ["/dev/sdb", "--host-id", "5"],
    ]) {
      const other = await run("join", ...argv);
      assert.equal(other.exitCode, 2);
      assert.match(
        other.err,
        /is joined already as n1 with \/dev\/sdb.*\n {2}remedy: `sharedha leave` first/,
      );
    }
    assert.deepEqual(JSON.parse(readFileSync(join(daemon.stateDir, "node.json"), "utf8")), node);
  });
});
