/**
 * CHAP on the command line: names are options, secrets come from a file or are typed. Never from an argument or the
 * environment, which other users and child processes can read.
 */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";

import { type Command } from "commander";

import { ShareHaError } from "../errors.js";
import type { ChapCredentials, ChapPair } from "../node-iscsi-initiator/index.js";
import { stringOption } from "./command.js";
import { type Context } from "./context.js";
import { usageError } from "./exit-code.js";

const FILE_BYTES_MAX = 1_024;

export function withChapOptions(command: Command): Command {
  return command
    .option("--chap-user <name>", "CHAP: the user of this initiator")
    .option("--chap-secret-file <file>", "file (mode 0600) with its secret; else it is asked for")
    .option("--chap-in-user <name>", "mutual CHAP: the user of the target")
    .option("--chap-in-secret-file <file>", "file (mode 0600) with the target's secret");
}

/** @returns undefined without any of the options. @throws ERR_USAGE, ERR_ISCSI_SECRET_FILE */
export async function chapOption(
  context: Context,
  options: Readonly<Record<string, unknown>>,
): Promise<ChapCredentials | undefined> {
  const own = await pairOption(context, options, "chap");
  const mutual = await pairOption(context, options, "chapIn");
  if (own === undefined && mutual !== undefined) {
    throw usageError(
      "--chap-in-user without --chap-user",
      "Mutual CHAP is on top of CHAP: give --chap-user too.",
    );
  }
  return own === undefined || mutual === undefined ? own : { ...own, mutual };
}

async function pairOption(
  context: Context,
  options: Readonly<Record<string, unknown>>,
  name: "chap" | "chapIn",
): Promise<ChapPair | undefined> {
  const flag = name === "chap" ? "--chap" : "--chap-in";
  const user = stringOption(options, `${name}User`);
  const file = stringOption(options, `${name}SecretFile`);
  if (user === undefined) {
    if (file !== undefined) {
      throw usageError(`${flag}-secret-file without ${flag}-user`, `Give ${flag}-user NAME too.`);
    }
    return undefined;
  }
  if (file !== undefined) {
    return { user, secret: readSecretFile(file) };
  }
  if (context.isJson || !context.terminal.canAsk) {
    throw usageError(
      `no secret for ${flag}-user, and no terminal to ask on`,
      `Put the secret in a file of mode 0600 and give ${flag}-secret-file FILE.`,
    );
  }
  const { askSecret } = await import("./ask.js");
  return { user, secret: await askSecret(`secret for ${flag}-user (not shown): `) };
}

/** @throws ERR_ISCSI_SECRET_FILE */
export function readSecretFile(file: string): string {
  let fd: number;
  try {
    // A pipe without a writer would block the open.
    fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw secretFileError(file, error instanceof Error ? error.message : String(error));
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) {
      throw secretFileError(file, "it is no regular file");
    }
    if ((stat.mode & 0o077) !== 0) {
      const mode = (stat.mode & 0o777).toString(8).padStart(4, "0");
      throw secretFileError(file, `others may read or write it (mode ${mode})`, "chmod 600");
    }
    if (stat.size > FILE_BYTES_MAX) {
      throw secretFileError(file, `it has ${stat.size} bytes`);
    }
    const bytes = Buffer.alloc(FILE_BYTES_MAX);
    const text = bytes.toString("utf8", 0, readSync(fd, bytes)).replace(/\r?\n$/, "");
    if (text === "" || text.includes("\n")) {
      throw secretFileError(file, text === "" ? "it is empty" : "it has several lines");
    }
    return text;
  } finally {
    closeSync(fd);
  }
}

function secretFileError(file: string, why: string, command?: string): ShareHaError {
  return new ShareHaError("ERR_ISCSI_SECRET_FILE", `the secret in ${file} cannot be used: ${why}`, {
    hint:
      command === undefined
        ? "Give a file with the secret in one line, mode 0600."
        : `Make it yours alone: \`${command} ${file}\`. If others may have read it, change the secret.`,
    fields: { file },
  });
}
