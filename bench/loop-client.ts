/**
 * One node's part in the contended measurement, as a process of its own: acquire, release at once, again, until the
 * time is up. Prints `{ waits: number[] }`, ms from asking to owning.
 *
 *   loop-client SOCKET LEASE SECONDS
 */
import { LeanClient } from "./lean-client.js";

const [socketPath = "", lease = "", seconds = "0"] = process.argv.slice(2);
const client = new LeanClient(socketPath);
const waits: number[] = [];
const acquire = JSON.stringify({ shared: false, waitMs: null, bindToConnection: false });
const endMs = performance.now() + Number(seconds) * 1000;
while (performance.now() < endMs) {
  const askedMs = performance.now();
  await client.post(`/v1/leases/${lease}/acquire`, acquire);
  waits.push(performance.now() - askedMs);
  await client.post(`/v1/leases/${lease}/release`, "{}");
}
client.close();
process.stdout.write(`${JSON.stringify({ waits })}\n`);
