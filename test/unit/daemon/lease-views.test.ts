import assert from "node:assert/strict";

import { type LeaseLook } from "../../../lib/daemon/lease-adoption.js";
import { LeaseViews } from "../../../lib/daemon/lease-views.js";
import { type LeaseAddress } from "../../../lib/lease/lease-view.js";
import { geometry, lunSetOf, SPACE } from "../lease/samples.js";

function address(area: number): LeaseAddress {
  return { geometry, area, spaceName: SPACE, resourceName: `lease${area}`, numHosts: 4 };
}

describe("leases for people to see", () => {
  it("are read one after the other, and no more of them once no majority answers", async () => {
    const answers: LeaseLook[] = [
      { kind: "damaged", reason: "checksum" },
      { kind: "missing" },
      { kind: "no-quorum", why: "late" },
      { kind: "missing" },
    ];
    let active = 0;
    let asked = 0;
    const run = async <T>(): Promise<T> => {
      active += 1;
      assert.equal(active, 1, "another read is under way");
      const answer = answers[asked++];
      await new Promise((resolve) => setImmediate(resolve));
      active -= 1;
      return answer as T;
    };
    const views = new LeaseViews({
      disk: { run, luns: lunSetOf(1) },
      members: { outboxes: [], isLive: () => false, nameOf: String },
      isHeldHere: () => false,
    });
    const listed = await views.all([6, 7, 8, 9].map(address));
    assert.deepEqual(listed, {
      leases: [],
      unread: [
        { name: "lease6", why: "checksum" },
        { name: "lease8", why: "late" },
      ],
    });
    assert.equal(asked, 3);
  });
});
