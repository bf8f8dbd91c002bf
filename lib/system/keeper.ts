/**
 * The keeper: a process that does nothing but hold the watchdog's descriptor, so that the death of pulse is not the last
 * close, which would ping (facts/hazards.md, H1). No code of ours: /bin/sleep cannot crash of our defects.
 */
import { writeFileSync } from "node:fs";

import { ShareHaError } from "../errors.js";
import { close, errnoName, pidfdGetfd, pidfdOpen } from "./libc.js";
import { isAlive, killExact, type ProcessIdentity, startDetached } from "./process.js";

/** The descriptor's number in the keeper. */
const KEEPER_FD = 3;

/**
 * Starts a keeper in a session of its own, and keeps the out-of-memory killer away from it where that is permitted. It
 * must not share its end with pulse: a systemd unit needs KillMode=process or mixed.
 * @throws ERR_SPAWN
 */
export async function startKeeper(fd: number): Promise<ProcessIdentity> {
  const identity = await startDetached("/bin/sleep", ["infinity"], {
    stdio: ["ignore", "ignore", "ignore", fd],
  });
  try {
    writeFileSync(`/proc/${identity.pid}/oom_score_adj`, "-1000");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "EACCES" && code !== "EPERM") {
      throw error;
    }
  }
  return identity;
}

/**
 * A copy (close-on-exec) of the descriptor that a keeper holds: the same open file, so that the device is neither opened
 * nor closed.
 * @throws ERR_KEEPER_GONE, ERR_KEEPER (the kernel refuses; Linux 5.6 and the right to trace the keeper are needed)
 */
export function adoptFromKeeper(keeper: ProcessIdentity): number {
  const pidfd = pidfdOpen(keeper.pid);
  try {
    // The identity is compared after the pidfd was taken: it cannot become another process any more.
    if (pidfd < 0 || !isAlive(keeper)) {
      throw new ShareHaError("ERR_KEEPER_GONE", `the watchdog keeper ${keeper.pid} is gone`, {
        hint: "Nothing holds the running watchdog any more; the machine will be reset unless it was stopped.",
        fields: { pid: keeper.pid },
      });
    }
    const fd = pidfdGetfd(pidfd, KEEPER_FD);
    if (fd < 0) {
      const code = errnoName(fd);
      throw new ShareHaError(
        "ERR_KEEPER",
        `process ${keeper.pid} does not hand over its descriptor (${code})`,
        {
          hint: "Run as root, with Linux 5.6 or newer.",
          fields: { pid: keeper.pid, errno: code },
        },
      );
    }
    return fd;
  } finally {
    if (pidfd >= 0) {
      close(pidfd);
    }
  }
}

/** Ends the keeper, which closes its copy. Only after the magic letter, or before it: both orders stop the watchdog. */
export function stopKeeper(keeper: ProcessIdentity): "sent" | "gone" {
  return killExact(keeper, "SIGKILL");
}
