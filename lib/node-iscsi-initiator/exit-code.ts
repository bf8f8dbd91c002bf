/**
 * What iscsiadm's exit codes mean (iscsiadm(8), EXIT STATUS, of open-iscsi 2.1.8; older ones end earlier in the list).
 */
import { type ShareHaError } from "../errors.js";
import { formatPortal, type Portal } from "./address.js";
import { type IscsiErrorCode, iscsiError } from "./iscsi-error.js";

export interface ExitMeaning {
  readonly code: IscsiErrorCode;
  /** The end of a sentence: "login to X failed: ...". */
  readonly why: string;
  readonly hint: string;
}

const KERNEL_LOG = "See the kernel log (dmesg) and `journalctl -u iscsid`.";
const DISCOVER = "List what there is: `sharedha iscsi discover PORTAL`, `sharedha iscsi sessions`.";
const START_ISCSID =
  "Start it: `systemctl enable --now iscsid` (Debian: also `systemctl enable open-iscsi`); without systemd run `iscsid` as root.";
const REACH =
  "Check the address, the network, the target's service and any firewall between (port 3260).";
const ISNS = "iSNS is not used here; check which program asks for it.";

/** By exit code; 0 is success. */
export const EXIT_MEANINGS: Readonly<Record<number, ExitMeaning>> = {
  1: { code: "ERR_ISCSI_FAILED", why: "iscsiadm failed without saying why", hint: KERNEL_LOG },
  2: { code: "ERR_ISCSI_NO_SESSION", why: "there is no such session", hint: DISCOVER },
  3: {
    code: "ERR_ISCSI_NO_MEMORY",
    why: "no memory for the operation",
    hint: "Free memory on this machine and repeat.",
  },
  4: { code: "ERR_ISCSI_CONNECT", why: "the connection could not be made", hint: REACH },
  5: { code: "ERR_ISCSI_LOGIN", why: "the target refused the login", hint: KERNEL_LOG },
  6: {
    code: "ERR_ISCSI_DATABASE",
    why: "the records of open-iscsi cannot be read or written",
    hint: "Look at /etc/iscsi (or /var/lib/iscsi): space, permissions, damaged files; delete a damaged record and discover again.",
  },
  7: {
    code: "ERR_ISCSI_ARGUMENT",
    why: "iscsiadm does not take one of the arguments",
    hint: "This open-iscsi is older than 2.1 or the parameter does not exist; see iscsiadm(8).",
  },
  8: {
    code: "ERR_ISCSI_CONNECT_TIMEOUT",
    why: "no answer in time while connecting",
    hint: REACH,
  },
  9: { code: "ERR_ISCSI_INTERNAL", why: "iscsid or the kernel failed inside", hint: KERNEL_LOG },
  10: { code: "ERR_ISCSI_LOGOUT", why: "the logout failed", hint: KERNEL_LOG },
  11: {
    code: "ERR_ISCSI_PDU_TIMEOUT",
    why: "the other side did not answer a request of the protocol in time",
    hint: REACH,
  },
  12: {
    code: "ERR_ISCSI_NO_TRANSPORT",
    why: "the kernel's iscsi_tcp module is not loaded",
    hint: "`modprobe iscsi_tcp`; a kernel without it (many containers and clouds) cannot use iSCSI.",
  },
  13: { code: "ERR_ISCSI_PERMISSION", why: "not permitted", hint: "Run it as root." },
  14: {
    code: "ERR_ISCSI_TRANSPORT_CAPS",
    why: "the transport cannot do that",
    hint: "Use the interface `default` (software iSCSI over TCP).",
  },
  15: {
    code: "ERR_ISCSI_SESSION_EXISTS",
    why: "a session exists already, logged in or half-made",
    hint: "`sharedha iscsi sessions` shows its state; `sharedha iscsi logout TARGET` ends a half-made one.",
  },
  16: {
    code: "ERR_ISCSI_MGMT_REQUEST",
    why: "iscsid does not know the request",
    hint: "iscsiadm and iscsid are of different versions: restart iscsid.",
  },
  17: { code: "ERR_ISCSI_ISNS_UNAVAILABLE", why: "iSNS is not available", hint: ISNS },
  18: {
    code: "ERR_ISCSI_ISCSID_IO",
    why: "the talk with iscsid broke off",
    hint: `iscsid may have ended meanwhile. ${START_ISCSID}`,
  },
  19: { code: "ERR_ISCSI_LOGIN_FATAL", why: "the login failed for good", hint: KERNEL_LOG },
  20: { code: "ERR_ISCSI_NO_ISCSID", why: "iscsid does not run", hint: START_ISCSID },
  21: { code: "ERR_ISCSI_NOT_FOUND", why: "there is no such record or session", hint: DISCOVER },
  22: {
    code: "ERR_ISCSI_SYSFS",
    why: "the session is not in sysfs (any more)",
    hint: "It may just have ended: `sharedha iscsi sessions`.",
  },
  23: { code: "ERR_ISCSI_NO_HOST", why: "there is no such SCSI host", hint: KERNEL_LOG },
  24: {
    code: "ERR_ISCSI_AUTH",
    why: "the target does not let this initiator in",
    hint: "Check CHAP user and secret, and that the target's access list has the name in /etc/iscsi/initiatorname.iscsi.",
  },
  25: { code: "ERR_ISCSI_ISNS_QUERY", why: "the iSNS query failed", hint: ISNS },
  26: { code: "ERR_ISCSI_ISNS_REGISTRATION", why: "the iSNS registration failed", hint: ISNS },
  27: {
    code: "ERR_ISCSI_NOT_SUPPORTED",
    why: "this open-iscsi cannot do that",
    hint: "See `iscsiadm --version` and iscsiadm(8).",
  },
  28: {
    code: "ERR_ISCSI_BUSY",
    why: "the device or session is in use",
    hint: "Unmount and close what uses the disks of the session, then repeat.",
  },
  29: { code: "ERR_ISCSI_AGAIN", why: "it may succeed later", hint: "Repeat it in a moment." },
  30: {
    code: "ERR_ISCSI_DISCOVERY_TYPE",
    why: "this open-iscsi does not know the type of discovery",
    hint: "Only sendtargets is used here; see `iscsiadm --version`.",
  },
  31: { code: "ERR_ISCSI_CHILD", why: "a child process of iscsiadm ended", hint: KERNEL_LOG },
  32: {
    code: "ERR_ISCSI_NOT_CONNECTED",
    why: "the session has no connection now",
    hint: "iscsid tries to bring it back: `sharedha iscsi sessions`. `sharedha iscsi logout TARGET` gives it up.",
  },
};

