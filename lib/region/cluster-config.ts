/**
 * The cluster configuration: TOML as people write it (DESIGN section 10), checked by one schema, with our own messages.
 */
import { parse as parseToml, TomlError } from "smol-toml";
import { z } from "zod";

import { ShareHaError } from "../errors.js";
import { type Group, problemsOfGroups, type Problem } from "../group/group.js";
import { problemsOfTimings, type Timings } from "../lease/timings.js";

export interface ClusterConfig {
  /** `never`: no host of this cluster is ever stopped, snapshotted or migrated while it runs. */
  readonly vmPause: "never" | "possible";
  /** Evidence `expired-guard` is accepted for every group. */
  readonly acceptGuard: boolean;
  /** A human says that sanlock's own hosts have a watchdog. */
  readonly foreignWatchdog: boolean;
  /** sanlock's hosts may share leases although our members have no hardware watchdog. */
  readonly foreignUnprotected: boolean;
  /** Overrides of the profile's timers, in ms. */
  readonly timers: Partial<Timings>;
  /** In the order of the text. */
  readonly groups: readonly Group[];
}

export type ConfigResult =
  | { readonly kind: "ok"; readonly config: ClusterConfig }
  | { readonly kind: "invalid"; readonly problems: readonly Problem[] };

/** More is no configuration; the region's slot is smaller still (`maxConfigBytes`). */
const TEXT_BYTES_MAX = 64 * 1024;

const Milliseconds = z.int().min(50).max(600_000);

const MountSchema = z.strictObject({
  path: z.string().min(1).max(4000),
  type: z.enum(["ext4", "xfs"]),
  options: z.string().max(1000).default(""),
});

const GroupSchema = z.strictObject({
  device: z.string().min(1).max(4000).default("lun"),
  mount: MountSchema.optional(),
  nodes: z.array(z.string().min(1).max(48)).max(64).default([]),
});

const ConfigSchema = z.strictObject({
  vm_pause: z.enum(["never", "possible"]).default("possible"),
  accept_guard: z.boolean().default(false),
  foreign_watchdog: z.boolean().default(false),
  foreign_unprotected: z.boolean().default(false),
  timers: z
    .strictObject({
      interval_ms: Milliseconds.optional(),
      deadline_ms: Milliseconds.optional(),
      ttl_ms: Milliseconds.optional(),
      watchdog_ms: Milliseconds.optional(),
    })
    .default({}),
  group: z.record(z.string(), GroupSchema).default({}),
});

/** The timers as people write them. */
const TIMER_KEYS: Readonly<Record<keyof Timings, string>> = {
  intervalMs: "interval_ms",
  deadlineMs: "deadline_ms",
  ttlMs: "ttl_ms",
  watchdogMs: "watchdog_ms",
};

/** The keys of each table, and an example of each value, for the messages. */
const KNOWN_KEYS: Readonly<Record<string, readonly string[]>> = {
  "": Object.keys(ConfigSchema.shape),
  timers: Object.values(TIMER_KEYS),
  "group.*": Object.keys(GroupSchema.shape),
  "group.*.mount": Object.keys(MountSchema.shape),
};

const EXAMPLES: Readonly<Record<string, string>> = {
  vm_pause: 'vm_pause = "never"   or   vm_pause = "possible"',
  accept_guard: "accept_guard = false",
  foreign_watchdog: "foreign_watchdog = false",
  foreign_unprotected: "foreign_unprotected = false",
  timers: "[timers]\n  ttl_ms = 4000",
  "timers.*": "ttl_ms = 4000   (whole milliseconds, 50 to 600000)",
  group: '[group.web]\n  device = "lun"',
  "group.*": '[group.web]\n  device = "lun"',
  "group.*.device": 'device = "lun"   or   device = "/dev/mapper/web"',
  "group.*.mount": 'mount = { path = "/srv/web", type = "ext4", options = "noatime" }',
  "group.*.mount.path": 'path = "/srv/web"',
  "group.*.mount.type": 'type = "ext4"   or   type = "xfs"',
  "group.*.mount.options": 'options = "noatime"',
  "group.*.nodes": 'nodes = ["n1", "n2"]',
  "group.*.nodes.*": 'nodes = ["n1", "n2"]',
};

/** Never throws for what is in the text. */
export function parseClusterConfig(text: string): ConfigResult {
  if (Buffer.byteLength(text) > TEXT_BYTES_MAX) {
    const what = `the text has more than ${TEXT_BYTES_MAX} bytes`;
    return { kind: "invalid", problems: [{ path: "", what, example: "" }] };
  }
  let document: unknown;
  try {
    document = parseToml(text);
  } catch (error) {
    if (!(error instanceof TomlError)) {
      throw error;
    }
    return { kind: "invalid", problems: [syntaxProblem(error)] };
  }
  const parsed = ConfigSchema.safeParse(document);
  if (!parsed.success) {
    return { kind: "invalid", problems: parsed.error.issues.map(problemOf) };
  }
  const config = configOf(parsed.data);
  const problems = problemsOfGroups(config.groups);
  return problems.length > 0 ? { kind: "invalid", problems } : { kind: "ok", config };
}

