import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { ShareHaError } from "../../../lib/errors.js";
import { findRoot } from "../../helpers/root.js";

const DIR = join(findRoot(), "fixtures/iscsiadm");

export interface Recorded {
  readonly command: string;
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A recorded call of the real iscsiadm. */
export function recorded(name: string): Recorded {
  const text = readFileSync(join(DIR, `${name}.txt`), "utf8");
  const match =
    /^\$ (.*)\n# on \w+, exit (\d+), \d+ ms\n--- stdout\n([^]*?)--- stderr\n([^]*?)--- end\n$/.exec(
      text,
    );
  assert.ok(match, name);
  const [, command = "", exitCode, stdout = "", stderr = ""] = match;
  return { command, exitCode: Number(exitCode), stdout, stderr };
}

export function recordedFile(name: string): string {
  return readFileSync(join(DIR, `${name}.txt`), "utf8");
}

/** All calls that were recorded. */
export function allRecorded(): readonly Recorded[] {
  return readdirSync(DIR)
    .filter((name) => !/^6[01]-/.test(name))
    .map((name) => recorded(name.replace(/\.txt$/, "")));
}

/** For assert.throws and assert.rejects: the code, and what the message and the remedy must have in them. */
export function failure(code: string, ...patterns: readonly RegExp[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof ShareHaError, String(error));
    assert.equal(error.code, code, error.message);
    assert.notEqual(error.hint, "");
    for (const pattern of patterns) {
      assert.match(`${error.message}\n${error.hint}`, pattern);
    }
    return true;
  };
}
