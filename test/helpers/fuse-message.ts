/** What goes over the IPC channel between a test (hanging-lun.ts) and its FUSE server (fuse-server.ts). */

export type FaultCommand =
  | { readonly do: "hang"; readonly reads: boolean; readonly writes: boolean }
  | { readonly do: "release" }
  | { readonly do: "drop"; readonly errno: number }
  | {
      readonly do: "fail";
      readonly errno: number;
      readonly reads: boolean;
      readonly writes: boolean;
    }
  | { readonly do: "heal" }
  | { readonly do: "count" }
  | { readonly do: "quit" };

export interface FaultAnswer {
  /** Requests that wait for `release` or `drop`. */
  readonly held: number;
  /** Writes that have reached the backing file. */
  readonly written: number;
}
