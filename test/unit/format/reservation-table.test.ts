import assert from "node:assert/strict";

import fc from "fast-check";

import { crc32cOfRanges } from "../../../lib/format/crc32c.js";
import { allGeometries, AREA, areaOffset, geometryOf } from "../../../lib/format/geometry.js";
import {
  decodeReservationTable,
  encodeReservationTable,
  MAX_REGISTRANTS,
  type Registrant,
  type Reservation,
  type ReservationTable,
  reservationSlotOffset,
  reservationSubslotSize,
} from "../../../lib/format/reservation-table.js";
import { acceptedFlips, assertNeverThrows } from "./byte-flips.js";
import { anyGeometry, hostId, recordOf, u32, u64 } from "./samples.js";

const g512 = geometryOf(512);
const sample: ReservationTable = {
  hostId: 3,
  stamp: { lver: 12n, generation: 7n },
  prGeneration: 5,
  reservation: { type: "write-exclusive-registrants-only", scope: 0, key: 0xcafe0001_0003_0007n },
  registrants: [
    { key: 0xcafe0001_0003_0007n, hostId: 3, aptpl: true },
    { key: 0xcafe0001_0004_0001n, hostId: 4, aptpl: false },
  ],
};

describe("reservation table", () => {
  const bytes = encodeReservationTable(g512, sample);

  it("comes back as it was written, for any values", () => {
    const registrant = recordOf<Registrant>({
      key: u64.map((key) => key | 1n),
      hostId,
      aptpl: fc.boolean(),
    });
    const reservation = recordOf<Reservation>({
      type: fc.constantFrom(
        "write-exclusive",
        "exclusive-access",
        "write-exclusive-registrants-only",
        "exclusive-access-registrants-only",
        "write-exclusive-all-registrants",
        "exclusive-access-all-registrants",
      ),
      scope: fc.constant(0),
      key: u64,
    });
    const table = recordOf<ReservationTable>({
      hostId,
      stamp: recordOf<ReservationTable["stamp"]>({ lver: u64, generation: u64 }),
      prGeneration: u32,
      reservation: fc.option(reservation, { nil: undefined }),
      registrants: fc.array(registrant, { maxLength: MAX_REGISTRANTS }),
    });
    fc.assert(
      fc.property(anyGeometry, table, (g, value) => {
        assert.deepEqual(decodeReservationTable(g, encodeReservationTable(g, value)), {
          kind: "ok",
          value,
        });
      }),
    );
  });

  it("writes SPC-4's type codes", () => {
    const codes = [
      ["write-exclusive", 1],
      ["exclusive-access", 3],
      ["write-exclusive-registrants-only", 5],
      ["exclusive-access-registrants-only", 6],
      ["write-exclusive-all-registrants", 7],
      ["exclusive-access-all-registrants", 8],
    ] as const;
    for (const [type, code] of codes) {
      const reservation = { type, scope: 0, key: 1n } as const;
      assert.equal(encodeReservationTable(g512, { ...sample, reservation })[30], code);
    }
  });

  it("refuses a change of any byte of the slot", () => {
    assert.deepEqual(
      acceptedFlips(bytes, (b) => decodeReservationTable(g512, b).kind === "ok"),
      [],
    );
  });

  it("refuses impossible fields even under a good checksum", () => {
    const forge = (offset: number, value: number): Uint8Array => {
      const forged = Uint8Array.from(bytes);
      forged[offset] = value;
      const crc = crc32cOfRanges(forged, [
        [0, 60],
        [64, forged.length],
      ]);
      new DataView(forged.buffer).setUint32(60, crc, true);
      return forged;
    };
    assert.equal(decodeReservationTable(g512, forge(6, 4)).kind, "ok");
    for (const [offset, value] of [
      [6, 65],
      [6, 0],
      [28, 65],
      [28, 3], // a third registrant with key 0
      [30, 2],
      [30, 9],
      [31, 1],
      [72, 0],
      [74, 2],
    ] as const) {
      assert.equal(
        decodeReservationTable(g512, forge(offset, value)).kind,
        "corrupt",
        `${offset}=${value}`,
      );
    }
  });

  it("keeps all slots apart and inside area 2", () => {
    for (const g of allGeometries()) {
      let end = areaOffset(g, AREA.reservations);
      for (let host = 1; host <= 64; host++) {
        for (const sub of [0, 1] as const) {
          assert.equal(reservationSlotOffset(g, host, sub), end);
          assert.equal(end % g.sectorSize, 0);
          end += reservationSubslotSize(g);
        }
      }
      assert.ok(end <= areaOffset(g, AREA.lockspace));
    }
  });

  it("refuses to write too many registrants, a key of 0 and a host that cannot be", () => {
    const [first] = sample.registrants;
    const wrong: Registrant[][] = [
      Array.from({ length: 65 }, () => first!),
      [{ ...first!, key: 0n }],
      [{ ...first!, hostId: 65 }],
    ];
    for (const registrants of wrong) {
      assert.throws(() => encodeReservationTable(g512, { ...sample, registrants }), {
        code: "ERR_RECORD_FIELD",
      });
    }
  });

  it("tells empty, foreign and cut ones apart", () => {
    const size = reservationSubslotSize(g512);
    assert.equal(decodeReservationTable(g512, new Uint8Array(size)).kind, "empty");
    assert.equal(decodeReservationTable(g512, new Uint8Array(size).fill(1)).kind, "foreign");
    assert.equal(decodeReservationTable(g512, bytes.subarray(0, 512)).kind, "corrupt");
  });

  it("never throws on any bytes", () => {
    assertNeverThrows((b) => decodeReservationTable(g512, b), bytes);
  });
});
