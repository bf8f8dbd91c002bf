import assert from "node:assert/strict";

import fc from "fast-check";

import { compareStamps, newestStamped, type Stamp } from "../../../lib/format/stamp.js";
import { recordOf } from "./samples.js";

describe("stamp", () => {
  const stamp = (lver: bigint, generation: bigint): Stamp => ({ lver, generation });

  it("orders by the lease's version first, then by the number of the write", () => {
    assert.ok(compareStamps(stamp(2n, 1n), stamp(1n, 9n)) > 0);
    assert.ok(compareStamps(stamp(2n, 1n), stamp(2n, 2n)) < 0);
    assert.equal(compareStamps(stamp(2n, 1n), stamp(2n, 1n)), 0);
  });

  it("finds an item that none exceeds, and none among none", () => {
    const small = fc.bigInt({ min: 0n, max: 4n });
    const item = recordOf<{ stamp: Stamp }>({
      stamp: recordOf<Stamp>({ lver: small, generation: small }),
    });
    fc.assert(
      fc.property(fc.array(item, { minLength: 1 }), (items) => {
        const newest = newestStamped(items);
        assert.ok(newest !== undefined && items.includes(newest));
        for (const other of items) {
          assert.ok(compareStamps(other.stamp, newest.stamp) <= 0);
        }
      }),
    );
    assert.equal(newestStamped<{ stamp: Stamp }>([]), undefined);
  });
});
