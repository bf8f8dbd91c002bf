/**
 * What the daemon and pulse say to each other on `pulse.sock`: JSON lines (lib/net/json-lines.ts; bigints survive).
 * The daemon asks, pulse answers with the same `id`; pulse also sends `beat` after every beat and `ping`.
 */
import { type DeltaSector } from "../format/delta-sector.js";
import { type Outbox } from "../format/outbox.js";
import { type WatchedLease } from "../lease/heartbeat.js";
import { type OutboxChange } from "../lease/procedure.js";
import { type MountTarget } from "../system/mounted-filesystem.js";

export interface ProcessId {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: with the pid it names one process for ever. */
  readonly startTime: string;
}

/** What must be made to fail and be killed when this node expires without a hardware watchdog. */
export interface Protected {
  /** Mounts of groups, announced before they are made. */
  readonly mounts: readonly MountTarget[];
  readonly processes: readonly ProcessId[];
}

export type PulseRequest =
  | { readonly op: "hello" }
  | { readonly op: "arm" }
  | { readonly op: "disarm" }
  | { readonly op: "post"; readonly change: OutboxChange }
  | { readonly op: "watch"; readonly leases: readonly WatchedLease[] }
  | { readonly op: "protect"; readonly protect: Protected }
  /** Reads lockspace and outboxes now, out of turn, and answers with a Beat. */
  | { readonly op: "observe" }
  /** The daemon answers every ping; `groupUp`: something of a group is mounted or running. */
  | { readonly op: "pong"; readonly groupUp: boolean }
  /** The daemon has an I/O out that is past its deadline: pulse refuses to disarm and to leave. */
  | { readonly op: "stuck"; readonly stuck: boolean }
  | { readonly op: "leave" };

export interface Hello {
  readonly hostId: number;
  readonly generation: bigint;
  readonly joinEvidence: string;
  readonly watchdog: {
    readonly kind: "hardware" | "guard" | "none";
    readonly device: string | undefined;
  };
  readonly process: ProcessId;
  readonly guard: ProcessId | undefined;
  readonly beat: Beat;
}

export interface BeatHost {
  readonly hostId: number;
  readonly record: DeltaSector | undefined;
  readonly trouble: string | undefined;
  readonly unchangedMs: number;
  readonly lastSeenMs: number;
}

export interface Beat {
  /** Start of the newest counted renewal (CLOCK_BOOTTIME); undefined before the first. */
  readonly renewedAtMs: number | undefined;
  /** armed = 1 is on a majority. */
  readonly armed: boolean;
  readonly lost: string | undefined;
  readonly luns: readonly {
    readonly state: "ok" | "late" | "failed" | "stuck";
    readonly why: string | undefined;
    readonly latencyMs: number | undefined;
  }[];
  /** Every host id that was ever used. */
  readonly hosts: readonly BeatHost[];
  readonly outboxes: readonly Outbox[];
}

export type PulseEvent =
  { readonly event: "beat"; readonly beat: Beat } | { readonly event: "ping"; readonly n: number };

export type PulseAnswer =
  | { readonly id: number; readonly ok: true; readonly result: unknown }
  | { readonly id: number; readonly ok: false; readonly code: string; readonly message: string };

export type PulseMessage = PulseEvent | PulseAnswer;

export type PulseCall = { readonly id: number } & PulseRequest;

/** What pulse says to the guard on `guard.sock`. The guard answers every call, pets too: only that proves that it runs. */
export type GuardRequest =
  | { readonly op: "hello" }
  | { readonly op: "arm"; readonly expiresAtMs: number }
  /** Absolute CLOCK_BOOTTIME: start of the renewal + d + W. Never later than the hardware's would be. */
  | { readonly op: "pet"; readonly expiresAtMs: number }
  | { readonly op: "disarm" }
  | { readonly op: "protect"; readonly protect: Protected }
  /** Clean leave: disarmed, nothing protected; the guard exits. */
  | { readonly op: "exit" };

export type GuardCall = { readonly id: number } & GuardRequest;

export type GuardAnswer =
  | { readonly id: number; readonly ok: true; readonly process: ProcessId; readonly armed: boolean }
  | { readonly id: number; readonly ok: false; readonly code: string; readonly message: string };
