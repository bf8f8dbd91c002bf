/**
 * Whether anybody listens at a portal: iscsiadm needs 5 s to say that nobody does and 17 s to say nothing at all, and does
 * not tell a name that does not resolve from a closed port.
 */
import { lookup } from "node:dns/promises";
import { connect } from "node:net";

import { formatPortal, plainAddress, type Portal } from "./address.js";
import { cancelledError } from "./iscsiadm.js";
import { iscsiError } from "./iscsi-error.js";

export interface Network {
  /** All addresses of a host name or address. Rejects with the resolver's error. */
  resolve(host: string): Promise<readonly string[]>;
  /** Connects and closes again. Rejects with the system's error. */
  probe(address: string, port: number, timeoutMs: number, signal?: AbortSignal): Promise<void>;
}

export const NETWORK: Network = {
  resolve: async (host) => (await lookup(host, { all: true })).map(({ address }) => address),
  probe: probeTcp,
};

const RESOLVE_MS_MAX = 10_000;

/**
 * @param options.target what is looked for there, for the error
 * @returns the addresses of the portal that answer, in the resolver's order; at least one
 * @throws ERR_ISCSI_NAME_UNRESOLVED, ERR_ISCSI_UNREACHABLE, ERR_ISCSI_CANCELLED
 */
export async function reachPortal(
  network: Network,
  portal: Portal,
  options: {
    readonly timeoutMs: number;
    readonly target?: string;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<readonly Portal[]> {
  const { timeoutMs, signal, target } = options;
  const addresses = await resolvePortal(network, portal);
  const probes = await Promise.allSettled(
    addresses.map((address) => network.probe(address, portal.port, timeoutMs, signal)),
  );
  if (signal?.aborted === true) {
    throw cancelledError({ verb: "connecting to", portal });
  }
  const reached = addresses.filter((_, index) => probes[index]?.status === "fulfilled");
  if (reached.length > 0) {
    return reached.map((address) => ({ address: plainAddress(address), port: portal.port }));
  }
  const reasons = addresses.map((address, index) => {
    const probe = probes[index];
    const reason: unknown = probe?.status === "rejected" ? probe.reason : undefined;
    const why = errorCode(reason) ?? String(reason);
    return addresses.length === 1 && address === portal.address ? why : `${address}: ${why}`;
  });
  throw iscsiError(
    "ERR_ISCSI_UNREACHABLE",
    `nobody answers at portal ${formatPortal(portal)} (${reasons.join(", ")})${target === undefined ? "" : `, so there is no login to ${target}`}`,
    {
      hint: "Check the address and port, the network, and that the target's service runs and no firewall is in between.",
      fields: { portal: formatPortal(portal), ...(target === undefined ? {} : { target }) },
    },
  );
}

/** All addresses of a portal's host. @throws ERR_ISCSI_NAME_UNRESOLVED */
export async function resolvePortal(network: Network, portal: Portal): Promise<readonly string[]> {
  let timer: NodeJS.Timeout | undefined;
  // The resolver has timeouts of its own, which a configuration can make minutes.
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`no answer within ${RESOLVE_MS_MAX} ms`));
    }, RESOLVE_MS_MAX);
  });
  try {
    return [...new Set(await Promise.race([network.resolve(portal.address), tooLate]))];
  } catch (error) {
    const why = errorCode(error) ?? (error instanceof Error ? error.message : String(error));
    throw iscsiError(
      "ERR_ISCSI_NAME_UNRESOLVED",
      `${portal.address} of portal ${formatPortal(portal)} does not resolve (${why})`,
      {
        hint: "Correct the name, or give the portal's address; `getent hosts NAME` shows what this machine finds.",
        fields: { portal: formatPortal(portal), host: portal.address },
        cause: error,
      },
    );
  } finally {
    clearTimeout(timer);
  }
}

function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : undefined;
}

function probeTcp(
  address: string,
  port: number,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: address,
      port,
      ...(signal === undefined ? {} : { signal }),
    });
    socket.setTimeout(timeoutMs);
    socket.once("connect", () => {
      socket.destroy();
      resolve();
    });
    socket.once("timeout", () => {
      socket.destroy(Object.assign(new Error("no answer"), { code: "ETIMEDOUT" }));
    });
    socket.once("error", reject);
  });
}
