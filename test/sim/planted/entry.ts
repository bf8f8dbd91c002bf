/** A bug that is planted into the compiled code, and the runs in which the simulator must find it. */
import { type OptionsOverride } from "../options.js";

export interface Mutation {
  /** Compiled file, from the root of the build. */
  readonly file: string;
  /** Occurs exactly once there, else the test fails: the production code has changed, and so must this entry. */
  readonly find: string;
  readonly replace: string;
}

export interface PlantedBug {
  readonly number: string;
  readonly title: string;
  readonly mutations: readonly Mutation[];
  readonly options: OptionsOverride;
  /** What the failure must say: where the run itself is beyond what is promised. */
  readonly expect?: string;
  /** A failure must show within this many seeds. */
  readonly seedsMax: number;
}

/** A number of PLANTED-BUGS.md that this code cannot have. */
export interface AbsentBug {
  readonly number: string;
  readonly title: string;
  readonly reason: string;
}
