/** Who this node says it is in its host record: derived the same way by pulse and by the daemon. */
import { type Identity } from "../lease/delta-lease.js";
import { detectVirtuality, hash64, readBootId, readMachineId } from "../system/machine.js";

/** @param stateId of the state directory; it also stands in for a machine id where there is none (a container) */
export function nodeIdentity(
  node: string,
  stateId: string,
  watchdog: Identity["watchdog"],
): Identity {
  return {
    name: node,
    watchdog,
    virtual: detectVirtuality().virtual,
    bootIdHash: hash64(readBootId()),
    machineIdHash: hash64(readMachineId() ?? stateId),
    stateIdHash: Number(hash64(stateId) & 0xffffffffn),
  };
}
