import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";

import { ShareHaError } from "../errors.js";

/** Where the kernel shows itself; tests give another root. */
const ROOT = "/";

/** The random id that the kernel makes at every boot, as 36 characters. */
export function readBootId(root = ROOT): string {
  const bootId = readFileSync(`${root}proc/sys/kernel/random/boot_id`, "latin1").trim();
  if (!/^[0-9a-f-]{36}$/.test(bootId)) {
    throw new ShareHaError("ERR_PROC_FORMAT", `unknown form of the boot id: ${bootId}`, {
      hint: "This kernel prints its boot id in a form that this version does not know; report it.",
    });
  }
  return bootId;
}

/**
 * /etc/machine-id (machine-id(5)), or undefined where there is none yet: a container, an image that has never been
 * started. Then the caller uses the id of its state directory.
 */
export function readMachineId(root = ROOT): string | undefined {
  for (const path of ["etc/machine-id", "var/lib/dbus/machine-id"]) {
    if (existsSync(root + path)) {
      const id = readFileSync(root + path, "latin1").trim();
      if (/^[0-9a-f]{32}$/.test(id)) {
        return id;
      }
    }
  }
  return undefined;
}

/**
 * The id that the machine's firmware has (SMBIOS 3.7, 7.2.1), in lower case. Of a virtual machine it is the hypervisor's:
 * the usual ways to copy one give the copy another. Undefined where there is none or one that says nothing, and for
 * users who may not read it.
 */
export function readProductUuid(root = ROOT): string | undefined {
  let text: string;
  try {
    text = readFileSync(`${root}sys/class/dmi/id/product_uuid`, "latin1");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "EACCES") {
      return undefined;
    }
    throw error;
  }
  const uuid = text.trim().toLowerCase();
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid) && !/^[0-]+$|^[f-]+$/.test(uuid)
    ? uuid
    : undefined;
}

export interface Virtuality {
  readonly virtual: boolean;
  /** What told it: "hypervisor flag of the CPU", "DMI QEMU" ... */
  readonly reason: string;
}

/** Vendors and products of /sys/class/dmi/id that are hypervisors. */
const HYPERVISORS =
  /QEMU|KVM|VMware|VirtualBox|innotek|Xen|Bochs|BHYVE|Parallels|Virtual Machine|OpenStack|Amazon EC2|Google Compute|Alibaba Cloud|RHEV|oVirt|Nutanix|HVM domU/i;

/**
 * Whether this machine can be paused from outside, with its clocks and its watchdog (facts/hazards.md, H2). Unknown
 * counts as virtual only with a sign of it: physical machines show none.
 */
export function detectVirtuality(root = ROOT): Virtuality {
  const cpuinfo = readOptional(`${root}proc/cpuinfo`);
  if (/^flags\s*:.*\bhypervisor\b/m.test(cpuinfo)) {
    return { virtual: true, reason: "hypervisor flag of the CPU" };
  }
  const type = readOptional(`${root}sys/hypervisor/type`);
  if (type !== "") {
    return { virtual: true, reason: `/sys/hypervisor: ${type}` };
  }
  for (const name of ["sys_vendor", "product_name", "board_vendor", "bios_vendor"]) {
    const value = readOptional(`${root}sys/class/dmi/id/${name}`);
    if (HYPERVISORS.test(value)) {
      return { virtual: true, reason: `DMI ${value}` };
    }
  }
  // Machines without DMI (most of arm64 and riscv64) name the hypervisor in the device tree.
  const compatible = readOptional(`${root}proc/device-tree/hypervisor/compatible`);
  if (compatible !== "") {
    return { virtual: true, reason: `device tree: ${compatible.replaceAll("\0", " ").trim()}` };
  }
  return { virtual: false, reason: "no sign of a hypervisor" };
}

function readOptional(path: string): string {
  return existsSync(path) ? readFileSync(path, "latin1").trim() : "";
}

/** The first 64 bits of the text's SHA-256, little-endian: how ids travel in a host record. Never 0, which means unknown. */
export function hash64(text: string): bigint {
  const hash = createHash("sha256").update(text, "utf8").digest().readBigUInt64LE(0);
  return hash === 0n ? 1n : hash;
}
