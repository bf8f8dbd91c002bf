/** Carries out a protocol on simulated LUNs: what lib/region/run-procedure.ts does on real ones, with callbacks. */
import {
  type DiskProcedure,
  type LunSet,
  majorityOf,
  type OutboxChange,
  type Request,
  type Standing,
} from "../../lib/lease/procedure.js";
import { type BatchResult, type DiskOp } from "../../lib/port/disk.js";
import { type Process } from "./machine.js";
import { type SimDevice } from "./sim-device.js";

export interface DriverHost {
  readonly process: Process;
  readonly devices: readonly SimDevice[];
  readonly luns: LunSet;
  readonly deadlineMs: number;
  standing(): Standing;
  post(change: OutboxChange, done: (accepted: boolean) => void): void;
  arm(done: (accepted: boolean) => void): void;
  /** False: whoever wanted this has gone, and the procedure is never resumed. */
  wanted(): boolean;
}

const LATE: BatchResult = { kind: "late" };

export function drive<T>(
  procedure: DiskProcedure<T>,
  host: DriverHost,
  done: (result: T) => void,
): void {
  const resume = (luns: readonly BatchResult[], accepted: boolean): void => {
    if (!host.wanted()) {
      return;
    }
    const turn = {
      nowMs: host.process.machine.bootMs(),
      standing: host.standing(),
      luns,
      accepted,
    };
    perform(procedure.next(turn));
  };
  const perform = (step: IteratorResult<Request, T>): void => {
    if (step.done === true) {
      done(step.value);
      return;
    }
    const request = step.value;
    switch (request.kind) {
      case "io":
        submitAll(host, request.ops, request.wait, (luns) => {
          resume(luns, true);
        });
        break;
      case "sleep":
        host.process.after(request.ms, () => {
          resume([], true);
        });
        break;
      case "post":
        host.post(request.change, (accepted) => {
          resume([], accepted);
        });
        break;
      case "arm":
        host.arm((accepted) => {
          resume([], accepted);
        });
        break;
    }
  };
  perform(procedure.next());
}

/** With `majority` a LUN that has not answered yet is `late` for this turn; its batch is carried out all the same. */
export function submitAll(
  host: Pick<DriverHost, "devices" | "luns" | "deadlineMs">,
  ops: readonly DiskOp[],
  wait: "majority" | "all",
  done: (luns: readonly BatchResult[]) => void,
): void {
  const { devices, luns, deadlineMs } = host;
  const results: BatchResult[] = devices.map(() => LATE);
  const needed = wait === "all" ? Infinity : majorityOf(luns);
  let answered = 0;
  let counted = 0;
  let over = false;
  devices.forEach((device, lun) => {
    device.submit(ops, deadlineMs, (result) => {
      answered++;
      if (over) {
        return;
      }
      results[lun] = result;
      counted += result.kind === "done" && luns.counts[lun] === true ? 1 : 0;
      if (counted >= needed || answered === devices.length) {
        over = true;
        done(results);
      }
    });
  });
}
