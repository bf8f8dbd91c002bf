/**
 * Every interleaving of several hosts, one operation at a time, on LUNs in memory: depth-first over the schedules, each
 * replayed from the start (a generator cannot be copied), states that were seen before cut off.
 */
import assert from "node:assert/strict";
import { type MemoryLuns } from "./memory-luns.js";
import { type ProcedureStepper } from "./procedure-stepper.js";

/** A fresh world for every replay. */
export interface World {
  readonly luns: MemoryLuns;
  readonly hosts: readonly ProcedureStepper<unknown>[];
  /** Throws when the promise is broken; called after every step. */
  check(): void;
  /** Called when nobody has anything left to do. */
  finish(): void;
  /** What the hosts' histories do not say. */
  extraKey?(): string;
}

export interface Exploration {
  readonly makeWorld: () => World;
  /** How often a host may be interrupted although it could go on; undefined: as often as there is a chance. */
  readonly preemptionsMax?: number;
  readonly statesMax: number;
}

export interface Explored {
  readonly states: number;
  readonly ends: number;
  readonly truncated: boolean;
}

/** A choice is host * 16 + LUN; LUN 15 answers what is no disk operation. */
type Choice = number;
const WAIT = 15;

interface Branch {
  readonly prefix: readonly Choice[];
  readonly preemptions: number;
}

export function explore(exploration: Exploration): Explored {
  const seen = new Map<string, number>();
  const ids = new Map<string, number>();
  const open: Branch[] = [{ prefix: [], preemptions: 0 }];
  let ends = 0;
  const limit = exploration.preemptionsMax ?? Infinity;
  for (let branch = open.pop(); branch !== undefined; branch = open.pop()) {
    if (seen.size >= exploration.statesMax) {
      return { states: seen.size, ends, truncated: true };
    }
    const path = [...branch.prefix];
    try {
      const world = replay(exploration, branch.prefix);
      ends += follow(world, path, branch.preemptions);
    } catch (error) {
      throw new Error(`schedule [${path.map(describe).join(" ")}]`, { cause: error });
    }
  }
  return { states: seen.size, ends, truncated: false };

  /** Follows one schedule to its end, leaving the other choices for later. */
  function follow(world: World, path: Choice[], preemptionsBefore: number): number {
    let preemptions = preemptionsBefore;
    for (;;) {
      const choices = choicesOf(world);
      if (choices.length === 0) {
        world.finish();
        return 1;
      }
      const last = path.at(-1);
      const key = `${last === undefined ? -1 : last >> 4} ${stateKey(world, ids)}`;
      const known = seen.get(limit === Infinity ? key.slice(key.indexOf(" ")) : key);
      if (known !== undefined && known <= preemptions) {
        return 0;
      }
      seen.set(limit === Infinity ? key.slice(key.indexOf(" ")) : key, preemptions);
      const canGoOn = last !== undefined && choices.some((choice) => choice >> 4 === last >> 4);
      const costOf = (choice: Choice): number => (canGoOn && choice >> 4 !== last >> 4 ? 1 : 0);
      const allowed = choices.filter((choice) => preemptions + costOf(choice) <= limit);
      const first = allowed.find((choice) => costOf(choice) === 0) ?? allowed[0];
      assert(first !== undefined);
      for (const choice of allowed) {
        if (choice !== first) {
          open.push({ prefix: [...path, choice], preemptions: preemptions + costOf(choice) });
        }
      }
      preemptions += costOf(first);
      path.push(first);
      take(world, first);
    }
  }
}

function replay(exploration: Exploration, prefix: readonly Choice[]): World {
  const world = exploration.makeWorld();
  for (const choice of prefix) {
    take(world, choice);
  }
  return world;
}

function take(world: World, choice: Choice): void {
  const host = world.hosts[choice >> 4];
  assert(host !== undefined);
  if ((choice & WAIT) === WAIT) {
    host.proceed();
  } else {
    host.step(choice & WAIT);
  }
  world.check();
}

export function choicesOf(world: World): readonly Choice[] {
  return world.hosts.flatMap((host, index) => [
    ...host.ready().map((lun) => index * 16 + lun),
    ...(host.waits ? [index * 16 + WAIT] : []),
  ]);
}

/** Runs one schedule in which `pick` decides, e.g. at random. */
export function runSchedule(world: World, pick: (count: number) => number, stepsMax = 5_000): void {
  const path: Choice[] = [];
  try {
    for (let count = 0; ; count++) {
      assert(count < stepsMax, "the hosts do not come to an end");
      const choices = choicesOf(world);
      if (choices.length === 0) {
        world.finish();
        return;
      }
      const choice = choices[pick(choices.length)];
      assert(choice !== undefined);
      path.push(choice);
      take(world, choice);
    }
  } catch (error) {
    throw new Error(`schedule [${path.map(describe).join(" ")}]`, { cause: error });
  }
}

function stateKey(world: World, ids: Map<string, number>): string {
  const idOf = (text: string): number => {
    const known = ids.get(text);
    if (known !== undefined) {
      return known;
    }
    ids.set(text, ids.size);
    return ids.size - 1;
  };
  const parts = world.hosts.map((host) => {
    // The history is folded into one number, so that long ones cost no more than short ones.
    const folded = host.history.reduce((id, entry) => idOf(`${id}<${entry}`), -1);
    return `${folded} ${host.position()}`;
  });
  return `${idOf(world.luns.contentKey())} ${parts.join(" ")} ${world.extraKey?.() ?? ""}`;
}

function describe(choice: Choice): string {
  const lun = choice & WAIT;
  return `${(choice >> 4) + 1}${lun === WAIT ? "w" : `@${lun + 1}`}`;
}