/** @throws ERR_CONFIG with every problem in the message */
export function requireClusterConfig(text: string): ClusterConfig {
  const result = parseClusterConfig(text);
  if (result.kind === "ok") {
    return result.config;
  }
  throw configError(result.problems);
}

export function configError(problems: readonly Problem[]): ShareHaError {
  const lines = problems.map(({ path, what }) => (path === "" ? what : `${path}: ${what}`));
  const example = problems.find((problem) => problem.example !== "")?.example ?? "";
  return new ShareHaError("ERR_CONFIG", `The configuration is not valid. ${lines.join("; ")}.`, {
    hint: example === "" ? "Correct the text and apply it again." : `For example: ${example}`,
    fields: { problems: problems.length },
  });
}

/** How the configuration names a timer. */
export function timerKey(timer: keyof Timings): string {
  return TIMER_KEYS[timer];
}

/**
 * The timers of the cluster: the profile's with the configuration's overrides.
 * @throws ERR_TIMINGS when they do not go together
 */
export function timingsOf(profile: Timings, config: ClusterConfig): Timings {
  const timings = { ...profile, ...config.timers };
  const problems = problemsOfTimings(timings);
  if (problems.length > 0) {
    throw new ShareHaError(
      "ERR_TIMINGS",
      `The timers do not go together: ${problems.join("; ")}.`,
      {
        hint: "Change [timers] in the configuration, or leave it out: each profile's own numbers go together.",
        fields: { ...timings },
      },
    );
  }
  return timings;
}

function syntaxProblem(error: TomlError): Problem {
  const reason = error.message.split("\n")[0] ?? "not valid TOML";
  const what = `line ${error.line}, column ${error.column}: ${reason}`;
  return { path: "", what, example: '[group.web]\n  device = "lun"' };
}

function configOf(data: z.infer<typeof ConfigSchema>): ClusterConfig {
  const { interval_ms, deadline_ms, ttl_ms, watchdog_ms } = data.timers;
  return {
    vmPause: data.vm_pause,
    acceptGuard: data.accept_guard,
    foreignWatchdog: data.foreign_watchdog,
    foreignUnprotected: data.foreign_unprotected,
    timers: {
      ...(interval_ms === undefined ? {} : { intervalMs: interval_ms }),
      ...(deadline_ms === undefined ? {} : { deadlineMs: deadline_ms }),
      ...(ttl_ms === undefined ? {} : { ttlMs: ttl_ms }),
      ...(watchdog_ms === undefined ? {} : { watchdogMs: watchdog_ms }),
    },
    groups: Object.entries(data.group).map(([name, group]) => ({
      name,
      device: group.device,
      mount: group.mount,
      nodes: group.nodes,
    })),
  };
}

function problemOf(issue: z.core.$ZodIssue): Problem {
  const path = issue.path.map(String).join(".");
  const pattern = patternOf(issue.path);
  const example = EXAMPLES[pattern] ?? "";
  switch (issue.code) {
    case "unrecognized_keys": {
      const known = KNOWN_KEYS[pattern] ?? [];
      const keys = issue.keys.map((key) => `"${key}"`).join(", ");
      return { path, what: `unknown key ${keys}; known are ${known.join(", ")}`, example };
    }
    case "invalid_type":
      return { path, what: `it must be ${wordFor(issue.expected)}`, example };
    case "invalid_value":
      return { path, what: `it must be one of ${issue.values.map(String).join(", ")}`, example };
    case "too_small":
      return { path, what: `it must be at least ${String(issue.minimum)}`, example };
    case "too_big":
      return { path, what: `it must be at most ${String(issue.maximum)}`, example };
    default:
      return { path, what: issue.message, example };
  }
}

/** The place in the schema: names that people choose, and positions in lists, become "*". */
function patternOf(path: readonly PropertyKey[]): string {
  return path
    .map((part, index) => {
      const isName =
        (index === 1 && (path[0] === "group" || path[0] === "timers")) || typeof part === "number";
      return isName ? "*" : String(part);
    })
    .join(".");
}

function wordFor(expected: string): string {
  switch (expected) {
    case "string":
      return "a text in quotes";
    case "boolean":
      return "true or false";
    case "int":
    case "number":
      return "a whole number";
    case "array":
      return "a list";
    default:
      return "a table";
  }
}
