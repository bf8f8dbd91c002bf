import assert from "node:assert/strict";
import { chmodSync, readdirSync, readFileSync, statSync } from "node:fs";
import { dirname } from "node:path";

import fc from "fast-check";

import { nodeChapLines } from "../../../lib/node-iscsi-initiator/chap.js";
import {
  changeRecord,
  changeRecordFile,
  nodeRecordFiles,
  recordValue,
} from "../../../lib/node-iscsi-initiator/record-file.js";
import { FakeOpenIscsi } from "../../helpers/fake-open-iscsi.js";
import { failure, recordedFile } from "./fixture.js";

const TARGET = "iqn.2026-11.lab:data";
const CHAP = { user: "labuser", secret: "lab = #secret 1234" };
const MUTUAL = { user: "labtarget", secret: "targetsecret1" };
const NODE = recordedFile("60-node-record-file");

describe("the text of a record", () => {
  it("gets the lines of CHAP, and every other line stays", () => {
    const text = changeRecord(NODE, nodeChapLines({ ...CHAP, mutual: MUTUAL }));
    assert.equal(recordValue(text, "node.session.auth.authmethod"), "CHAP");
    assert.equal(recordValue(text, "node.session.auth.username"), "labuser");
    assert.equal(recordValue(text, "node.session.auth.password"), "lab = #secret 1234");
    assert.equal(recordValue(text, "node.session.auth.username_in"), "labtarget");
    assert.equal(recordValue(text, "node.session.auth.password_in"), "targetsecret1");
    assert.ok(text.endsWith("# END RECORD\n"));
    const others = (whole: string): readonly string[] =>
      whole.split("\n").filter((line) => !line.startsWith("node.session.auth."));
    assert.deepEqual(others(text), others(NODE));
  });

  it("loses the mutual pair when there is none any more, and all of it with null", () => {
    const mutual = changeRecord(NODE, nodeChapLines({ ...CHAP, mutual: MUTUAL }));
    const oneWay = changeRecord(mutual, nodeChapLines(CHAP));
    assert.equal(recordValue(oneWay, "node.session.auth.password_in"), undefined);
    assert.equal(changeRecord(oneWay, nodeChapLines(null)), NODE);
  });

  it("is the same when the same is set twice, for any secret", () => {
    const word = fc.stringMatching(/^[!-~]([ -~]{0,40}[!-~])?$/);
    fc.assert(
      fc.property(word, word, (user, secret) => {
        const lines = nodeChapLines({ user, secret });
        const once = changeRecord(NODE, lines);
        assert.equal(changeRecord(once, lines), once);
        const read = recordValue(once, "node.session.auth.password");
        assert.equal(read, secret === "<empty>" ? undefined : secret);
      }),
    );
  });

  it("without an end is not touched", () => {
    assert.throws(() => changeRecord("node.name = x\n", {}), /no end of record/);
  });
});

describe("the file of a record", () => {
  let machine: FakeOpenIscsi;
  beforeEach(async () => {
    machine = new FakeOpenIscsi();
    machine.targets.push({
      name: TARGET,
      portals: ["10.77.0.9:3260", "[fd00::9]:3260"],
      disks: [],
    });
    await machine.initiator.discover("10.77.0.9");
  });
  afterEach(() => {
    machine.remove();
  });

  it("is replaced whole, for root alone, and nothing is left beside it", async () => {
    const file = machine.nodeFile(TARGET, "[fd00::9]:3260");
    chmodSync(file, 0o644);
    await machine.initiator.setChap(TARGET, "[fd00:0::9]", CHAP);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    assert.equal(
      recordValue(readFileSync(file, "utf8"), "node.session.auth.password"),
      CHAP.secret,
    );
    assert.deepEqual(readdirSync(dirname(file)), ["default"]);
    assert.deepEqual(readdirSync(machine.database).sort(), ["nodes", "send_targets"]);
    const other = readFileSync(machine.nodeFile(TARGET, "10.77.0.9:3260"), "utf8");
    assert.equal(recordValue(other, "node.session.auth.authmethod"), "None");
  });

  it("that does not exist is an error that says how it is made", async () => {
    await assert.rejects(
      machine.initiator.setChap(TARGET, "10.77.0.10", CHAP),
      failure(
        "ERR_ISCSI_NO_RECORD",
        /lab:data at 10\.77\.0\.10:3260/,
        /discover 10\.77\.0\.10:3260/,
      ),
    );
    assert.deepEqual(
      await nodeRecordFiles([machine.database], TARGET, { address: "10.77.0.9", port: 3260 }),
      [machine.nodeFile(TARGET, "10.77.0.9:3260")],
    );
  });

  it("that is damaged is left as it is", async () => {
    const file = machine.nodeFile(TARGET, "10.77.0.9:3260");
    const place = { verb: "record of", target: TARGET };
    await assert.rejects(
      changeRecordFile(`${file}x`, place, {}),
      failure("ERR_ISCSI_DATABASE", /ENOENT/),
    );
  });
});
