/**
 * CHAP names and secrets (RFC 7143, section 12.1; open-iscsi's iscsid.conf). Secrets live in the records of open-iscsi,
 * which are files of root alone; they are no argument of a program, no part of an error, and no field of any result.
 */
import { iscsiError } from "./iscsi-error.js";

export interface ChapPair {
  readonly user: string;
  readonly secret: string;
}

export interface ChapCredentials extends ChapPair {
  /** Mutual CHAP: what the target proves itself with. */
  readonly mutual?: ChapPair;
}

/** RFC 7143, 12.1.3: with less than 96 bits an offline attack is easy, and most targets refuse it. */
const SECRET_CHARS_MIN = 12;
/** What a value of a record can hold. */
const VALUE_CHARS_MAX = 255;

/** @throws ERR_ISCSI_SECRET, which never says what the secret is */
export function checkChap(chap: ChapCredentials): void {
  checkPair(chap, "CHAP");
  if (chap.mutual !== undefined) {
    checkPair(chap.mutual, "mutual CHAP");
    if (chap.mutual.secret === chap.secret) {
      // RFC 7143, 12.1.3: otherwise one side's answer can be played back as the other's.
      throw secretError("the two secrets of mutual CHAP are the same", "Give each side its own.");
    }
  }
}

function checkPair({ user, secret }: ChapPair, what: string): void {
  if (!isValue(user)) {
    throw secretError(
      `the user name for ${what} is empty, too long or not printable`,
      `It has 1 to ${VALUE_CHARS_MAX} printable ASCII characters, without blanks at its ends.`,
    );
  }
  if (!isValue(secret)) {
    throw secretError(
      `the secret for ${what} is empty, too long or not printable`,
      `It has ${SECRET_CHARS_MIN} to ${VALUE_CHARS_MAX} printable ASCII characters, without blanks at its ends.`,
    );
  }
  if (secret.length < SECRET_CHARS_MIN) {
    throw secretError(
      `the secret for ${what} has ${secret.length} characters, fewer than ${SECRET_CHARS_MIN}`,
      "Give target and initiator a longer one: `openssl rand -base64 18` makes one.",
    );
  }
}

/** A record is lines of `name = value`; `<empty>` there means that there is none. */
function isValue(text: string): boolean {
  return /^[!-~]([ -~]{0,253}[!-~])?$/.test(text) && text !== "<empty>";
}

function secretError(message: string, hint: string): Error {
  return iscsiError("ERR_ISCSI_SECRET", message, { hint });
}

/** The lines of a node record; null removes the authentication. Undefined removes the line. */
export function nodeChapLines(
  chap: ChapCredentials | null,
): Readonly<Record<string, string | undefined>> {
  return chapLines("node.session.auth", chap);
}

/** The lines of a discovery record. */
export function discoveryChapLines(
  chap: ChapCredentials | null,
): Readonly<Record<string, string | undefined>> {
  return chapLines("discovery.sendtargets.auth", chap);
}

function chapLines(
  prefix: string,
  chap: ChapCredentials | null,
): Readonly<Record<string, string | undefined>> {
  return {
    [`${prefix}.authmethod`]: chap === null ? "None" : "CHAP",
    [`${prefix}.username`]: chap?.user,
    [`${prefix}.password`]: chap?.secret,
    [`${prefix}.username_in`]: chap?.mutual?.user,
    [`${prefix}.password_in`]: chap?.mutual?.secret,
  };
}
