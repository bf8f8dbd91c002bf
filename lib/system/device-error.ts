import { ShareHaError } from "../errors.js";

interface Explanation {
  readonly code: string;
  readonly what: string;
  readonly hint: string;
}

const missing: Explanation = {
  code: "ERR_NO_SUCH_DEVICE",
  what: "does not exist",
  hint: "Check the path; for a SAN device check the session and the multipath map (iscsiadm -m session, multipath -ll).",
};
const forbidden: Explanation = {
  code: "ERR_PERMISSION",
  what: "may not be opened by this user",
  hint: "Run as root, or give this user read and write access to the device.",
};
const readOnly: Explanation = {
  code: "ERR_READ_ONLY_DEVICE",
  what: "is read-only",
  hint: "The target exports it read-only, or its file system is mounted read-only; make it writable.",
};

/** What an open's errno means for somebody who gave the path. */
const explanations: Readonly<Record<string, Explanation>> = {
  ENOENT: missing,
  ENOTDIR: missing,
  ENXIO: missing,
  ENODEV: missing,
  ENOMEDIUM: missing,
  EACCES: forbidden,
  EPERM: forbidden,
  EROFS: readOnly,
  EISDIR: {
    code: "ERR_NOT_A_DEVICE",
    what: "is a directory",
    hint: "Give a block device or a regular file.",
  },
  EBUSY: {
    code: "ERR_DEVICE_BUSY",
    what: "is in exclusive use",
    hint: "Something has claimed the device (mount, multipath, LVM, md); see lsblk.",
  },
  EINVAL: {
    code: "ERR_DIRECT_IO",
    what: "is on a file system that refuses direct I/O (O_DIRECT)",
    hint:
      "Every lock record must bypass the page cache. Use a block device, or a file on ext4, xfs or btrfs " +
      "(not a ramfs or another file system without O_DIRECT).",
  },
};

/** The error of an open (or stat) of a device as a ShareHaError with cause and remedy. */
export function deviceError(path: string, error: unknown): ShareHaError {
  const code =
    typeof error === "object" && error !== null && "code" in error ? String(error.code) : "";
  const explanation = explanations[code];
  if (explanation === undefined) {
    const message = error instanceof Error ? error.message : String(error);
    return new ShareHaError("ERR_DEVICE_OPEN", `${path} cannot be opened: ${message}`, {
      hint: "See the kernel log (dmesg) for the device.",
      fields: { path },
      cause: error,
    });
  }
  return new ShareHaError(explanation.code, `${path} ${explanation.what}`, {
    hint: explanation.hint,
    fields: { path, errno: code },
    cause: error,
  });
}
