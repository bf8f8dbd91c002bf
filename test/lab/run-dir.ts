/** What a running lab keeps on disk: who runs it, and for each VM its process, its sockets and its disks. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

import { tryFileLock } from "../../lib/system/file-lock.js";
import {
  isAlive,
  isEnded,
  killExact,
  type ProcessIdentity,
  processStartTime,
} from "../../lib/system/process.js";
import { cacheDir } from "./cache.js";
import { networkDown, networkIsUp } from "./network.js";
import { type VmName, VMS } from "./settings.js";

export function vmDir(vm: VmName): string {
  return join(cacheDir(), "run", vm);
}

/** One lab on a machine. The lock lives as long as this process. @throws Error when another one works with the lab */
export function lockLab(): void {
  mkdirSync(cacheDir(), { recursive: true });
  const lock = tryFileLock(join(cacheDir(), "lab.lock"));
  if (lock.kind === "held") {
    throw new Error(
      `process ${lock.holder} works with the lab (${cacheDir()}): wait for it, or end it; there is one lab on a machine`,
    );
  }
}

/** The QEMU process of a VM, whoever started it; undefined when it does not run. */
export function vmProcess(vm: VmName): ProcessIdentity | undefined {
  const file = join(vmDir(vm), "process.json");
  if (!existsSync(file)) {
    return undefined;
  }
  const { pid, startTime } = JSON.parse(readFileSync(file, "utf8")) as {
    pid: number;
    startTime: string;
  };
  const identity = { pid, startTime: BigInt(startTime) };
  return isAlive(identity) ? identity : undefined;
}

/** After QEMU has written its pid and gone to the background. */
export function noteVmProcess(vm: VmName, pidFile: string): void {
  const pid = Number(readFileSync(pidFile, "utf8"));
  const startTime = processStartTime(pid);
  if (startTime === undefined) {
    throw new Error(`QEMU of ${vm} ended at once: see ${vmDir(vm)}/console.log`);
  }
  const note = JSON.stringify({ pid, startTime: String(startTime) });
  writeFileSync(join(vmDir(vm), "process.json"), `${note}\n`);
}

export function runningVms(): readonly VmName[] {
  return VMS.filter((vm) => vmProcess(vm) !== undefined);
}

/** SIGKILL, and the wait until the kernel has taken everything of it down. */
export async function killVm(vm: VmName): Promise<void> {
  const identity = vmProcess(vm);
  if (identity === undefined) {
    return;
  }
  killExact(identity, "SIGKILL");
  // A thread of it that is still on its way out has the lock of its pid file.
  while (!isEnded(identity)) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Everything that runs, by its exact identity, and the namespace. Disks and logs stay for a look. */
export async function tearDownLab(): Promise<void> {
  for (const vm of VMS) {
    await killVm(vm);
    rmSync(join(vmDir(vm), "process.json"), { force: true });
  }
  if (networkIsUp()) {
    await networkDown();
  }
}
