/**
 * A machine with open-iscsi that exists as files only: sysfs as Linux lays it out, the database of records as iscsiadm 2.1.8
 * writes it (from the recorded file), and a stand-in for iscsiadm that changes both as the real one was seen to do. Its
 * words and exit codes are those of fixtures/iscsiadm.
 */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";

import {
  formatPortal,
  Initiator,
  type Network,
  parsePortal,
  type Portal,
  type Runner,
} from "../../lib/node-iscsi-initiator/index.js";
import { type RunOptions, type RunResult } from "../../lib/system/process.js";
import { findRoot } from "./root.js";

export interface FakeDisk {
  readonly lun: number;
  readonly wwid?: string;
  readonly sizeBytes?: number;
  readonly state?: string;
}

export interface FakeTarget {
  readonly name: string;
  readonly portals: readonly string[];
  disks: FakeDisk[];
  readonly chap?: { readonly user: string; readonly secret: string };
  /** `silent`: the login makes a session that is never logged in. `refuse`: it fails after the retries. */
  login?: "normal" | "silent" | "refuse";
  /** Not offered any more, although it was discovered. */
  isGone?: boolean;
}

export interface FakeSession {
  readonly sid: number;
  readonly target: string;
  readonly portal: string;
  readonly state: string;
  readonly disks: readonly FakeDisk[];
  readonly timers?: Readonly<Record<string, number>>;
}

export interface FakeCall {
  readonly args: readonly string[];
  readonly options: RunOptions;
}

const FIXTURES = join(findRoot(), "fixtures/iscsiadm");
/** As discovery makes it (the recorded one had been updated twice). */
const NODE_RECORD = readFileSync(join(FIXTURES, "60-node-record-file.txt"), "utf8")
  .replace(/^node\.startup = .*$/m, "node.startup = manual")
  .replace(/^(node\.session\.timeo\.replacement_timeout) = .*$/m, "$1 = 120");
const DISCOVERY_RECORD = readFileSync(join(FIXTURES, "61-discovery-record-file.txt"), "utf8");
const LIVE_TIMERS = {
  recovery_tmo: 120,
  abort_tmo: 15,
  lu_reset_tmo: 30,
  tgt_reset_tmo: 30,
  ping_tmo: 5,
  recv_tmo: 5,
};

export class FakeOpenIscsi {
  readonly root = mkdtempSync(join(tmpdir(), "sharedha-iscsi-"));
  readonly targets: FakeTarget[] = [];
  readonly calls: FakeCall[] = [];
  /** Answers instead of the machine's own, by a word among the arguments. */
  readonly answers = new Map<string, RunResult>();
  /** Called before every call is answered. */
  onCall: (args: readonly string[]) => void = () => undefined;
  /** Portals where nobody listens. */
  readonly closed = new Set<string>();
  readonly hosts = new Map<string, readonly string[]>();
  /** What discovery wants; undefined: nothing. */
  discoveryChap: { readonly user: string; readonly secret: string } | undefined;
  /** A logout of a half-made session is refused this often. */
  refuseLogouts = 0;
  #sids = 0;
  #diskNames = 0;

  constructor() {
    for (const dir of [
      "sys/class/iscsi_session",
      "sys/class/iscsi_connection",
      "sys/block",
      "dev",
    ]) {
      mkdirSync(join(this.root, dir), { recursive: true });
    }
    mkdirSync(this.database, { recursive: true });
  }

  get database(): string {
    return join(this.root, "etc/iscsi");
  }

  get initiator(): Initiator {
    return new Initiator({
      run: this.run,
      network: this.network,
      roots: { sysfs: join(this.root, "sys"), dev: join(this.root, "dev") },
      databaseDirs: [this.database],
    });
  }

  remove(): void {
    rmSync(this.root, { recursive: true });
  }

  readonly network: Network = {
    resolve: (host) => {
      const known = this.hosts.get(host) ?? (/^[\d.]+$|:/.test(host) ? [host] : undefined);
      return known === undefined
        ? Promise.reject(
            Object.assign(new Error(`getaddrinfo ENOTFOUND ${host}`), { code: "ENOTFOUND" }),
          )
        : Promise.resolve(known);
    },
    probe: (address, port) =>
      this.closed.has(formatPortal({ address, port }))
        ? Promise.reject(Object.assign(new Error("refused"), { code: "ECONNREFUSED" }))
        : Promise.resolve(),
  };

  /** Every word that any program was started with. */
  get argumentText(): string {
    return this.calls.flatMap(({ args }) => args).join("\n");
  }

