/** Whether this machine can do what a node has to do: kernel, clock, limits, programs, the state directory. */
import { type MachineFacts, type StateDirFacts } from "../../system/machine-look.js";
import { type Virtuality } from "../../system/machine.js";
import { diagnosis, type DoctorFinding } from "../doctor-finding.js";

export function judgeMachine(facts: MachineFacts): readonly DoctorFinding[] {
  return [
    judgeUser(facts),
    judgeKernel(facts),
    judgeNode(facts),
    judgeClock(facts),
    judgeRealtime(facts),
    judgeMemory(facts),
    ...judgeSwap(facts),
    judgeSysrq(facts),
  ];
}

function judgeUser({ isRoot }: MachineFacts): DoctorFinding {
  const why = "Devices, mounts and watchdogs belong to root.";
  return isRoot
    ? diagnosis("user", "ok", "runs as root", why)
    : diagnosis(
        "user",
        "warning",
        "does not run as root: what it cannot look at is not known",
        why,
        {
          remedy: "sudo sharedha doctor",
        },
      );
}

/** pidfd_getfd, with which a restarted pulse gets the watchdog's descriptor back from its keeper. */
const KERNEL_MIN = [5, 6] as const;

function judgeKernel({ kernel }: MachineFacts): DoctorFinding {
  const why =
    "A restarted pulse takes the running watchdog over with pidfd_getfd, which Linux has since 5.6.";
  const [, major = "0", minor = "0"] = /^(\d+)\.(\d+)/.exec(kernel) ?? [];
  const isNew = isAtLeast([Number(major), Number(minor)], KERNEL_MIN);
  return isNew
    ? diagnosis("kernel", "ok", `Linux ${kernel}`, why)
    : diagnosis(
        "kernel",
        "critical",
        `Linux ${kernel} is older than ${KERNEL_MIN.join(".")}`,
        why,
        {
          remedy: "Use a distribution with Linux 5.6 or newer (Debian 11, RHEL 9).",
        },
      );
}

function isAtLeast(
  [major, minor]: readonly [number, number],
  [wantedMajor, wantedMinor]: readonly [number, number],
): boolean {
  return major > wantedMajor || (major === wantedMajor && minor >= wantedMinor);
}

/** As in package.json: engines. */
function judgeNode({ nodeVersion }: MachineFacts): DoctorFinding {
  const why = "sharedha is tried with these versions only.";
  const [, major = "0", minor = "0"] = /^v?(\d+)\.(\d+)/.exec(nodeVersion) ?? [];
  const version = [Number(major), Number(minor)] as const;
  const isTried = (version[0] === 20 && version[1] >= 19) || isAtLeast(version, [22, 12]);
  return isTried
    ? diagnosis("node.js", "ok", `Node.js ${nodeVersion}`, why)
    : diagnosis("node.js", "critical", `Node.js ${nodeVersion} is not supported`, why, {
        remedy: "Install Node.js 20.19 or later of the 20 line, or 22.12 or newer.",
      });
}

/** Each is a counter that every CPU reads without waiting. */
const GOOD_CLOCKS = new Set([
  "tsc",
  "kvm-clock",
  "hyperv_clocksource_tsc_page",
  "xen",
  "arch_sys_counter",
  "riscv_clocksource",
]);

function judgeClock({ clocksource, clocksources }: MachineFacts): DoctorFinding {
  const why =
    "Every deadline is measured with it; one that is slow to read or coarse makes them late.";
  if (clocksource === undefined) {
    return diagnosis("clock", "info", "the kernel does not tell its clock source", why);
  }
  if (GOOD_CLOCKS.has(clocksource)) {
    return diagnosis("clock", "ok", `clock source ${clocksource}`, why);
  }
  const lost =
    clocksources.includes("tsc") || clocksource === "jiffies"
      ? ""
      : "; the kernel found the TSC unstable, or there is none";
  return diagnosis("clock", "warning", `clock source ${clocksource}${lost}`, why, {
    remedy: clocksources.includes("tsc")
      ? "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
      : "dmesg | grep -i tsc says why; see the firmware's settings, or the hypervisor's.",
  });
}

function judgeRealtime({ realtime }: MachineFacts): DoctorFinding {
  const why = "Under load a heartbeat that must wait its turn comes late, and T is short.";
  return realtime.kind === "realtime"
    ? diagnosis(
        "realtime",
        "ok",
        `real-time scheduling is permitted (priority ${realtime.priority})`,
        why,
      )
    : diagnosis("realtime", "warning", `real-time scheduling is refused (${realtime.code})`, why, {
        remedy: "LimitRTPRIO=10 in the unit of sharedhad, or give the container CAP_SYS_NICE.",
      });
}

