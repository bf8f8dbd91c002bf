/**
 * `member.json`: what this node last was a member as. Unlike everything else that pulse leaves behind it means something
 * after a reboot too: of a record under this node's name it tells whether that was a member, or a join that failed.
 */
import { join } from "node:path";

import { writeFileAtomic } from "../system/state-dir.js";
import { type HostGeneration } from "./options.js";
import { readJsonFile } from "./state-file.js";

const FILE = "member.json";

/** Durable when it returns. */
export function saveLastMembership(stateDir: string, last: HostGeneration): void {
  const body = { hostId: last.hostId, generation: String(last.generation) };
  writeFileAtomic(join(stateDir, FILE), `${JSON.stringify(body)}\n`);
}

/** @returns undefined when this node never was a member; @throws Error when the file is damaged */
export function readLastMembership(stateDir: string): HostGeneration | undefined {
  const found = readJsonFile(stateDir, FILE);
  if (found === undefined) {
    return undefined;
  }
  const isObject = typeof found === "object" && found !== null;
  const hostId = isObject && "hostId" in found ? found.hostId : undefined;
  const generation = isObject && "generation" in found ? found.generation : undefined;
  if (
    typeof hostId !== "number" ||
    !Number.isInteger(hostId) ||
    typeof generation !== "string" ||
    !/^\d{1,20}$/.test(generation)
  ) {
    throw new Error(`${FILE} is not what was written`);
  }
  return { hostId, generation: BigInt(generation) };
}