  readonly run: Runner = (_op, file, args, options) => {
    if (file !== "iscsiadm") {
      throw new Error(`not ${file}`);
    }
    this.calls.push({ args, options });
    this.onCall(args);
    for (const [word, answer] of this.answers) {
      if (args.includes(word)) {
        return Promise.resolve(answer);
      }
    }
    return Promise.resolve(this.#answer(args, options));
  };

  #answer(args: readonly string[], options: RunOptions): RunResult | Promise<RunResult> {
    const value = (flag: string): string => args[args.indexOf(flag) + 1] ?? "";
    if (args.includes("--version")) {
      return ok("iscsiadm version 2.1.8\n");
    }
    const mode = value("-m");
    if (mode === "discoverydb") {
      return this.#discoverydb(value("-p"), args);
    }
    if (mode === "session") {
      return this.#session(Number(value("-r")), args);
    }
    const target = args.includes("-T") ? value("-T") : undefined;
    if (target === undefined) {
      return this.#listNodes();
    }
    return this.#node(target, value("-p"), args, options);
  }

  #discoverydb(portal: string, args: readonly string[]): RunResult {
    const file = join(this.database, "send_targets", directoryName(portal), "st_config");
    const exists = existsSync(file);
    if (!args.includes("--discover")) {
      // As the real one: an existing record is made anew, without its CHAP lines.
      put(file, DISCOVERY_RECORD.replaceAll("127.0.0.1", parsePortal(portal).address));
      return ok(`New discovery record for [${directoryName(portal)}] added.\n`);
    }
    if (!exists) {
      put(file, DISCOVERY_RECORD.replaceAll("127.0.0.1", parsePortal(portal).address));
    }
    if (!this.#mayDiscover(readFileSync(file, "utf8"))) {
      return exit(
        24,
        "iscsiadm: Login failed to authenticate with target \niscsiadm: Could not perform SendTargets discovery: iSCSI login failed due to authorization failure",
      );
    }
    const offered = this.targets.filter((target) => target.isGone !== true);
    if (offered.length === 0) {
      return exit(21, "iscsiadm: No portals found");
    }
    const lines = offered.flatMap((target) =>
      target.portals.map((one) => {
        if (args.includes("new")) {
          this.#makeNode(target.name, one, portal);
        }
        return `${one},1 ${target.name}\n`;
      }),
    );
    return ok(lines.join(""));
  }

  #mayDiscover(record: string): boolean {
    const wanted = this.discoveryChap;
    return (
      wanted === undefined ||
      (record.includes(`discovery.sendtargets.auth.username = ${wanted.user}\n`) &&
        record.includes(`discovery.sendtargets.auth.password = ${wanted.secret}\n`))
    );
  }

  nodeFile(target: string, portal: string): string {
    return join(this.database, "nodes", target, `${directoryName(portal)},1`, "default");
  }

  #makeNode(target: string, portal: string, discoveredAt: string): void {
    const file = this.nodeFile(target, portal);
    if (existsSync(file)) {
      return;
    }
    const { address, port } = parsePortal(portal);
    const found = parsePortal(discoveredAt);
    const text = NODE_RECORD.replace(/^node\.name = .*$/m, `node.name = ${target}`)
      .replace(/^node\.conn\[0\]\.address = .*$/m, `node.conn[0].address = ${address}`)
      .replace(/^node\.conn\[0\]\.port = .*$/m, `node.conn[0].port = ${port}`)
      .replace(/^node\.discovery_address = .*$/m, `node.discovery_address = ${found.address}`)
      .replace(/^node\.discovery_port = .*$/m, `node.discovery_port = ${found.port}`);
    put(file, text);
  }

  #listNodes(): RunResult {
    const nodes = join(this.database, "nodes");
    const lines = names(nodes).flatMap((target) =>
      names(join(nodes, target)).map((name) => {
        const [address = "", port, tpgt] = name.split(",");
        return `${formatPortal({ address, port: Number(port) })},${tpgt ?? ""} ${target}\n`;
      }),
    );
    return lines.length === 0 ? exit(21, "iscsiadm: No records found") : ok(lines.join(""));
  }

  #node(
    target: string,
    portal: string,
    args: readonly string[],
    options: RunOptions,
  ): RunResult | Promise<RunResult> {
    const file = this.nodeFile(target, portal);
    if (args.includes("--logout")) {
      const session = this.sessions().find((one) => one.target === target && one.portal === portal);
      return session === undefined
        ? exit(21, "iscsiadm: No matching sessions found")
        : this.#endSession(session.sid);
    }
    if (!existsSync(file)) {
      return exit(21, "iscsiadm: No records found");
    }
    if (args.includes("--login")) {
      return this.#login(target, portal, readFileSync(file, "utf8"), options);
    }
    if (args.includes("delete")) {
      rmSync(join(file, ".."), { recursive: true });
      return ok("");
    }
    if (args.includes("update")) {
      return this.#update(file, args);
    }
    // As printed: secrets are masked, and there is a line for every field.
    return ok(
      readFileSync(file, "utf8").replace(/^(.*\.password(?:_in)?) = .*$/gm, "$1 = ********"),
    );
  }

  #update(file: string, args: readonly string[]): RunResult {
    let text = readFileSync(file, "utf8");
    for (const [index, word] of args.entries()) {
      if (word === "-n") {
        const [name = "", value = ""] = [args[index + 1], args[index + 3]];
        if (!text.includes(`\n${name} = `)) {
          return exit(7, `iscsiadm: Cannot modify ${name}. Invalid param name.`);
        }
        // A number that it cannot read becomes 0, without a word.
        const taken =
          /timeout|interval|retry_max/.test(name) && !/^-?\d+$/.test(value) ? "0" : value;
        text = text
          .split("\n")
          .map((line) => (line.startsWith(`${name} = `) ? `${name} = ${taken}` : line))
          .join("\n");
      }
    }
    put(file, text);
    return ok("");
  }

  #login(
    name: string,
    portal: string,
    record: string,
    options: RunOptions,
  ): RunResult | Promise<RunResult> {
    if (this.sessions().some((one) => one.target === name && one.portal === portal)) {
      return exit(
        15,
        "iscsiadm: default: 1 session requested, but 1 already present.\niscsiadm: Could not log into all portals",
      );
    }
    const target = this.targets.find((one) => one.name === name);
    if (target === undefined || target.isGone === true || target.login === "refuse") {
      return exit(
        8,
        `iscsiadm: Could not login to [iface: default, target: ${name}, portal: ${portal}].\niscsiadm: initiator reported error (8 - connection timed out)\niscsiadm: Could not log into all portals`,
      );
    }
    if (target.login === "silent") {
      this.addSession({ target: name, portal, state: "FREE", disks: [] });
      return untilGivenUp(options);
    }
    const { chap } = target;
    const isLetIn =
      chap === undefined ||
      (record.includes(`node.session.auth.username = ${chap.user}\n`) &&
        record.includes(`node.session.auth.password = ${chap.secret}\n`));
    if (!isLetIn) {
      return exit(
        24,
        "iscsiadm: initiator reported error (24 - iSCSI login failed due to authorization failure)\niscsiadm: Could not log into all portals",
      );
    }
    const timers = {
      recovery_tmo: numberIn(record, "node.session.timeo.replacement_timeout"),
      recv_tmo: numberIn(record, "node.conn[0].timeo.noop_out_interval"),
      ping_tmo: numberIn(record, "node.conn[0].timeo.noop_out_timeout"),
    };
    this.addSession({ target: name, portal, state: "LOGGED_IN", disks: target.disks, timers });
    return ok("");
  }

  #session(sid: number, args: readonly string[]): RunResult {
    const session = this.sessions().find((one) => one.sid === sid);
    if (session === undefined) {
      return exit(22, `iscsiadm: Could not get session info for sid ${sid}`);
    }
    if (args.includes("--logout")) {
      return this.#endSession(sid);
    }
    const target = this.targets.find(({ name }) => name === session.target);
    this.#setDisks(sid, target?.disks ?? []);
    return ok("");
  }

  #endSession(sid: number): RunResult {
    if (this.refuseLogouts > 0) {
      this.refuseLogouts -= 1;
      return exit(9, "iscsiadm: initiator reported error (9 - internal error)");
    }
    this.removeSession(sid);
    return ok("");
  }

  sessions(): readonly {
    readonly sid: number;
    readonly target: string;
    readonly portal: string;
  }[] {
    const dir = join(this.root, "sys/class/iscsi_session");
    return names(dir).map((name) => {
      const sid = Number(name.slice("session".length));
      const connection = join(this.root, "sys/class/iscsi_connection", `connection${sid}:0`);
      const portal: Portal = {
        address: readFileSync(join(connection, "persistent_address"), "utf8").trim(),
        port: Number(readFileSync(join(connection, "persistent_port"), "utf8")),
      };
      const target = readFileSync(join(dir, name, "targetname"), "utf8").trim();
      return { sid, target, portal: formatPortal(portal) };
    });
  }

  /** Lays a session out as Linux does. @returns its number */
  addSession(session: Omit<FakeSession, "sid">): number {
    const sid = (this.#sids += 1);
    const device = this.#deviceDir(sid);
    const own = join(device, "iscsi_session", `session${sid}`);
    const timers = { ...LIVE_TIMERS, ...session.timers };
    const { address, port } = parsePortal(session.portal);
    putAll(own, {
      targetname: session.target,
      state: session.state,
      tpgt: "1",
      initiatorname: "iqn.2026-11.lab:n1",
      recovery_tmo: String(timers.recovery_tmo),
      abort_tmo: String(timers.abort_tmo),
      lu_reset_tmo: String(timers.lu_reset_tmo),
      tgt_reset_tmo: String(timers.tgt_reset_tmo),
      // Root can read these in the real tree; nothing of ours may.
      username: "labuser",
      password: "sysfs-secret-1234",
    });
    symlinkSync(relative(own, device), join(own, "device"));
    link(own, join(this.root, "sys/class/iscsi_session", `session${sid}`));
    const connection = join(device, `connection${sid}:0/iscsi_connection/connection${sid}:0`);
    putAll(connection, {
      address,
      port: String(port),
      persistent_address: address,
      persistent_port: String(port),
      state: session.state === "LOGGED_IN" ? "up" : "failed",
      ping_tmo: String(timers.ping_tmo),
      recv_tmo: String(timers.recv_tmo),
    });
    link(connection, join(this.root, "sys/class/iscsi_connection", `connection${sid}:0`));
    if (session.state === "LOGGED_IN") {
      this.#setDisks(sid, session.disks);
    }
    return sid;
  }

  setState(sid: number, state: string): void {
    put(join(this.root, "sys/class/iscsi_session", `session${sid}`, "state"), `${state}\n`);
  }

  removeSession(sid: number): void {
    rmSync(join(this.root, "sys/class/iscsi_session", `session${sid}`));
    rmSync(join(this.root, "sys/class/iscsi_connection", `connection${sid}:0`));
    rmSync(this.#deviceDir(sid), { recursive: true });
  }

  /** A rescan: new LUNs get disks, those that are there get the names of now; nothing is removed. */
  #setDisks(sid: number, disks: readonly FakeDisk[]): void {
    const scsiTarget = join(this.#deviceDir(sid), `target${sid}:0:0`);
    for (const { lun, wwid, sizeBytes = 2 ** 30, state = "running" } of disks) {
      const device = join(scsiTarget, `${sid}:0:0:${lun}`);
      const [known] = names(join(device, "block"));
      const name = known ?? `sd${String.fromCharCode(97 + this.#diskNames++)}`;
      putAll(device, { state, ...(wwid === undefined ? {} : { wwid }) });
      putAll(join(device, "block", name), { size: String(sizeBytes / 512) });
      mkdirSync(join(device, "block", name, "holders"), { recursive: true });
      const block = join(this.root, "sys/block", name);
      if (!existsSync(block)) {
        symlinkSync(join(device, "block", name), block);
        put(join(this.root, "dev", name), "");
      }
    }
  }

  /** As udev does. */
  addLink(linkName: string, disk: string): void {
    const dir = join(this.root, "dev/disk/by-id");
    mkdirSync(dir, { recursive: true });
    rmSync(join(dir, linkName), { force: true });
    symlinkSync(`../../${disk}`, join(dir, linkName));
  }

  addMultipath(map: string, disks: readonly string[]): void {
    for (const disk of disks) {
      mkdirSync(join(this.root, "sys/block", disk, "holders/dm-0"), { recursive: true });
    }
    putAll(join(this.root, "sys/block/dm-0/dm"), { uuid: "mpath-3600", name: map });
  }

  #deviceDir(sid: number): string {
    return join(this.root, `sys/devices/platform/host${sid}/session${sid}`);
  }
}

function untilGivenUp(options: RunOptions): Promise<RunResult> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      resolve({ kind: "timeout", timeoutMs: options.timeoutMs, gone: true });
    }, options.timeoutMs);
    options.signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve({ kind: "cancelled" });
    });
  });
}

export function ok(stdout: string): RunResult {
  return { kind: "ok", stdout, stderr: "" };
}

export function exit(exitCode: number, stderr: string): RunResult {
  return { kind: "exit", exitCode, stdout: "", stderr: `${stderr}\n` };
}

function numberIn(record: string, name: string): number {
  const line = record.split("\n").find((one) => one.startsWith(`${name} = `));
  return Number(line?.split(" = ")[1]);
}

function directoryName(portal: string): string {
  const { address, port } = parsePortal(portal);
  return `${address},${port}`;
}

function names(dir: string): readonly string[] {
  return existsSync(dir) ? readdirSync(dir).sort() : [];
}

function put(path: string, text: string): void {
  mkdirSync(join(path, ".."), { recursive: true });
  writeFileSync(path, text, { mode: 0o600 });
}

function putAll(dir: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    put(join(dir, name), `${text}\n`);
  }
}

function link(to: string, from: string): void {
  symlinkSync(relative(join(from, ".."), to), from);
}
