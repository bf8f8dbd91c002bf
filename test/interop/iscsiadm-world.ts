/**
 * Run by iscsiadm.test.ts in mount and network namespaces of its own: the real iscsiadm and a real target (tgtd), an empty
 * database of records, a /sys/class/iscsi_transport as if iscsi_tcp were loaded, and a stand-in for iscsid that answers the
 * questions that discovery has. Discovery and records need no more; sessions do need the kernel (test/e2e). Prints what the
 * initiator returned, as one JSON object.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

import { type ChapCredentials, Initiator } from "../../lib/node-iscsi-initiator/index.js";
import { ShareHaError } from "../../lib/errors.js";
import { must } from "../helpers/workspace.js";

const TARGET = "iqn.2026-11.lab:data";
const FOUR = "127.0.0.1:3260";
const SIX = "[::1]:3260";
const CHAP: ChapCredentials = {
  user: "labuser",
  secret: "lab secret = #1234",
  mutual: { user: "labtarget", secret: "targetsecret1" },
};
const DISCOVERY_CHAP: ChapCredentials = { user: "finder", secret: "discsecret123" };

/**
 * iscsid's side of the talk: the request's first word is the command; the answer repeats it, then 0, then a text. In
 * Python, because Node fills the name of an abstract socket up with zeros, which makes it another one.
 */
const ISCSID = `
import socket, struct
CONFIG_FILE = 10
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind("\\0ISCSIADM_ABSTRACT_NAMESPACE")
server.listen(8)
print("ready", flush=True)
while True:
    client, _ = server.accept()
    command, = struct.unpack("i", client.recv(1 << 20)[:4])
    text = b"/etc/iscsi/iscsid.conf" if command == CONFIG_FILE else b"iqn.2026-11.lab:n1"
    try:
        client.sendall(struct.pack("ii", command, 0) + text.ljust(8184, b"\\0"))
    except BrokenPipeError:
        pass  # iscsiadm reads as much as it knows, and closes
    client.close()
`;

function serveIscsid(): Promise<ChildProcess> {
  const iscsid = spawn("python3", ["-c", ISCSID], { stdio: ["ignore", "pipe", "inherit"] });
  return new Promise((resolve, reject) => {
    iscsid.once("error", reject);
    iscsid.stdout.once("data", () => {
      resolve(iscsid);
    });
  });
}

function makeWorld(dir: string): void {
  for (const name of ["iscsi", "class"]) {
    mkdirSync(join(dir, name), { recursive: true });
  }
  writeFileSync(join(dir, "iscsi/initiatorname.iscsi"), "InitiatorName=iqn.2026-11.lab:n1\n");
  const conf = readFileSync("/etc/iscsi/iscsid.conf", "utf8").replaceAll(
    /^iscsid\.startup/gm,
    "#$&",
  );
  writeFileSync(join(dir, "iscsi/iscsid.conf"), conf);
  must("mount", ["--bind", join(dir, "iscsi"), "/etc/iscsi"]);
  const transport = join(dir, "class/iscsi_transport/tcp");
  for (const name of ["iscsi_session", "iscsi_connection", "iscsi_host"]) {
    mkdirSync(join(dir, "class", name), { recursive: true });
  }
  mkdirSync(transport, { recursive: true });
  writeFileSync(join(transport, "caps"), "0x39\n");
  writeFileSync(join(transport, "handle"), "1234567\n");
  must("mount", ["--bind", join(dir, "class"), "/sys/class"]);
  must("mount", ["-t", "tmpfs", "none", "/run"]);
  mkdirSync("/run/lock");
  must("ip", ["link", "set", "lo", "up"]);
}

