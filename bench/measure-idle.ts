/** What an idle node costs: CPU, resident memory with shared pages counted once, and I/O per heartbeat. */
import { readdirSync, readFileSync } from "node:fs";
import { type NodeProcess, TestNode } from "../test/helpers/nodes.js";
import { must, Workspace } from "../test/helpers/workspace.js";
import { cleanUp, format, joinAll } from "./measure-leases.js";
import { type Report } from "./report.js";
import { formatSanlock, SanlockDaemon, type SanlockPresence } from "./sanlock.js";

const CLOCK_TICKS_PER_SECOND = 100;
const MIB = 1048576;

/** User and system time of a process so far, seconds (proc(5), stat fields 14 and 15). */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_SECOND;
}

/** MiB resident in all the processes; file pages that they share are counted once. */
function residentMib(pids: readonly number[]): { readonly once: number; readonly summed: number } {
  let anonymous = 0;
  let summed = 0;
  const files = new Map<string, number>();
  for (const pid of pids) {
    let file = "";
    for (const line of readFileSync(`/proc/${pid}/smaps`, "utf8").split("\n")) {
      const mapping = /^[0-9a-f]+-[0-9a-f]+ \S+ (\S+) \S+ (\d+)\s*(.*)$/.exec(line);
      if (mapping !== null) {
        file = mapping[2] === "0" ? "" : `${mapping[3] ?? ""}@${mapping[1] ?? ""}`;
        continue;
      }
      const field = /^(Rss|Anonymous):\s+(\d+) kB$/.exec(line);
      if (field === null) {
        continue;
      }
      const kib = Number(field[2]);
      if (field[1] === "Rss") {
        summed += kib;
        if (file !== "") {
          files.set(file, Math.max(files.get(file) ?? 0, kib));
        } else {
          anonymous += kib;
        }
      } else if (file !== "") {
        // A private copy of a file page belongs to this process alone.
        anonymous += kib;
      }
    }
  }
  const shared = [...files.values()].reduce((sum, kib) => sum + kib, 0);
  return { once: (anonymous + shared) / 1024, summed: summed / 1024 };
}

interface ThreadIo {
  readonly reads: number;
  readonly writes: number;
  readonly bytes: number;
  /** Bytes that went to storage. */
  readonly stored: number;
}

/** I/O system calls by thread; the LUN's own thread of pulse is the one whose writes reach the storage. */
function ioByThread(pid: number): Map<string, ThreadIo> {
  const found = new Map<string, ThreadIo>();
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    const fields = Object.fromEntries(
      readFileSync(`/proc/${pid}/task/${tid}/io`, "utf8")
        .trim()
        .split("\n")
        .map((line) => line.split(": ")),
    ) as Record<string, string>;
    found.set(tid, {
      reads: Number(fields["syscr"]),
      writes: Number(fields["syscw"]),
      bytes: Number(fields["rchar"]) + Number(fields["wchar"]),
      stored: Number(fields["write_bytes"]),
    });
  }
  return found;
}

export async function measureIdle(
  report: Report,
  sanlock: SanlockPresence,
  seconds: number,
): Promise<void> {
  const workspace = new Workspace("bench-idle");
  try {
    const path = workspace.path("region");
    must("fallocate", ["-l", String(32 * MIB), path]);
    await format(path, "default");
    const nodes = [1, 2].map(
      (id) =>
        new TestNode(workspace, { name: `n${id}`, hostId: id, luns: [path], watchdog: "guard" }),
    );
    await joinAll(nodes);
    const [node] = nodes;
    if (node === undefined) {
      throw new Error("no node");
    }
    // V8 tidies up once when a process has been quiet for some seconds; that is not yet idle.
    await pause(20);
    const processes = node.processes();
    const pids = processes.map((one) => one.pid);
    const before = pids.map(cpuSeconds);
    const pulse = processes.find((one) => one.role === "pulse");
    const ioBefore = pulse === undefined ? undefined : ioByThread(pulse.pid);
    await pause(seconds);
    const used = pids.reduce((sum, pid, index) => sum + cpuSeconds(pid) - (before[index] ?? 0), 0);
    const memory = residentMib(pids);
    const ioAfter = pulse === undefined ? undefined : ioByThread(pulse.pid);
    const peer = sanlock.kind === "present" ? await idleSanlock(seconds) : null;
    report.figure({
      what: `idle, default profile, ${roles(processes)}: CPU of one core`,
      unit: "%",
      ours: (100 * used) / seconds,
      peer: peer?.cpu ?? null,
      limit: 0.6,
    });
    report.figure({
      what: "idle: resident memory of all processes, shared pages once",
      unit: "MiB",
      ours: memory.once,
      peer: peer?.memory ?? null,
      limit: 150,
    });
    report.note(
      `resident memory with shared pages counted in every process: ${memory.summed.toFixed(1)} MiB`,
    );
    if (ioBefore !== undefined && ioAfter !== undefined) {
      tellIo(report, ioBefore, ioAfter, seconds);
    }
  } finally {
    await cleanUp(workspace);
  }
}

function roles(processes: readonly NodeProcess[]): string {
  return processes
    .map((one) => one.role)
    .sort()
    .join("+");
}

function tellIo(
  report: Report,
  before: ReadonlyMap<string, ThreadIo>,
  after: ReadonlyMap<string, ThreadIo>,
  seconds: number,
): void {
  let most: ThreadIo = { reads: 0, writes: 0, bytes: 0, stored: 0 };
  for (const [tid, io] of after) {
    const earlier = before.get(tid);
    if (earlier === undefined) {
      continue;
    }
    const delta = {
      reads: io.reads - earlier.reads,
      writes: io.writes - earlier.writes,
      bytes: io.bytes - earlier.bytes,
      stored: io.stored - earlier.stored,
    };
    if (delta.stored > most.stored) {
      most = delta;
    }
  }
  const beats = seconds / 0.5;
  report.figure({
    what: "I/O per heartbeat: reads",
    unit: "reads",
    ours: most.reads / beats,
    peer: 1,
    peerNote: "1 MiB each",
    limit: 2.3,
  });
  report.figure({
    what: "I/O per heartbeat: bytes, 2 members",
    unit: "bytes",
    ours: most.bytes / beats,
    peer: MIB + 512,
    limit: 65536,
  });
}

async function idleSanlock(
  seconds: number,
): Promise<{ readonly cpu: number; readonly memory: number }> {
  const workspace = new Workspace("bench-idle-sanlock");
  try {
    const path = workspace.path("region");
    must("fallocate", ["-l", String(4 * MIB), path]);
    formatSanlock(path, "BENCH", [], 1);
    const daemon = new SanlockDaemon(workspace, 1, 1);
    await daemon.ready();
    await daemon.join("BENCH", path, 1);
    await pause(2);
    const before = cpuSeconds(daemon.pid);
    await pause(seconds);
    return {
      cpu: (100 * (cpuSeconds(daemon.pid) - before)) / seconds,
      memory: residentMib([daemon.pid]).once,
    };
  } finally {
    await cleanUp(workspace);
  }
}

async function pause(seconds: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}
