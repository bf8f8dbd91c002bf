/**
 * `sharedhad --state-dir DIR [--confirm-off]`: the daemon of one node. It ends with 0 after SIGTERM (pulse goes on, for the
 * next daemon) and after `sharedha leave`; with 2 for wrong arguments and with 3 when it cannot start or can never join as
 * it is.
 */
import { createWriteStream, existsSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";

import bunyan from "bunyan";

import { ShareHaError } from "../errors.js";
import { openStateDir, STATE_DIR_DEFAULT } from "../system/state-dir.js";
import { noteExit } from "./daemon-exit.js";
import { type Logger, Node } from "./node.js";

const LOG_BYTES_MAX = 8 * 1024 * 1024;
/** For the answer to `leave` to get out. */
const FAREWELL_MS = 100;

export async function runDaemon(args: readonly string[]): Promise<void> {
  const confirmOff = args.at(-1) === "--confirm-off";
  const stateDir = stateDirOf(
    confirmOff ? args.slice(0, -1) : args,
    process.env["SHAREDHA_STATE_DIR"],
  );
  if (stateDir === undefined) {
    process.stderr.write("usage: sharedhad [--state-dir DIR] [--confirm-off]\n");
    process.exitCode = 2;
    return;
  }
  let node: Node | undefined;
  try {
    const log = openLog(stateDir);
    node = await Node.start({
      stateDir,
      log,
      onLeft: () => {
        end(node, FAREWELL_MS, 0);
      },
    });
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        log.info({ signal }, "ending; pulse goes on for the next daemon");
        end(node, 0, 0);
      });
    }
    // A terminal that closes is none of the daemon's business.
    process.on("SIGHUP", () => {
      log.info({}, "SIGHUP is ignored");
    });
    log.info({ node: node.settings.node, paths: node.settings.paths }, "started");
    await node.join(confirmOff);
  } catch (error) {
    report(error);
    noteExit(stateDir, error);
    end(node, 0, 3);
  }
}

function stateDirOf(
  args: readonly string[],
  fromEnvironment: string | undefined,
): string | undefined {
  const [flag, value, ...rest] = args;
  if (flag === undefined) {
    return fromEnvironment ?? STATE_DIR_DEFAULT;
  }
  return flag === "--state-dir" && value?.startsWith("/") === true && rest.length === 0
    ? value
    : undefined;
}

function report(error: unknown): void {
  if (error instanceof ShareHaError) {
    process.stderr.write(`${error.message}\n  remedy: ${error.hint}\n`);
  } else {
    process.stderr.write(
      `${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
  }
}

let isEnding = false;

/** A thread that hangs in the kernel would keep `process.exit` waiting, but nothing of ours waits for it. */
function end(node: Node | undefined, graceMs: number, exitCode: number): void {
  if (isEnding) {
    return;
  }
  isEnding = true;
  const closing = node?.close(graceMs) ?? Promise.resolve();
  closing.then(
    () => process.exit(exitCode),
    (error: unknown) => {
      report(error);
      process.exit(exitCode === 0 ? 3 : exitCode);
    },
  );
}

/** Rotated at the start, two files: the daemon logs transitions and defects, never requests. */
function openLog(stateDir: string): Logger {
  openStateDir(stateDir);
  const path = join(stateDir, "daemon.log");
  if (existsSync(path) && statSync(path).size > LOG_BYTES_MAX) {
    renameSync(path, `${path}.1`);
  }
  const stream = createWriteStream(path, { flags: "a", mode: 0o600 });
  stream.on("error", (error) => {
    process.stderr.write(`${path}: ${error.message}\n`);
  });
  return bunyan.createLogger({
    name: "sharedhad",
    streams: [{ stream }],
    serializers: bunyan.stdSerializers,
  });
}
