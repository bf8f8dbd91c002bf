/** What goes between a LUN's device and its worker thread (lun-device.ts, lun-worker.ts). */

/** `workerData` of the thread. */
export interface LunWorkerSetup {
  /**
   * One counter: the device adds to it after every request. The worker sleeps on it instead of in an event loop, which
   * halves the round trip of a request.
   */
  readonly wake: Int32Array<SharedArrayBuffer>;
  readonly path: string;
  readonly baseOffset: number;
  readonly size: number;
  readonly sectorSize: number;
  readonly readOnly: boolean;
  readonly lockFile: string | undefined;
  readonly lockWaitMs: number;
  readonly realtime: boolean;
}

/** One operation; the data of all writes lie one after the other in the request's buffer. */
export interface WireOp {
  readonly write: boolean;
  readonly offset: number;
  readonly length: number;
}

export type LunRequest =
  | {
      readonly kind: "batch";
      readonly id: number;
      /** CLOCK_BOOTTIME; no operation is started after it. */
      readonly deadlineAtMs: number;
      readonly ops: readonly WireOp[];
      readonly data: Uint8Array<ArrayBuffer>;
    }
  | { readonly kind: "close" };

export type LunReply =
  | { readonly kind: "opened"; readonly realtime: boolean }
  | {
      readonly kind: "refused";
      readonly code: string;
      readonly message: string;
      readonly hint: string;
    }
  | {
      readonly kind: "done";
      readonly id: number;
      /** The data of all reads, one after the other. */
      readonly data: Uint8Array<ArrayBuffer>;
      /** Two numbers per operation: started, completed. */
      readonly times: readonly number[];
    }
  | {
      readonly kind: "failed";
      readonly id: number;
      readonly code: string;
      readonly message: string;
    }
  | { readonly kind: "late"; readonly id: number };

/** Below this, copying a buffer is quicker than handing it over (measured: the transfer itself costs some microseconds). */
const TRANSFER_BYTES_MIN = 64 * 1024;

/** The second argument of postMessage for a message with this buffer; the sender must not use a large one any more. */
export function transferList(data: Uint8Array<ArrayBuffer>): ArrayBuffer[] {
  return data.length < TRANSFER_BYTES_MIN ? [] : [data.buffer];
}
