import assert from "node:assert/strict";

import { ShareHaError } from "../../../lib/errors.js";
import { EXIT_MEANINGS, exitError } from "../../../lib/node-iscsi-initiator/exit-code.js";
import { callIscsiadm, type Runner } from "../../../lib/node-iscsi-initiator/iscsiadm.js";
import { type RunResult } from "../../../lib/system/process.js";
import { exit } from "../../helpers/fake-open-iscsi.js";
import { allRecorded, failure, recorded } from "./fixture.js";

const PLACE = {
  verb: "login to",
  target: "iqn.2026-11.lab:data",
  portal: { address: "fd00::9", port: 3260 },
};

function call(result: RunResult): Promise<unknown> {
  const run: Runner = () => Promise.resolve(result);
  return callIscsiadm(run, PLACE, ["-m", "node"], { timeoutMs: 1_000 });
}

describe("iscsiadm's exit codes", () => {
  it("are all known: 1 to 32, each with a code of its own and a remedy", () => {
    const codes = Array.from({ length: 32 }, (_, index) => EXIT_MEANINGS[index + 1]);
    assert.deepEqual(
      Object.keys(EXIT_MEANINGS).map(Number),
      codes.map((_, index) => index + 1),
    );
    assert.equal(new Set(codes.map((meaning) => meaning?.code)).size, 32);
    for (const meaning of codes) {
      assert.ok(meaning !== undefined && meaning.why !== "" && meaning.hint !== "");
      assert.match(meaning.code, /^ERR_ISCSI_[A-Z_]+$/);
    }
  });

  for (const exitCode of [...Object.keys(EXIT_MEANINGS).map(Number), 33, 255]) {
    it(`${exitCode} is an error that names target, portal and remedy`, () => {
      const error = exitError(PLACE, exitCode, "its words");
      assert.match(
        error.message,
        /^login to iqn\.2026-11\.lab:data at \[fd00::9\]:3260 failed: .*its words$/,
      );
      assert.deepEqual(error.fields, {
        target: PLACE.target,
        portal: "[fd00::9]:3260",
        exitCode,
      });
      assert.equal(error.code === "ERR_ISCSI_UNKNOWN_EXIT", exitCode > 32);
    });
  }

  it("every one that was recorded becomes the error of its number", async () => {
    for (const { exitCode, stdout, stderr, command } of allRecorded()) {
      if (exitCode !== 0) {
        const meaning = EXIT_MEANINGS[exitCode];
        assert.ok(meaning, command);
        await assert.rejects(
          call({ kind: "exit", exitCode, stdout, stderr }),
          failure(meaning.code, /lab:data/),
        );
      }
    }
  });

  it("the reason is quoted, not the summary behind it", async () => {
    const { stdout, stderr } = recorded("17-login-chap-wrong");
    await assert.rejects(
      call({ kind: "exit", exitCode: 24, stdout, stderr }),
      /iscsiadm says: initiator reported error \(24 - iSCSI login failed due to authorization failure\)$/,
    );
  });
});

describe("calls that do not end by an exit code", () => {
  it("each have an error of their own", async () => {
    for (const [result, code] of [
      [{ kind: "missing", file: "iscsiadm", code: "ENOENT" }, "ERR_ISCSI_NOT_INSTALLED"],
      [{ kind: "timeout", timeoutMs: 1_000, gone: true }, "ERR_ISCSI_TIMEOUT"],
      [{ kind: "cancelled" }, "ERR_ISCSI_CANCELLED"],
      [{ kind: "signal", signal: "SIGKILL", stdout: "", stderr: "" }, "ERR_ISCSI_FAILED"],
      [{ kind: "overflow" }, "ERR_ISCSI_OUTPUT"],
    ] as const) {
      await assert.rejects(call(result), failure(code, /lab:data at \[fd00::9\]:3260/));
    }
  });

  it("a program that is not there is named with its packages", async () => {
    await assert.rejects(
      call({ kind: "missing", file: "iscsiadm", code: "ENOENT" }),
      failure("ERR_ISCSI_NOT_INSTALLED", /apt-get install open-iscsi.*iscsi-initiator-utils/),
    );
  });

  it("iscsid that does not run is named with how to start it", async () => {
    const { exitCode, stdout, stderr } = recorded("64-discovery-no-iscsid");
    await assert.rejects(
      call({ kind: "exit", exitCode, stdout, stderr }),
      failure("ERR_ISCSI_NO_ISCSID", /systemctl enable --now iscsid/),
    );
  });

  it("a signal that is aborted already starts nothing", async () => {
    let started = 0;
    const run: Runner = () => {
      started += 1;
      return Promise.resolve(exit(1, ""));
    };
    const signal = AbortSignal.abort();
    await assert.rejects(
      callIscsiadm(run, PLACE, [], { timeoutMs: 1_000, signal }),
      failure("ERR_ISCSI_CANCELLED"),
    );
    assert.equal(started, 0);
  });

  it("what a record would say of passwords is not repeated", async () => {
    try {
      await call(exit(6, "node.session.auth.password = hunter2hunter2 "));
      assert.fail("it must fail");
    } catch (error) {
      assert.ok(error instanceof ShareHaError);
      assert.doesNotMatch(error.message, /hunter2/);
      assert.match(error.message, /password = \(redacted\)/);
    }
  });
});
