/**
 * The agent in a VM: what the host asks for over TCP, one call for each connection. It runs as root and asks for no
 * password: only the lab's own bridge leads to it.
 */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Socket } from "node:net";

import { type End, onFrames, type Request, sendFrame, type Step } from "../frames.js";

const PORT = 5;
/** A daemon that a program leaves behind may keep the pipes open; what was written before arrives sooner than this. */
const OPEN_PIPES_MS = 300;

type Feed = (type: string, payload: Buffer) => void;

function finish(socket: Socket, end: End): void {
  sendFrame(socket, "X", JSON.stringify(end));
  socket.end();
}

/** One program. When the host goes away, the program and what it started end too. */
function runProgram(socket: Socket, request: Extract<Request, { op: "run" }>): Feed {
  const [file = "", ...args] = request.argv;
  const env = { ...process.env, ...request.env };
  const child = spawn(file, args, { detached: true, cwd: "/root", env });
  const { pid } = child;
  let isRunning = true;
  let isOver = false;
  const over = (end: End): void => {
    if (!isOver) {
      isOver = true;
      finish(socket, end);
    }
  };
  child.stdout.on("data", (chunk: Buffer) => {
    sendFrame(socket, "1", chunk);
  });
  child.stderr.on("data", (chunk: Buffer) => {
    sendFrame(socket, "2", chunk);
  });
  // A program may close its input without having read it all.
  child.stdin.on("error", () => child.stdin.destroy());
  child.once("error", (error) => {
    isRunning = false;
    over({ error: error.message });
  });
  child.once("exit", (exitCode, signal) => {
    isRunning = false;
    setTimeout(over, OPEN_PIPES_MS, { exitCode, signal });
  });
  child.once("close", (exitCode, signal) => {
    over({ exitCode, signal });
  });
  const kill = (signal: NodeJS.Signals): void => {
    if (isRunning && pid !== undefined) {
      process.kill(-pid, signal);
    }
  };
  socket.once("close", () => {
    kill("SIGKILL");
  });
  return (type, payload) => {
    if (type === "I") {
      child.stdin.write(payload);
    } else if (type === "E") {
      child.stdin.end();
    } else if (type === "S") {
      kill(payload.toString() as NodeJS.Signals);
    }
  };
}

function takeStep(step: Step): string | undefined {
  switch (step.do) {
    case "mkdir":
      mkdirSync(step.path, { recursive: true });
      return undefined;
    case "rmdir":
      rmdirSync(step.path);
      return undefined;
    case "remove":
      rmSync(step.path);
      return undefined;
    case "write":
      writeFileSync(step.path, step.text);
      return undefined;
    case "link":
      symlinkSync(step.to, step.path);
      return undefined;
    case "read":
      return readFileSync(step.path, "latin1");
  }
}

function takeSteps(socket: Socket, steps: readonly Step[]): void {
  const texts: string[] = [];
  for (const step of steps) {
    try {
      const text = takeStep(step);
      if (text !== undefined) {
        texts.push(text);
      }
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      finish(socket, { error: `${step.do} ${step.path}: ${why}` });
      return;
    }
  }
  finish(socket, { texts });
}

const server = createServer({ allowHalfOpen: true }, (socket) => {
  let feed: Feed | undefined;
  socket.on("error", () => socket.destroy());
  onFrames(socket, (type, payload) => {
    if (type !== "R") {
      feed?.(type, payload);
      return;
    }
    const request = JSON.parse(payload.toString()) as Request;
    if (request.op === "run") {
      feed = runProgram(socket, request);
    } else {
      takeSteps(socket, request.steps);
    }
  });
  // The host never half-closes: its end is the end of the call.
  socket.once("end", () => socket.destroy());
});
server.listen(PORT, "0.0.0.0", () => {
  process.stdout.write("lab: agent ready\n");
});
