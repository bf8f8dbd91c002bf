/** iSCSI sessions behind a LUN, and their timers held against T. */
import { msText } from "../../health/finding.js";
import { type DiskPath } from "../../system/disk-look.js";
import { type IscsiSession } from "../../system/iscsi-look.js";
import { diagnosis, type DoctorFinding, unlooked, type Yardstick } from "../doctor-finding.js";

const WHY_SESSION = "A path without a session carries no heartbeat.";
const WHY_RECOVERY =
  "I/O that waits for a lost session may land long after T, and the node cannot rejoin before it has come back.";
const WHY_PING = "A dead connection is noticed only by its pings; until then heartbeats just wait.";

/** A ping after one second of silence, and one second for its answer. */
export const NOTICED_MS_MIN = 2_000;

/**
 * From the last byte of a dead target until the kernel fails what waits: noticed after one interval and one unanswered
 * ping, then kept for the recovery time. Infinity when a step has no end.
 */
export function failoverMs(session: IscsiSession): number {
  const { pingIntervalSeconds: interval, pingTimeoutSeconds: timeout, recoverySeconds } = session;
  const isPinging = interval !== null && interval > 0 && timeout !== null && timeout > 0;
  return isPinging && recoverySeconds !== null
    ? (interval + timeout + recoverySeconds) * 1_000
    : Infinity;
}

/** @param isMultipath then path-rules.ts holds the sum against T, and the parts matter only by it */
export function judgeIscsi(
  subject: string,
  paths: readonly DiskPath[],
  isMultipath: boolean,
  yardstick: Yardstick,
): readonly DoctorFinding[] {
  const sessions = new Map(
    paths.flatMap(({ iscsi }) => (iscsi === undefined ? [] : [[iscsi.session, iscsi] as const])),
  );
  return [...sessions.values()].flatMap((session) => [
    judgeState(subject, session),
    ...(isMultipath ? [] : judgeTimers(subject, session, yardstick)),
  ]);
}

function judgeState(subject: string, session: IscsiSession): DoctorFinding {
  const { target, state, portal } = session;
  const where = portal === undefined ? "" : ` at ${portal}`;
  return state === "LOGGED_IN"
    ? diagnosis("iscsi", "ok", `logged in to ${target}${where}`, WHY_SESSION, { subject })
    : diagnosis(
        "iscsi",
        "critical",
        `the session with ${target}${where} is ${state}`,
        WHY_SESSION,
        {
          subject,
          remedy: `sharedha iscsi login ${target}, when the target can be reached`,
        },
      );
}

function judgeTimers(
  subject: string,
  session: IscsiSession,
  { timings, profile }: Yardstick,
): readonly DoctorFinding[] {
  // Whole seconds are all that the kernel takes, so with the quickest profile T cannot be the limit.
  const ttlMs = Math.max(timings.ttlMs, NOTICED_MS_MIN);
  const { pingIntervalSeconds, pingTimeoutSeconds, recoverySeconds, target } = session;
  const remedy = `sharedha iscsi timers ${target} --profile ${profile}`;
  const limits = { subject, unit: "ms", warningLimit: ttlMs } as const;
  if (pingIntervalSeconds === null || pingTimeoutSeconds === null) {
    return [unlooked("iscsi", "its timers", "the kernel does not tell them", { subject })];
  }
  const findings: DoctorFinding[] = [];
  const isPinging = pingIntervalSeconds > 0 && pingTimeoutSeconds > 0;
  const noticedMs = (pingIntervalSeconds + pingTimeoutSeconds) * 1_000;
  if (!isPinging || noticedMs > ttlMs) {
    const text = isPinging
      ? `a dead connection is noticed after ${msText(noticedMs)} (noop ${pingIntervalSeconds} + ${pingTimeoutSeconds} s); the limit is ${msText(ttlMs)}`
      : "a dead connection is never noticed: noop pings are off";
    findings.push(
      diagnosis("iscsi", "warning", text, WHY_PING, {
        ...limits,
        figure: isPinging ? noticedMs : null,
        // The pings of a session are set at its login.
        remedy: `${remedy}; then, while nothing uses its disks, sharedha iscsi logout ${target} and login ${target}`,
      }),
    );
  }
  const recoveryMs = recoverySeconds === null ? Infinity : recoverySeconds * 1_000;
  if (recoveryMs > ttlMs) {
    const howLong = Number.isFinite(recoveryMs) ? `for ${msText(recoveryMs)}` : "for ever";
    findings.push(
      diagnosis(
        "iscsi",
        "warning",
        `I/O waits ${howLong} for a lost session (replacement_timeout); the limit is ${msText(ttlMs)}`,
        WHY_RECOVERY,
        { ...limits, figure: Number.isFinite(recoveryMs) ? recoveryMs : null, remedy },
      ),
    );
  }
  return findings.length > 0
    ? findings
    : [
        diagnosis(
          "iscsi",
          "ok",
          `timers fit: noticed after ${msText(noticedMs)}, given up ${msText(recoveryMs)} later`,
          WHY_RECOVERY,
          { ...limits, figure: recoveryMs },
        ),
      ];
}
