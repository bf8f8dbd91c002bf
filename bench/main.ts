/**
 * `make bench`: our figures beside those of a real sanlock daemon, in one run on the same file and the same loop
 * device. `--rounds short` is a quick look (a few minutes), `full` takes longer and includes sanlock's own take-over.
 */
import { Workspace, must } from "../test/helpers/workspace.js";
import { measureJoin, measureMove, measureTakeOver, sanlockTakeOver } from "./measure-failover.js";
import { measureIdle } from "./measure-idle.js";
import { cleanUp, measureLeases } from "./measure-leases.js";
import { measureSimulator, measureStatus } from "./measure-programs.js";
import { Report } from "./report.js";
import { findSanlock } from "./sanlock.js";

const PLANS = {
  short: {
    rounds: 1,
    acquires: 100,
    contendedSeconds: 4,
    contenders: [2, 4],
    failovers: 1,
    moves: 3,
    idle: 10,
    seeds: 400,
  },
  full: {
    rounds: 2,
    acquires: 300,
    contendedSeconds: 15,
    contenders: [2, 4, 8],
    failovers: 3,
    moves: 9,
    idle: 60,
    seeds: 4000,
  },
} as const;

const chosen = process.argv[process.argv.indexOf("--rounds") + 1];
if (chosen !== "short" && chosen !== "full") {
  process.stderr.write("usage: main.js --rounds short|full\n");
  process.exit(2);
}
const plan = PLANS[chosen];
const workspace = new Workspace("bench");
const report = new Report();
const isRoot = process.getuid?.() === 0;
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => {
    void cleanUp(workspace).then(() => process.exit(1));
  });
}
try {
  const sanlock = findSanlock(workspace);
  if (sanlock.kind === "absent") {
    report.note(`nothing to compare with: ${sanlock.why}`);
  } else {
    report.note(`beside ${sanlock.version}`);
  }
  const file = workspace.path("lun");
  must("fallocate", ["-l", "33554432", file]);
  await measureLeases(report, { label: "file", path: file }, sanlock, plan);
  if (isRoot) {
    const backing = workspace.path("loop-lun");
    must("fallocate", ["-l", "33554432", backing]);
    const device = workspace.loop(backing);
    await measureLeases(report, { label: "loop", path: device }, sanlock, plan);
  }
  await measureJoin(report, sanlock, plan.failovers);
  if (isRoot) {
    const peer = chosen === "full" ? await sanlockTakeOver(sanlock) : null;
    await measureTakeOver(report, peer, plan.failovers);
    await measureMove(report, plan.moves);
  } else {
    report.note("loop device, take-over with mount and planned move need root: left out");
  }
  await measureIdle(report, sanlock, plan.idle);
  await measureStatus(report, 9);
  measureSimulator(report, plan.seeds);
} finally {
  report.print();
  await cleanUp(workspace);
}
