/**
 * From the loss of the right to write back to membership: tear down, wait until nothing is in flight, let the lost pulse
 * end, join with a new generation. What cannot be torn down keeps the node out (DESIGN section 8): only a restart of the
 * machine, or somebody who unmounts it, clears that.
 */
import { Cutter } from "../guard/cutter.js";
import { UserFinder } from "../guard/user-finder.js";
import { type Clock } from "../port/clock.js";
import { unmount } from "../system/filesystem.js";
import { findTarget, type MountTarget } from "../system/mounted-filesystem.js";
import { type DataDevice, type GroupEdges } from "./data-device.js";
import { killProcess } from "./session-processes.js";
import { tearDown, type TeardownEdges, type TeardownReport } from "./teardown.js";

/** How often what is left over is tried again: somebody may have unmounted it, or a process has ended. */
const RETRY_MS = 2_000;

export interface LostMount {
  readonly name: string;
  readonly target: MountTarget;
  readonly data: DataDevice;
}

export interface LossOptions {
  readonly clock: Clock;
  readonly groupEdges: Pick<GroupEdges, "detach" | "problemOfUse">;
  readonly onEvent: (event: string, text: string, fields: Record<string, string | number>) => void;
}

/** Threads that stand ready to cut, so that nothing has to be started when it counts. */
export class LossHandler {
  readonly #options: LossOptions;
  readonly #cutter = new Cutter();
  readonly #finder = new UserFinder();
  #left: readonly string[] = [];

  constructor(options: LossOptions) {
    this.#options = options;
  }

  /** What keeps this node from joining again. */
  get left(): readonly string[] {
    return this.#left;
  }

  async prepare(mounts: number): Promise<void> {
    await this.#cutter.prepare(mounts);
    if (mounts > 0) {
      await this.#finder.prepare();
    }
  }

  /** Resolves when nothing is left; at the first try within `boundMs`, later when somebody helped. */
  async tearDownAll(
    mounts: readonly LostMount[],
    boundMs: number,
    isClosed: () => boolean,
  ): Promise<void> {
    const edges = this.#edges(mounts);
    let rest = mounts.map((mount) => mount.target);
    for (;;) {
      const report = await tearDown({ mounts: rest, boundMs }, edges);
      this.#tell(report);
      this.#left = report.left;
      if (report.left.length === 0 || isClosed()) {
        return;
      }
      rest = rest.filter(
        (target) => findTarget(target).length > 0 || edges.useOf(target.path) !== undefined,
      );
      await edges.pause(RETRY_MS);
    }
  }

  async close(): Promise<void> {
    this.#finder.close();
    await this.#cutter.prepare(0);
  }

  #tell(report: TeardownReport): void {
    const ms = Math.round(report.tookMs);
    const isNew = report.left.join() !== this.#left.join() || report.left.length === 0;
    if (isNew) {
      const end = report.left.length === 0 ? "nothing is left" : `left: ${report.left.join("; ")}`;
      this.#options.onEvent("torn-down", `${report.steps.join("; ")}; ${end}`, { ms });
    }
  }

  #edges(mounts: readonly LostMount[]): TeardownEdges {
    const { clock, groupEdges } = this.#options;
    const dataAt = (path: string): DataDevice | undefined =>
      mounts.find((mount) => mount.target.path === path)?.data;
    return {
      bootMs: () => clock.bootMs(),
      cut: async (targets, boundMs) => await this.#cutter.cut(targets, boundMs),
      usersOf: async (targets, boundMs) => await this.#finder.find(targets, boundMs),
      kill: (process) => {
        try {
          killProcess(process);
        } catch (error) {
          const why = error instanceof Error ? error.message : String(error);
          this.#options.onEvent("not-killed", why, { pid: process.pid });
        }
      },
      unmount: async (path, timeoutMs) => {
        try {
          return await unmount(path, { timeoutMs });
        } catch (error) {
          return error instanceof Error ? error.message : String(error);
        }
      },
      detach: async (path) => {
        const data = dataAt(path);
        try {
          if (data !== undefined) {
            await groupEdges.detach(data);
          }
        } catch (error) {
          const why = error instanceof Error ? error.message : String(error);
          this.#options.onEvent("not-detached", why, {});
        }
      },
      useOf: (path) => {
        const data = dataAt(path);
        try {
          return data === undefined ? undefined : groupEdges.problemOfUse(data)?.message;
        } catch (error) {
          return error instanceof Error ? error.message : String(error);
        }
      },
      pause: async (ms) => {
        await new Promise((resolve) => setTimeout(resolve, ms));
      },
    };
  }
}
