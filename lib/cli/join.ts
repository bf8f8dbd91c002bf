/**
 * `sharedha join`: writes node.json, starts sharedhad and waits until this node is a member. A first join that fails
 * leaves nothing behind but the state directory.
 */
import { closeSync, openSync, readFileSync } from "node:fs";
import { hostname } from "node:os";
import { join as joinPath } from "node:path";
import { fileURLToPath } from "node:url";

import { type Command, Option } from "commander";

import { ShareHaError } from "../errors.js";
import { type Timings } from "../lease/timings.js";
import { type StatusBody } from "../net/api.js";
import type { ConnectedLun } from "../san/connect-lun.js";
import { type ProcessIdentity } from "../system/process.js";
import { chapOption, withChapOptions } from "./chap-options.js";
import { type Bind, example, numberOption, parseWhole, stringOption } from "./command.js";
import { type Context, report } from "./context.js";
import { usageError } from "./exit-code.js";
import {
  connectedBodies,
  type ConnectedLuns,
  connectedText,
  connectLuns,
  disconnectLuns,
  fitLuns,
  formerArguments,
  knownPaths,
  lunsOf,
} from "./lun-arguments.js";
import {
  type NodeFile,
  nodeFilePath,
  readNodeFile,
  removeNodeFile,
  type WatchdogChoice,
} from "./node-file.js";
import { duration, printable } from "./text.js";

/** sanlock's own limit is 48 bytes; blanks and slashes would make a name that no command line can take. */
const NODE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,46}$/;
/** A look costs a whole request, and on a slow machine it takes the processor from the daemon that it waits for. */
const LOOK_EVERY_MS = { min: 50, max: 500 };
/** Longer than any profile's wait for the evidence that a former generation is silent. */
const JOIN_MS_MAX = 300_000;
const WATCHDOGS: readonly WatchdogChoice[] = ["auto", "hardware", "guard", "none"];
/** One message per quarter of a minute is company enough. */
const TELL_EVERY_MS = 15_000;

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("join [lun...]")
    .description(
      "make this machine a member: start the daemon, the heartbeat and the watchdog. LUNs are paths or\n" +
        "iscsi://PORTAL[:PORT]/TARGET/LUN; without any: those of the former join",
    )
    .option("--node <name>", "name of this node (default: the host name)")
    .option(
      "--host-id <n>",
      "host id (default: the former one, else a free one)",
      parseWhole(1, 64),
    )
    .addOption(
      new Option(
        "--watchdog <kind>",
        "what resets this node when it has lost (default: auto)",
      ).choices(WATCHDOGS),
    )
    .option(
      "--confirm-off",
      "the machine that had this name or host id is off for good: you have made sure",
    )
    .option("--foreground", "stay in the foreground, for service managers; ends with the daemon");
  withChapOptions(command).action(bind(joinCluster));
  example(
    command,
    "sharedha join /dev/sdb",
    "sharedha join /dev/sdb /dev/sdc /dev/sdd --node n1",
    "sharedha join iscsi://10.0.0.9/iqn.2026-11.example:data/0",
    "sharedha join /tmp/lun --node n2 --watchdog guard --state-dir /tmp/n2",
    "sharedha join /dev/sdb --node n1 --confirm-off",
  );
}

async function joinCluster(
  context: Context,
  args: readonly string[],
  options: Readonly<Record<string, unknown>>,
): Promise<number | undefined> {
  const { openStateDir } = await import("../system/state-dir.js");
  openStateDir(context.stateDir);
  const former = readNodeFile(context.stateDir);
  const luns = args.length === 0 ? formerArguments(former) : args;
  const wanted = wantedNode(await knownPaths(luns, former), options, former);
  const running = await runningStatus(context);
  if (running !== undefined) {
    refuseOther(former, wanted, context.stateDir);
    const status = await waitUntilJoined(context, undefined);
    await tellJoined(context, status, true, []);
    return undefined;
  }
  const { refuseStuckPulse } = await import("../pulse/stuck-pulse.js");
  refuseStuckPulse(context.stateDir);
  const chap = await chapOption(context, options);
  const connected = await connectLuns(context, luns, { former, chap });
  let fitted: readonly ConnectedLun[] = [];
  const onFitted = (luns: readonly ConnectedLun[]): void => {
    fitted = luns;
  };
  try {
    return await joinWith(context, connected, wanted, {
      former,
      isForeground: options["foreground"] === true,
      confirmOff: options["confirmOff"] === true,
      onFitted,
    });
  } catch (error) {
    if (former === undefined && (await runningStatus(context)) === undefined) {
      removeNodeFile(context.stateDir);
      const luns = [...fitted, ...connected.connected.slice(fitted.length)];
      if (luns.length > 0) {
        await disconnectLuns(await context.initiator(), luns);
      }
    }
    throw error;
  }
}

