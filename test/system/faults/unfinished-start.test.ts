/**
 * A group is being started, its file system check has the device to itself and writes, and then its node loses its right,
 * or its daemon or all of it is killed: the check is ended, and nobody else has the data before.
 */
import assert from "node:assert/strict";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";

import { readSessionStat } from "../../../lib/system/sessions.js";
import { type Ran, type TestNode } from "../../helpers/nodes.js";
import { must } from "../../helpers/workspace.js";
import {
  type DataCluster,
  expectDone,
  expectError,
  generationOf,
  makeWithData,
  skipUnlessRoot,
  until,
  untilRejoined,
} from "./harness.js";

/** As a long check: has the device to itself, as e2fsck(8) has it, until it is ended. Tells its pid. */
function longCheck(pidFile: string): string {
  return `#!${process.execPath}
const { constants, openSync, renameSync, writeFileSync } = require("node:fs");
openSync(process.argv.at(-1), constants.O_RDWR | constants.O_EXCL);
writeFileSync("${pidFile}.new", String(process.pid));
renameSync("${pidFile}.new", "${pidFile}");
setInterval(() => undefined, 1000);
`;
}

describe("a group that is being started", function () {
  this.timeout(60_000);
  let made: DataCluster | undefined;
  let n1: TestNode;
  let n2: TestNode;

  before(async function () {
    skipUnlessRoot(this);
    made = await makeWithData("unfinished", "default");
    const { cluster } = made;
    writeFileSync(cluster.workspace.path("check"), longCheck(pidFile()), { mode: 0o755 });
    [n1, n2] = await Promise.all([
      cluster.joined("n1", { mountNamespace: true }),
      cluster.joined("n2", { mountNamespace: true }),
    ]);
  });

  after(async () => {
    await made?.cluster.clean();
  });

  function pidFile(): string {
    return made?.cluster.workspace.path("check.pid") ?? "";
  }

  /** n1 begins with `reserve`, in which the check takes its time. */
  async function beginToReserve(): Promise<{ pid: number; reserving: Promise<Ran> }> {
    rmSync(pidFile(), { force: true });
    const check = made?.cluster.workspace.path("check") ?? "";
    const [enter = "", ...inside] = n1.inside();
    must(enter, [...inside, "mount", "--bind", check, "/usr/sbin/e2fsck"]);
    const reserving = n1.cli("reserve", "data", "--json");
    const pid = await until("the check runs", 10_000, () =>
      existsSync(pidFile()) ? Number(readFileSync(pidFile(), "utf8")) : undefined,
    );
    return { pid, reserving };
  }

  function endLongChecks(): void {
    const [enter = "", ...inside] = n1.inside();
    must(enter, [...inside, "umount", "/usr/sbin/e2fsck"]);
  }

  function isRunning(pid: number): boolean {
    return readSessionStat(pid)?.isOver === false;
  }

  async function belongsToNobody(): Promise<void> {
    expectDone(await n2.cli("reserve", "data", "--wait", "30"));
    expectDone(await n2.cli("release", "data"));
  }

  it("its node loses its right: the check is ended, and the node is no member before", async () => {
    const generation = await generationOf(n1);
    const { pid, reserving } = await beginToReserve();
    n1.signal("SIGSTOP", "pulse");
    try {
      await until("the check has ended", 10_000, () => !isRunning(pid));
      expectError(await reserving, {
        exitCode: 3,
        code: "ERR_NODE_LOST",
        message: /lost its right to write while the group was started/,
      });
    } finally {
      n1.signal("SIGCONT", "pulse");
    }
    endLongChecks();
    await untilRejoined(n1, generation, 20_000);
    await belongsToNobody();
  });

  it("its daemon is killed: the next one ends the check, and the lease stays until it is released", async () => {
    const { pid, reserving } = await beginToReserve();
    process.kill(pid, "SIGSTOP");
    n1.signal("SIGKILL", "daemon");
    assert.notEqual((await reserving).exitCode, 0);
    expectError(await n2.cli("reserve", "data", "--json"), {
      exitCode: 1,
      code: "ERR_LEASE_HELD",
      message: /n1/,
    });
    assert(isRunning(pid), "it has outlived its daemon");
    expectDone(await n1.rejoin());
    assert(!isRunning(pid), "the new daemon has ended it");
    const group = (await n1.status()).groups.find(({ name }) => name === "data");
    assert.equal(group?.state, "failed");
    endLongChecks();
    expectError(await n1.cli("reserve", "data", "--json"), {
      exitCode: 1,
      code: "ERR_GROUP_STUCK",
      message: /a daemon that has ended/,
    });
    expectDone(await n1.cli("release", "data"));
    await belongsToNobody();
  });

  it("all of its node is killed but the check: ended before the node is a member again", async () => {
    const generation = await generationOf(n1);
    const { pid, reserving } = await beginToReserve();
    n1.signal("SIGKILL", "daemon");
    n1.signal("SIGKILL", "pulse", "guard");
    assert.notEqual((await reserving).exitCode, 0);
    assert(isRunning(pid));
    expectDone(await n1.join());
    assert(!isRunning(pid));
    assert((await generationOf(n1)) > generation);
    await belongsToNobody();
  });

  it("all of its node is stopped: who takes over ends the check before he mounts", async () => {
    const generation = await generationOf(n1);
    const { pid, reserving } = await beginToReserve();
    n1.signal("SIGSTOP");
    process.kill(pid, "SIGSTOP");
    expectDone(await n2.cli("reserve", "data", "--wait", "30"));
    assert(!isRunning(pid));
    n1.signal("SIGCONT");
    assert.notEqual((await reserving).exitCode, 0);
    expectDone(await n2.cli("release", "data"));
    await untilRejoined(n1, generation, 30_000);
  });

  it("has no loop device left after all of this", () => {
    const { loopdevices } = JSON.parse(must("losetup", ["--list", "--json"])) as {
      loopdevices: { name: string; "back-file": string }[];
    };
    const luns = made?.cluster.luns ?? [];
    const left = loopdevices.filter((loop) => luns.includes(loop["back-file"]));
    assert.deepEqual(left, []);
  });
});
