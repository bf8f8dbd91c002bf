import assert from "node:assert/strict";
import { existsSync, mkdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from "node:fs";

import { EventLog } from "../../../lib/daemon/event-log.js";
import { type EventBody } from "../../../lib/net/api.js";
import { Workspace } from "../../helpers/workspace.js";

const ROTATE_BYTES = 8 * 1024 * 1024;

describe("EventLog", () => {
  let workspace: Workspace;
  let path: string;

  beforeEach(() => {
    workspace = new Workspace("events");
    path = workspace.path("events.jsonl");
  });

  afterEach(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  function open(): EventLog {
    return new EventLog({
      stateDir: workspace.dir,
      clock: { bootMs: () => 12.3456 },
      wallMs: () => 1_700_000_000_000,
    });
  }

  function linesOf(file: string): readonly EventBody[] {
    return readFileSync(file, "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as EventBody);
  }

  it("has every event in memory and, after a flush, as a line of the file, for its owner only", async () => {
    const log = open();
    log.add("lost", "the right to write is lost", { held: 2 });
    log.add("joined", "again");
    await log.flush();
    const expected = [
      {
        seq: 1,
        at: "2023-11-14T22:13:20.000Z",
        bootMs: 12.346,
        event: "lost",
        text: "the right to write is lost",
        fields: { held: 2 },
      },
    ];
    assert.deepEqual(log.after(0).events.slice(0, 1), expected);
    assert.deepEqual(linesOf(path).slice(0, 1), expected);
    assert.equal(linesOf(path).length, 2);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    assert.equal(log.newest, 2);
  });

  it("goes on behind what an earlier daemon wrote", async () => {
    writeFileSync(path, '{"seq":7}\n');
    const log = open();
    log.add("joined", "again");
    await log.flush();
    assert.deepEqual(
      linesOf(path).map((event) => event.seq),
      [7, 1],
    );
  });

  it("keeps the newest 2000 in memory and answers with at most 500, oldest first", () => {
    const log = open();
    for (let number = 1; number <= 2_005; number++) {
      log.add("tick", String(number));
    }
    const first = log.after(0);
    assert.deepEqual([first.events.length, first.events[0]?.seq, first.next], [500, 6, 505]);
    assert.deepEqual(log.after(2_005), { events: [], next: 2_005 });
    const last = log.after(2_004);
    assert.deepEqual([last.events.length, last.next], [1, 2_005]);
  });

  it("a number of a former daemon starts again from the oldest", () => {
    const log = open();
    log.add("joined", "again");
    assert.equal(log.after(4_711).events[0]?.seq, 1);
  });

  it("moves a full file aside and goes on in a new one; the older one is replaced", async () => {
    writeFileSync(path, "x".repeat(ROTATE_BYTES));
    writeFileSync(`${path}.1`, "an older one");
    const log = open();
    log.add("first", "still fits: the limit is exceeded by it");
    await log.flush();
    assert.equal(readFileSync(`${path}.1`, "utf8"), "an older one");
    log.add("second", "the file is beyond its limit now");
    await log.flush();
    assert.equal(statSync(`${path}.1`).size > ROTATE_BYTES, true);
    assert.deepEqual(
      linesOf(path).map((event) => event.event),
      ["second"],
    );
    assert.equal(log.fileTrouble, undefined);
  });

  it("says when the file cannot be written, keeps the events in memory, and goes on once it can", async () => {
    mkdirSync(path);
    const log = open();
    log.add("lost", "while the disk is away");
    await log.flush();
    assert.match(log.fileTrouble ?? "", /EISDIR/);
    assert.equal(log.after(0).events.length, 1);
    rmdirSync(path);
    log.add("joined", "again");
    await log.flush();
    assert.equal(log.fileTrouble, undefined);
    assert(existsSync(path));
    assert.equal(linesOf(path).at(-1)?.event, "joined");
  });

  it("while the disk is slow it keeps the newest 1000 lines for the file", async () => {
    const log = open();
    for (let number = 1; number <= 1_500; number++) {
      log.add("tick", String(number));
    }
    await log.flush();
    const seqs = linesOf(path).map((event) => event.seq);
    assert.deepEqual([seqs.length, seqs[0], seqs.at(-1)], [1_000, 501, 1_500]);
  });

  it("a long poll ends with the first event, with its time, or with its client", async () => {
    const log = open();
    const never = new AbortController();
    const polls = [log.waitAfter(0, 60_000, never.signal), log.waitAfter(0, 60_000, never.signal)];
    log.add("joined", "now");
    for (const { events, next } of await Promise.all(polls)) {
      assert.deepEqual([events.length, next], [1, 1]);
    }
    assert.deepEqual(await log.waitAfter(1, 10, never.signal), { events: [], next: 1 });
    const gone = new AbortController();
    const left = log.waitAfter(1, 60_000, gone.signal);
    gone.abort();
    assert.deepEqual(await left, { events: [], next: 1 });
    assert.deepEqual(await log.waitAfter(1, 60_000, gone.signal), { events: [], next: 1 });
  });
});
