/** Ends sessions, and proves in sysfs that they are gone. */
import { formatPortal, type Portal } from "./address.js";
import { type Edges, type OperationOptions, TIMEOUTS } from "./edges.js";
import { type Place } from "./exit-code.js";
import { callIscsiadm } from "./iscsiadm.js";
import { iscsiError, isIscsiError } from "./iscsi-error.js";
import { nodeArgs } from "./node-record.js";
import { readSessions, type Session, sessionsOf } from "./session.js";
import { waitFor } from "./wait.js";

/** How long a session may take to vanish after iscsiadm has said that it is out. */
const GONE_MS_MAX = 3_000;

export interface LogoutResult {
  readonly sid: number;
  readonly portal: Portal | undefined;
}

/** @returns what was ended; empty when nothing was logged in, which is no error */
export async function logout(
  edges: Edges,
  target: string,
  portal: Portal | undefined,
  options: OperationOptions,
): Promise<readonly LogoutResult[]> {
  const ended: LogoutResult[] = [];
  for (const session of sessionsOf(readSessions(edges.roots), target, portal)) {
    await endSession(edges, session, options);
    ended.push({ sid: session.sid, portal: session.portal });
  }
  return ended;
}

async function endSession(
  edges: Edges,
  session: Session,
  options: OperationOptions,
): Promise<void> {
  const { sid, target, portal } = session;
  const { timeoutMs = TIMEOUTS.logout, signal } = options;
  const place: Place = { verb: "logout of", target, ...(portal === undefined ? {} : { portal }) };
  const end = performance.now() + timeoutMs;
  let trouble: unknown;
  // iscsid refuses to end a session that it is still making, until it has given up by itself.
  for (let attempt = 0; ; attempt += 1) {
    const leftMs = end - performance.now();
    if (leftMs <= 0) {
      break;
    }
    // By its number it is this very session; by its record also one that sysfs does not describe in full yet.
    const byNumber = attempt % 2 === 0 || portal === undefined;
    const args = byNumber
      ? ["-m", "session", "-r", String(sid), "--logout"]
      : [...nodeArgs({ target, portal }), "--logout"];
    trouble = await tryCall(edges, place, args, { timeoutMs: leftMs, signal });
    const gone = await waitFor(
      place,
      () => (readSessions(edges.roots).some((one) => one.sid === sid) ? undefined : true),
      Math.min(GONE_MS_MAX, Math.max(0, end - performance.now())),
      signal,
    );
    if (gone === true) {
      return;
    }
  }
  if (isIscsiError(trouble)) {
    throw trouble;
  }
  throw iscsiError(
    "ERR_ISCSI_LOGOUT",
    `logout of ${target}${portal === undefined ? "" : ` at ${formatPortal(portal)}`} failed: session ${sid} is still there after ${timeoutMs} ms`,
    {
      hint: "Something may still use its disks, or iscsid is still making it, which it gives up by itself after node.session.initial_login_retry_max times node.conn[0].timeo.login_timeout (120 s by default): `sharedha iscsi sessions`, then repeat.",
      fields: { target, sid },
    },
  );
}

async function tryCall(
  edges: Edges,
  place: Place,
  args: readonly string[],
  options: { readonly timeoutMs: number; readonly signal: AbortSignal | undefined },
): Promise<unknown> {
  try {
    await callIscsiadm(edges.run, place, args, options);
    return undefined;
  } catch (error) {
    if (
      isIscsiError(error) &&
      !isIscsiError(error, "ERR_ISCSI_CANCELLED", "ERR_ISCSI_NOT_INSTALLED")
    ) {
      // It may have ended by itself; sysfs decides.
      return error;
    }
    throw error;
  }
}
