import { resolve } from "node:path";

import { type Command, Option } from "commander";

import { type InitReport } from "../region/format-region.js";
import { chapOption, withChapOptions } from "./chap-options.js";
import {
  type Bind,
  example,
  numberOption,
  parseSize,
  parseWhole,
  stringOption,
} from "./command.js";
import { type Context, report } from "./context.js";
import { usageError } from "./exit-code.js";
import { readConfigText } from "./config-text.js";
import {
  connectedBodies,
  type ConnectedLuns,
  connectedText,
  connectLuns,
  disconnectLuns,
  isAddress,
} from "./lun-arguments.js";
import { bytes, duration, plural, printable } from "./text.js";

const CLUSTER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,46}$/;
const PROFILES = ["fast", "default", "multipath"] as const;
const SECTOR_SIZES = ["512", "4096"] as const;
const FILE_SYSTEMS = ["ext4", "xfs"] as const;
const MAX_HOSTS_DEFAULT = 16;

export function register(program: Command, bind: Bind): void {
  const command = program
    .command("init <lun...>")
    .description(
      "make a lock region on 1, 3 or 5 LUNs, once per cluster: block devices, regular files, or\n" +
        "iscsi://PORTAL[:PORT]/TARGET/LUN",
    )
    .option("--cluster <name>", "name of the cluster (default: sharedha)")
    .addOption(
      new Option("--sector-size <bytes>", "default: the device's own").choices(SECTOR_SIZES),
    )
    .option(
      "--max-hosts <n>",
      `host ids, 1 to 64 (default: ${MAX_HOSTS_DEFAULT})`,
      parseWhole(1, 64),
    )
    .addOption(new Option("--profile <profile>", "timers (default: default)").choices(PROFILES))
    .option(
      "--whole",
      "no partition table: the whole device is the region (a dedicated quorum LUN)",
    )
    .option("--size <bytes>", "size of a file that does not exist yet, such as 32M", parseSize)
    .addOption(
      new Option("--mkfs <type>", "also make a file system on the data partition").choices(
        FILE_SYSTEMS,
      ),
    )
    .option("--config <file>", "the cluster's configuration (TOML): groups and policies")
    .option("--force", "overwrite a device that holds data; never one with live heartbeats");
  withChapOptions(command).action(bind(initCluster));
  example(
    command,
    "sharedha init /dev/sdb --cluster office --mkfs ext4",
    "sharedha init /dev/sdb /dev/sdc /dev/sdd --whole --profile multipath",
    "sharedha init iscsi://10.0.0.9/iqn.2026-11.example:data/0 --mkfs ext4",
    "sharedha init /tmp/lun --size 32M --profile fast",
  );
}

async function initCluster(
  context: Context,
  args: readonly string[],
  options: Readonly<Record<string, unknown>>,
): Promise<undefined> {
  const clusterName = stringOption(options, "cluster") ?? "sharedha";
  if (!CLUSTER_NAME.test(clusterName)) {
    throw usageError(
      `${printable(clusterName)} is no name for a cluster`,
      "A name has 1 to 47 letters, digits, dots, dashes and underscores, and begins with a letter or digit.",
    );
  }
  const sectorSize = stringOption(options, "sectorSize");
  const sizeBytes = numberOption(options, "size");
  const mkfs = FILE_SYSTEMS.find((type) => type === options["mkfs"]);
  const config = stringOption(options, "config");
  const profile = PROFILES.find((name) => name === options["profile"]) ?? "default";
  const chap = await chapOption(context, options);
  const { PROFILES: timings } = await import("../lease/timings.js");
  const luns = await connectLuns(context, args, {
    chap,
    profile: { name: profile, timings: timings[profile] },
  });
  const { initRegion } = await import("../region/format-region.js");
  const made = await undoOnFailure(context, luns, () =>
    initRegion({
      paths: luns.paths,
      clusterName,
      maxHosts: numberOption(options, "maxHosts") ?? MAX_HOSTS_DEFAULT,
      profile,
      whole: options["whole"] === true,
      force: options["force"] === true,
      onWait: (text) => {
        if (!context.isJson) {
          context.terminal.err(`${printable(text)}\n`);
        }
      },
      ...(sectorSize === undefined ? {} : { sectorSize: sectorSize === "4096" ? 4096 : 512 }),
      ...(sizeBytes === undefined ? {} : { sizeBytes }),
      ...(mkfs === undefined ? {} : { mkfs }),
      ...(config === undefined ? {} : { groupToml: readConfigText(config) }),
    }),
  );
  const iscsi = await connectedBodies(luns.connected);
  const lunsText = await connectedText(luns.connected);
  const next = args.map((argument) => (isAddress(argument) ? argument : resolve(argument)));
  report(context, { ...made, iscsi }, () => lunsText + initText(made, next));
  return undefined;
}

/** Sessions that were made for a region that was not made are nobody's. */
async function undoOnFailure<T>(
  context: Context,
  luns: ConnectedLuns,
  action: () => Promise<T>,
): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (luns.connected.length > 0) {
      await disconnectLuns(await context.initiator(), luns.connected);
    }
    throw error;
  }
}

function initText(made: InitReport, next: readonly string[]): string {
  const luns = made.luns.map((lun, index) => {
    const { region, data, latency } = lun;
    const place = region.offset === 0 ? "" : ` at ${bytes(region.offset)}`;
    const rest = data === undefined ? "" : `, data ${bytes(data.length)}`;
    return (
      `  LUN ${index + 1}  ${printable(lun.path)}${lun.created ? " (new file)" : ""}: region ${bytes(region.length)}${place}${rest}\n` +
      `         writes take ${duration(latency.p50Ms)} (p50), ${duration(latency.p99Ms)} (p99), ${duration(latency.maxMs)} at most\n`
    );
  });
  const filesystem =
    made.filesystem === undefined ? "" : `  file system ${made.filesystem} on the data of LUN 1\n`;
  return (
    `made cluster ${printable(made.clusterName)} on ${plural(made.luns.length, "LUN")}: ` +
    `${plural(made.maxHosts, "host")}, ${plural(made.leases, "lease")}, profile ${made.profile}\n` +
    `${luns.join("")}${filesystem}next, on every node: sharedha join ${next.map(printable).join(" ")}\n`
  );
}
