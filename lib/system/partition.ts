import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
} from "node:fs";
import { basename, join } from "node:path";

import { deviceError } from "./device-error.js";
import { BLKRRPART, ioctl } from "./libc.js";

/**
 * The kernel's node for the partition that starts at this byte, such as /dev/sdb2. Where another machine has made the
 * partitions, this kernel does not know them yet: then it reads the table again. Undefined when it knows none there, as
 * with a loop device or a kernel without partitions.
 * @throws errors of opening the disk
 */
export function partitionAt(disk: string, offset: number): string | undefined {
  const known = knownPartition(disk, offset);
  if (known !== undefined) {
    return known;
  }
  const fd = openDisk(disk);
  try {
    // What keeps the kernel from it (EBUSY: a partition is in use; EINVAL: there are none here) leaves all as it was.
    ioctl(fd, BLKRRPART, null);
  } finally {
    closeSync(fd);
  }
  return knownPartition(disk, offset);
}

function openDisk(disk: string): number {
  try {
    return openSync(disk, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw deviceError(disk, error);
  }
}

function knownPartition(disk: string, offset: number): string | undefined {
  const name = basename(realpathSync(disk));
  const directory = join("/sys/class/block", name);
  if (!existsSync(directory)) {
    return undefined;
  }
  for (const child of readdirSync(directory)) {
    const start = join(directory, child, "start");
    // The kernel counts in sectors of 512 bytes here, whatever the device's are.
    if (child.startsWith(name) && existsSync(start)) {
      const isHere = Number(readFileSync(start, "latin1")) * 512 === offset;
      if (isHere && existsSync(`/dev/${child}`)) {
        return `/dev/${child}`;
      }
    }
  }
  return undefined;
}
