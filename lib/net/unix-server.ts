/** Listening on a Unix socket that only this user may talk to, whatever a killed predecessor left behind. */
import { chmodSync, lstatSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";

import { ShareHaError } from "../errors.js";

/** sun_path of struct sockaddr_un has 108 bytes with its terminating zero. */
const SOCKET_PATH_MAX = 107;
const CONNECT_TIMEOUT_MS = 2_000;

export interface UnixServer {
  /** Ends listening and unlinks the socket; the connections are the caller's. */
  close(): void;
}

/**
 * Listens with mode 0600. A socket file that nobody answers on is a dead process's and is replaced; the caller holds a
 * lock that keeps a second process of its kind away.
 * @throws ERR_SOCKET_PATH (too long), ERR_SOCKET_IN_USE (somebody answers, or it is no socket), ERR_SOCKET
 */
export async function listenUnix(
  path: string,
  onConnection: (socket: Socket) => void,
): Promise<UnixServer> {
  if (Buffer.byteLength(path) > SOCKET_PATH_MAX) {
    throw new ShareHaError("ERR_SOCKET_PATH", `the socket path ${path} is too long`, {
      hint: `Linux takes ${SOCKET_PATH_MAX} bytes; choose a shorter state directory.`,
      fields: { path },
    });
  }
  await removeStale(path);
  const server = createServer(onConnection);
  await listening(server, path);
  chmodSync(path, 0o600);
  return {
    close: (): void => {
      // Node unlinks the path of a listening socket when it closes it.
      server.close();
    },
  };
}

/** Connects; `undefined` when nobody listens there. @throws ERR_SOCKET */
export async function connectUnix(path: string): Promise<Socket | undefined> {
  return await new Promise<Socket | undefined>((resolve, reject) => {
    const socket = connect(path);
    const onTimeout = setTimeout(() => {
      socket.destroy();
      reject(socketError(path, "nobody accepts the connection", undefined));
    }, CONNECT_TIMEOUT_MS);
    socket.once("connect", () => {
      clearTimeout(onTimeout);
      socket.removeAllListeners("error");
      resolve(socket);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => {
      clearTimeout(onTimeout);
      if (error.code === "ENOENT" || error.code === "ECONNREFUSED") {
        resolve(undefined);
      } else {
        reject(socketError(path, error.message, error));
      }
    });
  });
}

async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    return;
  }
  const socket = found.isSocket() ? await connectUnix(path) : undefined;
  if (socket !== undefined || !found.isSocket()) {
    socket?.destroy();
    throw new ShareHaError("ERR_SOCKET_IN_USE", `${path} is in use`, {
      hint: "Another process with the same state directory answers there; give every node its own --state-dir.",
      fields: { path },
    });
  }
  unlinkSync(path);
}

async function listening(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => {
      reject(socketError(path, error.message, error));
    });
    // The socket is bound before `listen` returns, so nobody else ever sees it with another mode, and the umask is not
    // left changed over an await, where other code would make its files with it.
    const previous = process.umask(0o177);
    try {
      server.listen(path, resolve);
    } finally {
      process.umask(previous);
    }
  });
}

function socketError(path: string, why: string, cause: unknown): ShareHaError {
  return new ShareHaError("ERR_SOCKET", `the socket ${path} cannot be used: ${why}`, {
    hint: "Check the state directory's owner, mode and free space.",
    fields: { path },
    cause,
  });
}
