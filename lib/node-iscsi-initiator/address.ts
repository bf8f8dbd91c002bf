/**
 * Names of targets and addresses of portals (RFC 7143, sections 4.2.7 and 4.2.7.5 for names, RFC 4171 for `host:port`).
 */
import { isIPv6, SocketAddress } from "node:net";

import { iscsiError } from "./iscsi-error.js";

/** IANA's port of iSCSI targets. */
export const ISCSI_PORT = 3260;

/** Where a target listens. `address`: an IPv4 or IPv6 address without brackets, or a host name. */
export interface Portal {
  readonly address: string;
  readonly port: number;
}

/** One LUN by the way to it: `iscsi://PORTAL[:PORT]/TARGET/LUN`. */
export interface IscsiUrl {
  readonly portal: Portal;
  readonly target: string;
  readonly lun: number;
}

/** Names have at most 223 bytes; the kernel numbers LUNs of the flat format up to 16383 (SAM-5, 4.7.7). */
const NAME_BYTES_MAX = 223;
const LUN_MAX = 16_383;
const HOST_NAME = /^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$/;
const DOTTED = /^\d{1,3}(\.\d{1,3}){3}$/;

/**
 * `10.77.0.9`, `10.77.0.9:3261`, `[fd00::9]`, `[fd00::9]:3261`, `fd00::9`, `san.example:3260`.
 * @throws ERR_ISCSI_PORTAL
 */
export function parsePortal(text: string): Portal {
  const [, bracketed, host, portText] =
    /^(?:\[([^[\]]*)\]|([^[\]:]*))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const ipv6 = isIPv6(text) ? text : bracketed;
  const address = ipv6 ?? host ?? "";
  const port = portText === undefined ? ISCSI_PORT : Number(portText);
  const isAddress = ipv6 === undefined ? isHost(address) : isIPv6(address);
  if (!isAddress || port < 1 || port > 65_535) {
    throw iscsiError("ERR_ISCSI_PORTAL", `${quote(text)} is no portal`, {
      hint: "A portal is ADDRESS, ADDRESS:PORT or [IPV6]:PORT, such as 10.0.0.9:3260 or [fd00::9]:3260.",
      fields: { portal: text.slice(0, 300) },
    });
  }
  return { address: plainAddress(address), port };
}

function isHost(text: string): boolean {
  // What looks like an IPv4 address must be one, and is no host name.
  return DOTTED.test(text)
    ? text.split(".").every((part) => Number(part) <= 255)
    : HOST_NAME.test(text);
}

/** The one spelling of an IPv6 address (RFC 5952), so that two of them can be compared as texts; others as they are. */
export function plainAddress(address: string): string {
  if (!isIPv6(address)) {
    return address.toLowerCase();
  }
  const [ip = "", zone] = address.split("%");
  const plain = new SocketAddress({ address: ip, family: "ipv6" }).address;
  return zone === undefined ? plain : `${plain}%${zone}`;
}

/** As iscsiadm takes and prints it: `10.77.0.9:3260`, `[fd00::9]:3260`. */
export function formatPortal(portal: Portal): string {
  const { address, port } = portal;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

export function isSamePortal(one: Portal, other: Portal): boolean {
  return one.port === other.port && plainAddress(one.address) === plainAddress(other.address);
}

/**
 * A target's name: `iqn.YYYY-MM.REVERSED-DOMAIN[:TEXT]`, `eui.16HEX` or `naa.16-OR-32HEX` (RFC 7143, 4.2.7.3 to 4.2.7.6).
 * Made lower case, as the standard compares names.
 * @throws ERR_ISCSI_TARGET_NAME
 */
export function parseTargetName(text: string): string {
  const name = text.toLowerCase();
  const isName =
    /^iqn\.\d{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[a-z0-9.:_-]+)?$/.test(name) ||
    /^eui\.[0-9a-f]{16}$/.test(name) ||
    /^naa\.([0-9a-f]{16}|[0-9a-f]{32})$/.test(name);
  if (!isName || Buffer.byteLength(name) > NAME_BYTES_MAX) {
    throw iscsiError("ERR_ISCSI_TARGET_NAME", `${quote(text)} is no name of an iSCSI target`, {
      hint: "A name looks like iqn.2026-11.example.storage:data; `sharedha iscsi discover PORTAL` lists them.",
      fields: { target: text.slice(0, 300) },
    });
  }
  return name;
}

export function isIscsiUrl(text: string): boolean {
  return /^iscsi:/i.test(text);
}

/**
 * `iscsi://10.77.0.9/iqn.2026-11.lab:data/0`
 * @throws ERR_ISCSI_URL, ERR_ISCSI_PORTAL, ERR_ISCSI_TARGET_NAME
 */
export function parseIscsiUrl(text: string): IscsiUrl {
  const match = /^iscsi:\/\/([^/@?#]+)\/([^/?#]+)\/(\d{1,5})$/i.exec(text);
  const lun = Number(match?.[3]);
  if (match === null || lun > LUN_MAX) {
    throw iscsiError("ERR_ISCSI_URL", `${quote(text)} is no LUN's address`, {
      hint: "It is iscsi://PORTAL[:PORT]/TARGET/LUN, such as iscsi://10.0.0.9/iqn.2026-11.example:data/0; user and secret have options of their own.",
    });
  }
  return { portal: parsePortal(match[1] ?? ""), target: parseTargetName(match[2] ?? ""), lun };
}

/** The one spelling: with the port, names in lower case. */
export function formatIscsiUrl(url: IscsiUrl): string {
  return `iscsi://${formatPortal(url.portal)}/${url.target}/${url.lun}`;
}

/** Bad input in a message: one short line. */
function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text);
}
