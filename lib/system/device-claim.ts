import { closeSync, constants, openSync } from "node:fs";

import { deviceError } from "./device-error.js";

/**
 * Opens a block device for itself alone (open(2), O_EXCL); the caller closes it. While it is open nothing can be mounted
 * from it.
 * @throws ERR_DEVICE_BUSY when a file system, multipath, LVM or md of this machine has it; errors of opening
 */
export function claimDevice(path: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_EXCL);
  } catch (error) {
    throw deviceError(path, error);
  }
}

/** @throws as `claimDevice` */
export function requireUnclaimed(path: string): void {
  closeSync(claimDevice(path));
}
