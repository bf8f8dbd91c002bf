/** The shapes of the control API's answers (lib/net/api.ts), for clients that must not trust what comes back. */
import {
  type AcquiredBody,
  type ConfigBody,
  type ConfirmedBody,
  type ErrorBody,
  type EventBody,
  type EventsBody,
  type GroupBody,
  type HolderBody,
  type LeaseBody,
  type LunBody,
  type LunReplacedBody,
  type MemberBody,
  type ReservedBody,
  type StatusBody,
} from "./api.js";
import { listOf, nullable, objectShape, oneOf, type Shape } from "./shape.js";

const WATCHDOG_KIND = oneOf("hardware", "guard", "none", "unknown");

const HOLDER = objectShape<HolderBody>({
  hostId: "number",
  name: "string",
  generation: "string",
  shared: "boolean",
  since: nullable("string"),
});

const MEMBER = objectShape<MemberBody>({
  hostId: "number",
  name: "string",
  generation: "string",
  state: oneOf("live", "silent", "expired", "left", "foreign", "unreadable"),
  isSelf: "boolean",
  unchangedMs: "number",
  expiresAfterMs: nullable("number"),
  whyNoExpiry: nullable("string"),
  watchdog: WATCHDOG_KIND,
  armed: "boolean",
  virtual: "boolean",
  latencyMs: nullable("number"),
});

const LEASE = objectShape<LeaseBody>({
  name: "string",
  area: "number",
  version: "string",
  holders: listOf(HOLDER),
  heldHere: "boolean",
  queue: listOf("string"),
});

const LUN = objectShape<LunBody>({
  path: "string",
  uuid: "string",
  counts: "boolean",
  state: oneOf("ok", "late", "failed", "stuck", "blank", "foreign", "stale"),
  why: nullable("string"),
  latencyMs: nullable("number"),
});

const GROUP = objectShape<GroupBody>({
  name: "string",
  lease: "string",
  device: "string",
  mount: nullable(
    objectShape<NonNullable<GroupBody["mount"]>>({
      path: "string",
      type: "string",
      options: "string",
    }),
  ),
  state: oneOf("up", "down", "starting", "stopping", "failed", "held-elsewhere"),
  holder: nullable(HOLDER),
  queue: listOf("string"),
  why: nullable("string"),
});

const EVENT = objectShape<EventBody>({
  seq: "number",
  at: "string",
  bootMs: "number",
  event: "string",
  text: "string",
  fields: "scalars",
});

const ACQUIRED_FIELDS = {
  name: "string",
  version: "string",
  shared: "boolean",
  evidence: listOf(
    objectShape<AcquiredBody["evidence"][number]>({
      kind: "string",
      hostId: "number",
      detail: "string",
    }),
  ),
  waitedMs: "number",
} as const satisfies Record<keyof AcquiredBody, Shape>;

export const STATUS_SHAPE = objectShape<StatusBody>({
  version: "string",
  cluster: objectShape<StatusBody["cluster"]>({ name: "string", uuid: "string", epoch: "string" }),
  node: objectShape<StatusBody["node"]>({
    name: "string",
    hostId: nullable("number"),
    generation: nullable("string"),
    state: oneOf("joining", "joined", "lost", "leaving"),
    why: nullable("string"),
  }),
  timers: objectShape<StatusBody["timers"]>({
    profile: "string",
    intervalMs: "number",
    deadlineMs: "number",
    ttlMs: "number",
    watchdogMs: "number",
  }),
  watchdog: objectShape<StatusBody["watchdog"]>({
    kind: WATCHDOG_KIND,
    device: nullable("string"),
    armed: "boolean",
    note: nullable("string"),
  }),
  members: listOf(MEMBER),
  leases: listOf(LEASE),
  groups: listOf(GROUP),
  luns: listOf(LUN),
  hindrances: listOf(
    objectShape<StatusBody["hindrances"][number]>({
      what: "string",
      why: "string",
      remedy: "string",
    }),
  ),
  heartbeatMs: nullable("number"),
});

export const ERROR_SHAPE = objectShape<ErrorBody>({
  error: objectShape<ErrorBody["error"]>({
    code: "string",
    message: "string",
    hint: "string",
    fields: "scalars",
  }),
});

export const EVENTS_SHAPE = objectShape<EventsBody>({ events: listOf(EVENT), next: "number" });
export const LEASE_SHAPE = LEASE;
export const LEASES_SHAPE = objectShape<{ leases: unknown }>({ leases: listOf(LEASE) });
export const LEASE_ANSWER_SHAPE = objectShape<{ lease: unknown }>({ lease: LEASE });
export const ACQUIRED_SHAPE = objectShape<AcquiredBody>(ACQUIRED_FIELDS);
export const RESERVED_SHAPE = objectShape<ReservedBody>({
  ...ACQUIRED_FIELDS,
  group: "string",
  mountPath: nullable("string"),
  steps: listOf(objectShape<ReservedBody["steps"][number]>({ step: "string", ms: "number" })),
});
export const RELEASED_SHAPE = objectShape<{ released: unknown }>({ released: "boolean" });
export const LEFT_SHAPE = objectShape<{ left: unknown }>({ left: "boolean" });
export const PROTECTED_SHAPE = objectShape<{ protected: unknown }>({ protected: "boolean" });
export const CONFIRMED_SHAPE = objectShape<ConfirmedBody>({
  hostId: "number",
  generation: "string",
  validSeconds: "number",
});
export const CONFIG_SHAPE = objectShape<ConfigBody>({ toml: "string", stamp: "string" });
export const LUN_REPLACED_SHAPE = objectShape<LunReplacedBody>({ lun: "number", epoch: "string" });
