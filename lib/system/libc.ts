/**
 * The C library, as far as Node does not reach it: every koffi binding of the project is in this file. A wrapper returns
 * what the kernel's own convention returns: a number >= 0, or a negative errno; it never throws. Numbers of requests and
 * flags carry the names of their headers; they hold on x86-64, arm64, riscv64 and loong64 (the ioctl direction bits
 * differ on MIPS, PowerPC and SPARC, which are not supported).
 */
import koffi from "koffi";

// linux/time.h
export const CLOCK_BOOTTIME = 7;
// linux/fs.h
export const BLKROGET = 0x125e;
export const BLKRRPART = 0x125f;
export const BLKFLSBUF = 0x1261;
export const BLKSSZGET = 0x1268;
export const BLKPBSZGET = 0x127b;
export const BLKGETSIZE64 = 0x80081272;
// linux/fs.h (ext4 and xfs share the number): _IOR('X', 125, __u32)
export const FS_IOC_SHUTDOWN = 0x8004587d;
export const FS_SHUTDOWN_FLAGS_NOLOGFLUSH = 2;
// linux/loop.h; struct loop_info64 is 232 bytes
export const LOOP_GET_STATUS64 = 0x4c05;
export const LOOP_INFO64_SIZE = 232;
// sys/file.h
export const LOCK_EX = 2;
export const LOCK_NB = 4;
// linux/sched.h
export const SCHED_OTHER = 0;
export const SCHED_RR = 2;
/** Children of the thread start with the normal policy again. */
export const SCHED_RESET_ON_FORK = 0x40000000;
// fcntl.h
export const F_SETFD = 2;
export const F_GETFD = 1;
export const FD_CLOEXEC = 1;
// asm-generic/unistd.h; these three numbers are the same on every architecture.
const SYS_PIDFD_SEND_SIGNAL = 424;
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;

export const EPERM = 1;
export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EIO = 5;
export const EBADF = 9;
export const EAGAIN = 11;
export const EACCES = 13;
export const EBUSY = 16;
export const EINVAL = 22;
export const ENOTTY = 25;
export const EOPNOTSUPP = 95;

// The symbols of the process itself: works with glibc and musl alike.
const libc = koffi.load(null);

const clockGettime = libc.func("int clock_gettime(int, void *)") as (
  clock: number,
  timespec: BigInt64Array,
) => number;
const cPread = libc.func("long pread(int, void *, size_t, int64_t)") as (
  fd: number,
  buffer: Uint8Array,
  length: number,
  offset: number,
) => number;
const cPwrite = libc.func("long pwrite(int, void *, size_t, int64_t)") as typeof cPread;
const cWrite = libc.func("long write(int, void *, size_t)") as (
  fd: number,
  buffer: Uint8Array,
  length: number,
) => number;
const cClose = libc.func("int close(int)") as (fd: number) => number;
const cFlock = libc.func("int flock(int, int)") as (fd: number, operation: number) => number;
const cIoctl = libc.func("int ioctl(int, unsigned long, void *)") as (
  fd: number,
  request: number,
  argument: NodeJS.TypedArray | null,
) => number;
const cFcntl = libc.func("int fcntl(int, int, long)") as (
  fd: number,
  command: number,
  argument: number,
) => number;
const cAlarm = libc.func("uint alarm(uint)") as (seconds: number) => number;
const cSetScheduler = libc.func("int sched_setscheduler(int, int, void *)") as (
  pid: number,
  policy: number,
  parameter: Int32Array,
) => number;
const cGetScheduler = libc.func("int sched_getscheduler(int)") as (pid: number) => number;
const cMlock2 = libc.func("int mlock2(uintptr_t, size_t, uint)") as (
  address: bigint,
  length: number,
  flags: number,
) => number;
// Fixed in this file to six arguments; the kernel ignores those that a call does not take.
const cSyscall = libc.func("long syscall(long, long, long, long, long)") as (
  number: number,
  ...argumentsOfCall: [number, number, number, number]
) => number;

