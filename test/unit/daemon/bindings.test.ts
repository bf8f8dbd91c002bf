import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { createServer, connect, type Server, type Socket } from "node:net";

import { Bindings } from "../../../lib/daemon/bindings.js";
import { ShareHaError } from "../../../lib/errors.js";
import { type ProcessId } from "../../../lib/pulse/messages.js";
import { isAlive, processStartTime } from "../../../lib/system/process.js";
import { Workspace } from "../../helpers/workspace.js";

const SLEEP = ["--eval", "setInterval(() => undefined, 1000)"];
/** Leads a session in which it starts another process, and says so. */
const FAMILY = `
  require("node:child_process").spawn(process.execPath, ${JSON.stringify(SLEEP)});
  setInterval(() => undefined, 1000);
`;

async function until(what: string, isTrue: () => boolean, withinMs = 5_000): Promise<void> {
  const untilMs = performance.now() + withinMs;
  while (!isTrue()) {
    assert(performance.now() < untilMs, `${what}: not within ${withinMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe("Bindings (what ends with a client's connection)", function () {
  this.timeout(20_000);
  let workspace: Workspace;
  let server: Server;
  let accepted: Socket[];
  let log: string[];
  let living: () => number;
  let protectError: Error | undefined;
  let bindings: Bindings;

  beforeEach(async () => {
    workspace = new Workspace("bindings");
    accepted = [];
    log = [];
    living = () => 0;
    protectError = undefined;
    server = createServer((socket) => accepted.push(socket));
    workspace.defer("close the server", () => {
      for (const socket of accepted) {
        socket.destroy();
      }
      server.close();
    });
    await new Promise<void>((resolve) => server.listen(workspace.path("sock"), resolve));
    bindings = new Bindings({
      release: ({ id }) => {
        log.push(`release ${id}, ${living()} alive`);
        return Promise.resolve();
      },
      protect: () => {
        log.push(`protect ${bindings.processes.length}`);
        return protectError === undefined ? Promise.resolve() : Promise.reject(protectError);
      },
      persist: () => {
        log.push(`persist ${bindings.leaders.length}`);
      },
      onEvent: (event) => {
        log.push(event);
      },
    });
  });

  afterEach(async () => {
    assert.deepEqual(await workspace.clean(), []);
  });

  /** A client's connection: its end, and the daemon's. */
  async function connection(): Promise<{ readonly client: Socket; readonly socket: Socket }> {
    const count = accepted.length;
    const client = connect(workspace.path("sock"));
    client.on("error", () => client.destroy());
    await until("connected", () => accepted.length > count);
    const socket = accepted.at(-1);
    assert(socket !== undefined);
    socket.resume();
    return { client, socket };
  }

  function start(
    args: readonly string[],
    isLeader = true,
  ): ChildProcess & { readonly pid: number } {
    const child = spawn(process.execPath, args, { detached: isLeader, stdio: "ignore" });
    workspace.defer("end a child", () => {
      child.kill("SIGKILL");
    });
    assert(child.pid !== undefined);
    return child as ChildProcess & { readonly pid: number };
  }

  function idOf(pid: number): ProcessId {
    return { pid, startTime: String(processStartTime(pid)) };
  }

  async function refusal(work: Promise<unknown>): Promise<string> {
    const error: unknown = await work.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    assert(error instanceof ShareHaError);
    return error.code;
  }

  it("protects only on a connection with a bound lease, and only one who leads a session", async () => {
    const { socket } = await connection();
    const child = start(SLEEP, false);
    assert.equal(await refusal(bindings.protect(socket, child.pid)), "ERR_NOTHING_BOUND");
    bindings.bind(socket);
    assert.equal(await refusal(bindings.protect(socket, child.pid)), "ERR_NOT_A_SESSION");
    assert.equal(await refusal(bindings.protect(socket, 4_194_303)), "ERR_NO_SUCH_PROCESS");
    assert.deepEqual([log, bindings.leaders], [[], []]);
  });

  it("at the end of the connection: first everything of the session is dead, then it releases", async () => {
    const { client, socket } = await connection();
    const { id } = bindings.bind(socket);
    const leader = start(["--eval", FAMILY]);
    await bindings.protect(socket, leader.pid);
    // Its child may have been there already.
    assert.match(log.join(", "), /^persist 1, protect [12]$/);
    await until("both are known", () => bindings.processes.length === 2);
    const members = bindings.processes;
    living = () =>
      members.filter(({ pid, startTime }) => isAlive({ pid, startTime: BigInt(startTime) })).length;
    assert.equal(living(), 2);
    log.length = 0;
    client.destroy();
    await until("it ended", () => bindings.count === 0);
    await until("the others were told", () => log.length === 3);
    assert.equal(log[0], `release ${id}, 0 alive`);
    assert.deepEqual(log.slice(1), ["persist 0", "protect 0"]);
  });

  it("one binding for a connection, and none is left when nothing was granted", async () => {
    const { socket } = await connection();
    const other = await connection();
    const binding = bindings.bind(socket);
    assert.equal(bindings.bind(socket).id, binding.id);
    assert.deepEqual(
      [bindings.owns(socket, binding), bindings.owns(other.socket, binding)],
      [true, false],
    );
    bindings.unbind(socket);
    assert.equal(bindings.count, 1);
    bindings.unbind(socket);
    assert.equal(bindings.count, 0);
    bindings.unbind(other.socket);
  });

  it("at a loss its client has the grace to end the processes, and no longer", async () => {
    const { client, socket } = await connection();
    bindings.bind(socket);
    const leader = start(SLEEP);
    await bindings.protect(socket, leader.pid);
    let isClosed = false;
    client.once("close", () => (isClosed = true));
    client.resume();
    const startedMs = performance.now();
    bindings.lose(400);
    await until("the client is told", () => isClosed);
    assert.equal(leader.signalCode, null, "killed without grace");
    await until("dead", () => leader.signalCode === "SIGKILL");
    const tookMs = performance.now() - startedMs;
    assert(tookMs >= 350, `${tookMs} ms`);
    await until("it ended", () => bindings.count === 0);
  });

  it("what a former daemon's client left counts at once, and ends only when told to", async () => {
    const leader = start(SLEEP);
    const adopted = bindings.adopt([idOf(leader.pid)], 60_000);
    assert.deepEqual([bindings.count, bindings.leaders.length], [1, 1]);
    assert.deepEqual(log, []);
    bindings.endAdopted(adopted);
    // A loss does not wait for the grace.
    bindings.lose(0);
    await until("released", () => log.some((line) => line.startsWith(`release ${adopted.id}`)));
    await until("dead", () => leader.signalCode === "SIGKILL");
    assert.equal(bindings.count, 0);
  });

  it("a process that has the number of one that ended is left alone, with its session", async () => {
    const innocent = start(SLEEP);
    const former = { pid: innocent.pid, startTime: "1" };
    bindings.endAdopted(bindings.adopt([former], 0));
    await until("it ended", () => bindings.count === 0);
    assert.equal(innocent.signalCode, null);
    assert.equal(innocent.exitCode, null);
    process.kill(innocent.pid, 0);
  });

  it("says when pulse could not be told, and the binding is over all the same", async () => {
    const { client, socket } = await connection();
    bindings.bind(socket);
    const leader = start(SLEEP);
    await bindings.protect(socket, leader.pid);
    protectError = new Error("no pulse");
    client.destroy();
    await until("said", () => log.includes("still-protected"));
    assert.deepEqual([bindings.count, bindings.left], [0, []]);
  });
});
