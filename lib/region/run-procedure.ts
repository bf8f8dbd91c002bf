/**
 * Carries out a protocol on real LUNs: performs what the generator yields and resumes it with what came of it. The
 * simulator has the same thing for simulated ones (test/sim).
 */
import { ShareHaError } from "../errors.js";
import {
  type DiskProcedure,
  type LunSet,
  majorityOf,
  type OutboxChange,
  type Request,
  type Standing,
  type Turn,
} from "../lease/procedure.js";
import { type Clock } from "../port/clock.js";
import { type BatchResult, type DiskOp, type LunDevice } from "../port/disk.js";

export interface ProcedureHost {
  readonly devices: readonly LunDevice[];
  readonly luns: LunSet;
  /** d: an I/O that takes longer does not count. */
  readonly deadlineMs: number;
  readonly clock: Clock;
  /** This node's right to write, as pulse last told. */
  standing(): Standing;
  /** Asks pulse to change the outbox; true when it is on a majority. */
  post(change: OutboxChange): Promise<boolean>;
  /** Asks pulse to arm; true when armed = 1 is on a majority. */
  arm(): Promise<boolean>;
  /** Wakes sleepers early; the procedure looks for itself what happened. */
  readonly signal?: AbortSignal;
}

/** The standing of somebody who holds nothing and may hold nothing: for looking and for joining. */
export const NO_STANDING: Standing = { renewedAtMs: 0, ttlMs: 0, lost: false, armed: false };

/** Resolves with what the procedure returns; rejects only with what it throws. */
export async function runProcedure<T>(
  procedure: DiskProcedure<T>,
  host: ProcedureHost,
): Promise<T> {
  let step = procedure.next();
  while (step.done !== true) {
    const turn = await perform(step.value, host);
    step = procedure.next(turn);
  }
  return step.value;
}

async function perform(request: Request, host: ProcedureHost): Promise<Turn> {
  switch (request.kind) {
    case "io":
      return turnOf(host, await submitAll(host, request.ops, request.wait), true);
    case "sleep":
      await sleepUnlessAborted(request.ms, host.signal);
      return turnOf(host, [], true);
    case "post":
      return turnOf(host, [], await host.post(request.change));
    case "arm":
      return turnOf(host, [], await host.arm());
  }
}

function turnOf(host: ProcedureHost, luns: readonly BatchResult[], accepted: boolean): Turn {
  return { nowMs: host.clock.bootMs(), standing: host.standing(), luns, accepted };
}

/**
 * Submits to every LUN at once. With `majority` it does not wait for stragglers: a LUN that has not answered yet is
 * reported as `late` for this turn. Its batch is still carried out, in order before the next one.
 */
async function submitAll(
  host: ProcedureHost,
  ops: readonly DiskOp[],
  wait: "majority" | "all",
): Promise<readonly BatchResult[]> {
  const { devices, luns, deadlineMs } = host;
  const only = devices[0];
  if (devices.length === 1 && only !== undefined) {
    return [await only.submit(ops, deadlineMs)];
  }
  const results: BatchResult[] = devices.map(() => ({ kind: "late" }));
  const needed = wait === "all" ? Infinity : majorityOf(luns);
  const submit = async (device: LunDevice): Promise<BatchResult> => {
    try {
      return await device.submit(ops, deadlineMs);
    } catch (error) {
      // Turns that did not wait for this LUN have filled its queue since it stopped answering, and none of them has
      // reached its deadline yet. Nothing more is issued to it; the majority goes on.
      if (error instanceof ShareHaError && error.code === "ERR_IO_QUEUE") {
        return { kind: "busy" };
      }
      throw error;
    }
  };
  await new Promise<void>((resolve, reject) => {
    let answered = 0;
    let counted = 0;
    devices.forEach((device, lun) => {
      submit(device).then((result) => {
        results[lun] = result;
        answered++;
        counted += result.kind === "done" && luns.counts[lun] === true ? 1 : 0;
        if (counted >= needed || answered === devices.length) {
          resolve();
        }
      }, reject);
    });
  });
  return [...results];
}

function sleepUnlessAborted(ms: number, signal: AbortSignal | undefined): Promise<void> {
  if (signal?.aborted === true) {
    return Promise.resolve();
  }
  return new Promise((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", finish);
      resolve();
    };
    const timer = setTimeout(finish, ms);
    signal?.addEventListener("abort", finish, { once: true });
  });
}
