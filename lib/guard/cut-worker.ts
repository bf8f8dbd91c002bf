/** A thread that waits to cut mounts: one hung device then stops one thread, and not the guard. */
import { parentPort } from "node:worker_threads";

import { cutMount } from "../system/cut-mount.js";
import { type MountTarget } from "../system/mounted-filesystem.js";

const port = parentPort;
if (port === null) {
  throw new Error("cut-worker runs only as a worker thread");
}
port.on("message", (target: MountTarget) => {
  port.postMessage(cutMount(target));
});
