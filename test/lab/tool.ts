/** The host's programs that the lab needs, and running them. */
import { existsSync } from "node:fs";

import { describeRun, run } from "../../lib/system/process.js";

const PLACES = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
export const QEMU = "qemu-system-x86_64";
const PROGRAMS = [
  QEMU,
  "mmdebstrap",
  "mkfs.ext4",
  "modprobe",
  "depmod",
  "xz",
  "ip",
  "nft",
  "nsenter",
  "dpkg-deb",
];

/** Runs a program of the host to its end. @throws Error with the program's last words when it does not succeed */
export async function tool(
  file: string,
  args: readonly string[],
  options: { readonly timeoutMs?: number; readonly input?: string } = {},
): Promise<string> {
  const result = await run(file, file, args, { timeoutMs: 60_000, ...options });
  if (result.kind !== "ok") {
    throw new Error(`${file} ${args.join(" ").slice(0, 200)}: ${describeRun(result)}`);
  }
  return result.stdout;
}

/** Why the lab cannot run on this machine; undefined when it can. */
export function whyNoLab(): string | undefined {
  if (process.getuid?.() !== 0) {
    return "the lab makes a network namespace, taps and an image: it needs root";
  }
  if (process.arch !== "x64") {
    return `the lab's machines are x86-64, and this one is ${process.arch}`;
  }
  const missing = PROGRAMS.filter((name) => !PLACES.some((dir) => existsSync(`${dir}/${name}`)));
  if (missing.length > 0) {
    return `not installed: ${missing.join(", ")} (\`make lab-packages\` installs what the lab needs)`;
  }
  return existsSync("/dev/net/tun") ? undefined : "this machine has no /dev/net/tun";
}
