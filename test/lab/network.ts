/**
 * The lab's network: a namespace with a bridge, a tap for each VM. Faults are drops where the bridge forwards from one tap
 * to another, so the host (the bridge itself) reaches every VM's agent all the time.
 */
import { existsSync } from "node:fs";

import { BRIDGE, HOST_ADDRESS, HOST_MAC, NAMESPACE, type VmName } from "./settings.js";
import { tool } from "./tool.js";

const NAMESPACE_FILE = `/run/netns/${NAMESPACE}`;

/** The words before a command that make it run inside of the namespace. */
export const INSIDE = ["nsenter", `--net=${NAMESPACE_FILE}`];

async function inside(file: string, args: readonly string[]): Promise<string> {
  const [enter = "", ...words] = INSIDE;
  return await tool(enter, [...words, file, ...args]);
}

export async function networkUp(vms: readonly VmName[]): Promise<void> {
  await tool("ip", ["netns", "add", NAMESPACE]);
  await inside("ip", ["link", "set", "lo", "up"]);
  const bridge = ["type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"];
  // Always the same: a machine that is restored knows it, and would answer another one only half a minute later.
  await inside("ip", ["link", "add", BRIDGE, "address", HOST_MAC, ...bridge]);
  await inside("ip", ["address", "add", `${HOST_ADDRESS}/24`, "dev", BRIDGE]);
  await inside("ip", ["link", "set", BRIDGE, "up"]);
  for (const vm of vms) {
    await inside("ip", ["tuntap", "add", "dev", tapOf(vm), "mode", "tap"]);
    await inside("ip", ["link", "set", tapOf(vm), "master", BRIDGE, "up"]);
  }
  const chain = "{ type filter hook forward priority 0; policy accept; }";
  await inside("nft", ["add table bridge lab; add chain bridge lab faults", chain]);
}

export function networkIsUp(): boolean {
  return existsSync(NAMESPACE_FILE);
}

export async function networkDown(): Promise<void> {
  if (networkIsUp()) {
    await tool("ip", ["netns", "delete", NAMESPACE]);
  }
}

export function tapOf(vm: VmName): string {
  return `tap-${vm}`;
}

/** Frames between VMs that do not arrive. Faults add up until `heal`. */
export const faults = {
  /** Both ways. */
  async cut(one: VmName, other: VmName): Promise<void> {
    await faults.cutOneWay(one, other);
    await faults.cutOneWay(other, one);
  },

  async cutOneWay(from: VmName, to: VmName): Promise<void> {
    await rule(`iifname ${tapOf(from)} oifname ${tapOf(to)} drop`);
  },

  /** From everybody but the host's agent connection. */
  async isolate(vm: VmName): Promise<void> {
    await rule(`iifname ${tapOf(vm)} drop`);
    await rule(`oifname ${tapOf(vm)} drop`);
  },

  /** @param percent of the frames, both ways */
  async lose(one: VmName, other: VmName, percent: number): Promise<void> {
    const taps = `{ ${tapOf(one)}, ${tapOf(other)} }`;
    const chance = percent >= 100 ? "" : `numgen random mod 100 < ${percent} `;
    await rule(`iifname ${taps} oifname ${taps} ${chance}drop`);
  },

  async heal(): Promise<void> {
    await inside("nft", ["flush chain bridge lab faults"]);
  },
};

async function rule(text: string): Promise<void> {
  await inside("nft", [`add rule bridge lab faults ${text}`]);
}
