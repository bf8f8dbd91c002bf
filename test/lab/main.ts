/**
 * The lab's command, behind `make lab-up`, `make lab-down` and `make e2e`:
 *
 *     node dist/test/lab/main.js up [--cold]            build what is missing, boot san, n1, n2, n3, attach the LUNs
 *     node dist/test/lab/main.js run VM PROGRAM...      a program in a VM, with its output and exit code
 *     node dist/test/lab/main.js status | down
 *     node dist/test/lab/main.js bench [sharedha|sanlock]  failover, beside sanlock
 *     node dist/test/lab/main.js e2e [PATTERN [TITLE]]  the end-to-end tests; a part of a file's name, of a title
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";

import { startForeground } from "../../lib/system/foreground.js";
import { runInGuest } from "./agent-client.js";
import { buildImages, environmentFor, imagesFromEnvironment, Lab } from "./lab.js";
import { INSIDE, networkIsUp, networkUp } from "./network.js";
import { NICE, setNice } from "./priority.js";
import { lockLab, runningVms, tearDownLab, vmProcess } from "./run-dir.js";
import { NODES, SPECS, VMS } from "./settings.js";
import { whyNoLab } from "./tool.js";

const startedMs = performance.now();

function say(line: string): void {
  process.stderr.write(`[${((performance.now() - startedMs) / 1000).toFixed(1)} s] ${line}\n`);
}

/** This program again, inside of the lab's namespace: only there the agents can be reached. */
async function insideNamespace(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<number> {
  const [enter = "", ...words] = INSIDE;
  const child = await startForeground(enter, [...words, process.execPath, ...args], env);
  setNice(child.pid, NICE.working);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      child.signalGroup(signal);
    });
  }
  return await child.exitCode;
}

const SELF = import.meta.filename;

async function up(args: readonly string[]): Promise<number> {
  prepare();
  const env = environmentFor(await buildImages(say));
  let exitCode = 1;
  try {
    await networkUp(VMS);
    exitCode = await insideNamespace([SELF, "up-inside", ...args], env);
  } finally {
    if (exitCode !== 0) {
      await tearDownLab();
    }
  }
  return exitCode;
}

async function upInside(args: readonly string[]): Promise<number> {
  const lab = new Lab(imagesFromEnvironment());
  const from = args.includes("--cold") ? "cold" : "snapshot";
  if (from === "snapshot") {
    await lab.ensureSnapshots(say);
  }
  const beganMs = performance.now();
  await lab.start(["san", ...NODES], from, say);
  say(`agents answer after ${seconds(beganMs)} s`);
  await Promise.all(NODES.map((node) => lab.attach(node)));
  say(`san, ${NODES.join(", ")} are up from ${from} with their LUNs after ${seconds(beganMs)} s`);
  lab.forget();
  return 0;
}

function seconds(sinceMs: number): string {
  return ((performance.now() - sinceMs) / 1000).toFixed(1);
}

/** @throws Error when the lab cannot be used now */
function prepare(): void {
  const why = whyNoLab();
  if (why !== undefined) {
    throw new Error(why);
  }
  lockLab();
  const running = runningVms();
  if (running.length > 0 || networkIsUp()) {
    const what = running.length > 0 ? running.join(", ") : "its network";
    throw new Error(`the lab is up already (${what}): \`make lab-down\` ends it`);
  }
}

const JOIN = "join.test.js";
const TESTS = join(import.meta.dirname, "../e2e");
const MOCHA = join(import.meta.dirname, "../../../node_modules/mocha/bin/mocha.js");
const STRICT = join(import.meta.dirname, "../helpers/strict-process.js");

/** Prepares the lab, runs a program inside of it, and takes everything down again, whatever happened. */
async function inLab(words: readonly string[]): Promise<number> {
  prepare();
  const env = environmentFor(await buildImages(say));
  try {
    await networkUp(VMS);
    const made = await insideNamespace([SELF, "snapshots-inside"], env);
    return made === 0 ? await insideNamespace(words, env) : made;
  } finally {
    await tearDownLab();
  }
}

async function e2e(pattern = "", title?: string): Promise<number> {
  const files = readdirSync(TESTS)
    .filter((name) => name.endsWith(".test.js") && new RegExp(pattern).test(name))
    // Most others begin from what the joining has saved.
    .sort((one, other) => Number(other === JOIN) - Number(one === JOIN))
    .map((name) => join(TESTS, name));
  if (files.length === 0) {
    throw new Error(`no end-to-end test has "${pattern}" in its name`);
  }
  const options = ["--no-config", "--require", STRICT, "--timeout", "180000", "--forbid-only"];
  if (title !== undefined) {
    options.push("--grep", title);
  }
  return await inLab(["--enable-source-maps", MOCHA, ...options, "--fail-zero", ...files]);
}

async function snapshotsInside(): Promise<number> {
  const lab = new Lab(imagesFromEnvironment());
  await lab.ensureSnapshots(say);
  return 0;
}

function status(): number {
  for (const vm of VMS) {
    const identity = vmProcess(vm);
    const state = identity === undefined ? "off" : `pid ${identity.pid}`;
    process.stdout.write(`${vm.padEnd(5)}${SPECS[vm].address.padEnd(13)}${state}\n`);
  }
  return runningVms().length > 0 ? 0 : 1;
}

async function runInside([name, ...argv]: readonly string[]): Promise<number> {
  const vm = VMS.find((one) => one === name);
  if (vm === undefined || argv.length === 0) {
    throw new Error(`usage: run ${VMS.join("|")} PROGRAM...`);
  }
  const ran = await runInGuest(SPECS[vm].address, argv, { timeoutMs: 600_000 });
  process.stdout.write(ran.stdout);
  process.stderr.write(ran.stderr);
  return ran.exitCode ?? 255;
}

async function main([command = "", ...args]: readonly string[]): Promise<number> {
  switch (command) {
    case "up":
      return await up(args);
    case "up-inside":
      return await upInside(args);
    case "snapshots-inside":
      return await snapshotsInside();
    case "run":
      return await insideNamespace([SELF, "run-inside", ...args]);
    case "run-inside":
      return await runInside(args);
    case "status":
      return status();
    case "down":
      lockLab();
      await tearDownLab();
      return 0;
    case "e2e":
      return await e2e(args[0], args[1]);
    case "bench":
      return await inLab([join(TESTS, "measure.js"), ...args]);
    default:
      throw new Error(
        "usage: up [--cold] | run VM PROGRAM... | status | down | e2e [PATTERN] | bench",
      );
  }
}

main(process.argv.slice(2)).then(
  (exitCode) => {
    process.exitCode = exitCode;
  },
  (error: unknown) => {
    process.stderr.write(`lab: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  },
);
