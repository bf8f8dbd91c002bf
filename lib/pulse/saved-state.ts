/**
 * `pulse.json`: what a restarted pulse needs to carry the generation on, and `protected.json`: what a restarted pulse or
 * guard must protect before anything else. Both are worthless after a reboot, so they carry the boot.
 */
import { join } from "node:path";

import { writeFileAtomic } from "../system/state-dir.js";
import { type ProcessId, type Protected } from "./messages.js";
import { readJsonFile, removeFile } from "./state-file.js";

export interface KeeperState {
  readonly process: ProcessId;
  readonly device: string;
  readonly watchdogMs: number;
}

export interface PulseState {
  readonly pid: number;
  readonly startTime: string;
  readonly hostId: number;
  readonly generation: bigint;
  readonly bootIdHash: bigint;
  readonly node: string;
  readonly joinEvidence: string;
  /** The delta sector as written by the join. */
  readonly record: Uint8Array;
  /** Kind hardware, while armed: who holds the watchdog's descriptor. */
  readonly keeper: KeeperState | undefined;
}

const PULSE_FILE = "pulse.json";
const PROTECTED_FILE = "protected.json";

export function savePulseState(stateDir: string, state: PulseState): void {
  const { generation, bootIdHash, record, keeper, ...rest } = state;
  const body = {
    ...rest,
    generation: String(generation),
    bootIdHash: String(bootIdHash),
    record: Buffer.from(record).toString("hex"),
    keeper: keeper ?? null,
  };
  writeFileAtomic(join(stateDir, PULSE_FILE), `${JSON.stringify(body)}\n`);
}

/** @returns undefined when there is none, or none of this boot; @throws Error when it is damaged */
export function readPulseState(stateDir: string, bootIdHash: bigint): PulseState | undefined {
  const found = readJsonFile(stateDir, PULSE_FILE);
  if (found === undefined) {
    return undefined;
  }
  if (typeof found !== "object" || found === null) {
    throw new Error(`${PULSE_FILE} is not an object`);
  }
  const state = found as Record<string, unknown>;
  if (state["bootIdHash"] !== String(bootIdHash)) {
    return undefined;
  }
  return {
    pid: wholeOf(state, "pid"),
    startTime: textOf(state, "startTime", /^\d{1,20}$/),
    hostId: wholeOf(state, "hostId"),
    generation: BigInt(textOf(state, "generation", /^\d{1,20}$/)),
    bootIdHash,
    node: textOf(state, "node", /^.+$/),
    joinEvidence: textOf(state, "joinEvidence", /^[a-z-]+$/),
    record: Buffer.from(textOf(state, "record", /^([0-9a-f]{2}){512,4096}$/), "hex"),
    keeper: keeperOf(state["keeper"]),
  };
}

export function removePulseState(stateDir: string): void {
  removeFile(stateDir, PULSE_FILE);
  removeFile(stateDir, PROTECTED_FILE);
}

export function saveProtected(stateDir: string, protect: Protected, bootIdHash: bigint): void {
  const body = { ...protect, bootIdHash: String(bootIdHash) };
  writeFileAtomic(join(stateDir, PROTECTED_FILE), `${JSON.stringify(body)}\n`);
}

/** The parsed file of this boot; the caller judges it like anything from outside. */
export function readProtected(stateDir: string, bootIdHash: bigint): unknown {
  const found = readJsonFile(stateDir, PROTECTED_FILE);
  const isOfThisBoot =
    typeof found === "object" &&
    found !== null &&
    "bootIdHash" in found &&
    found.bootIdHash === String(bootIdHash);
  return isOfThisBoot ? found : undefined;
}

function keeperOf(value: unknown): KeeperState | undefined {
  if (value === null || value === undefined) {
    return undefined;
  }
  const keeper = recordOf(value, "keeper");
  const id = recordOf(keeper["process"], "keeper.process");
  return {
    process: { pid: wholeOf(id, "pid"), startTime: textOf(id, "startTime", /^\d{1,20}$/) },
    device: textOf(keeper, "device", /^\/.+$/),
    watchdogMs: wholeOf(keeper, "watchdogMs"),
  };
}

function recordOf(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null) {
    throw new Error(`${PULSE_FILE}: ${name} is not an object`);
  }
  return value as Record<string, unknown>;
}

function wholeOf(state: Record<string, unknown>, name: string): number {
  const value = state[name];
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1) {
    throw new Error(`${PULSE_FILE}: ${name} is ${String(value)}`);
  }
  return value;
}

function textOf(state: Record<string, unknown>, name: string, form: RegExp): string {
  const value = state[name];
  if (typeof value !== "string" || !form.test(value)) {
    throw new Error(`${PULSE_FILE}: ${name} is not what was written`);
  }
  return value;
}
