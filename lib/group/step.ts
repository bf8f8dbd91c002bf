/**
 * The steps by which a group comes up and goes down, as data. Each step rests on the ones before it; going down is the
 * same list backwards, so that nothing is ever left standing on something that is gone.
 */
import { type Group, leaseNameOf } from "./group.js";

export type GroupStep =
  | { readonly kind: "lease"; readonly name: string }
  | { readonly kind: "device"; readonly device: string }
  | { readonly kind: "fsck"; readonly device: string; readonly type: string }
  | {
      readonly kind: "mount";
      readonly device: string;
      readonly path: string;
      readonly type: string;
      readonly options: string;
    };

/** How the group was taken: whether the holder before it let go by itself. */
export interface TakeOver {
  /** True for every evidence but `released`, and when nobody ever held it. */
  readonly afterCrash: boolean;
}

/** What a group that was mounted cleanly needs is no check; after a crash a journal has to be replayed and looked at. */
export function startSteps(group: Group, how: TakeOver): readonly GroupStep[] {
  const { device, mount } = group;
  const steps: GroupStep[] = [
    { kind: "lease", name: leaseNameOf(group.name) },
    { kind: "device", device },
  ];
  if (mount !== undefined) {
    if (how.afterCrash) {
      steps.push({ kind: "fsck", device, type: mount.type });
    }
    steps.push({ kind: "mount", device, ...mount });
  }
  return steps;
}

/**
 * What has to be undone, newest first.
 * @param done the steps of `startSteps` that were carried out, in their order (all, or as far as a failed start came)
 */
export function stopSteps(done: readonly GroupStep[]): readonly GroupStep[] {
  // A check of the file system leaves nothing behind that could be undone.
  return done.filter((step) => step.kind !== "fsck").reverse();
}
