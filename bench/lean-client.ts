/**
 * The thinnest client of the control API: one kept-alive connection, one request at a time, no HTTP library, as a C
 * program would do it. The comparison is between the daemons, not between clients.
 */
import { connect, type Socket } from "node:net";

export class LeanClient {
  readonly #socket: Socket;
  #received = "";
  #waiting: { readonly resolve: () => void; readonly reject: (error: Error) => void } | undefined;

  constructor(socketPath: string) {
    this.#socket = connect(socketPath);
    this.#socket.setEncoding("utf8");
    this.#socket.on("data", (text: string) => {
      this.#received += text;
      this.#settle();
    });
    this.#socket.on("error", (error) => {
      this.#waiting?.reject(error);
    });
    this.#socket.on("close", () => {
      this.#waiting?.reject(new Error("the daemon closed the connection"));
    });
  }

  /** Resolves when the whole answer is there; rejects with its text when the status is not 200. */
  async post(path: string, body: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#socket.write(
        `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n` +
          `Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      );
    });
  }

  close(): void {
    this.#waiting = undefined;
    this.#socket.destroy();
  }

  #settle(): void {
    const end = this.#received.indexOf("\r\n\r\n");
    if (end === -1) {
      return;
    }
    const length = /\r\ncontent-length: (\d+)\r\n/i.exec(this.#received.slice(0, end + 2));
    const whole = end + 4 + Number(length?.[1] ?? "0");
    if (this.#received.length < whole) {
      return;
    }
    const answer = this.#received.slice(0, whole);
    this.#received = this.#received.slice(whole);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (answer.startsWith("HTTP/1.1 200")) {
      waiting?.resolve();
    } else {
      waiting?.reject(new Error(answer));
    }
  }
}
