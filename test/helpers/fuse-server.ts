/**
 * A file system with one file, "lun", in user space: the process that answers the kernel's FUSE requests (linux/fuse.h,
 * protocol 7.31) on descriptor 3 from the backing file on descriptor 4. Commands come over the IPC channel. What the
 * kernel has been promised an answer for and does not get hangs exactly as a dead path does: the caller waits in state D,
 * deaf even to SIGKILL.
 */
import { fstatSync, fsyncSync, ftruncateSync, read, readSync, writeSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { constants } from "node:os";

import { type FaultAnswer, type FaultCommand } from "./fuse-message.js";

const FUSE_FD = 3;
const BACKING_FD = 4;
const MAX_WRITE = 1 << 20;
const FILE_NODE = 2n;
const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
} as const;

interface Fault {
  readonly kind: "none" | "hang" | "fail";
  readonly errno: number;
  readonly reads: boolean;
  readonly writes: boolean;
}

const NO_FAULT: Fault = { kind: "none", errno: 0, reads: false, writes: false };
let fault: Fault = NO_FAULT;
let held: (() => void)[] = [];
let heldUnique: bigint[] = [];
let written = 0;

function reply(unique: bigint, errno: number, body: Buffer = Buffer.alloc(0)): void {
  const message = Buffer.alloc(16 + body.length);
  message.writeUInt32LE(message.length, 0);
  message.writeInt32LE(-errno, 4);
  message.writeBigUInt64LE(unique, 8);
  body.copy(message, 16);
  try {
    writeSync(FUSE_FD, message);
  } catch (error) {
    // ENOENT: the request was interrupted; ENODEV: unmounted. Both need no answer any more.
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== "ENOENT" && code !== "ENODEV") {
      throw error;
    }
  }
}

function attributes(node: bigint): Buffer {
  const attr = Buffer.alloc(88);
  const { size, ino } = fstatSync(BACKING_FD);
  // The file says the inode of the one behind it, so that both are one LUN to sharedha: a bad path to it and a good one.
  attr.writeBigUInt64LE(node === FILE_NODE ? BigInt(ino) : node, 0);
  attr.writeBigUInt64LE(node === FILE_NODE ? BigInt(size) : 0n, 8);
  attr.writeBigUInt64LE(node === FILE_NODE ? BigInt(Math.ceil(size / 512)) : 0n, 16);
  attr.writeUInt32LE(node === FILE_NODE ? 0o100600 : 0o040700, 60);
  attr.writeUInt32LE(1, 64);
  attr.writeUInt32LE(4096, 80);
  return attr;
}

function initReply(): Buffer {
  const out = Buffer.alloc(64);
  out.writeUInt32LE(7, 0);
  out.writeUInt32LE(31, 4);
  const FUSE_ASYNC_READ = 1;
  const FUSE_BIG_WRITES = 1 << 5;
  const FUSE_MAX_PAGES = 1 << 22;
  out.writeUInt32LE(FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_MAX_PAGES, 12);
  out.writeUInt16LE(64, 16);
  out.writeUInt16LE(48, 18);
  out.writeUInt32LE(MAX_WRITE, 20);
  out.writeUInt32LE(1, 24);
  out.writeUInt16LE(MAX_WRITE / 4096, 28);
  return out;
}

function lookup(unique: bigint, body: Buffer): void {
  if (body.subarray(0, body.indexOf(0)).toString() !== "lun") {
    reply(unique, constants.errno.ENOENT);
    return;
  }
  const head = Buffer.alloc(40);
  head.writeBigUInt64LE(FILE_NODE, 0);
  reply(unique, 0, Buffer.concat([head, attributes(FILE_NODE)]));
}

function readFile(unique: bigint, body: Buffer): void {
  const data = Buffer.alloc(body.readUInt32LE(16));
  const length = readSync(BACKING_FD, data, 0, data.length, Number(body.readBigUInt64LE(8)));
  reply(unique, 0, data.subarray(0, length));
}

function writeFile(unique: bigint, body: Buffer): void {
  const size = body.readUInt32LE(16);
  writeSync(BACKING_FD, body, 40, size, Number(body.readBigUInt64LE(8)));
  written += 1;
  const out = Buffer.alloc(8);
  out.writeUInt32LE(size, 0);
  reply(unique, 0, out);
}

function setAttributes(unique: bigint, node: bigint, body: Buffer): void {
  const FATTR_SIZE = 1 << 3;
  if ((body.readUInt32LE(0) & FATTR_SIZE) !== 0 && node === FILE_NODE) {
    ftruncateSync(BACKING_FD, Number(body.readBigUInt64LE(16)));
  }
  reply(unique, 0, Buffer.concat([Buffer.alloc(16), attributes(node)]));
}

