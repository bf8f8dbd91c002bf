/** Whether a LUN's target can enforce reservations (DESIGN section 7): the backend `scsi`, or else `region`. */
import { type ReservationCapabilities } from "../../format/scsi-commands.js";
import { type ScsiLook } from "../../system/scsi-look.js";
import { diagnosis, type DoctorFinding, unlooked } from "../doctor-finding.js";
import { type Looked, type LunLook } from "../lun-facts.js";

const WHY_REGION =
  "Without reservations nothing but cooperation, T and the watchdog keeps a fenced node from writing.";
const WHY_SCSI =
  "With persistent reservations the target itself refuses the writes of a node that was fenced.";

/** The types that let all registered nodes work and shut out a preempted one. */
const USEFUL = ["WEAR", "WERO", "EARO"] as const;

export function judgeReservations(look: LunLook): readonly DoctorFinding[] {
  const { path: subject, probe, scsi } = look;
  const entries = Object.entries(scsi);
  if (probe === undefined || look.disk?.kind === "failed") {
    return [];
  }
  if (entries.length === 0) {
    const what = probe.isLoop ? "a loop device" : probe.isBlock ? "no SCSI disk" : "a file";
    return [
      diagnosis("reservations", "info", `${what}: reservations in the region only`, WHY_REGION, {
        subject,
      }),
    ];
  }
  const answers = entries.map(([name, one]) => judgePath(subject, name, one));
  const findings = answers.flatMap(({ finding }) => (finding === undefined ? [] : [finding]));
  const capable = answers.flatMap(({ name, capabilities }) =>
    capabilities === undefined ? [] : [{ name, capabilities }],
  );
  return [
    ...attentions(subject, entries),
    ...findings,
    ...(capable.length === 0 ? [] : judgeCapabilities(subject, capable)),
  ];
}

interface PathAnswer {
  readonly name: string;
  readonly capabilities?: ReservationCapabilities;
  readonly finding?: DoctorFinding;
}

function judgePath(subject: string, name: string, look: Looked<ScsiLook>): PathAnswer {
  if (look.kind === "failed") {
    const finding = unlooked("reservations", name, look.why, { subject });
    return { name, finding };
  }
  const answer = look.value.reservations;
  switch (answer.kind) {
    case "ok":
      return { name, capabilities: answer.value };
    case "not-scsi":
    case "unsupported": {
      const why = answer.kind === "unsupported" ? answer.why : answer.code;
      const text = `${name} has no persistent reservations (${why}): reservations in the region only`;
      return { name, finding: diagnosis("reservations", "info", text, WHY_REGION, { subject }) };
    }
    case "conflict": {
      const text = `${name} is reserved by another initiator in the old way (SPC-2 RESERVE)`;
      const remedy = "End the program that reserved it, or reset the LUN: sg_reset --device /dev/";
      const rest = { subject, remedy: remedy + name };
      return { name, finding: diagnosis("reservations", "critical", text, WHY_SCSI, rest) };
    }
    case "failed":
      return { name, finding: unlooked("reservations", name, answer.why, { subject }) };
  }
}

function attentions(
  subject: string,
  entries: readonly (readonly [string, Looked<ScsiLook>])[],
): readonly DoctorFinding[] {
  return entries.flatMap(([name, look]) =>
    look.kind === "ok" && look.value.attentions.length > 0
      ? [
          diagnosis(
            "reservations",
            "info",
            `${name} had something to report: ${look.value.attentions.join(", ")}`,
            "A target reports each of these once; whoever asks first takes it.",
            { subject, figure: look.value.attentions.length },
          ),
        ]
      : [],
  );
}

function judgeCapabilities(
  subject: string,
  capable: readonly { readonly name: string; readonly capabilities: ReservationCapabilities }[],
): readonly DoctorFinding[] {
  const [first] = capable;
  const other = capable.find(
    ({ capabilities }) => essence(capabilities) !== essence(first?.capabilities),
  );
  if (first === undefined) {
    return [];
  }
  if (other !== undefined) {
    return [
      diagnosis(
        "reservations",
        "critical",
        `${first.name} and ${other.name} answer differently about reservations`,
        "Two heads of a target that do not share reservations each let a fenced node write through the other.",
        {
          subject,
          remedy: "Compare `sg_persist -c` on both paths, and make the target's heads share them.",
        },
      ),
    ];
  }
  return [judgeOne(subject, first.capabilities, capable.length)];
}

/** PTPL_A changes with every registration, so it may differ between two questions. */
function essence(capabilities: ReservationCapabilities | undefined): string {
  return JSON.stringify({ ...capabilities, persistThroughPowerLossActive: false });
}

function judgeOne(
  subject: string,
  capabilities: ReservationCapabilities,
  paths: number,
): DoctorFinding {
  const { types } = capabilities;
  const useful = USEFUL.filter((type) => types?.includes(type) === true);
  const through = paths === 1 ? "" : ` on ${paths} paths`;
  if (types !== undefined && useful.length === 0) {
    const text = `persistent reservations${through}, but none of the types WEAR, WERO, EARO (only ${types.join(", ")})`;
    const remedy = "Use a target that has Write Exclusive, registrants only or all registrants.";
    return diagnosis("reservations", "warning", text, WHY_SCSI, { subject, remedy });
  }
  if (!capabilities.persistThroughPowerLossCapable) {
    return diagnosis(
      "reservations",
      "warning",
      `persistent reservations${through}, but the target forgets them when it restarts (PTPL_C 0)`,
      "After a restart of the target a node that was fenced by its reservation can write again.",
      {
        subject,
        remedy:
          "Use a target that keeps them (LIO: mkdir -p /var/target/pr), and arm a watchdog on every node.",
      },
    );
  }
  const kinds = types === undefined ? "types not told" : types.join(" ");
  const active = capabilities.persistThroughPowerLossActive ? ", active" : "";
  const text = `persistent reservations${through} (${kinds}), kept over a power loss${active}`;
  return diagnosis("reservations", "ok", text, WHY_SCSI, { subject });
}
