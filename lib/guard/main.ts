/**
 * `sharedha-guard`: the watchdog's stand-in where there is none (DESIGN section 5). It loads as little as it can, because
 * it must still run when everything else does not.
 *
 * Exit codes: 0 ended cleanly, 2 usage, 3 cannot start (see guard.log), 10 expired and acted (see guard-expired.json).
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

import { ShareHaError } from "../errors.js";
import { listenUnix } from "../net/unix-server.js";
import { type Protected } from "../pulse/messages.js";
import { createClock } from "../system/clock.js";
import { tryFileLock } from "../system/file-lock.js";
import { ownIdentity } from "../system/process.js";
import { lockFileMappings, makeThreadRealtime } from "../system/realtime.js";
import { Cutter } from "./cutter.js";
import { expire, type ExpiryEdges } from "./expiry.js";
import { edgesOf } from "./expiry-edges.js";
import { GuardServer } from "./guard-server.js";
import { UserFinder } from "./user-finder.js";

export const GUARD_EXIT = { clean: 0, usage: 2, cannotStart: 3, expired: 10 } as const;

/** Runs until it is told to exit, is not needed any more, or has expired. */
export async function runGuard(args: readonly string[]): Promise<void> {
  const [flag, stateDir, ...rest] = args;
  if (flag !== "--state-dir" || stateDir === undefined || rest.length > 0) {
    process.stderr.write("usage: sharedha-guard --state-dir DIR (pulse starts it)\n");
    process.exit(GUARD_EXIT.usage);
  }
  try {
    await start(stateDir);
  } catch (error) {
    const hint = error instanceof ShareHaError ? ` (${error.hint})` : "";
    const why = error instanceof Error ? error.message : String(error);
    process.stderr.write(`sharedha-guard: ${why}${hint}\n`);
    process.exit(GUARD_EXIT.cannotStart);
  }
}

async function start(stateDir: string): Promise<void> {
  const lock = tryFileLock(join(stateDir, "guard.lock"));
  if (lock.kind === "held") {
    throw new ShareHaError("ERR_GUARD_RUNS", `process ${lock.holder} is the guard already`, {
      hint: "Pulse finds it at guard.sock; this second one ends.",
    });
  }
  // A stop by the session or the terminal is not for the guard; only pulse's `exit` and its own time are.
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    process.on(signal, () => {
      process.stderr.write(`${signal} is ignored: the guard ends when pulse leaves\n`);
    });
  }
  makeThreadRealtime();
  lockFileMappings();
  const self = ownIdentity();
  const cutter = new Cutter();
  const finder = new UserFinder();
  const clock = createClock();
  const server = new GuardServer({
    clock,
    self: { pid: self.pid, startTime: String(self.startTime) },
    prepare: async (protect) => {
      await cutter.prepare(protect.mounts.length);
      if (protect.mounts.length > 0) {
        await finder.prepare();
      }
    },
    onNear: (protect) => {
      finder.begin(protect.mounts);
    },
    onPutOff: () => {
      finder.drop();
    },
    onExpired: (protect, expiredAtMs) => {
      void act(stateDir, protect, expiredAtMs, edgesOf(cutter, finder, clock));
    },
    onDone: (why) => {
      process.stderr.write(`ended: ${why}\n`);
      listening.close();
      // The last answer is still on its way out.
      setTimeout(() => process.exit(GUARD_EXIT.clean), 50);
    },
  });
  const listening = await listenUnix(join(stateDir, "guard.sock"), (socket) => {
    server.accept(socket);
  });
}

async function act(
  stateDir: string,
  protect: Protected,
  expiredAtMs: number,
  edges: ExpiryEdges,
): Promise<void> {
  try {
    const report = await expire(protect, expiredAtMs, edges);
    const body = { ...report, at: new Date().toISOString() };
    writeFileSync(join(stateDir, "guard-expired.json"), `${JSON.stringify(body, undefined, 2)}\n`, {
      mode: 0o600,
    });
  } catch (error) {
    process.stderr.write(
      `while acting: ${error instanceof Error ? error.message : String(error)}\n`,
    );
  } finally {
    process.exit(GUARD_EXIT.expired);
  }
}