/** koffi's errno is valid only directly after a failed call, so nothing may come between. */
function outcome(result: number): number {
  return result < 0 ? -koffi.errno() : result;
}

const errnoNames = new Map(
  Object.entries(koffi.os.errno).map(([name, number]) => [number, name] as const),
);

/** The name of an errno ("EIO"); either sign is taken. An unnamed number becomes "E" and the number. */
export function errnoName(errno: number): string {
  const positive = Math.abs(errno);
  return errnoNames.get(positive) ?? `E${positive}`;
}

const timespec = new BigInt64Array(2);

/** CLOCK_BOOTTIME in milliseconds with a fraction. Throws nothing: Linux always has this clock (since 2.6.39). */
export function bootTimeMs(): number {
  clockGettime(CLOCK_BOOTTIME, timespec);
  return Number(timespec[0]) * 1_000 + Number(timespec[1]) / 1e6;
}

/** Reads into `buffer`; returns the bytes read, which may be fewer, or a negative errno. */
export function pread(fd: number, buffer: Uint8Array, offset: number): number {
  return outcome(cPread(fd, buffer, buffer.length, offset));
}

/** Writes `buffer`; returns the bytes written, which may be fewer, or a negative errno. */
export function pwrite(fd: number, buffer: Uint8Array, offset: number): number {
  return outcome(cPwrite(fd, buffer, buffer.length, offset));
}

export function write(fd: number, buffer: Uint8Array): number {
  return outcome(cWrite(fd, buffer, buffer.length));
}

export function close(fd: number): number {
  return outcome(cClose(fd));
}

export function flock(fd: number, operation: number): number {
  return outcome(cFlock(fd, operation));
}

/** An ioctl whose argument is a structure (in and out) or nothing. */
export function ioctl(fd: number, request: number, argument: NodeJS.TypedArray | null): number {
  return outcome(cIoctl(fd, request, argument));
}

export function fcntl(fd: number, command: number, argument: number): number {
  return outcome(cFcntl(fd, command, argument));
}

/** SIGALRM to this process after so many seconds; its default action ends the process. */
export function alarm(seconds: number): void {
  cAlarm(seconds);
}

/** Sets the calling thread's scheduling policy (pid 0 is the thread, not the process). */
export function setScheduler(policy: number, priority: number): number {
  return outcome(cSetScheduler(0, policy, Int32Array.of(priority)));
}

export function getScheduler(): number {
  return outcome(cGetScheduler(0));
}

/** mlock2(2): lock the pages that are in memory now, and every other one once it has been used. */
const MLOCK_ONFAULT = 1;

/** Locks a range of pages. Never for V8's heap: it aborts when MADV_DONTNEED is refused, as it is for locked pages. */
export function lockPagesInUse(address: bigint, length: number): number {
  return outcome(cMlock2(address, length, MLOCK_ONFAULT));
}

/** A descriptor (close-on-exec) that means this one process and no later one with the same number. */
export function pidfdOpen(pid: number): number {
  return outcome(cSyscall(SYS_PIDFD_OPEN, pid, 0, 0, 0));
}

export function pidfdSendSignal(pidfd: number, signal: number): number {
  return outcome(cSyscall(SYS_PIDFD_SEND_SIGNAL, pidfd, signal, 0, 0));
}

/** A copy (close-on-exec) of another process's descriptor: the same open file description, not a new open. */
export function pidfdGetfd(pidfd: number, fd: number): number {
  return outcome(cSyscall(SYS_PIDFD_GETFD, pidfd, fd, 0, 0));
}

/** Memory whose address is a multiple of 4096, as O_DIRECT asks for; it never moves while it is referenced. */
export function alignedBuffer(length: number): Uint8Array {
  const raw = new Uint8Array(new ArrayBuffer(length + 4096));
  const misaligned = Number(koffi.address(raw) % 4096n);
  return raw.subarray((4096 - misaligned) % 4096, ((4096 - misaligned) % 4096) + length);
}

export function addressOf(buffer: Uint8Array): bigint {
  return koffi.address(buffer);
}
