/** Outcomes that are no grant, in words: what stands in the way, and what would unblock it. */
import { ShareHaError } from "../errors.js";
import { type Verdict } from "../fence/evidence.js";
import { type Holder } from "../lease/acquire.js";
import { type LocalOutcome, noSuchLease } from "./lease-manager.js";

export interface RefusalContext {
  readonly nameOf: (hostId: number) => string;
  readonly verdict: (hostId: number, generation: bigint) => Verdict | undefined;
  readonly isLive: (hostId: number, generation: bigint) => boolean;
  readonly selfId: number | undefined;
}

export type Refused = Exclude<LocalOutcome, { kind: "granted" }>;

export function refusalOf(name: string, outcome: Refused, context: RefusalContext): ShareHaError {
  switch (outcome.kind) {
    case "held":
      return heldError(name, outcome.holders, context);
    case "timed-out":
      return timedOut(name, outcome, context);
    case "held-here":
      return heldHere(name, outcome);
    case "queued":
      return new ShareHaError(
        "ERR_LEASE_QUEUED",
        `lease ${name} is free, but ${outcome.ahead} others wait for it`,
        {
          hint: "Wait in the queue: --wait SECONDS.",
          fields: { lease: name, ahead: outcome.ahead },
        },
      );
    case "contended":
      return new ShareHaError(
        "ERR_CONTENDED",
        `lease ${name}: others took it in the same moment, again and again`,
        {
          hint: "Wait in the queue, which is orderly: --wait SECONDS.",
          fields: { lease: name },
        },
      );
    case "cancelled":
      return new ShareHaError("ERR_CANCELLED", `the wait for lease ${name} was given up`, {
        hint: "Nothing was taken.",
        fields: { lease: name },
      });
    case "missing":
      return noSuchLease(name);
    default:
      return faultOf(name, outcome);
  }
}

function faultOf(
  name: string,
  outcome: Extract<Refused, { kind: "damaged" | "no-quorum" | "not-armed" | "undecided" }>,
): ShareHaError {
  const fields = { lease: name };
  switch (outcome.kind) {
    case "damaged":
      return new ShareHaError(
        "ERR_LEASE_DAMAGED",
        `lease ${name} cannot be read: ${outcome.reason}`,
        {
          hint: "sharedha dump PATH shows the records.",
          fields,
        },
      );
    case "no-quorum":
      return new ShareHaError(
        "ERR_NO_QUORUM",
        `a majority of the LUNs did not answer: ${outcome.why}`,
        {
          hint: "Check the paths to the LUNs; nothing is granted without a majority.",
          fields,
        },
      );
    case "not-armed":
      return new ShareHaError("ERR_NOT_ARMED", `lease ${name} was not taken: ${outcome.why}`, {
        hint: "sharedha status shows the watchdog and the heartbeat.",
        fields,
      });
    case "undecided":
      return new ShareHaError(
        "ERR_UNDECIDED",
        `who has lease ${name} is not known yet: ${outcome.why}`,
        {
          hint: "It is settled in the background and released if it was won; try again in a moment.",
          fields: { ...fields, version: String(outcome.lver) },
        },
      );
  }
}

function heldError(
  name: string,
  holders: readonly Holder[],
  context: RefusalContext,
): ShareHaError {
  const first = holders[0];
  const words = holders.map((holder) => describe(holder, context)).join(" and ");
  return new ShareHaError("ERR_LEASE_HELD", `lease ${name} is held by ${words}`, {
    hint: first === undefined ? "Wait: --wait SECONDS." : remedyFor(first, context),
    fields: {
      lease: name,
      ...(first === undefined
        ? {}
        : {
            holder: context.nameOf(first.hostId),
            hostId: first.hostId,
            generation: String(first.generation),
            version: String(first.lver),
            shared: first.shared,
            since: isoOf(first.sinceWallSeconds) ?? "unknown",
          }),
    },
  });
}

function describe(holder: Holder, context: RefusalContext): string {
  const since = isoOf(holder.sinceWallSeconds);
  const mode = holder.shared ? ", shared" : "";
  return `${context.nameOf(holder.hostId)} (host ${holder.hostId}, generation ${holder.generation}${mode})${since === undefined ? "" : ` since ${since}`}`;
}

/** Why waiting helps, or does not. */
function remedyFor(holder: Holder, context: RefusalContext): string {
  if (holder.hostId === context.selfId) {
    return "It was left by this node and is being settled; try again in a moment.";
  }
  if (context.isLive(holder.hostId, holder.generation)) {
    return "Wait until it is released: --wait SECONDS.";
  }
  const verdict = context.verdict(holder.hostId, holder.generation);
  switch (verdict?.kind) {
    case "wait":
      return `Its heartbeat is silent; it can be taken over in ${(verdict.remainingMs / 1_000).toFixed(1)} s: --wait SECONDS.`;
    case "impossible":
      return `Its heartbeat is silent, but ${verdict.why}. Remedy: ${verdict.remedy}`;
    default:
      return "Wait until it is released: --wait SECONDS.";
  }
}

function timedOut(
  name: string,
  outcome: Extract<Refused, { kind: "timed-out" }>,
  context: RefusalContext,
): ShareHaError {
  const { last } = outcome;
  if (last.kind !== "held") {
    return new ShareHaError("ERR_TIMED_OUT", `the time to wait for lease ${name} is up`, {
      hint: "Others were before this node in the queue; wait longer.",
      fields: { lease: name },
    });
  }
  const held = heldError(name, last.holders, context);
  return new ShareHaError("ERR_TIMED_OUT", `the time to wait is up: ${held.message}`, {
    hint: held.hint,
    fields: held.fields,
  });
}

function heldHere(name: string, outcome: Extract<Refused, { kind: "held-here" }>): ShareHaError {
  const { hold } = outcome;
  const version = hold === undefined ? "" : String(hold.held.leader.lver);
  return new ShareHaError(
    "ERR_HELD_HERE",
    hold === undefined
      ? `lease ${name} is being taken or released by another request on this node`
      : `this node holds lease ${name} already, version ${version}`,
    {
      hint: "One request of a node can hold a lease; release it, or wait: --wait SECONDS.",
      fields: { lease: name, version },
    },
  );
}

/** ISO 8601 of the holder's own clock; undefined when it did not say. */
export function isoOf(wallSeconds: bigint): string | undefined {
  const ms = Number(wallSeconds) * 1_000;
  return wallSeconds === 0n || ms > 8.64e15 ? undefined : new Date(ms).toISOString();
}
