/** Every code that can leave the daemon through its API is somebody's: the user's, or a fault that is named here. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

import { exitCodeOf } from "../../../lib/cli/exit-code.js";
import { statusOf } from "../../../lib/daemon/http-error.js";
import { ShareHaError } from "../../../lib/errors.js";
import { findRoot } from "../../helpers/root.js";

/** What answers a request, and the thread that it starts by address. */
const ROOTS = [
  "lib/daemon/control-api.ts",
  "lib/daemon/node-api.ts",
  "lib/system/lun-worker.ts",
] as const;

/** Thrown while the daemon starts, before there is an API; an iSCSI session is made only then, too. */
const AT_THE_START = [
  "ERR_CLONE",
  "ERR_LUNS_SWAPPED",
  "ERR_LUN_BUSY",
  "ERR_LUN_COUNT",
  "ERR_LUN_NOT_COUNTED",
  "ERR_LUN_REPLACED",
  "ERR_NODE_SETTINGS",
  "ERR_NOT_A_REGION",
  "ERR_OTHER_CLUSTER",
  "ERR_REGION_DAMAGED",
  "ERR_SOCKET",
  "ERR_SOCKET_IN_USE",
  "ERR_SOCKET_PATH",
  "ERR_STATE_ID",
  "ERR_USAGE",
];

/** Only `init` does that, in the process of the command. */
const OF_INIT = ["ERR_DISK_FULL", "ERR_GPT", "ERR_MKFS"];

/** The machine, the storage, what somebody else wrote there, or this program: no other input would help. */
const FAULTS = [
  "ERR_BAD_LINE",
  "ERR_CONFIG_DOCUMENT",
  "ERR_CONFIG_MISSING",
  "ERR_CONFIG_ROLLED_BACK",
  "ERR_DATA_DEVICE",
  "ERR_DEFECT",
  "ERR_DEVICE_IOCTL",
  "ERR_DEVICE_OPEN",
  "ERR_FLUSH",
  "ERR_FSCK",
  "ERR_FS_SHUTDOWN",
  "ERR_GEOMETRY",
  "ERR_INDEX_DAMAGED",
  "ERR_INTERNAL",
  "ERR_IO_CLOSED",
  "ERR_IO_QUEUE",
  "ERR_IO_RANGE",
  "ERR_IO_READ_ONLY",
  "ERR_KILL",
  "ERR_LEASE_DAMAGED",
  "ERR_LINE_BACKLOG",
  "ERR_LINE_TOO_LONG",
  "ERR_LOOP",
  "ERR_LUN_WORKER",
  "ERR_MOUNT",
  "ERR_NAME",
  "ERR_OUTBOX_FULL",
  "ERR_PERMISSION",
  "ERR_PROBE",
  "ERR_PROC_FORMAT",
  "ERR_RECORD_FIELD",
  "ERR_SPAWN",
  "ERR_SUPERBLOCK_FULL",
  "ERR_UNMOUNT",
];

/** Of the client it is the directory that the user gave; of the daemon a disk that is full. */
const TWO_MEANINGS = ["ERR_STATE_DIR"];

const IMPORT = /^(?:import|export)\s[^;]*?\sfrom "(\.[^"]+)"|\bimport\("(\.[^"]+)"\)/gms;

function read(file: string): string {
  return readFileSync(join(findRoot(), file), "utf8");
}

/** The codes in the text of a root and of everything that it imports. */
function codesOfTheDaemon(): ReadonlySet<string> {
  const codes = new Set<string>();
  const seen = new Set<string>(ROOTS);
  for (const file of seen) {
    const text = read(file);
    for (const [, code = ""] of text.matchAll(/"(ERR_[A-Z_]+)"/g)) {
      codes.add(code);
    }
    for (const [, fixed, lazy] of text.matchAll(IMPORT)) {
      seen.add(join(dirname(file), (fixed ?? lazy ?? "").replace(/\.js$/, ".ts")));
    }
  }
  return codes;
}

function errorOf(code: string, httpStatus?: number): ShareHaError {
  const fields = httpStatus === undefined ? {} : { httpStatus };
  return new ShareHaError(code, "no", { hint: "wait", fields });
}

describe("the status of an error", () => {
  const codes = [...codesOfTheDaemon()].filter((code) => !code.startsWith("ERR_ISCSI"));
  const unmapped = codes.filter((code) => statusOf(errorOf(code)) === 500);

  it("is not 500 for any code but the faults that are named here", () => {
    assert.deepEqual(unmapped.toSorted(), [...AT_THE_START, ...OF_INIT, ...FAULTS].toSorted());
  });

  it("gives a code the exit code that it has where the command throws it itself", () => {
    const differing = codes.filter((code) => {
      const own = exitCodeOf(errorOf(code));
      return own !== 3 && own !== exitCodeOf(errorOf(code, statusOf(errorOf(code))));
    });
    assert.deepEqual(
      differing.filter((code) => !AT_THE_START.includes(code)),
      TWO_MEANINGS,
    );
  });

  it("is there for no code that nobody throws", () => {
    const keys = [...read("lib/daemon/http-error.ts").matchAll(/^ {2}(ERR_[A-Z_]+): \d+,$/gm)];
    assert(keys.length > 30);
    const idle = keys.map(([, code = ""]) => code).filter((code) => !codes.includes(code));
    assert.deepEqual(idle, []);
  });
});