/** What an operation is about: the words of its errors. */
export interface Place {
  /** "login to", "discovery at" ... */
  readonly verb: string;
  readonly target?: string;
  readonly portal?: Portal;
}

export function placeText(place: Place): string {
  const { verb, target, portal } = place;
  const at =
    portal === undefined ? "" : `${target === undefined ? "" : " at "}${formatPortal(portal)}`;
  return `${verb} ${target ?? ""}${at}`.trim();
}

export function placeFields(place: Place): Readonly<Record<string, string>> {
  const { target, portal } = place;
  return {
    ...(target === undefined ? {} : { target }),
    ...(portal === undefined ? {} : { portal: formatPortal(portal) }),
  };
}

/** @param said the last line that iscsiadm wrote, without secrets; it goes into the message */
export function exitError(place: Place, exitCode: number, said: string): ShareHaError {
  const meaning = EXIT_MEANINGS[exitCode] ?? {
    code: "ERR_ISCSI_UNKNOWN_EXIT" as const,
    why: "iscsiadm ended with an exit code that this version does not know",
    hint: "See iscsiadm(8) of the installed version.",
  };
  const words = said === "" ? "" : `; iscsiadm says: ${said}`;
  return iscsiError(
    meaning.code,
    `${placeText(place)} failed: ${meaning.why} (exit code ${exitCode})${words}`,
    { hint: meaning.hint, fields: { ...placeFields(place), exitCode } },
  );
}