async function joinWith(
  context: Context,
  connected: ConnectedLuns,
  wanted: NodeFile,
  options: {
    readonly former: NodeFile | undefined;
    readonly isForeground: boolean;
    readonly confirmOff: boolean;
    readonly onFitted: (fitted: readonly ConnectedLun[]) => void;
  },
): Promise<number | undefined> {
  const { former, isForeground, confirmOff, onFitted } = options;
  const profile = await lookAtRegion(connected.paths, former === undefined);
  const fitted = await fitLuns(context, connected.connected, profile, onFitted);
  const { paths, iscsi } = lunsOf(connected, fitted);
  const file: NodeFile = { ...wanted, paths, ...(iscsi.length === 0 ? {} : { iscsi }) };
  const { writeFileAtomic } = await import("../system/state-dir.js");
  writeFileAtomic(nodeFilePath(context.stateDir), `${JSON.stringify(file, undefined, 2)}\n`);
  if (isForeground) {
    context.terminal.err(await connectedText(fitted));
    return runInForeground(context, confirmOff);
  }
  const daemon = await startDaemon(context, confirmOff);
  await tellJoined(context, await waitUntilJoined(context, daemon), false, fitted);
  return undefined;
}

function wantedNode(
  paths: readonly string[],
  options: Readonly<Record<string, unknown>>,
  former: NodeFile | undefined,
): NodeFile {
  const node = stringOption(options, "node") ?? former?.node ?? hostname().split(".")[0] ?? "";
  if (!NODE_NAME.test(node)) {
    throw usageError(
      `${node === "" ? "an empty text" : printable(node)} is no name for a node`,
      "A name has 1 to 47 letters, digits, dots, dashes and underscores, and begins with a letter or digit: --node NAME.",
    );
  }
  const hostId = numberOption(options, "hostId") ?? former?.hostId;
  const watchdog =
    WATCHDOGS.find((kind) => kind === options["watchdog"]) ?? former?.watchdog ?? "auto";
  return {
    paths,
    node,
    ...(hostId === undefined ? {} : { hostId }),
    watchdog,
  };
}

/** @returns undefined when no daemon runs in this state directory */
async function runningStatus(context: Context): Promise<StatusBody | undefined> {
  try {
    return await context.client.status();
  } catch (error) {
    // One that ends while it is asked is as good as none; why it ended is looked up where that matters.
    const isGone =
      error instanceof ShareHaError &&
      (error.code === "ERR_NO_DAEMON" || error.code === "ERR_CONNECTION_LOST");
    if (isGone) {
      return undefined;
    }
    throw error;
  }
}

function refuseOther(former: NodeFile | undefined, wanted: NodeFile, stateDir: string): void {
  const key = (file: NodeFile): string =>
    JSON.stringify([[...file.paths].sort(), file.node, file.hostId ?? null, file.watchdog]);
  if (former === undefined || key(former) !== key(wanted)) {
    const is = former === undefined ? "" : ` as ${former.node} with ${former.paths.join(" ")}`;
    throw new ShareHaError(
      "ERR_ALREADY_A_MEMBER",
      `the node of ${stateDir} is joined already${is}, with other paths, name, host id or watchdog`,
      {
        hint: "`sharedha leave` first, or give the second node of this machine its own --state-dir and --node.",
        fields: { stateDir },
      },
    );
  }
}

/**
 * The region's own errors, before anything is started. Afterwards, when a node that has been a member starts again, a
 * minority of the LUNs may be away.
 */
async function lookAtRegion(
  paths: readonly string[],
  isFirst: boolean,
): Promise<{ readonly name: string; readonly timings: Timings }> {
  const { openRegion } = await import("../region/open-region.js");
  const region = await openRegion({ paths, readOnly: true, requireAll: isFirst });
  const { profile: name, timings } = region;
  await region.close();
  return { name, timings };
}

/** Keep the daemon's heap near what it uses: 48 MB private instead of 89. */
const DAEMON_NODE_FLAGS = ["--max-semi-space-size=1", "--max-old-space-size=96"];

function daemonProgram(stateDir: string, confirmOff: boolean): readonly string[] {
  return [
    ...DAEMON_NODE_FLAGS,
    fileURLToPath(new URL("../../bin/sharedhad.js", import.meta.url)),
    "--state-dir",
    stateDir,
    ...(confirmOff ? ["--confirm-off"] : []),
  ];
}

