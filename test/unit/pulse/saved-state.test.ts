import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { readTornDown, writeExit } from "../../../lib/pulse/exit-report.js";
import {
  type PulseState,
  readProtected,
  readPulseState,
  removePulseState,
  savePulseState,
  saveProtected,
} from "../../../lib/pulse/saved-state.js";
import { noSuchMount } from "../../helpers/mount-target.js";

const BOOT = 77n;
const STATE: PulseState = {
  pid: 812,
  startTime: "123456",
  hostId: 2,
  generation: 0xffff_ffff_ffff_ffffn,
  bootIdHash: BOOT,
  node: "n1",
  joinEvidence: "expired-guard",
  record: new Uint8Array(512).fill(0xa5),
  keeper: {
    process: { pid: 900, startTime: "123999" },
    device: "/dev/watchdog0",
    watchdogMs: 5_000,
  },
};

describe("what pulse leaves for its successor", () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "sharedha-state-"));
  });
  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  it("pulse.json comes back as it was, readable for the owner alone", () => {
    for (const state of [STATE, { ...STATE, keeper: undefined }]) {
      savePulseState(directory, state);
      const found = readPulseState(directory, BOOT);
      assert.deepEqual({ ...found, record: Uint8Array.from(found?.record ?? []) }, state);
    }
    assert.equal(statSync(join(directory, "pulse.json")).mode & 0o077, 0);
  });

  it("of another boot it says nothing, and neither does one that is not there", () => {
    assert.equal(readPulseState(directory, BOOT), undefined);
    savePulseState(directory, STATE);
    assert.equal(readPulseState(directory, BOOT + 1n), undefined);
    saveProtected(directory, { mounts: [noSuchMount("/srv")], processes: [] }, BOOT);
    assert.equal(readProtected(directory, BOOT + 1n), undefined);
    removePulseState(directory);
    assert.equal(readPulseState(directory, BOOT), undefined);
    assert.equal(readProtected(directory, BOOT), undefined);
  });

  it("a damaged one is an error and never a generation", () => {
    savePulseState(directory, STATE);
    const path = join(directory, "pulse.json");
    const good = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
    const changes: [Record<string, unknown>, RegExp][] = [
      [{ pid: 0 }, /pid/],
      [{ pid: "812" }, /pid/],
      [{ startTime: 5 }, /startTime/],
      [{ hostId: 1.5 }, /hostId/],
      [{ generation: "-1" }, /generation/],
      [{ generation: 3 }, /generation/],
      [{ node: "" }, /node/],
      [{ joinEvidence: "" }, /joinEvidence/],
      [{ record: "a5" }, /record/],
      [{ record: "zz".repeat(512) }, /record/],
      [{ keeper: 7 }, /keeper is not an object/],
      [{ keeper: {} }, /keeper.process is not an object/],
      [{ keeper: { ...STATE.keeper, device: "watchdog0" } }, /device/],
      [{ keeper: { ...STATE.keeper, watchdogMs: 0 } }, /watchdogMs/],
    ];
    for (const [change, message] of changes) {
      writeFileSync(path, JSON.stringify({ ...good, ...change }));
      assert.throws(() => readPulseState(directory, BOOT), message, JSON.stringify(change));
    }
    for (const text of ["", "[", "null", `"${"x".repeat(1024 * 1024)}"`]) {
      writeFileSync(path, text);
      assert.throws(() => readPulseState(directory, BOOT), text.slice(0, 20));
    }
  });

  it("pulse-exit.json proves a teardown only of this boot, whole, and when it says so", () => {
    const exit = {
      kind: "lost",
      code: "ERR_LOST",
      message: "",
      hint: "",
      hostId: 2,
      generation: 9n,
      torndown: true,
    } as const;
    assert.equal(readTornDown(directory, BOOT), undefined);
    writeExit(directory, exit, BOOT);
    assert.ok(existsSync(join(directory, "pulse-exit.json")));
    assert.deepEqual(readTornDown(directory, BOOT), { hostId: 2, generation: 9n });
    assert.equal(readTornDown(directory, BOOT + 1n), undefined);
    writeExit(directory, { ...exit, torndown: false }, BOOT);
    assert.equal(readTornDown(directory, BOOT), undefined);
    for (const text of ["", "null", "{}", '{"torndown":true,"hostId":2,"bootIdHash":"77"}']) {
      writeFileSync(join(directory, "pulse-exit.json"), text);
      assert.equal(readTornDown(directory, BOOT), undefined, text);
    }
  });
});
