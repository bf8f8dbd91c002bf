import assert from "node:assert/strict";

import { lunsOf } from "../../../lib/cli/lun-arguments.js";
import { type ConnectedLun } from "../../../lib/san/connect-lun.js";

function lunAt(path: string): ConnectedLun {
  return {
    path,
    url: "iscsi://10.0.0.9:3260/iqn.2026-11.lab:data/1",
    wwid: "naa.6001405ab00000000000000000000000",
    portals: "one",
    changes: [],
    loggedIn: [],
    failed: [],
    startups: [],
  };
}

describe("the LUNs of a join", () => {
  it("are noted where they are in the end: udev may have made a better link meanwhile", () => {
    const [first, later] = ["/dev/disk/by-id/scsi-36001405", "/dev/disk/by-id/wwn-0x6001405"];
    const connected = { paths: ["/dev/sdz", first], connected: [lunAt(first)] };
    const { paths, iscsi } = lunsOf(connected, [lunAt(later)]);
    assert.deepEqual(paths, ["/dev/sdz", later]);
    assert.deepEqual(
      iscsi.map(({ path }) => path),
      [later],
    );
  });
});