async function runInForeground(context: Context, confirmOff: boolean): Promise<number> {
  const { startForeground } = await import("../system/foreground.js");
  const daemon = await startForeground(
    process.execPath,
    daemonProgram(context.stateDir, confirmOff),
  );
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.on(signal, () => {
      daemon.signalGroup(signal);
    });
  }
  const exitCode = await daemon.exitCode;
  const { readDaemonExit } = await import("../daemon/daemon-exit.js");
  const why = exitCode === 0 ? undefined : readDaemonExit(context.stateDir, daemon.pid);
  if (why !== undefined) {
    throw why;
  }
  return exitCode;
}

interface StartedDaemon extends ProcessIdentity {
  readonly outputPath: string;
}

async function startDaemon(context: Context, confirmOff: boolean): Promise<StartedDaemon> {
  const { startDetached } = await import("../system/process.js");
  const outputPath = joinPath(context.stateDir, "sharedhad.out");
  const output = openSync(outputPath, "w", 0o600);
  try {
    const identity = await startDetached(
      process.execPath,
      daemonProgram(context.stateDir, confirmOff),
      {
        stdio: ["ignore", output, output],
      },
    );
    return { ...identity, outputPath };
  } finally {
    closeSync(output);
  }
}

/** @param daemon undefined: one that ran before */
async function waitUntilJoined(
  context: Context,
  daemon: StartedDaemon | undefined,
): Promise<StatusBody> {
  const start = performance.now();
  let told = 0;
  let why = "the daemon is starting";
  for (;;) {
    const status = await runningStatus(context);
    if (status?.node.state === "joined") {
      return status;
    }
    if (status === undefined) {
      await refuseDead(context, daemon);
    } else {
      why = status.node.why ?? status.node.state;
    }
    const elapsed = performance.now() - start;
    if (elapsed > JOIN_MS_MAX) {
      throw new ShareHaError(
        "ERR_JOIN_TIMEOUT",
        `not a member after ${duration(elapsed)}: ${why}`,
        {
          hint: "The daemon goes on trying: `sharedha status`; `sharedha leave` ends it.",
          fields: { elapsedMs: Math.round(elapsed) },
        },
      );
    }
    if (elapsed > (told + 0.2) * TELL_EVERY_MS && !context.isJson) {
      told += 1;
      context.terminal.err(`joining: ${printable(why)} (${duration(elapsed)})\n`);
    }
    const restMs = Math.min(LOOK_EVERY_MS.max, Math.max(LOOK_EVERY_MS.min, elapsed / 20));
    await new Promise((wake) => setTimeout(wake, restMs));
  }
}

async function refuseDead(context: Context, daemon: StartedDaemon | undefined): Promise<void> {
  const { isAlive } = await import("../system/process.js");
  if (daemon !== undefined && isAlive(daemon)) {
    return;
  }
  const { readDaemonExit } = await import("../daemon/daemon-exit.js");
  const exit = daemon === undefined ? undefined : readDaemonExit(context.stateDir, daemon.pid);
  if (exit !== undefined) {
    throw exit;
  }
  const output = daemon === undefined ? "" : lastLines(daemon.outputPath);
  throw new ShareHaError(
    "ERR_JOIN_FAILED",
    `the daemon has ended${output === "" ? "" : `:\n${output}`}`,
    {
      hint: "Remove the cause and join again; daemon.log in the state directory has more.",
    },
  );
}

const OUTPUT_LINES_MAX = 12;

function lastLines(path: string): string {
  const lines = readFileSync(path, "utf8").trim().split("\n");
  return lines.slice(-OUTPUT_LINES_MAX).join("\n");
}

async function tellJoined(
  context: Context,
  status: StatusBody,
  isAlready: boolean,
  luns: readonly ConnectedLun[],
): Promise<void> {
  const { cluster, node, watchdog, timers } = status;
  const iscsi = await connectedBodies(luns);
  const lunsText = await connectedText(luns);
  report(context, { alreadyJoined: isAlready, cluster, node, watchdog, timers, iscsi }, () => {
    const verb = isAlready ? "already joined" : "joined";
    const id = `host ${node.hostId ?? "?"}, generation ${printable(node.generation ?? "?")}`;
    const device = watchdog.device === null ? "" : ` ${printable(watchdog.device)}`;
    const weak = weaknessOf(watchdog);
    return (
      lunsText +
      `${verb} ${printable(cluster.name)} as ${printable(node.name)}: ${id}\n` +
      `watchdog ${watchdog.kind}${device}, ${duration(timers.watchdogMs)}${weak === "" ? "" : `\n  ${weak}`}\n`
    );
  });
}

function weaknessOf(watchdog: StatusBody["watchdog"]): string {
  if (watchdog.note !== null) {
    return printable(watchdog.note);
  }
  switch (watchdog.kind) {
    case "hardware":
      return "";
    case "guard":
      return "weaker than hardware: a process stands in, and it cannot stop writes that the kernel already has";
    case "none":
      return "nothing resets this node: what it holds is never taken over without `sharedha fence --confirm-off`";
  }
}
