/** What resets this machine when it has lost: its watchdogs, and who else wants them. */
import { msText } from "../../health/finding.js";
import { type SystemdFacts, type SystemdSetting } from "../../system/systemd-look.js";
import { type WatchdogLook, type WatchdogsLook } from "../../system/watchdog-look.js";
import { diagnosis, type DoctorFinding, unlooked, type Yardstick } from "../doctor-finding.js";

const WHY =
  "Others take over on time alone only because a watchdog has reset this machine by then.";
const SOFTDOG_REMEDY =
  "modprobe softdog && echo softdog > /etc/modules-load.d/softdog.conf (or the driver of the machine's own watchdog)";

/** Real hardware first, as `join` chooses; undefined: none can be had. */
export function chosenWatchdog(look: WatchdogsLook): WatchdogLook | undefined {
  const usable = look.watchdogs.filter(isUsable);
  return usable.find(({ isSoftware }) => !isSoftware) ?? usable[0];
}

function isUsable(watchdog: WatchdogLook): boolean {
  return watchdog.refusal === undefined || isOurs(watchdog);
}

/** This node is a member and its own pulse has armed it. */
function isOurs({ holders }: WatchdogLook): boolean {
  return holders.some((holder) => holder.startsWith("sharedha-pulse"));
}

export function judgeWatchdogs(
  look: WatchdogsLook,
  { timings, profile }: Yardstick,
): readonly DoctorFinding[] {
  const chosen = chosenWatchdog(look);
  const figures = { figure: timings.watchdogMs, unit: "ms" } as const;
  const wanted = `W ${msText(timings.watchdogMs)} of profile ${profile}`;
  return [
    ...(chosen === undefined
      ? [noWatchdog(look)]
      : [
          diagnosis(
            "watchdog",
            chosen.isSoftware ? "info" : "ok",
            `${chosen.device} (${chosen.identity}) ${isOurs(chosen) ? "is in use by this node" : `can run with ${wanted}`}${rangeText(chosen)}` +
              (chosen.isSoftware
                ? "; softdog is weaker than hardware: a kernel that hangs whole takes it along"
                : ""),
            WHY,
            { ...figures, subject: chosen.device },
          ),
        ]),
    ...look.watchdogs
      .filter((watchdog) => !isUsable(watchdog))
      .map((watchdog) => refused(watchdog, chosen)),
    ...look.undescribed.map((device) =>
      diagnosis("watchdog", "warning", `${device} is not described in /sys/class/watchdog`, WHY, {
        subject: device,
        remedy:
          "Use a kernel with CONFIG_WATCHDOG_SYSFS; without it nothing can be known before the device is started.",
      }),
    ),
    ...rivals(look),
  ];
}

function rangeText({ minSeconds, maxSeconds }: WatchdogLook): string {
  return maxSeconds === undefined || maxSeconds === 0
    ? ""
    : ` (range ${minSeconds ?? 0} to ${maxSeconds} s)`;
}

function noWatchdog(look: WatchdogsLook): DoctorFinding {
  const isNone = look.watchdogs.length === 0 && look.undescribed.length === 0;
  const text = isNone
    ? "there is none: a guard process would stand in, which cannot stop writes the kernel already has"
    : "none of the watchdogs can be used: a guard process would stand in, which cannot stop writes the kernel already has";
  const remedy = isNone ? SOFTDOG_REMEDY : "See the watchdogs below.";
  return diagnosis("watchdog", "warning", text, WHY, { remedy });
}

/** Worth a warning unless something as good is used in its place. */
function refused(watchdog: WatchdogLook, chosen: WatchdogLook | undefined): DoctorFinding {
  const { device, identity, isSoftware, refusal } = watchdog;
  const isReplaced = chosen !== undefined && (!chosen.isSoftware || isSoftware);
  const message = refusal?.message.replace(/^the watchdog \S+ /, "") ?? "";
  return diagnosis(
    "watchdog",
    isReplaced ? "info" : "warning",
    `${device} (${identity}) ${message}`,
    WHY,
    { subject: device, remedy: refusal?.hint ?? null },
  );
}

function rivals({ rivals: running }: WatchdogsLook): readonly DoctorFinding[] {
  return running.length === 0
    ? []
    : [
        diagnosis(
          "watchdog",
          "info",
          `${running.join(", ")} ${running.length === 1 ? "wants" : "want"} a watchdog too`,
          "Two programs that pet one watchdog keep each other's machine alive.",
          {
            remedy:
              "Give each its own device (join takes the first that is free), or end the other program.",
          },
        ),
      ];
}

const WHY_RUNTIME = "While systemd pets the watchdog, a node that has lost is not reset.";
const WHY_REBOOT =
  "At shutdown systemd would open the watchdog, set 10 minutes and pet it while it still unmounts: others have taken over long before.";
const DROP_IN = "/etc/systemd/system.conf.d/sharedha.conf";

export function judgeSystemd(facts: SystemdFacts, look: WatchdogsLook): readonly DoctorFinding[] {
  const problem =
    facts.problem === undefined
      ? []
      : [unlooked("systemd", "what systemd runs with", facts.problem)];
  if (!facts.runs && facts.runtimeWatchdog === undefined && facts.rebootWatchdog === undefined) {
    return [
      ...problem,
      diagnosis(
        "systemd",
        "ok",
        "is not process 1 here, and no setting names a watchdog",
        WHY_RUNTIME,
      ),
    ];
  }
  const device = deviceOf(facts.watchdogDevice);
  const target = look.watchdogs.find((watchdog) => watchdog.device === device);
  const chosen = chosenWatchdog(look);
  const wants = target !== undefined && (chosen === undefined || chosen.device === target.device);
  const findings: DoctorFinding[] = [];
  if (facts.runtimeWatchdog !== undefined && !isOff(facts.runtimeWatchdog.value)) {
    findings.push(takes("RuntimeWatchdogSec", facts.runtimeWatchdog, device, wants, WHY_RUNTIME));
  }
  // systemd-system.conf(5): ten minutes unless set.
  const reboot = facts.rebootWatchdog ?? { value: "10min", file: undefined };
  if (!isOff(reboot.value)) {
    findings.push(takes("RebootWatchdogSec", reboot, device, wants, WHY_REBOOT));
  }
  return findings.length > 0
    ? [...problem, ...findings]
    : [...problem, diagnosis("systemd", "ok", "leaves the watchdogs alone", WHY_RUNTIME)];
}

function takes(
  name: string,
  setting: SystemdSetting,
  device: string,
  isWanted: boolean,
  why: string,
): DoctorFinding {
  const where = setting.file === undefined ? "" : ` in ${setting.file}`;
  const text = `${name}=${setting.value}${where} takes ${device}`;
  return isWanted
    ? diagnosis("systemd", "critical", text, why, {
        remedy: `mkdir -p /etc/systemd/system.conf.d && printf '[Manager]\\n${name}=0\\n' >> ${DROP_IN} && systemctl daemon-reexec`,
      })
    : diagnosis("systemd", "ok", `${text}, which sharedha does not use`, why);
}

/** What systemd takes when nothing is said (systemd-system.conf(5)); /dev/watchdog is the first one's other name. */
function deviceOf(setting: SystemdSetting | undefined): string {
  const device = setting?.value ?? "/dev/watchdog0";
  return device === "/dev/watchdog" ? "/dev/watchdog0" : device;
}

function isOff(value: string): boolean {
  return /^(off|no|false|0+\s*[a-z]*)$/i.test(value.trim());
}