async function startTarget(dir: string): Promise<ChildProcess> {
  const portals = "portal=0.0.0.0:3260,portal=[::]:3260";
  const target = spawn("tgtd", ["-f", "--iscsi", portals], { stdio: "ignore" });
  await until(async () => (await listens("127.0.0.1")) && (await listens("::1")));
  const disk = join(dir, "disk");
  writeFileSync(disk, Buffer.alloc(2 ** 20));
  const admin = (...args: readonly string[]): string => must("tgtadm", ["--lld", "iscsi", ...args]);
  admin("--op", "new", "--mode", "target", "--tid", "1", "-T", TARGET);
  admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", disk);
  admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL");
  const { user, secret } = DISCOVERY_CHAP;
  admin("--op", "new", "--mode", "account", "--user", user, "--password", secret);
  return target;
}

function listens(host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(3260, host);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => {
      resolve(false);
    });
  });
}

async function until(isDone: () => Promise<boolean>): Promise<void> {
  for (let count = 0; !(await isDone()); count += 1) {
    if (count > 100) {
      throw new Error("tgtd does not listen");
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function errorCode(start: () => Promise<unknown>): Promise<string> {
  try {
    await start();
    return "none";
  } catch (error) {
    return error instanceof ShareHaError ? error.code : String(error);
  }
}

async function perform(): Promise<unknown> {
  const initiator = new Initiator();
  const found = [await initiator.discover("127.0.0.1"), await initiator.discover(SIX)];
  const nodes = await initiator.nodes();
  const changes = await initiator.setTimers(TARGET, { replacementTimeout: 3 }, { portal: FOUR });
  const never = await initiator.setTimers(TARGET, { replacementTimeout: -1 }, { portal: SIX });
  await initiator.setChap(TARGET, SIX, CHAP);
  await initiator.updateNode(TARGET, SIX, { "node.startup": "automatic" });
  await initiator.discover(SIX);
  const shown = await initiator.node(TARGET, SIX);
  const file = `/etc/iscsi/nodes/${TARGET}/::1,3260,1/default`;
  const record = readFileSync(file, "utf8");
  const bad = {
    zero: await errorCode(() =>
      initiator.updateNode(TARGET, FOUR, { "node.session.timeo.replacement_timeout": "abc" }),
    ),
    unknown: await errorCode(() => initiator.updateNode(TARGET, FOUR, { "node.session.x": "1" })),
    refused: await errorCode(() => initiator.discover("127.0.0.1:3999")),
  };
  must("tgtadm", [
    "--lld",
    "iscsi",
    "--op",
    "bind",
    "--mode",
    "account",
    "--user",
    DISCOVERY_CHAP.user,
  ]);
  const wrong = { ...DISCOVERY_CHAP, secret: "discsecret124" };
  const discoveryChap = {
    missing: await errorCode(() => initiator.discover(FOUR)),
    wrong: await errorCode(() => initiator.discover(FOUR, { chap: wrong })),
    right: await errorCode(() => initiator.discover(FOUR, { chap: DISCOVERY_CHAP })),
    kept: await errorCode(() => initiator.discover(FOUR)),
    removed: await errorCode(() => initiator.discover(FOUR, { chap: null })),
  };
  const deleted = [
    await initiator.deleteNode(TARGET, FOUR),
    await initiator.deleteNode(TARGET, FOUR),
  ];
  return {
    version: await initiator.version(),
    found,
    nodes,
    changes,
    never,
    shown: Object.fromEntries([...shown].filter(([name]) => name.startsWith("node.session.auth"))),
    record: record.split("\n").filter((line) => /\.auth\.|startup/.test(line)),
    mode: statSync(file).mode & 0o777,
    beside: readdirSync("/etc/iscsi").sort(),
    bad,
    discoveryChap,
    deleted,
    left: await initiator.nodes(),
  };
}

const [, , dir = ""] = process.argv;
makeWorld(dir);
const iscsid = await serveIscsid();
const target = await startTarget(dir);
try {
  process.stdout.write(JSON.stringify(await perform()));
} finally {
  // It does not end by SIGTERM while it has targets.
  target.kill("SIGKILL");
  iscsid.kill();
}
