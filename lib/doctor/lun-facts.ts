/** What doctor gets to know of one path, and what its looks in other processes send. Types only. */
import { type LunContent } from "../lease/lun-set.js";
import { type HostLook } from "../region/lockspace-look.js";
import { type RegionWindow } from "../region/region-lun.js";
import { type DiskFacts } from "../system/disk-look.js";
import { type LunFacts } from "../system/lun-probe.js";
import { type MultipathFacts } from "../system/multipath-look.js";
import { type ScsiLook } from "../system/scsi-look.js";
import { type ChildEnd } from "../system/watched-child.js";

export interface Trouble {
  readonly code: string;
  readonly message: string;
  readonly hint: string;
}

export interface LatencySamples {
  /** Milliseconds of each direct read that completed. */
  readonly samples: readonly number[];
  /** A read that had not completed after so long, or failed, ended the measurement. */
  readonly end:
    | { readonly kind: "late"; readonly afterMs: number }
    | { readonly kind: "failed"; readonly why: string }
    | undefined;
  readonly readBytes: number;
}

export interface HostsLook {
  readonly hosts: readonly HostLook[];
  /** Between the two looks. */
  readonly windowMs: number;
  readonly failure: string | null;
}

/** What lun-look-main.ts sends, in this order; it ends early when the device does not let it go on. */
export type LunMessage =
  | {
      readonly kind: "probe";
      readonly facts: LunFacts;
      readonly major: bigint;
      readonly minor: bigint;
    }
  | {
      readonly kind: "region";
      readonly content: LunContent;
      readonly window: RegionWindow;
      readonly isOpen: boolean;
    }
  | { readonly kind: "configuration"; readonly vmPause: "never" | "possible" }
  | { readonly kind: "latency"; readonly latency: LatencySamples }
  | { readonly kind: "hosts"; readonly hosts: HostsLook }
  /** Instead of what would have come next. */
  | { readonly kind: "trouble"; readonly trouble: Trouble };

/** What scsi-look-main.ts sends. */
export type ScsiMessage =
  | { readonly kind: "scsi"; readonly look: ScsiLook }
  | { readonly kind: "trouble"; readonly trouble: Trouble };

/** A look that may come to nothing. */
export type Looked<T> =
  { readonly kind: "ok"; readonly value: T } | { readonly kind: "failed"; readonly why: string };

export interface LunLook {
  readonly path: string;
  /** How the look ended; "late" when the device hangs. */
  readonly end: ChildEnd;
  readonly trouble: Trouble | undefined;
  readonly probe: LunFacts | undefined;
  readonly region: Omit<Extract<LunMessage, { kind: "region" }>, "kind"> | undefined;
  readonly vmPause: "never" | "possible" | undefined;
  readonly latency: LatencySamples | undefined;
  readonly hosts: HostsLook | undefined;
  /** Undefined for a file, and when the path could not even be probed. */
  readonly disk: Looked<DiskFacts> | undefined;
  readonly multipath: Looked<MultipathFacts> | undefined;
  /** By kernel name, one for each SCSI disk below. */
  readonly scsi: Readonly<Record<string, Looked<ScsiLook>>>;
}
