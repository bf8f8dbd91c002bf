/**
 * The control API of the daemon: HTTP + JSON on the Unix socket `control.sock` of the state directory (mode 0600).
 * Types of the bodies; u64 values travel as decimal strings. `docs/api.md` has the same for people.
 *
 *   GET  /v1/status                                   -> StatusBody
 *   GET  /v1/events?after=SEQ&waitMs=N                -> EventsBody   (long poll when waitMs is given)
 *   GET  /v1/leases                                   -> { leases: LeaseBody[] }
 *   GET  /v1/leases/NAME                              -> LeaseBody
 *   POST /v1/leases/NAME/create | /delete             -> { lease: LeaseBody }
 *   POST /v1/leases/NAME/acquire  AcquireBody         -> AcquiredBody
 *   POST /v1/leases/NAME/release                      -> { released: true }
 *   POST /v1/groups/NAME/reserve  ReserveBody         -> ReservedBody  (NAME "-": the only group there is)
 *   POST /v1/groups/NAME/release                      -> { released: true }
 *   POST /v1/hosts/NAME/confirm-off                   -> { hostId, generation, validSeconds }
 *   POST /v1/leave                                    -> { left: true }
 *   POST /v1/protect ProtectBody                      -> { protected: true }
 *   GET  /v1/config  PUT /v1/config ConfigBody        -> ConfigBody
 *   POST /v1/config/undo { stamp }                    -> ConfigBody       (the previous text, as a new change)
 *   POST /v1/luns/replace ReplaceLunBody              -> LunReplacedBody
 *
 * Bound to its connection: an acquire with `bindToConnection` and every protect that follows on the same connection. The
 * client polls `/v1/events` with waitMs on that connection, so it is never idle for long. When the connection closes,
 * for whatever reason, the daemon first ends what was protected on it (KILL, exact process and its session) and only then
 * releases the lease: a client that is killed must not leave a writer behind. When the node loses its right to write, the
 * daemon closes the connection. A wait (acquire, reserve) ends when the client closes the connection.
 *
 * An error is `{ error: { code, message, hint, fields } }` with status 400 (bad request), 404 (no such thing),
 * 409 (refused now: held, timed out, not armed), 503 (no quorum, not joined) or 500.
 */

export interface ErrorBody {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly hint: string;
    readonly fields: Readonly<Record<string, string | number | boolean>>;
  };
}

export type MemberState = "live" | "silent" | "expired" | "left" | "foreign" | "unreadable";

export interface MemberBody {
  readonly hostId: number;
  readonly name: string;
  readonly generation: string;
  readonly state: MemberState;
  readonly isSelf: boolean;
  /** How long its record has been seen unchanged, ms. */
  readonly unchangedMs: number;
  /** What expiry needs, ms; null where expiry proves nothing, and then `whyNoExpiry` says why. */
  readonly expiresAfterMs: number | null;
  readonly whyNoExpiry: string | null;
  readonly watchdog: "hardware" | "guard" | "none" | "unknown";
  readonly armed: boolean;
  readonly virtual: boolean;
  /** The newest renewal's write latency, ms; only known of oneself. */
  readonly latencyMs: number | null;
}

export interface HolderBody {
  readonly hostId: number;
  readonly name: string;
  readonly generation: string;
  readonly shared: boolean;
  /** ISO 8601, as the holder's clock said; null when unknown. */
  readonly since: string | null;
}

export interface LeaseBody {
  readonly name: string;
  readonly area: number;
  /** The lease's version, which is its fencing token; decimal. */
  readonly version: string;
  readonly holders: readonly HolderBody[];
  readonly heldHere: boolean;
  /** Names of the nodes that wait, in the order in which they go. */
  readonly queue: readonly string[];
}

export interface LunBody {
  readonly path: string;
  readonly uuid: string;
  readonly counts: boolean;
  readonly state: "ok" | "late" | "failed" | "stuck" | "blank" | "foreign" | "stale";
  readonly why: string | null;
  readonly latencyMs: number | null;
}

