/**
 * Login to the portals of a target. What counts is a session in state LOGGED_IN in sysfs, not what iscsiadm says; and a
 * login that was given up leaves nothing behind that goes on in the background.
 */
import { ShareHaError } from "../errors.js";
import { formatPortal, type Portal } from "./address.js";
import { chapError } from "./chap-error.js";
import { isOffered } from "./discovery.js";
import { type Edges, type OperationOptions, TIMEOUTS } from "./edges.js";
import { placeFields, placeText, type Place } from "./exit-code.js";
import { callIscsiadm, cancelledError } from "./iscsiadm.js";
import { iscsiError, isIscsiError } from "./iscsi-error.js";
import { logout } from "./logout.js";
import { nodeArgs, nodePortals, type NodeKey, readNode, updateNode } from "./node-record.js";
import { type RecordValues } from "./parse.js";
import { reachPortal } from "./reach.js";
import { readSessions, type Session, sessionsOf } from "./session.js";
import { waitFor } from "./wait.js";

export type LoginEvent = NodeKey &
  (
    | { readonly kind: "connecting" }
    | { readonly kind: "waiting"; readonly elapsedMs: number }
    | { readonly kind: "logged-in"; readonly sid: number }
    /** Disks that are there at this moment; more may follow (`waitForDisk`). */
    | { readonly kind: "disks"; readonly count: number }
  );

export interface LoginOptions extends OperationOptions {
  /** Only there; default: to all portals that the target has records for. */
  readonly portal?: Portal | undefined;
  /** How long a session that is half-made or lost is waited for; default 10 s. */
  readonly settleTimeoutMs?: number | undefined;
  /** How long ending a session may take after its login was given up; default 25 s. */
  readonly cleanUpTimeoutMs?: number | undefined;
  /** Called in time order; must not throw. */
  readonly onProgress?: ((event: LoginEvent) => void) | undefined;
}

export type PortalLogin =
  | { readonly kind: "logged-in"; readonly portal: Portal; readonly session: Session }
  /** It was logged in before. */
  | { readonly kind: "already"; readonly portal: Portal; readonly session: Session }
  | { readonly kind: "failed"; readonly portal: Portal; readonly error: ShareHaError };

const SESSION_EXISTS = 15;
const AUTH_FAILED = 24;
const TELL_EVERY_MS = 1_000;
const RETRY_PARAMETER = "node.session.initial_login_retry_max";
/**
 * The kernel has the session only once TCP is connected, which may be just after we gave up. (While TCP cannot connect,
 * iscsid ends by itself: it was told one retry.)
 */
const LATE_SESSION_MS = 1_500;

/** @returns one outcome per portal, at least one of them no failure; else the first failure is thrown */
export async function login(
  edges: Edges,
  target: string,
  options: LoginOptions,
): Promise<readonly PortalLogin[]> {
  const portals = await nodePortals(edges, target, options.portal, { signal: options.signal });
  const outcomes = await Promise.all(
    portals.map(async (portal): Promise<PortalLogin> => {
      try {
        return await loginPortal(edges, { target, portal }, options);
      } catch (error) {
        if (error instanceof ShareHaError) {
          return { kind: "failed", portal, error };
        }
        throw error;
      }
    }),
  );
  const [first] = outcomes;
  if (options.signal?.aborted === true) {
    for (const { kind, portal } of outcomes) {
      if (kind === "logged-in") {
        await logout(edges, target, portal, {});
      }
    }
    throw cancelledError({ verb: "login to", target });
  }
  if (first?.kind === "failed" && outcomes.every(({ kind }) => kind === "failed")) {
    throw first.error;
  }
  return outcomes;
}