const MEMLOCK_BYTES_MIN = 128 * 1024 * 1024;

function judgeMemory({ memlock }: MachineFacts): DoctorFinding {
  const why =
    "A page fault on the way of a heartbeat waits for a disk, perhaps the one that hangs.";
  const { isExempt, limitBytes, works } = memlock;
  const figures = { unit: "bytes", warningLimit: MEMLOCK_BYTES_MIN } as const;
  if (works && isExempt) {
    return diagnosis(
      "memory",
      "ok",
      "memory may be locked without limit (CAP_IPC_LOCK)",
      why,
      figures,
    );
  }
  const figure = Number.isFinite(limitBytes) ? limitBytes : null;
  const isEnough = works && limitBytes >= MEMLOCK_BYTES_MIN;
  const limit = figure === null ? "without limit" : `up to ${Math.floor(figure / 1_048_576)} MiB`;
  return isEnough
    ? diagnosis("memory", "ok", `memory may be locked ${limit}`, why, { ...figures, figure })
    : diagnosis(
        "memory",
        "warning",
        works ? `memory may be locked only ${limit}` : "memory cannot be locked",
        why,
        {
          ...figures,
          figure,
          remedy: "LimitMEMLOCK=infinity in the unit of sharedhad (ulimit -l unlimited).",
        },
      );
}

function judgeSwap({ swapBytes }: MachineFacts): readonly DoctorFinding[] {
  return swapBytes === 0
    ? []
    : [
        diagnosis(
          "memory",
          "info",
          `swap is on (${Math.ceil(swapBytes / 1_048_576)} MiB)`,
          "The heap cannot be locked; a heartbeat whose memory was swapped out waits for the disk.",
          { figure: swapBytes, unit: "bytes", remedy: "MemorySwapMax=0 in the unit of sharedhad." },
        ),
      ];
}

function judgeSysrq({ hasResetTrigger }: MachineFacts): DoctorFinding {
  const why =
    "A petter that finds itself late resets the machine through it; without it `hardware` is not offered. kernel.sysrq does not matter to root.";
  return hasResetTrigger
    ? diagnosis("sysrq", "ok", "/proc/sysrq-trigger may be written", why)
    : diagnosis("sysrq", "warning", "/proc/sysrq-trigger may not be written", why, {
        remedy: "Use a kernel with CONFIG_MAGIC_SYSRQ; in a container mount /proc writable.",
      });
}

/** @param vmPause of the region's configuration; undefined: no region was looked at, or it says nothing */
export function judgeVirtuality(
  virtuality: Virtuality,
  vmPause: "never" | "possible" | undefined,
): DoctorFinding {
  const why =
    "A virtual machine that is paused, snapshotted or migrated stands still with its clocks and its watchdog, and writes when it goes on.";
  if (!virtuality.virtual) {
    return diagnosis("virtual", "ok", "a physical machine", why);
  }
  const what = `a virtual machine (${virtuality.reason})`;
  if (vmPause === "never") {
    const text = `${what}; the configuration promises that none is ever paused`;
    return diagnosis("virtual", "info", text, why);
  }
  const remedy =
    'vm_pause = "never" in `sharedha config edit`, only if no node is ever paused, snapshotted or migrated while it runs.';
  return vmPause === undefined
    ? diagnosis("virtual", "info", `${what}: nobody takes over from it on time alone`, why, {
        remedy,
      })
    : diagnosis(
        "virtual",
        "warning",
        `${what}: nobody takes over from it on time alone (vm_pause = "possible")`,
        why,
        {
          remedy,
        },
      );
}

const MIB = 1_048_576;
const STATE_BYTES_WARNING = 100 * MIB;
const STATE_BYTES_CRITICAL = 10 * MIB;

export function judgeStateDir(facts: StateDirFacts): readonly DoctorFinding[] {
  const why =
    "What a restarted pulse needs is written there; without room for it a restart is a loss.";
  const { path, freeBytes, exists, isVolatile } = facts;
  const level =
    freeBytes < STATE_BYTES_CRITICAL
      ? "critical"
      : freeBytes < STATE_BYTES_WARNING
        ? "warning"
        : "ok";
  const free = `${Math.floor(freeBytes / MIB)} MiB free`;
  const room = diagnosis(
    "state-dir",
    level,
    `${path}: ${free}${exists ? "" : " (not made yet)"}`,
    why,
    {
      subject: path,
      figure: freeBytes,
      unit: "bytes",
      limit: STATE_BYTES_CRITICAL,
      warningLimit: STATE_BYTES_WARNING,
      remedy:
        level === "ok" ? null : "Make room on its file system, or choose another with --state-dir.",
    },
  );
  const lost = diagnosis(
    "state-dir",
    "warning",
    `${path} is in memory and gone after a reboot`,
    "A node proves with it after a reboot that it is the one that was a member, and needs no human then.",
    { subject: path, remedy: "Put it on a disk: --state-dir, or $SHAREDHA_STATE_DIR." },
  );
  return isVolatile ? [room, lost] : [room];
}

