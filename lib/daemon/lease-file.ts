/**
 * `leases.BOOT.0`, `leases.BOOT.1`: what this daemon holds, for the next daemon of the same node. It has to survive the
 * daemon, not the machine: after a reboot the generation is another one and nothing in it is valid. So nothing is flushed,
 * and the files carry the boot's id in their names: what a power cut leaves of them, empty or torn, is never looked at.
 * They are on the way of every grant, and the usual replacing rename costs a millisecond there, because ext4 then allocates
 * the file's blocks at once; two files that are overwritten in place, in turn, cost 20 microseconds. Each begins with a
 * sequence number, its length and a CRC-32C: a write that was cut off leaves the other one.
 */
import {
  closeSync,
  constants,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { z } from "zod";

import { ShareHaError } from "../errors.js";
import { crc32c } from "../format/crc32c.js";
import { type FileIdentity } from "../system/loop.js";
import { type BlockDeviceId } from "../system/mounted-filesystem.js";

export interface HeldNote {
  readonly name: string;
  readonly area: number;
  readonly numHosts: number;
  readonly lver: bigint;
  readonly shared: boolean;
  /** Released when its client's connection closed; the connection does not survive the daemon. */
  readonly bound: boolean;
  /** Group of which this is the lease. */
  readonly group: string | undefined;
}

export interface MountNote {
  readonly group: string;
  readonly path: string;
  readonly device: string;
  readonly deviceId: BlockDeviceId;
  /** The file behind the loop device, as long as the loop does not go with the mount by itself. */
  readonly attached: FileIdentity | undefined;
}

export interface ProcessNote {
  readonly pid: number;
  readonly startTime: string;
}

export interface LeaseNotes {
  readonly hostId: number;
  readonly generation: bigint;
  readonly bootId: string;
  /** Who wrote this. It leads a session, in which its helpers run: mount(8), fsck. */
  readonly daemon: ProcessNote;
  readonly held: readonly HeldNote[];
  readonly mounts: readonly MountNote[];
  readonly processes: readonly ProcessNote[];
}

const u64 = z
  .string()
  .regex(/^\d{1,20}$/)
  .transform(BigInt);

const PROCESS = z.object({ pid: z.number().int(), startTime: z.string() });

const NOTES = z.object({
  home: z.string(),
  hostId: z.number().int(),
  generation: u64,
  bootId: z.string(),
  daemon: PROCESS,
  held: z.array(
    z.object({
      name: z.string(),
      area: z.number().int(),
      numHosts: z.number().int(),
      lver: u64,
      shared: z.boolean(),
      bound: z.boolean(),
      group: z.string().nullable(),
    }),
  ),
  mounts: z.array(
    z.object({
      group: z.string(),
      path: z.string(),
      device: z.string(),
      deviceId: z.object({ majorMinor: z.string(), sequence: z.string().nullable() }),
      attached: z.object({ device: u64, inode: u64 }).nullable(),
    }),
  ),
  processes: z.array(PROCESS),
});

/** "leases SEQUENCE LENGTH CRC" and a line feed, then LENGTH bytes of JSON; what follows is left from longer ones. */
const HEADER = /^leases (\d{1,15}) (\d{1,9}) ([0-9a-f]{8})\n/;

interface Slot {
  readonly sequence: number;
  readonly text: string;
}

export class LeaseFile {
  readonly #paths: readonly [string, string];
  /** A copied state directory has the notes of another node, whose processes and mounts are not ours to end. */
  readonly #home: string;
  readonly #files: [number | undefined, number | undefined] = [undefined, undefined];
  #sequence: number;
  #newest = "";

  /**
   * Removes what an earlier boot has left.
   * @throws ERR_STATE_DIR when a file of this boot is there and cannot be read
   */
  constructor(stateDir: string, bootId: string) {
    const { dev, ino } = statSync(stateDir, { bigint: true });
    this.#home = `${dev}:${ino}`;
    const own = `leases.${bootId}.`;
    for (const name of readdirSync(stateDir)) {
      if (name.startsWith("leases.") && !name.startsWith(own)) {
        rmSync(join(stateDir, name), { force: true });
      }
    }
    this.#paths = [join(stateDir, `${own}0`), join(stateDir, `${own}1`)];
    this.#sequence = Math.max(0, ...this.#slots().map((slot) => slot?.sequence ?? 0));
  }

  /** @throws ERR_STATE_DIR when the file cannot be written: then nothing may be granted */
  write(notes: LeaseNotes): void {
    const text = JSON.stringify({ home: this.#home, ...notes }, (_, value: unknown) =>
      typeof value === "bigint" ? String(value) : value === undefined ? null : value,
    );
    if (text === this.#newest) {
      return;
    }
    const sequence = this.#sequence + 1;
    const which = sequence % 2 === 0 ? 0 : 1;
    try {
      const body = Buffer.from(text);
      const crc = crc32c(body).toString(16).padStart(8, "0");
      const bytes = Buffer.concat([
        Buffer.from(`leases ${sequence} ${body.length} ${crc}\n`),
        body,
      ]);
      const file = (this.#files[which] ??= openForOverwriting(this.#paths[which]));
      if (writeSync(file, bytes, 0, bytes.length, 0) !== bytes.length) {
        throw new Error("the write was cut short");
      }
    } catch (cause) {
      throw new ShareHaError(
        "ERR_STATE_DIR",
        `${this.#paths[which]} cannot be written: ${wordsOf(cause)}`,
        {
          hint: "Make room on the state directory's file system; nothing is granted until then.",
          fields: { path: this.#paths[which] },
          cause,
        },
      );
    }
    this.#sequence = sequence;
    this.#newest = text;
  }

  /** This node has left: nothing is held. */
  remove(): void {
    for (const which of [0, 1] as const) {
      const file = this.#files[which];
      if (file !== undefined) {
        closeSync(file);
        this.#files[which] = undefined;
      }
      rmSync(this.#paths[which], { force: true });
    }
    this.#newest = "";
  }

  /** Undefined when there is none of this directory. @throws ERR_STATE_DIR when it is there and cannot be understood */
  read(): LeaseNotes | undefined {
    const slots = this.#slots();
    const newest = slots.reduce<Slot | undefined>(
      (best, slot) => (slot !== undefined && slot.sequence > (best?.sequence ?? -1) ? slot : best),
      undefined,
    );
    if (newest === undefined) {
      return undefined;
    }
    try {
      const { home, ...notes } = NOTES.parse(JSON.parse(newest.text));
      if (home !== this.#home) {
        return undefined;
      }
      return {
        ...notes,
        held: notes.held.map((held) => ({ ...held, group: held.group ?? undefined })),
        mounts: notes.mounts.map((mount) => ({
          ...mount,
          deviceId: { ...mount.deviceId, sequence: mount.deviceId.sequence ?? undefined },
          attached: mount.attached ?? undefined,
        })),
      };
    } catch (cause) {
      throw this.#unreadable(wordsOf(cause), cause);
    }
  }

  /** What each file holds; undefined where there is none or its write was cut off. */
  #slots(): readonly (Slot | undefined)[] {
    const found = this.#paths.map((path) => this.#readSlot(path));
    if (
      found.includes("broken") &&
      found.every((slot) => slot === "broken" || slot === undefined)
    ) {
      throw this.#unreadable("its beginning does not match its contents", undefined);
    }
    return found.map((slot) => (slot === "broken" ? undefined : slot));
  }

  #readSlot(path: string): Slot | "broken" | undefined {
    let bytes: Buffer;
    try {
      bytes = readFileSync(path);
    } catch (cause) {
      if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") {
        return undefined;
      }
      throw this.#unreadable(wordsOf(cause), cause);
    }
    const header = HEADER.exec(bytes.toString("latin1", 0, 64));
    if (header === null) {
      return "broken";
    }
    const start = header[0].length;
    const body = bytes.subarray(start, start + Number(header[2]));
    return body.length === Number(header[2]) &&
      crc32c(body) === Number.parseInt(header[3] ?? "", 16)
      ? { sequence: Number(header[1]), text: body.toString("utf8") }
      : "broken";
  }

  #unreadable(why: string, cause: unknown): ShareHaError {
    return new ShareHaError("ERR_STATE_DIR", `${this.#paths[0]} cannot be read: ${why}`, {
      hint: "Unmount what the cluster has mounted on this node, then remove leases.* there.",
      fields: { path: this.#paths[0] },
      cause,
    });
  }
}

/** Never truncated: what was in it stays until it is overwritten. */
function openForOverwriting(path: string): number {
  return openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
