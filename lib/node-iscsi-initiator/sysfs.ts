/** Reads of single attributes. Sessions and disks come and go while they are read, and what is gone is no error. */
import { readdirSync, readFileSync, realpathSync } from "node:fs";

/**
 * A session that ends between the listing and the read gives ENOENT or ENODEV; an attribute of a connection that is just
 * being made gives ENOTCONN or EINVAL; a device that is being removed ENXIO or EIO.
 */
const GONE = new Set(["ENOENT", "ENOTDIR", "ENODEV", "ENXIO", "ENOTCONN", "EINVAL", "EIO"]);

function unlessGone<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    if (GONE.has(code)) {
      return undefined;
    }
    throw error;
  }
}

/** @returns undefined when it is not there (any more), empty, or the kernel's word for nothing */
export function readAttribute(path: string): string | undefined {
  const text = unlessGone(() => readFileSync(path, "utf8"))?.trim();
  return text === "" || text === "<NULL>" || text === "(null)" ? undefined : text;
}

export function readNumber(path: string): number | undefined {
  const text = readAttribute(path);
  return text !== undefined && /^-?\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Sorted by the numbers in the names, so that session10 comes after session9. */
export function listNames(dir: string): readonly string[] {
  return (unlessGone(() => readdirSync(dir)) ?? []).toSorted((one, other) =>
    one.localeCompare(other, "en", { numeric: true }),
  );
}

export function resolveLink(path: string): string | undefined {
  return unlessGone(() => realpathSync(path));
}