export interface GroupBody {
  readonly name: string;
  readonly lease: string;
  readonly device: string;
  readonly mount: { readonly path: string; readonly type: string; readonly options: string } | null;
  readonly state: "up" | "down" | "starting" | "stopping" | "failed" | "held-elsewhere";
  readonly holder: HolderBody | null;
  readonly queue: readonly string[];
  readonly why: string | null;
}

export interface StatusBody {
  readonly version: string;
  readonly cluster: { readonly name: string; readonly uuid: string; readonly epoch: string };
  readonly node: {
    readonly name: string;
    readonly hostId: number | null;
    readonly generation: string | null;
    readonly state: "joining" | "joined" | "lost" | "leaving";
    readonly why: string | null;
  };
  readonly timers: {
    readonly profile: string;
    readonly intervalMs: number;
    readonly deadlineMs: number;
    readonly ttlMs: number;
    readonly watchdogMs: number;
  };
  readonly watchdog: {
    readonly kind: "hardware" | "guard" | "none";
    readonly device: string | null;
    readonly armed: boolean;
    readonly note: string | null;
  };
  readonly members: readonly MemberBody[];
  readonly leases: readonly LeaseBody[];
  readonly groups: readonly GroupBody[];
  readonly luns: readonly LunBody[];
  /** Everything that is not possible now, with its remedy. */
  readonly hindrances: readonly {
    readonly what: string;
    readonly why: string;
    readonly remedy: string;
  }[];
  /** Age of the own heartbeat, ms. */
  readonly heartbeatMs: number | null;
}

export interface EventBody {
  readonly seq: number;
  /** ISO 8601. */
  readonly at: string;
  /** CLOCK_BOOTTIME of this node, ms. */
  readonly bootMs: number;
  /** `joined`, `left`, `lease-granted`, `lease-released`, `take-over`, `mounted`, `unmounted`, `lost`, ... */
  readonly event: string;
  readonly text: string;
  readonly fields: Readonly<Record<string, string | number | boolean>>;
}

export interface EventsBody {
  readonly events: readonly EventBody[];
  readonly next: number;
}

export interface AcquireBody {
  readonly shared: boolean;
  /** 0: one try; null: wait for ever. */
  readonly waitMs: number | null;
  /** The lease is released when this HTTP connection closes (`sharedha run`). */
  readonly bindToConnection: boolean;
}

export interface AcquiredBody {
  readonly name: string;
  readonly version: string;
  readonly shared: boolean;
  /** How it was taken from a dead host, if it was. */
  readonly evidence: readonly {
    readonly kind: string;
    readonly hostId: number;
    readonly detail: string;
  }[];
  readonly waitedMs: number;
}

/** What must not outlive the lease that was acquired on the same connection. */
export interface ProtectBody {
  /** Leader of a session of its own (setsid): the daemon ends it and every process of its session. */
  readonly pid: number;
}

export interface ConfirmedBody {
  readonly hostId: number;
  readonly generation: string;
  readonly validSeconds: number;
}

export interface ReplaceLunBody {
  /** As the daemon finds it: absolute. */
  readonly path: string;
  /** Also a device that holds data; never one in use. */
  readonly force: boolean;
}

export interface LunReplacedBody {
  readonly lun: number;
  readonly epoch: string;
}

export interface UndoBody {
  /** Of the configuration that is to be undone; a newer one on disk is a conflict (409). */
  readonly stamp: string;
}

export interface ReserveBody {
  readonly waitMs: number | null;
}

export interface ReservedBody extends AcquiredBody {
  readonly group: string;
  readonly mountPath: string | null;
  /** How long each step took, ms, in order. */
  readonly steps: readonly { readonly step: string; readonly ms: number }[];
}

export interface ConfigBody {
  /** The TOML text as people edit it. */
  readonly toml: string;
  /** (lver, generation) of the write; send it back unchanged, a newer one on disk is a conflict (409). */
  readonly stamp: string;
}
