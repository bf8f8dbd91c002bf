/**
 * The planted bugs of the protocol code: numbers as in PLANTED-BUGS.md; those from 101 on are bugs that the simulator
 * itself has found in this code. Each is a change of the compiled text, and comes with the kind of run that shows it.
 */
import { type AbsentBug, type PlantedBug } from "./entry.js";
import { EVIDENCE_BUGS } from "./evidence-bugs.js";
import { PAXOS_BUGS } from "./paxos-bugs.js";
import { PULSE_BUGS } from "./pulse-bugs.js";

export const PLANTED_BUGS: readonly PlantedBug[] = [...PULSE_BUGS, ...PAXOS_BUGS, ...EVIDENCE_BUGS];

/** Numbers of PLANTED-BUGS.md from 1 to 44, 47 and 49 that are not here, and why. */
export const ABSENT_BUGS: readonly AbsentBug[] = [
  {
    number: "38",
    title: "a ticket without generation",
    reason:
      "the generation stands once in the head of the outbox, and a new member writes its own, without the earlier one's tickets, before it may arm; unit tests of outbox-state and queue cover it",
  },
  { number: "41", title: "preempted on region", reason: "there is no evidence `preempted` yet" },
  {
    number: "42",
    title: "preempted though the key was absent before",
    reason: "there is no evidence `preempted` yet",
  },
  {
    number: "43",
    title: "read-back without nonce",
    reason: "there are no pills and no evidence `acknowledged` yet",
  },
];