/** Data requests go through the fault that is set. */
function faulty(unique: bigint, isWrite: boolean, perform: () => void): void {
  const hit = isWrite ? fault.writes : fault.reads;
  if (!hit || fault.kind === "none") {
    perform();
  } else if (fault.kind === "fail") {
    reply(unique, fault.errno);
  } else {
    held.push(perform);
    heldUnique.push(unique);
  }
}

type Handler = (unique: bigint, node: bigint, body: Buffer) => void;

const succeed: Handler = (unique) => {
  reply(unique, 0);
};
const noAnswer: Handler = () => undefined;

const handlers: Readonly<Record<number, Handler>> = {
  [OPCODE.INIT]: (unique) => {
    reply(unique, 0, initReply());
  },
  [OPCODE.LOOKUP]: (unique, _node, body) => {
    lookup(unique, body);
  },
  [OPCODE.GETATTR]: (unique, node) => {
    reply(unique, 0, Buffer.concat([Buffer.alloc(16), attributes(node)]));
  },
  [OPCODE.SETATTR]: setAttributes,
  [OPCODE.OPEN]: (unique) => {
    const out = Buffer.alloc(16);
    const FOPEN_DIRECT_IO = 1;
    out.writeUInt32LE(FOPEN_DIRECT_IO, 8);
    reply(unique, 0, out);
  },
  [OPCODE.OPENDIR]: (unique) => {
    reply(unique, 0, Buffer.alloc(16));
  },
  [OPCODE.READDIR]: succeed,
  [OPCODE.RELEASE]: succeed,
  [OPCODE.RELEASEDIR]: succeed,
  [OPCODE.FLUSH]: succeed,
  [OPCODE.DESTROY]: succeed,
  [OPCODE.STATFS]: (unique) => {
    reply(unique, 0, Buffer.alloc(80));
  },
  [OPCODE.READ]: (unique, _node, body) => {
    faulty(unique, false, () => {
      readFile(unique, body);
    });
  },
  [OPCODE.WRITE]: (unique, _node, body) => {
    faulty(unique, true, () => {
      writeFile(unique, body);
    });
  },
  [OPCODE.FSYNC]: (unique) => {
    faulty(unique, true, () => {
      fsyncSync(BACKING_FD);
      reply(unique, 0);
    });
  },
  [OPCODE.FORGET]: noAnswer,
  [OPCODE.BATCH_FORGET]: noAnswer,
  [OPCODE.INTERRUPT]: noAnswer,
};

function handle(message: Buffer): void {
  const unique = message.readBigUInt64LE(8);
  const handler = handlers[message.readUInt32LE(4)];
  if (handler === undefined) {
    reply(unique, constants.errno.ENOSYS);
  } else {
    handler(unique, message.readBigUInt64LE(16), message.subarray(40));
  }
}

function serve(): void {
  const message = Buffer.alloc(MAX_WRITE + 4096);
  read(FUSE_FD, message, 0, message.length, null, (error, length) => {
    if (error?.code === "ENODEV") {
      process.exit(0); // Unmounted.
    }
    if (error !== null && error.code !== "EINTR" && error.code !== "ENOENT") {
      throw error;
    }
    if (error === null) {
      handle(Buffer.from(message.subarray(0, length)));
    }
    serve();
  });
}

function dropHeld(errno: number): void {
  const dropped = heldUnique;
  held = [];
  heldUnique = [];
  for (const unique of dropped) {
    reply(unique, errno);
  }
}

function command(request: FaultCommand): void {
  switch (request.do) {
    case "hang":
      fault = { kind: "hang", errno: 0, reads: request.reads, writes: request.writes };
      break;
    case "fail":
      fault = {
        kind: "fail",
        errno: request.errno,
        reads: request.reads,
        writes: request.writes,
      };
      break;
    case "heal":
      fault = NO_FAULT;
      break;
    case "release": {
      fault = NO_FAULT;
      const performs = held;
      held = [];
      heldUnique = [];
      for (const perform of performs) {
        perform();
      }
      break;
    }
    case "drop":
      fault = NO_FAULT;
      dropHeld(request.errno);
      break;
    case "count":
      break;
    case "quit":
      fault = { kind: "fail", errno: constants.errno.EIO, reads: true, writes: true };
      dropHeld(constants.errno.EIO);
      break;
  }
  process.send?.({ held: held.length, written } satisfies FaultAnswer);
}

process.on("message", command);
// The test died: let go of everybody who waits, and take the mount away.
process.on("disconnect", () => {
  dropHeld(constants.errno.EIO);
  spawnSync("umount", ["-l", process.argv[2] ?? ""]);
  process.exit(1);
});
serve();
