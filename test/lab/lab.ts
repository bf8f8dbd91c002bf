/**
 * The whole lab: images, snapshots, machines, storage, network faults. `build` makes what is cached, outside of the
 * namespace; the rest works inside of it.
 */
import { join } from "node:path";

import { built, inputsKey, type Progress } from "./cache.js";
import { ensureTscKhz, hostBootId } from "./host-tsc.js";
import { appImage } from "./image/app.js";
import { initrd } from "./image/initrd.js";
import { rootImage } from "./image/root.js";
import { faults } from "./network.js";
import { initiatorOf, PORTAL, San, TARGETS } from "./san.js";
import { type NODES, SPECS, type VmName, VMS } from "./settings.js";
import { QEMU, tool } from "./tool.js";
import { type Images, Vm } from "./vm.js";

export interface LabImages extends Images {
  /** Where `VM.state` is for each VM but the clone; made by `ensureSnapshots`. */
  readonly snapshotKey: string;
  /** Of the build under test. */
  readonly appKey: string;
}

export async function buildImages(say: Progress): Promise<LabImages> {
  const root = await rootImage(say);
  const early = await initrd(root, say);
  const version = await tool(QEMU, ["--version"]);
  const app = await appImage(say);
  return {
    vmlinux: root.vmlinux,
    root: root.root,
    initrd: early.file,
    app: app.file,
    appKey: app.key,
    snapshotKey: inputsKey(
      [root.key, early.key, version, JSON.stringify(SPECS), hostBootId()],
      [join(import.meta.dirname, "vm.js"), join(import.meta.dirname, "lab.js")],
    ),
  };
}

/** How `make e2e` hands them to the process of the tests. */
const ENVIRONMENT = "SHAREDHA_LAB_IMAGES";

export function environmentFor(images: LabImages): Readonly<Record<string, string>> {
  return { [ENVIRONMENT]: JSON.stringify(images) };
}

export function imagesFromEnvironment(): LabImages {
  const text = process.env[ENVIRONMENT];
  if (text === undefined) {
    throw new Error("the end-to-end tests run only by `make e2e`, which prepares the lab");
  }
  return JSON.parse(text) as LabImages;
}

export class Lab {
  readonly network = faults;
  readonly san: San;
  readonly #images: LabImages;
  readonly #vms: ReadonlyMap<VmName, Vm>;

  /** Changes with everything that a running machine may have in its memory. */
  get stateKey(): string {
    return inputsKey([this.#images.snapshotKey, this.#images.appKey], []);
  }

  constructor(images: LabImages) {
    this.#images = images;
    this.#vms = new Map(VMS.map((name) => [name, new Vm(name, images)]));
    this.san = new San(this.vm("san"));
  }

  vm(name: VmName): Vm {
    const vm = this.#vms.get(name);
    if (vm === undefined) {
      throw new Error(`no VM ${name}`);
    }
    return vm;
  }

  /** Before the first boot on this host. */
  async ensureClock(say: Progress): Promise<void> {
    await ensureTscKhz(this.vm("san"), say);
  }

  /** Boots each VM once as far as its agent and saves it there, before it has touched a disk. */
  async ensureSnapshots(say: Progress): Promise<string> {
    await this.ensureClock(say);
    return await built("snapshot", this.#images.snapshotKey, say, async (dir) => {
      const names = VMS.filter((name) => name !== "c1");
      await Promise.all(
        names.map(async (name) => {
          const vm = this.vm(name);
          await vm.makeDisks();
          await vm.boot({ forSnapshot: true });
          // Node once, so that its pages are in the guest's memory.
          await vm.must(["node", "--eval", "1"]);
          await vm.pause();
          await vm.saveState(join(dir, `${name}.state`));
          await vm.powerCut();
        }),
      );
    });
  }

  /**
   * Machines with empty disks and a configured target, all at once.
   * @param from `snapshot`: about a second each; `cold`: a whole boot
   */
  async start(names: readonly VmName[], from: "cold" | "snapshot", say: Progress): Promise<void> {
    await this.ensureClock(say);
    const snapshots = from === "snapshot" ? await this.ensureSnapshots(say) : undefined;
    await this.network.heal();
    await Promise.all(
      names.map(async (name) => {
        const vm = this.vm(name);
        await vm.makeDisks();
        if (snapshots === undefined) {
          await vm.boot();
        } else {
          await vm.restore(join(snapshots, `${name}.state`));
        }
        if (name === "san") {
          await this.san.configure();
        }
      }),
    );
  }

  /**
   * All machines with their disks at one moment. To all of them the time until `restoreAll` does not exist, so it is no
   * fault: nobody sees anybody's record stand still.
   */
  async saveAll(names: readonly VmName[], dir: string): Promise<void> {
    await Promise.all(names.map((name) => this.vm(name).pause()));
    for (const name of names) {
      await this.vm(name).saveTo(dir);
    }
    await this.stop();
  }

  async restoreAll(names: readonly VmName[], dir: string): Promise<void> {
    await this.stop();
    await this.network.heal();
    await Promise.all(
      names.map(async (name) => {
        await this.vm(name).takeDisksFrom(dir);
        await this.vm(name).load(join(dir, `${name}.state`));
      }),
    );
    await Promise.all(names.map((name) => this.vm(name).resume()));
    await Promise.all(names.map((name) => this.vm(name).wake()));
  }

  runningVms(): readonly Vm[] {
    return [...this.#vms.values()].filter((vm) => vm.isRunning);
  }

  async stop(): Promise<void> {
    for (const vm of this.#vms.values()) {
      await vm.powerCut();
    }
  }

  /** Lets go of all control connections, so that this process can end while the machines go on. */
  forget(): void {
    for (const vm of this.#vms.values()) {
      vm.forget();
    }
  }

  /** Discovers and logs in by hand; waits for the disks. For tests that are not about `sharedha`'s own way. */
  async attach(name: VmName): Promise<void> {
    const vm = this.vm(name);
    await vm.must(["iscsiadm", "-m", "discovery", "-t", "st", "-p", PORTAL]);
    const record = ["iscsiadm", "-m", "node", "-T", TARGETS.data.iqn, "-p", PORTAL];
    await vm.must([...record, "-o", "update", "-n", "node.startup", "-v", "automatic"]);
    await vm.must([...record, "--login"]);
    await vm.must(["udevadm", "settle", "--timeout", "20"]);
  }

  /**
   * A second machine from this one's disks, and of the same firmware: same machine id, same state directory. It has another
   * address and another iSCSI name, without which the two would throw each other's sessions out.
   */
  async clone(name: (typeof NODES)[number]): Promise<Vm> {
    const clone = this.vm("c1");
    await this.vm(name).cloneDisksTo(clone);
    await clone.boot({ uuid: SPECS[name].uuid, initiator: initiatorOf("c1") });
    return clone;
  }
}
