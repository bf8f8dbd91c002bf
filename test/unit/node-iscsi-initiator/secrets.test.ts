import assert from "node:assert/strict";
import { inspect } from "node:util";

import fc from "fast-check";

import { ShareHaError } from "../../../lib/errors.js";
import { checkChap } from "../../../lib/node-iscsi-initiator/chap.js";
import { FakeOpenIscsi } from "../../helpers/fake-open-iscsi.js";
import { failure } from "./fixture.js";

const TARGET = "iqn.2026-11.lab:chap";
const PORTAL = "10.77.0.9:3260";

describe("CHAP secrets", () => {
  it("have 12 to 255 printable characters", () => {
    for (const secret of ["x".repeat(12), "x".repeat(255), "lab secret = #1"]) {
      checkChap({ user: "u", secret });
    }
    for (const secret of [
      "",
      "x".repeat(11),
      "x".repeat(256),
      " padded-secret",
      "sécret-sécret",
      "a\nb-secret-123",
      "<empty>",
    ]) {
      assert.throws(
        () => {
          checkChap({ user: "u", secret });
        },
        failure("ERR_ISCSI_SECRET", /12/),
      );
    }
    assert.throws(
      () => {
        checkChap({ user: "", secret: "x".repeat(12) });
      },
      failure("ERR_ISCSI_SECRET", /user name/),
    );
  });

  it("of the two sides must differ", () => {
    const secret = "labsecret1234";
    checkChap({ user: "u", secret, mutual: { user: "t", secret: "targetsecret1" } });
    assert.throws(
      () => {
        checkChap({ user: "u", secret, mutual: { user: "t", secret } });
      },
      failure("ERR_ISCSI_SECRET", /the same/),
    );
  });

  it("are in no argument, no error, no event and no result, whatever fails", async function () {
    this.timeout(60_000);
    // Letters that are in no message of ours, so that finding them anywhere is a leak.
    const secret = fc.stringMatching(/^[QZJX]{12,40}$/);
    await fc.assert(
      fc.asyncProperty(
        secret,
        secret,
        fc.constantFrom("good", "wrong", "silent", "unknown-output", "discovery"),
        async (own, mutual, fault) => {
          fc.pre(own !== mutual);
          const machine = new FakeOpenIscsi();
          const shown: unknown[] = [];
          try {
            const chap = {
              user: "labuser",
              secret: own,
              mutual: { user: "target", secret: mutual },
            };
            machine.targets.push({
              name: TARGET,
              portals: [PORTAL],
              disks: [],
              chap: fault === "wrong" ? { user: "labuser", secret: "other-secret-1" } : chap,
              login: fault === "silent" ? "silent" : "normal",
            });
            machine.discoveryChap =
              fault === "discovery" ? { user: "u", secret: "other" } : undefined;
            const { initiator } = machine;
            const attempt = async (start: () => Promise<unknown>): Promise<void> => {
              try {
                shown.push(await start());
              } catch (error) {
                assert.ok(error instanceof ShareHaError, String(error));
                shown.push(
                  error,
                  error.message,
                  error.hint,
                  error.fields,
                  error.cause,
                  error.stack,
                );
              }
            };
            await attempt(() => initiator.discover(PORTAL, { chap }));
            await attempt(() => initiator.setChap(TARGET, PORTAL, chap));
            if (fault === "unknown-output") {
              // As if a version printed the record without masking it.
              const stdout = `# BEGIN RECORD 9\nnode.session.auth.password\t= ${own}\n`;
              machine.answers.set("-T", { kind: "ok", stdout, stderr: "" });
            }
            await attempt(() => initiator.node(TARGET, PORTAL).then((record) => [...record]));
            await attempt(() =>
              initiator.login(TARGET, { timeoutMs: 20, onProgress: (event) => shown.push(event) }),
            );
            shown.push(initiator.sessions());
            const text =
              inspect(shown, { depth: 12, maxStringLength: null }) + machine.argumentText;
            assert.ok(!text.includes(own), "the initiator's secret");
            assert.ok(!text.includes(mutual), "the target's secret");
          } finally {
            machine.remove();
          }
        },
      ),
      { numRuns: 15 },
    );
  });
});
