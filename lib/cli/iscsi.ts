import { type Command, Option } from "commander";

import { PROFILES, type ProfileName } from "../lease/timings.js";
import { parseTargetName, type TargetPortal } from "../node-iscsi-initiator/index.js";
import { sessionTimersFor, silentPathSeconds } from "../san/iscsi-timers.js";
import { chapOption, withChapOptions } from "./chap-options.js";
import { type Bind, example, numberOption, parseWhole, stringOption } from "./command.js";
import { type Context, report } from "./context.js";
import { interruptible } from "./interrupt.js";
import {
  diskBody,
  disksText,
  loginBody,
  loginTeller,
  loginText,
  rescanBody,
  rescanText,
  sessionBody,
  sessionsText,
  targetBodies,
  targetsText,
  targetTimersBody,
  targetTimersText,
  timerChangeBody,
  timerChangesText,
} from "./iscsi-text.js";
import { plural, printable } from "./text.js";

type Options = Readonly<Record<string, unknown>>;

const PORTAL_OPTION = [
  "--portal <portal>",
  "only this portal (default: all of the target)",
] as const;
const PROFILE_NAMES = Object.keys(PROFILES) as readonly ProfileName[];
const LUN_MAX = 16_383;

export function register(program: Command, bind: Bind): void {
  const iscsi = program
    .command("iscsi")
    .description("LUNs over iSCSI, by open-iscsi: discovery, login, sessions, timers");
  example(
    iscsi,
    "sharedha iscsi discover 10.0.0.9",
    "sharedha iscsi login iqn.2026-11.example:data --lun 0",
    "sharedha iscsi sessions",
  );
  registerDiscover(iscsi, bind);
  registerLogin(iscsi, bind);
  registerLogout(iscsi, bind);
  registerSessions(iscsi, bind);
  registerRescan(iscsi, bind);
  registerTimers(iscsi, bind);
}

function registerDiscover(iscsi: Command, bind: Bind): void {
  example(
    withChapOptions(
      iscsi
        .command("discover <portal>")
        .description("ask a portal which targets it has, and remember them"),
    ).action(bind((context, args, options) => discover(context, args[0] ?? "", options))),
    "sharedha iscsi discover 10.0.0.9",
    "sharedha iscsi discover [fd00::9]:3261 --chap-user finder --chap-secret-file /root/finder.secret",
  );
}

async function discover(context: Context, portal: string, options: Options): Promise<undefined> {
  const initiator = await context.initiator();
  const chap = await chapOption(context, options);
  const found = await interruptible((signal) => initiator.discover(portal, { chap, signal }));
  const targets = targetBodies(found);
  report(context, { portal, targets }, () =>
    targets.length === 0
      ? `${printable(portal)} offers nothing to this initiator\n`
      : targetsText(targets),
  );
  return undefined;
}

function registerLogin(iscsi: Command, bind: Bind): void {
  example(
    withChapOptions(
      iscsi
        .command("login <target>")
        .description("log in to a target that was discovered; with --portal it is discovered there")
        .option(...PORTAL_OPTION)
        .option("--lun <n>", "wait for the disk of this LUN", parseWhole(0, LUN_MAX)),
    ).action(bind((context, args, options) => login(context, args[0] ?? "", options))),
    "sharedha iscsi login iqn.2026-11.example:data --lun 0",
    "sharedha iscsi login iqn.2026-11.example:data --portal 10.0.0.9 --chap-user n1",
  );
}

async function login(context: Context, target: string, options: Options): Promise<undefined> {
  const initiator = await context.initiator();
  const portal = stringOption(options, "portal");
  const lun = numberOption(options, "lun");
  const chap = await chapOption(context, options);
  await interruptible(async (signal) => {
    const name = parseTargetName(target);
    const isMine = (node: TargetPortal): boolean => node.target === name;
    const known = (await initiator.nodes({ signal })).filter(isMine);
    const own =
      known.length === 0 && portal !== undefined
        ? (await initiator.discover(portal, { signal })).filter(isMine)
        : known;
    if (chap !== undefined) {
      const places = portal === undefined ? own.map((node) => node.portal) : [portal];
      for (const place of places) {
        await initiator.setChap(target, place, chap);
      }
    }
    const onProgress = loginTeller(context);
    const outcomes = await initiator.login(target, { portal, signal, onProgress });
    const body = loginBody(target, outcomes);
    if (lun === undefined) {
      report(context, { ...body, disk: null }, () => loginText(target, outcomes));
      return;
    }
    const { disk } = await initiator.waitForDisk(target, lun, { portal, signal });
    report(
      context,
      { ...body, disk: diskBody(disk) },
      () => loginText(target, outcomes) + disksText(context, [disk]),
    );
  });
  return undefined;
}

