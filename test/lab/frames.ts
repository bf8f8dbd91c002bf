/**
 * What the host and the agent in a VM say to each other: frames of type (1 byte), length (4 bytes, big-endian), payload.
 * Runs on both sides; the guest gets this file in its initramfs, so it imports nothing of the project.
 *
 *     host to guest    R request (JSON), I standard input, E its end, S signal name
 *     guest to host    1 standard output, 2 standard error, X the end (JSON)
 */
import { type Socket } from "node:net";

/** A step on the guest's file system. configfs, sysfs and plain files alike. */
export type Step =
  | { readonly do: "mkdir" | "rmdir" | "remove" | "read"; readonly path: string }
  | { readonly do: "write"; readonly path: string; readonly text: string }
  | { readonly do: "link"; readonly path: string; readonly to: string };

export type Request =
  | {
      readonly op: "run";
      readonly argv: readonly string[];
      readonly env: Readonly<Record<string, string>>;
    }
  /** In order, up to the first that fails. */
  | { readonly op: "files"; readonly steps: readonly Step[] };

/** The end of a call. `error`: the program could not be started, or the step that failed. */
export type End =
  | { readonly exitCode: number | null; readonly signal: string | null }
  | { readonly texts: readonly string[] }
  | { readonly error: string };

/** The host sends no longer frame than a file of a test. */
const PAYLOAD_BYTES_MAX = 16 * 1024 * 1024;
const HEAD_BYTES = 5;

export function sendFrame(socket: Socket, type: string, payload: Uint8Array | string): void {
  const body = Buffer.from(payload);
  const head = Buffer.alloc(HEAD_BYTES);
  head.write(type, 0, "latin1");
  head.writeUInt32BE(body.length, 1);
  socket.write(Buffer.concat([head, body]));
}

/** Splits what arrives into frames; ends the connection on one that is too long. */
export function onFrames(socket: Socket, onFrame: (type: string, payload: Buffer) => void): void {
  let pending = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= HEAD_BYTES) {
      const length = pending.readUInt32BE(1);
      if (length > PAYLOAD_BYTES_MAX) {
        socket.destroy(new Error(`a frame of ${length} bytes`));
        return;
      }
      if (pending.length < HEAD_BYTES + length) {
        return;
      }
      const type = pending.toString("latin1", 0, 1);
      const payload = pending.subarray(HEAD_BYTES, HEAD_BYTES + length);
      pending = pending.subarray(HEAD_BYTES + length);
      onFrame(type, payload);
    }
  });
}
