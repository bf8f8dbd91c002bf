/**
 * A group: what `reserve` takes, in which order it comes up and goes down (DESIGN section 10). Pure: names, rules and
 * order as data; the daemon carries them out.
 */

export type FilesystemType = "ext4" | "xfs";

export interface GroupMount {
  /** Absolute, normalised, not "/". */
  readonly path: string;
  readonly type: FilesystemType;
  /** As after `mount -o`; "" for none. */
  readonly options: string;
}

export interface Group {
  readonly name: string;
  /** "lun": the data part of the cluster's LUN; else an absolute path of a block device or regular file. */
  readonly device: string;
  readonly mount: GroupMount | undefined;
  /** Nodes in order of preference; empty: every node, none preferred. */
  readonly nodes: readonly string[];
}

/** The device of a group that is the data part of the cluster's own LUN. */
export const LUN_DEVICE = "lun";

const NAME = /^[a-z0-9][a-z0-9._-]{0,39}$/;

/**
 * Options that would break the promise or the teardown: `remount` and `bind` mount something else than the group's device;
 * `errors=continue` (ext4) goes on writing after the data path was cut; `nouuid` and `norecovery` (xfs), `noload` (ext4)
 * mount a copy or skip the journal of the node that died.
 */
const FORBIDDEN_OPTIONS = [
  "remount",
  "bind",
  "rbind",
  "move",
  "loop",
  "offset",
  "sizelimit",
  "errors=continue",
  "nouuid",
  "norecovery",
  "noload",
  "user",
  "users",
];

/** The name of the lease that a group's holder holds. */
export function leaseNameOf(groupName: string): string {
  return `group:${groupName}`;
}

export function isGroupName(name: string): boolean {
  return NAME.test(name);
}

export interface Problem {
  /** Where, as in the TOML text: `group.web.mount.path`. */
  readonly path: string;
  readonly what: string;
  readonly example: string;
}

/** Everything that is wrong with the groups, each one alone and all together; empty when nothing is. */
export function problemsOfGroups(groups: readonly Group[]): readonly Problem[] {
  const problems = groups.flatMap(problemsOfGroup);
  for (const [index, group] of groups.entries()) {
    for (const other of groups.slice(0, index)) {
      problems.push(...problemsOfPair(group, other));
    }
  }
  return problems;
}

function problemsOfGroup(group: Group): Problem[] {
  const at = `group.${group.name}`;
  const problems: Problem[] = [];
  if (!isGroupName(group.name)) {
    problems.push({
      path: at,
      what: "a group's name has 1 to 40 lower-case letters, digits, dots, dashes and underscores",
      example: "[group.web]",
    });
  }
  if (group.device !== LUN_DEVICE && !isPlainAbsolute(group.device)) {
    problems.push({
      path: `${at}.device`,
      what: `"${group.device}" is neither "lun" nor an absolute path without "." and ".."`,
      example: 'device = "lun"   or   device = "/dev/mapper/web"',
    });
  }
  if (new Set(group.nodes).size !== group.nodes.length) {
    problems.push({
      path: `${at}.nodes`,
      what: "a node is named twice",
      example: 'nodes = ["n1", "n2"]',
    });
  }
  return group.mount === undefined ? problems : [...problems, ...problemsOfMount(at, group.mount)];
}

function problemsOfMount(at: string, mount: GroupMount): readonly Problem[] {
  const problems: Problem[] = [];
  if (!isPlainAbsolute(mount.path) || isSystemPath(mount.path)) {
    problems.push({
      path: `${at}.mount.path`,
      what: `"${mount.path}" is no directory that a group may be mounted on`,
      example: 'mount = { path = "/srv/web", type = "ext4" }',
    });
  }
  const options = mount.options === "" ? [] : mount.options.split(",");
  const forbidden = options.find((option) => isForbidden(option));
  if (forbidden !== undefined) {
    problems.push({
      path: `${at}.mount.options`,
      what: `option "${forbidden}" is not allowed: it would get around what keeps the data safe`,
      example: 'options = "noatime"',
    });
  }
  if (options.some((option) => !/^[\x21-\x2b\x2d-\x7e]+$/.test(option))) {
    problems.push({
      path: `${at}.mount.options`,
      what: "options are separated by single commas, without blanks",
      example: 'options = "noatime,nodev"',
    });
  }
  return problems;
}

function isForbidden(option: string): boolean {
  const name = option.split("=")[0] ?? option;
  return FORBIDDEN_OPTIONS.includes(option) || FORBIDDEN_OPTIONS.includes(name);
}

function isPlainAbsolute(path: string): boolean {
  const parts = path.split("/").slice(1);
  return (
    path.startsWith("/") &&
    parts.every((part) => part !== "" && part !== "." && part !== "..") &&
    !/\p{Cc}/u.test(path)
  );
}

function isSystemPath(path: string): boolean {
  const top = path.split("/")[1] ?? "";
  return ["proc", "sys", "dev", "etc", "bin", "sbin", "lib", "lib64", "usr", "boot"].includes(top)
    ? true
    : ["/var", "/run", "/home", "/root", "/tmp"].includes(path);
}

function problemsOfPair(group: Group, other: Group): readonly Problem[] {
  const problems: Problem[] = [];
  if (group.device === other.device) {
    problems.push({
      path: `group.${group.name}.device`,
      what: `"${group.device}" is already the device of group ${other.name}: two holders could write to it`,
      example: "give each group a device of its own",
    });
  }
  const [one, two] = [group.mount?.path, other.mount?.path];
  if (one !== undefined && two !== undefined && isInside(one, two)) {
    problems.push({
      path: `group.${group.name}.mount.path`,
      what: `"${one}" and "${two}" of group ${other.name} lie in each other`,
      example: "mount each group beside the others",
    });
  }
  return problems;
}

function isInside(one: string, two: string): boolean {
  return one === two || one.startsWith(`${two}/`) || two.startsWith(`${one}/`);
}

/** May this node take the group? An empty list names every node. */
export function mayRunOn(group: Group, nodeName: string): boolean {
  return group.nodes.length === 0 || group.nodes.includes(nodeName);
}