function registerLogout(iscsi: Command, bind: Bind): void {
  example(
    iscsi
      .command("logout <target>")
      .description(
        "end the sessions of a target; also half-made ones. What uses its disks loses them",
      )
      .option(...PORTAL_OPTION)
      .action(bind((context, args, options) => logout(context, args[0] ?? "", options))),
    "sharedha iscsi logout iqn.2026-11.example:data",
  );
}

async function logout(context: Context, target: string, options: Options): Promise<undefined> {
  const initiator = await context.initiator();
  const portal = stringOption(options, "portal");
  const ended = await interruptible((signal) => initiator.logout(target, { portal, signal }));
  report(context, { target, ended: ended.map(({ sid }) => ({ sid })) }, () =>
    ended.length === 0
      ? `${printable(target)} was not logged in\n`
      : `logged out of ${printable(target)}: ${plural(ended.length, "session")}\n`,
  );
  return undefined;
}

function registerSessions(iscsi: Command, bind: Bind): void {
  example(
    iscsi
      .command("sessions")
      .description("the sessions of this machine with their disks, as the kernel has them")
      .action(bind((context) => sessions(context))),
    "sharedha iscsi sessions --json",
  );
}

async function sessions(context: Context): Promise<undefined> {
  const all = (await context.initiator()).sessions();
  report(context, { sessions: all.map(sessionBody) }, () =>
    all.length === 0 ? "no sessions\n" : sessionsText(context, all),
  );
  return undefined;
}

function registerRescan(iscsi: Command, bind: Bind): void {
  example(
    iscsi
      .command("rescan [target]")
      .description("ask the targets again which LUNs they have; says what changed")
      .option(...PORTAL_OPTION)
      .action(bind((context, args, options) => rescan(context, args[0], options))),
    "sharedha iscsi rescan",
  );
}

async function rescan(
  context: Context,
  target: string | undefined,
  options: Options,
): Promise<undefined> {
  const initiator = await context.initiator();
  const portal = stringOption(options, "portal");
  const results = await interruptible((signal) => initiator.rescan(target, { portal, signal }));
  report(context, { sessions: results.map(rescanBody) }, () =>
    results.length === 0 ? "no session is logged in\n" : results.map(rescanText).join(""),
  );
  return undefined;
}

function registerTimers(iscsi: Command, bind: Bind): void {
  example(
    iscsi
      .command("timers <target>")
      .description("show the timers of a target's records and sessions, or set a profile's")
      .option(...PORTAL_OPTION)
      .option("--show", "only show them (the default)")
      .addOption(
        new Option("--profile <profile>", "set those that fit the cluster profile")
          .choices(PROFILE_NAMES)
          .conflicts("show"),
      )
      .action(bind((context, args, options) => timers(context, args[0] ?? "", options))),
    "sharedha iscsi timers iqn.2026-11.example:data",
    "sharedha iscsi timers iqn.2026-11.example:data --profile default",
  );
}

async function timers(context: Context, target: string, options: Options): Promise<undefined> {
  const initiator = await context.initiator();
  const portal = stringOption(options, "portal");
  const profile = PROFILE_NAMES.find((name) => name === options["profile"]);
  // Profile multipath has all portals of a target as paths, the others have one.
  const portals = profile === "multipath" ? (await initiator.timers(target)).length : 1;
  const wanted = profile === undefined ? undefined : sessionTimersFor(PROFILES[profile], portals);
  const changes = wanted === undefined ? [] : await initiator.setTimers(target, wanted, { portal });
  const now = await initiator.timers(target, { portal });
  const body = {
    target,
    changes: changes.map(timerChangeBody),
    portals: now.map(targetTimersBody),
  };
  report(context, body, () => {
    const sum =
      wanted === undefined
        ? ""
        : `I/O on a path that went silent fails after ${silentPathSeconds(wanted)} s\n`;
    return timerChangesText(changes) + targetTimersText(context, now) + sum;
  });
  return undefined;
}
