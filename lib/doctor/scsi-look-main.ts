/** Asks one SCSI disk, in a process that may hang with it. Arguments: the device, milliseconds for each command. */
import { ShareHaError } from "../errors.js";
import { lookAtScsiDisk } from "../system/scsi-look.js";
import { type ScsiMessage } from "./lun-facts.js";
import { send } from "./send.js";

const [, , device = "", timeoutMs = "0"] = process.argv;
await send(look());
process.disconnect();

function look(): ScsiMessage {
  try {
    return { kind: "scsi", look: lookAtScsiDisk(device, Number(timeoutMs)) };
  } catch (error) {
    if (!(error instanceof ShareHaError)) {
      throw error;
    }
    const { code, message, hint } = error;
    return { kind: "trouble", trouble: { code, message, hint } };
  }
}
