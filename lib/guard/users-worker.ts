/**
 * A thread that looks for the processes that use the protected mounts: what it reads in /proc may take long, and may block
 * for as long as a device hangs. It tells each one as soon as it has found it, and stops when its search is not wanted.
 */
import { parentPort, workerData } from "node:worker_threads";

import { lookForFilesystemUsers } from "../system/mount-users.js";
import { findTarget } from "../system/mounted-filesystem.js";
import { type Search, type SearchNews } from "./user-finder.js";

const port = parentPort;
if (port === null || !(workerData instanceof Int32Array)) {
  throw new Error(
    "users-worker runs only as a worker thread, with the number of the search that is wanted",
  );
}
const wanted = workerData;

port.on("message", ({ number, targets }: Search) => {
  const tell = (news: SearchNews): void => {
    port.postMessage(news);
  };
  const mounts = targets.flatMap(findTarget).map(({ mount }) => mount);
  if (mounts.length > 0) {
    for (const user of lookForFilesystemUsers(mounts)) {
      if (Atomics.load(wanted, 0) !== number) {
        break;
      }
      if (user !== undefined) {
        tell({ number, user: { pid: user.pid, startTime: String(user.startTime) } });
      }
    }
  }
  tell({ number, user: undefined });
});