async function loginPortal(
  edges: Edges,
  key: NodeKey,
  options: LoginOptions,
): Promise<PortalLogin> {
  const { portal } = key;
  const { signal, onProgress, timeoutMs = TIMEOUTS.login } = options;
  const standing = await standingSession(edges, key, options);
  if (standing !== undefined) {
    return { kind: "already", portal, session: standing };
  }
  onProgress?.({ kind: "connecting", ...key });
  await reachPortal(edges.network, portal, {
    timeoutMs: Math.min(timeoutMs, TIMEOUTS.probe),
    target: key.target,
    signal,
  });
  const record = await readNode(edges, key, { signal });
  let isOurs = true;
  try {
    isOurs = (await callLogin(edges, key, record, options)) !== SESSION_EXISTS;
    const session = await loggedIn(edges, key, options);
    if (session === undefined) {
      throw staleError(edges, key, options);
    }
    onProgress?.({ kind: "logged-in", ...key, sid: session.sid });
    onProgress?.({ kind: "disks", ...key, count: session.disks.length });
    return { kind: isOurs ? "logged-in" : "already", portal, session };
  } catch (error) {
    // What somebody else is making is not ours to end.
    throw isOurs ? await afterFailure(edges, key, record, options, error) : error;
  }
}

/** A session that is there: logged in, or given time to become so. @throws ERR_ISCSI_SESSION_STALE */
async function standingSession(
  edges: Edges,
  key: NodeKey,
  options: LoginOptions,
): Promise<Session | undefined> {
  const find = (): readonly Session[] =>
    sessionsOf(readSessions(edges.roots), key.target, key.portal);
  if (find().length === 0) {
    return undefined;
  }
  const settled = await waitFor(
    { verb: "login to", ...key },
    () => {
      const sessions = find();
      const ready = sessions.find(isReady);
      return ready ?? (sessions.length === 0 ? "gone" : undefined);
    },
    settleMs(options),
    options.signal,
  );
  if (settled === undefined) {
    throw staleError(edges, key, options);
  }
  return settled === "gone" ? undefined : settled;
}

function settleMs(options: LoginOptions): number {
  return options.settleTimeoutMs ?? TIMEOUTS.settle;
}

function isReady(session: Session): boolean {
  return session.state === "LOGGED_IN" && session.portal !== undefined;
}

function loggedIn(edges: Edges, key: NodeKey, options: LoginOptions): Promise<Session | undefined> {
  return waitFor(
    { verb: "login to", ...key },
    () => sessionsOf(readSessions(edges.roots), key.target, key.portal).find(isReady),
    settleMs(options),
    options.signal,
  );
}

/**
 * One retry instead of eight: with the default a target that is gone is tried for minutes. The record is put back
 * afterwards, because at boot the service needs its patience.
 */
async function callLogin(
  edges: Edges,
  key: NodeKey,
  record: RecordValues,
  options: LoginOptions,
): Promise<number> {
  const { timeoutMs = TIMEOUTS.login, signal, onProgress } = options;
  const place: Place = { verb: "login to", ...key };
  const former = record.get(RETRY_PARAMETER);
  await updateNode(edges, key, { [RETRY_PARAMETER]: "1" }, { signal });
  const startMs = performance.now();
  const timer = setInterval(() => {
    onProgress?.({ kind: "waiting", ...key, elapsedMs: Math.round(performance.now() - startMs) });
  }, TELL_EVERY_MS);
  try {
    const args = [...nodeArgs(key), "--login"];
    const call = { timeoutMs, signal, accept: [SESSION_EXISTS, AUTH_FAILED] };
    const { exitCode } = await callIscsiadm(edges.run, place, args, call);
    if (exitCode === AUTH_FAILED) {
      throw chapError(place, record.get("node.session.auth.authmethod"));
    }
    return exitCode;
  } finally {
    clearInterval(timer);
    if (former !== undefined) {
      await updateNode(edges, key, { [RETRY_PARAMETER]: former }, {});
    }
  }
}

