import { ShareHaError } from "../errors.js";
import { shutdownMount } from "./cut-mount.js";
import { backingOfLoop, type FileIdentity } from "./loop.js";
import { lookForFilesystemUsers } from "./mount-users.js";
import { findMountsEverywhere, type NamespaceMount, ownMountNamespace } from "./mounts.js";
import { killExact } from "./process.js";

/** So long users are looked for before the cut; nobody else waits for it, but the daemon does nothing else meanwhile. */
const USERS_BOUND_MS = 500;

/** Outcome for one mount in another namespace that shows the same data. */
export interface CutMount {
  readonly mount: NamespaceMount;
  /**
   * `cut`: it accepts no access any more. `own`: it is the very file system that the own namespace has mounted too, so it
   * was left alone. `failed`: see `error`; the data may still be written through it.
   */
  readonly kind: "cut" | "own" | "failed";
  readonly error?: ShareHaError;
}

/** The mounts, in every namespace, of a loop device that shows this file (through loops over loops). */
export function findMountsOf(
  backing: FileIdentity,
  everywhere: readonly NamespaceMount[] = findMountsEverywhere(),
): NamespaceMount[] {
  const verdicts = new Map<string, boolean>();
  return everywhere.filter((mount) => {
    const known = verdicts.get(mount.devMajorMinor);
    if (known !== undefined) {
      return known;
    }
    const shows = sameBackingFile(mount.devMajorMinor, backing);
    verdicts.set(mount.devMajorMinor, shows);
    return shows;
  });
}

/** Those of them in other mount namespaces. To be called before the own mount is made. */
export function findForeignMounts(
  backing: FileIdentity,
  except: string = ownMountNamespace(),
): NamespaceMount[] {
  return findMountsOf(backing).filter(({ namespace }) => namespace !== except);
}

/** Whether the file system on this device number lives in this file. */
export function sameBackingFile(devMajorMinor: string, backing: FileIdentity): boolean {
  const [major, minor] = devMajorMinor.split(":");
  if (major !== "7" || minor === undefined) {
    return false;
  }
  const source = backingOfLoop(`/dev/loop${minor}`);
  return source?.file.device === backing.device && source.file.inode === backing.inode;
}

/**
 * Shuts down (without log flush) every file system in another mount namespace of this machine that shows the given file:
 * what a frozen node on the same machine has mounted. It reaches only this machine and only namespaces with a process;
 * `unreached` file systems cannot be listed, which is why this is a help after a take-over and never evidence.
 * To be called before the own mount is made.
 *
 * Whoever uses such a file system is killed just before, as the node's own guard would do: a service of a node of which only
 * the guard is frozen still writes, and during the cut fsync(2) may tell it that a record is on the disk which is not (see
 * guard/expiry.ts). It has lost its data in any case; like this it can acknowledge nothing that the taker does not find.
 * Killed are exactly those who have something of it open, in whatever namespace, and never this process or the first one.
 */
export function cutForeignMounts(
  backing: FileIdentity,
  except: string = ownMountNamespace(),
): CutMount[] {
  const everywhere = findMountsEverywhere();
  const mounts = findMountsOf(backing, everywhere);
  const own = new Set(
    mounts.filter(({ namespace }) => namespace === except).map((mount) => mount.devMajorMinor),
  );
  return mounts
    .filter(({ namespace }) => namespace !== except)
    .map((mount) => cut(mount, own, everywhere));
}

function cut(
  mount: NamespaceMount,
  own: ReadonlySet<string>,
  everywhere: readonly NamespaceMount[],
): CutMount {
  if (own.has(mount.devMajorMinor)) {
    return { mount, kind: "own" };
  }
  try {
    // The namespace may end with those who are killed, and its last unmount would write: the file system is open meanwhile.
    shutdownMount(mount, `/proc/${mount.pid}/root${mount.mountPoint}`, () => {
      killUsers(mount, everywhere);
    });
    return { mount, kind: "cut" };
  } catch (error) {
    if (error instanceof ShareHaError) {
      return { mount, kind: "failed", error };
    }
    throw error;
  }
}

/** Found first and killed then, so that as little time as possible is between the first signal and the cut. */
function killUsers(mount: NamespaceMount, everywhere: readonly NamespaceMount[]): void {
  const untilMs = performance.now() + USERS_BOUND_MS;
  const users = [];
  for (const user of lookForFilesystemUsers([mount], everywhere)) {
    if (user !== undefined) {
      users.push(user);
    }
    if (performance.now() >= untilMs) {
      break;
    }
  }
  for (const user of users) {
    try {
      killExact(user, "SIGKILL");
    } catch (error) {
      // The cut counts; whoever cannot be killed is cut off all the same.
      process.emitWarning(error instanceof Error ? error : String(error));
    }
  }
}
