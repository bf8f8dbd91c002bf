/**
 * Calls iscsiadm: no shell, one bounded call at a time, secrets never among the arguments and never in what is kept of the
 * output. Only documented options are used (iscsiadm(8)).
 */
import { type RunOptions, type RunResult } from "../system/process.js";
import { exitError, type Place, placeFields, placeText } from "./exit-code.js";
import { iscsiError } from "./iscsi-error.js";

/** `run` of lib/system/process.ts, or a stand-in. */
export type Runner = (
  op: string,
  file: string,
  args: readonly string[],
  options: RunOptions,
) => Promise<RunResult>;

export interface CallOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Exit codes that are an answer and no error. */
  readonly accept?: readonly number[];
}

export interface Answer {
  readonly exitCode: number;
  readonly stdout: string;
}

const SAID_CHARS_MAX = 300;
/** What iscsiadm says last, after the reason. */
const SUMMARY =
  /^Could not (log into all portals|logout of all requested sessions|execute operation on all records)/;

/**
 * @throws ERR_ISCSI_NOT_INSTALLED, ERR_ISCSI_TIMEOUT, ERR_ISCSI_CANCELLED, ERR_ISCSI_OUTPUT (too much of it), and one of
 *   EXIT_MEANINGS for the exit codes that are not accepted
 */
export async function callIscsiadm(
  run: Runner,
  place: Place,
  args: readonly string[],
  options: CallOptions,
): Promise<Answer> {
  const { timeoutMs, signal, accept = [] } = options;
  const what = placeText(place);
  const fields = placeFields(place);
  if (signal?.aborted === true) {
    throw cancelledError(place);
  }
  const result = await run(what, "iscsiadm", args, {
    timeoutMs,
    ...(signal === undefined ? {} : { signal }),
  });
  switch (result.kind) {
    case "ok":
      return { exitCode: 0, stdout: result.stdout };
    case "exit":
      if (accept.includes(result.exitCode)) {
        return { exitCode: result.exitCode, stdout: result.stdout };
      }
      throw exitError(place, result.exitCode, lastWords(result.stderr, result.stdout));
    case "cancelled":
      throw cancelledError(place);
    case "timeout":
      throw timeoutError(place, timeoutMs);
    case "missing":
      throw iscsiError(
        "ERR_ISCSI_NOT_INSTALLED",
        `${what} failed: iscsiadm cannot be started (${result.code})`,
        {
          hint: "Install open-iscsi: `apt-get install open-iscsi` (Debian, Ubuntu) or `dnf install iscsi-initiator-utils` (RHEL, Fedora).",
          fields,
        },
      );
    case "signal":
      throw iscsiError("ERR_ISCSI_FAILED", `${what} failed: iscsiadm got ${result.signal}`, {
        hint: "Somebody or the kernel (out of memory) ended it; see dmesg, then repeat.",
        fields,
      });
    case "overflow":
      throw iscsiError("ERR_ISCSI_OUTPUT", `${what} failed: iscsiadm wrote megabytes`, {
        hint: "No answer of iscsiadm is that long; run the command by hand and look.",
        fields,
      });
  }
}

export function cancelledError(place: Place): Error {
  return iscsiError("ERR_ISCSI_CANCELLED", `${placeText(place)} was cancelled`, {
    hint: "Repeat it when it is wanted again.",
    fields: placeFields(place),
  });
}

export function timeoutError(place: Place, timeoutMs: number): Error {
  return iscsiError(
    "ERR_ISCSI_TIMEOUT",
    `${placeText(place)} did not end within ${timeoutMs} ms and was given up`,
    {
      hint: "Check the network and the target's service; `sharedha iscsi sessions` shows what is there.",
      fields: { ...placeFields(place), timeoutMs },
    },
  );
}

/** The most telling line. */
function lastWords(stderr: string, stdout: string): string {
  const lines = (stderr.trim() === "" ? stdout : stderr)
    .split("\n")
    .map((line) => line.replace(/^iscsiadm: /, "").trim())
    .filter((line) => line !== "" && !SUMMARY.test(line));
  return redact(lines.at(-1) ?? "").slice(0, SAID_CHARS_MAX);
}

/** Values of passwords in anything that looks like a record: they are not printed without -S, and if ever, not by us. */
export function redact(text: string): string {
  return text.replaceAll(/(password(?:_in)?\s*[=:]\s*)[^\n]*/gi, "$1(redacted)");
}