/** Ends what the login has left, and says what the failure was if more can be known than iscsiadm told. */
async function afterFailure(
  edges: Edges,
  key: NodeKey,
  record: RecordValues,
  options: LoginOptions,
  error: unknown,
): Promise<unknown> {
  if (!(error instanceof ShareHaError)) {
    return error;
  }
  const isGivenUp = isIscsiError(error, "ERR_ISCSI_CANCELLED", "ERR_ISCSI_TIMEOUT");
  const left = await cleanUp(edges, key, options, isGivenUp);
  if (left !== undefined) {
    return withLeftover(error, left);
  }
  const isVague = isIscsiError(
    error,
    "ERR_ISCSI_CONNECT_TIMEOUT",
    "ERR_ISCSI_LOGIN",
    "ERR_ISCSI_LOGIN_FATAL",
    "ERR_ISCSI_PDU_TIMEOUT",
    "ERR_ISCSI_TIMEOUT",
  );
  if (!isVague) {
    return error;
  }
  const asked = discoveryPortal(record) ?? key.portal;
  const offered = await isOffered(edges, asked, key.target, {});
  return offered === false ? targetGoneError(key, asked, error) : error;
}

function discoveryPortal(record: RecordValues): Portal | undefined {
  const address = record.get("node.discovery_address");
  const port = Number(record.get("node.discovery_port"));
  return address === undefined || !Number.isInteger(port) ? undefined : { address, port };
}

/** @param portal the one that was asked */
export function targetGoneError(key: NodeKey, portal: Portal, cause?: unknown): ShareHaError {
  return iscsiError(
    "ERR_ISCSI_TARGET_GONE",
    `portal ${formatPortal(portal)} answers, but does not offer the target ${key.target} to this initiator`,
    {
      hint: `See what it offers: \`sharedha iscsi discover ${formatPortal(portal)}\`; the target may be gone, renamed, or not list the name in /etc/iscsi/initiatorname.iscsi.`,
      fields: placeFields({ verb: "", target: key.target, portal }),
      cause,
    },
  );
}

/** @returns why a session is left; undefined when none is */
async function cleanUp(
  edges: Edges,
  key: NodeKey,
  options: LoginOptions,
  isGivenUp: boolean,
): Promise<ShareHaError | undefined> {
  try {
    if (isGivenUp) {
      const find = (): boolean =>
        sessionsOf(readSessions(edges.roots), key.target, key.portal).length > 0;
      await waitFor(
        { verb: "login to", ...key },
        () => (find() ? true : undefined),
        LATE_SESSION_MS,
      );
    }
    await logout(edges, key.target, key.portal, {
      timeoutMs: options.cleanUpTimeoutMs ?? TIMEOUTS.cleanUp,
    });
    return undefined;
  } catch (error) {
    if (error instanceof ShareHaError) {
      return error;
    }
    throw error;
  }
}

function withLeftover(error: ShareHaError, left: ShareHaError): ShareHaError {
  return new ShareHaError(
    error.code,
    `${error.message}; and the half-made session is left: ${left.message}`,
    {
      hint: `${error.hint} Then end the session: ${left.hint}`,
      fields: { ...error.fields, sessionLeft: true },
      cause: error,
    },
  );
}

function staleError(edges: Edges, key: NodeKey, options: LoginOptions): ShareHaError {
  const place: Place = { verb: "login to", ...key };
  const sessions = sessionsOf(readSessions(edges.roots), key.target, key.portal);
  const states = sessions.map(({ sid, state, connectionState }) => {
    const connection = connectionState === undefined ? "" : `, connection ${connectionState}`;
    return `session ${sid} is ${state}${connection}`;
  });
  const found = states.length === 0 ? "there is no session" : states.join("; ");
  return iscsiError(
    "ERR_ISCSI_SESSION_STALE",
    `${placeText(place)}: ${found}, and was not logged in within ${settleMs(options)} ms`,
    {
      hint: `The path may be down, or the session was never logged in. \`sharedha iscsi logout ${key.target} --portal ${formatPortal(key.portal)}\` ends it; then log in again.`,
      fields: { ...placeFields(place), state: sessions[0]?.state ?? "none" },
    },
  );
}