/** A program that we run, and where it comes from. */
interface Tool {
  readonly program: string;
  readonly debian: string;
  readonly rhel: string;
  /** critical: `init`, `join` or `reserve` fail without it. */
  readonly level: "info" | "warning" | "critical";
  readonly use: string;
}

const TOOLS: readonly Tool[] = [
  { program: "mount", debian: "mount", rhel: "util-linux", level: "critical", use: "groups" },
  { program: "umount", debian: "mount", rhel: "util-linux", level: "critical", use: "groups" },
  { program: "sfdisk", debian: "fdisk", rhel: "util-linux", level: "critical", use: "init" },
  { program: "wipefs", debian: "util-linux", rhel: "util-linux", level: "critical", use: "init" },
  { program: "blkid", debian: "util-linux", rhel: "util-linux", level: "critical", use: "init" },
  { program: "losetup", debian: "mount", rhel: "util-linux", level: "critical", use: "groups" },
  { program: "e2fsck", debian: "e2fsprogs", rhel: "e2fsprogs", level: "warning", use: "ext4" },
  {
    program: "mkfs.ext4",
    debian: "e2fsprogs",
    rhel: "e2fsprogs",
    level: "info",
    use: "init --mkfs ext4",
  },
  { program: "xfs_repair", debian: "xfsprogs", rhel: "xfsprogs", level: "info", use: "xfs" },
  {
    program: "mkfs.xfs",
    debian: "xfsprogs",
    rhel: "xfsprogs",
    level: "info",
    use: "init --mkfs xfs",
  },
  {
    program: "sg_persist",
    debian: "sg3-utils",
    rhel: "sg3_utils",
    level: "info",
    use: "a second opinion on reservations",
  },
];
const ISCSI_TOOL: Tool = {
  program: "iscsiadm",
  debian: "open-iscsi",
  rhel: "iscsi-initiator-utils",
  level: "warning",
  use: "iSCSI sessions",
};
const MULTIPATH_TOOLS: readonly Tool[] = [
  {
    program: "multipathd",
    debian: "multipath-tools",
    rhel: "device-mapper-multipath",
    level: "warning",
    use: "multipath",
  },
  {
    program: "dmsetup",
    debian: "dmsetup",
    rhel: "device-mapper",
    level: "warning",
    use: "multipath",
  },
];

export interface ToolNeeds {
  readonly iscsi: boolean;
  readonly multipath: boolean;
}

function toolsFor(needs: ToolNeeds): readonly Tool[] {
  return [
    ...TOOLS,
    // Before the first join there is no session that would tell.
    needs.iscsi ? ISCSI_TOOL : { ...ISCSI_TOOL, level: "info", use: "LUNs over iSCSI" },
    ...(needs.multipath ? MULTIPATH_TOOLS : []),
  ];
}

export function programsFor(needs: ToolNeeds): readonly string[] {
  return toolsFor(needs).map(({ program }) => program);
}

/** One finding per level, so that a bare machine does not get a page of them. */
export function judgeTools(missing: readonly string[], needs: ToolNeeds): readonly DoctorFinding[] {
  const why = "A program that is missing is noticed at the fail-over that needs it.";
  const absent = toolsFor(needs).filter(({ program }) => missing.includes(program));
  const findings = (["critical", "warning", "info"] as const).flatMap((level) => {
    const here = absent.filter((tool) => tool.level === level);
    if (here.length === 0) {
      return [];
    }
    const names = here.map(({ program, use }) => `${program} (${use})`).join(", ");
    const packages = (of: "debian" | "rhel"): string =>
      [...new Set(here.map((tool) => tool[of]))].join(" ");
    return [
      diagnosis("tools", level, `not installed: ${names}`, why, {
        figure: here.length,
        remedy: `Debian: apt install ${packages("debian")}; RHEL: dnf install ${packages("rhel")}`,
      }),
    ];
  });
  return findings.some(({ level }) => level !== "info")
    ? findings
    : [...findings, diagnosis("tools", "ok", "every program that is needed is installed", why)];
}
