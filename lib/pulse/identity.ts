/** Who this node says it is in its host record: derived the same way by pulse and by the daemon. */
import { type Identity } from "../lease/delta-lease.js";
import {
  detectVirtuality,
  hash64,
  readBootId,
  readMachineId,
  readProductUuid,
} from "../system/machine.js";

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
    machineIdHash: machineIdHash(readMachineId() ?? stateId, readProductUuid()),
    stateIdHash: Number(hash64(stateId) & 0xffffffffn),
  };
}

/** A machine id lies on a disk, and so a copy of the disk has it too; what the firmware says is not copied with it. */
export function machineIdHash(machineId: string, productUuid: string | undefined): bigint {
  return hash64(productUuid === undefined ? machineId : `${machineId} ${productUuid}`);
}
