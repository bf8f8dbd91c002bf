/**
 * `make bench-lab`: the holder's power is cut; how long until another node has the data, beside sanlock in the same lab
 * with the same fault. Under emulation work takes some ten times what it does on metal, waiting does not, so the two are
 * told apart.
 */
import { type GuestProcess, type Ran } from "../lab/agent-client.js";
import { imagesFromEnvironment, Lab } from "../lab/lab.js";
import { diskOf } from "../lab/san.js";
import { Cluster, WEB } from "./cluster.js";

const ROUNDS = 2;

interface Figure {
  readonly totalMs: number;
  /** From the last change that the survivor has seen until it may act. */
  readonly waitedMs: number;
  readonly steps: string;
}

function line(name: string, { totalMs, waitedMs, steps }: Figure): void {
  const parts = [totalMs, waitedMs, totalMs - waitedMs].map((ms) => (ms / 1000).toFixed(1));
  const [total, waited, work] = parts.map((text) => `${text} s`.padStart(9));
  process.stdout.write(`${name.padEnd(44)}${total}${waited}${work}   ${steps}\n`);
}

async function measureSharedha(lab: Lab): Promise<Figure> {
  const cluster = new Cluster(lab);
  await cluster.begin();
  const { version } = await cluster.reserve("n1", WEB);
  cluster.startWriter("n1", WEB, version);
  await cluster.untilRecords(WEB, 20);
  const { taken } = await cluster.queue("n2", WEB);
  const cutMs = performance.now();
  await lab.vm("n1").powerCut();
  const { steps } = await taken;
  const totalMs = performance.now() - cutMs;
  const [takeOver] = await cluster.events("n2", "take-over");
  const waited = /unchanged for (\d+) ms/.exec(takeOver?.text ?? "")?.[1];
  if (waited === undefined) {
    throw new Error(`no take-over on expired: ${takeOver?.text ?? "none"}`);
  }
  const told = steps.map(({ step, ms }) => `${step} ${(ms / 1000).toFixed(1)}`).join(", ");
  return { totalMs, waitedMs: Number(waited), steps: told };
}

/** The lease alone: sanlock checks and mounts nothing. io_timeout 1 s, no watchdog daemon (`-w 0`), as in `make bench`. */
async function measureSanlock(lab: Lab): Promise<Figure> {
  await lab.stop();
  await lab.start(["san", "n1", "n2"], "snapshot", () => undefined);
  await Promise.all([lab.attach("n1"), lab.attach("n2")]);
  const disk = diskOf("lun2");
  const resource = `LS:R:${disk}:1048576`;
  const n1 = lab.vm("n1");
  await n1.must(["sanlock", "direct", "init", "-s", `LS:0:${disk}:0`, "-o", "1"]);
  await n1.must(["sanlock", "direct", "init", "-r", resource]);
  const daemons: GuestProcess[] = [];
  for (const [index, name] of (["n1", "n2"] as const).entries()) {
    const vm = lab.vm(name);
    await vm.must(["mkdir", "-p", "/run/sanlock"]);
    daemons.push(
      vm.start(
        ["sanlock", "daemon", "-D", "-w", "0", "-U", "root", "-G", "root", "-o", "1"],
        () => undefined,
      ),
    );
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    const lockspace = `LS:${index + 1}:${disk}:0`;
    await vm.must(["sanlock", "client", "add_lockspace", "-s", lockspace, "-o", "1"]);
  }
  const take = ["sanlock", "client", "command", "-r", resource, "-c"];
  n1.start([...take, "/bin/sleep", "100000"], () => undefined);
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  const attempt = async (): Promise<Ran> =>
    // sanlock itself waits until it takes the host for dead.
    await lab.vm("n2").run([...take, "/bin/true"], { timeoutMs: 300_000 });
  if ((await attempt()).exitCode === 0) {
    throw new Error("sanlock gave the lease to both");
  }
  const cutMs = performance.now();
  await n1.powerCut();
  while ((await attempt()).exitCode !== 0) {
    if (performance.now() - cutMs > 300_000) {
      throw new Error("sanlock has not taken the lease over after 300 s");
    }
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  const totalMs = performance.now() - cutMs;
  for (const daemon of daemons) {
    daemon.drop();
  }
  return { totalMs, waitedMs: totalMs, steps: "the lease alone, neither fsck nor mount" };
}

/** @param only "sharedha" or "sanlock"; undefined: both */
async function main(only: string | undefined): Promise<void> {
  const lab = new Lab(imagesFromEnvironment());
  try {
    process.stdout.write(
      `${"power cut of the holder".padEnd(44)}${"total".padStart(9)}${"waiting".padStart(9)}${"work".padStart(9)}\n`,
    );
    for (let round = 1; round <= ROUNDS && only !== "sanlock"; round++) {
      line("sharedha default, expired, to mounted (ext4)", await measureSharedha(lab));
    }
    if (only !== "sharedha") {
      line("sanlock, io_timeout 1, to the lease alone", await measureSanlock(lab));
    }
  } finally {
    await lab.stop();
  }
}

await main(process.argv[2]);
