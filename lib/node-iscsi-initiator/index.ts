/** The package's entry `sharedha/node-iscsi-initiator`: everything that is public, and nothing else. */
export {
  formatIscsiUrl,
  formatPortal,
  ISCSI_PORT,
  type IscsiUrl,
  parseIscsiUrl,
  parsePortal,
  parseTargetName,
  type Portal,
} from "./address.js";
export { type ChapCredentials, type ChapPair } from "./chap.js";
export { type DiscoverOptions } from "./discovery.js";
export { type Disk, type DiskRoots } from "./disk.js";
export { type OperationOptions } from "./edges.js";
export { EXIT_MEANINGS, type ExitMeaning } from "./exit-code.js";
export { type FindDiskOptions, type FoundDisk } from "./find-disk.js";
export { Initiator, type InitiatorOptions, type PortalText } from "./initiator.js";
export { isIscsiError, type IscsiErrorCode } from "./iscsi-error.js";
export { type Runner } from "./iscsiadm.js";
export { type LoginEvent, type LoginOptions, type PortalLogin } from "./login.js";
export { type LogoutResult } from "./logout.js";
export { type RecordValues, type TargetPortal } from "./parse.js";
export { type Network } from "./reach.js";
export { type ChangedDisk, type RescanResult } from "./rescan.js";
export { type Session, type SessionState } from "./session.js";
export { type LiveTimers, type SessionTimers, type TimerName } from "./session-timers.js";
export { type TargetTimers, type TimerChange } from "./set-timers.js";
export { ShareHaError } from "../errors.js";
