import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { parsePulseOptions, readNodeSettings } from "../../../lib/pulse/options.js";

describe("pulse's flags", () => {
  it("are all taken", () => {
    const options = parsePulseOptions([
      ...["--state-dir", "/s", "--resume-at", "12.5", "--resume-armed", "--torn-down", "3/7"],
      ...["--confirm-off", "--accept-guard", "--vm-pause-never", "--foreign-watchdog"],
    ]);
    assert.deepEqual(options, {
      stateDir: "/s",
      resumeAtMs: 12.5,
      resumeArmed: true,
      tornDown: { hostId: 3, generation: 7n },
      confirmOff: true,
      acceptGuard: true,
      vmPauseNever: true,
      foreignWatchdog: true,
    });
  });

  it("grant nothing that was not asked for", () => {
    assert.deepEqual(parsePulseOptions(["--state-dir", "/s"]), {
      stateDir: "/s",
      resumeAtMs: undefined,
      resumeArmed: false,
      tornDown: undefined,
      confirmOff: false,
      acceptGuard: false,
      vmPauseNever: false,
      foreignWatchdog: false,
    });
  });

  it("are refused when unknown, incomplete or not what they have to be", () => {
    const state = ["--state-dir", "/s"];
    for (const [args, message] of [
      [[], /absolute path/],
      [["--state-dir"], /incomplete option --state-dir/],
      [["--state-dir", "relative"], /absolute path/],
      [[...state, "--force"], /unknown or incomplete option --force/],
      [[...state, "extra"], /extra/],
      [[...state, "--resume-at"], /incomplete option --resume-at/],
      [[...state, "--resume-at", "-1"], /not a time/],
      [[...state, "--resume-at", "1e3"], /not a time/],
      [[...state, "--resume-at", ""], /not a time/],
      [[...state, "--resume-at", "9".repeat(400)], /not a time/],
      [[...state, "--torn-down", "3"], /HOSTID\/GENERATION/],
      [[...state, "--torn-down", "3/-1"], /HOSTID\/GENERATION/],
      [[...state, "--torn-down", "12345/1"], /HOSTID\/GENERATION/],
    ] as const) {
      assert.throws(() => parsePulseOptions(args), { code: "ERR_USAGE", message }, args.join(" "));
    }
  });
});

describe("node.json", () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "sharedha-options-"));
  });
  afterEach(() => {
    rmSync(directory, { recursive: true });
  });

  function settings(text: string): ReturnType<typeof readNodeSettings> {
    writeFileSync(join(directory, "node.json"), text);
    return readNodeSettings(directory);
  }

  it("is read, with `auto` where no watchdog is named", () => {
    assert.deepEqual(settings('{"paths":["/dev/sdb"],"node":"n1","hostId":null}'), {
      paths: ["/dev/sdb"],
      node: "n1",
      hostId: undefined,
      watchdog: "auto",
    });
    const full = { paths: ["/a", "/b", "/c"], node: "n2", hostId: 4, watchdog: "hardware" };
    assert.deepEqual(settings(JSON.stringify(full)), full);
  });

  it("is refused when it is missing or anything else, with the command that writes it", () => {
    assert.throws(() => readNodeSettings(directory), {
      code: "ERR_NODE_SETTINGS",
      message: /does not exist/,
      hint: /sharedha join/,
    });
    for (const [text, message] of [
      ["", /JSON/],
      ["{", /JSON/],
      ["null", /not an object/],
      ["7", /not an object/],
      ['{"node":"n1"}', /`paths`/],
      ['{"paths":[],"node":"n1"}', /`paths`/],
      ['{"paths":[1],"node":"n1"}', /`paths`/],
      ['{"paths":["/a"]}', /`node`/],
      ['{"paths":["/a"],"node":""}', /`node`/],
      ['{"paths":["/a"],"node":"n1","hostId":0}', /`hostId`/],
      ['{"paths":["/a"],"node":"n1","hostId":1.5}', /`hostId`/],
      ['{"paths":["/a"],"node":"n1","watchdog":"Hardware"}', /`watchdog`/],
      [" ".repeat(1024 * 1024 + 1), /characters/],
    ] as const) {
      assert.throws(
        () => settings(text),
        { code: "ERR_NODE_SETTINGS", message },
        text.slice(0, 80),
      );
    }
  });
});
