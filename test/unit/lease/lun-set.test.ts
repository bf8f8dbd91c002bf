import assert from "node:assert/strict";
import fc from "fast-check";

import { type Superblock } from "../../../lib/format/superblock.js";
import {
  type FoundLun,
  judgeLuns,
  type LunContent,
  recordedWwid,
} from "../../../lib/lease/lun-set.js";

const uuid = (n: number): string => `00000000-0000-4000-8000-${n.toString().padStart(12, "0")}`;

/** Superblock of LUN `lunIndex` of a set of three whose uuids are 1, 2, 3 and wwids w0, w1, w2. */
function superblock(lunIndex: number, changes: Partial<Superblock> = {}): Superblock {
  const luns =
    changes.luns ?? [0, 1, 2].map((n) => ({ uuid: uuid(n + 1), wwid: `w${n}`, incarnation: 1n }));
  return {
    incompatible: 0,
    compatible: 0,
    clusterName: "demo",
    clusterUuid: uuid(100),
    clusterId: 1,
    sectorSize: 512,
    areaSize: 1024 * 1024,
    maxHosts: 4,
    areaCount: 12,
    lunIndex,
    lunCount: 3,
    lunUuid: luns[lunIndex]!.uuid,
    wwid: luns[lunIndex]!.wwid,
    incarnation: luns[lunIndex]!.incarnation,
    epoch: 1n,
    luns,
    intervalMs: 500,
    deadlineMs: 1_000,
    ttlMs: 3_000,
    watchdogMs: 5_000,
    profile: "default",
    createdAtUnix: 0,
    dataStart: 0,
    dataLength: 0,
    ...changes,
  };
}

function found(wwid: string, content: LunContent | Superblock): FoundLun {
  const isContent = "kind" in content;
  return {
    path: `/dev/${wwid}`,
    wwid,
    content: isContent ? content : { kind: "superblock", superblock: content },
  };
}

const FAILED: LunContent = {
  kind: "failed",
  code: "ERR_LUN_READ",
  reason: "EIO",
  remedy: "repair it",
};
const whole = [found("w0", superblock(0)), found("w1", superblock(1)), found("w2", superblock(2))];

function codeOf(luns: readonly FoundLun[]): string {
  const judgement = judgeLuns(luns);
  return judgement.kind === "ok"
    ? `ok ${judgement.lunSet.counts.map(Number).join("")}`
    : judgement.code;
}

describe("lun-set", () => {
  it("counts every LUN of a whole set, in the order of the set whatever the order of the paths", () => {
    const judgement = judgeLuns([whole[2]!, whole[0]!, whole[1]!]);
    assert(judgement.kind === "ok");
    assert.deepEqual(judgement.lunSet, { total: 3, counts: [true, true, true] });
    assert.deepEqual(
      judgement.luns.map(({ path, found: at }) => [path, at]),
      [
        ["/dev/w0", 1],
        ["/dev/w1", 2],
        ["/dev/w2", 0],
      ],
    );
  });

  it("DESIGN 6: blank, failed, foreign, copied and re-formatted LUNs count for nothing, one of three is borne", () => {
    const other = superblock(2, { clusterUuid: uuid(200), clusterName: "other" });
    const [one, two] = whole as [FoundLun, FoundLun];
    const again = [0, 1, 2].map((n) => ({
      uuid: uuid(n + 1),
      wwid: `w${n}`,
      incarnation: n === 2 ? 2n : 1n,
    }));
    const bad: readonly FoundLun[] = [
      found("w2", { kind: "blank" }),
      found("w2", FAILED),
      found("w2", { kind: "foreign", reason: "ext4" }),
      found("w2", { kind: "corrupt", reason: "checksum" }),
      found("w9", superblock(2)),
      found("w2", other),
      found("w2", superblock(2, { luns: again })),
    ];
    for (const third of bad) {
      assert.equal(codeOf([one, two, third]), "ok 110");
    }
  });

  it("never makes a majority out of fewer than two of three", () => {
    const [one] = whole as [FoundLun];
    assert.equal(
      codeOf([one, found("w1", { kind: "blank" }), found("w2", FAILED)]),
      "ERR_NOT_A_REGION",
    );
    assert.equal(codeOf([one, found("w1", FAILED), found("w2", FAILED)]), "ERR_LUN_READ");
    assert.equal(
      codeOf([one, found("w8", superblock(1)), found("w9", superblock(2))]),
      "ERR_CLONE",
    );
    assert.equal(
      codeOf([one, found("w2", superblock(1)), found("w1", superblock(2))]),
      "ERR_LUNS_SWAPPED",
    );
  });

  it("refuses the same disk and the same uuid twice (PLANTED-BUGS 35)", () => {
    assert.equal(codeOf([whole[0]!, whole[0]!, whole[2]!]), "ERR_SAME_LUN_TWICE");
    assert.equal(codeOf([whole[0]!, found("w9", superblock(0)), whole[2]!]), "ERR_SAME_LUN_TWICE");
  });

  it("hazard H13: after a replacement the old LUN never counts again, wherever the new epoch is seen", () => {
    const luns = [0, 1, 2].map((n) => ({
      uuid: uuid(n === 2 ? 33 : n + 1),
      wwid: n === 2 ? "w33" : `w${n}`,
      incarnation: 1n,
    }));
    const next = (index: number): Superblock => superblock(index, { epoch: 5n, luns });
    // Decided on LUN 1 and 2; every majority of the old set has one of them.
    const old = found("w2", superblock(2));
    assert.equal(codeOf([found("w0", next(0)), found("w1", next(1)), old]), "ok 110");
    assert.equal(codeOf([found("w0", next(0)), found("w1", FAILED), old]), "ERR_LUN_READ");
    assert.equal(codeOf([found("w0", FAILED), found("w1", next(1)), old]), "ERR_LUN_READ");
    // Known to LUN 1 only: the table holds, and LUN 2 counts at once although its superblock is stale.
    const judgement = judgeLuns([found("w0", next(0)), found("w1", superblock(1)), old]);
    assert(judgement.kind === "ok");
    assert.deepEqual(
      judgement.luns.map(({ state }) => state),
      ["ok", "stale", "foreign"],
    );
    assert.equal(
      codeOf([found("w0", next(0)), found("w1", next(1)), found("w33", next(2))]),
      "ok 111",
    );
  });

  it("takes a device without a name of its own by its uuid alone", () => {
    const nameless = found("dev:8:16", superblock(2));
    assert.equal(codeOf([whole[0]!, whole[1]!, nameless]), "ok 111");
  });

  it("records names that are the same on every host and after every restart", () => {
    assert.equal(recordedWwid("file:65024:123"), "file:123");
    assert.equal(recordedWwid("dev:8:16"), "");
    assert.equal(recordedWwid("3600140512345"), "3600140512345");
    const long = "t10.".padEnd(200, "x");
    assert(recordedWwid(long).length <= 64);
    assert.notEqual(recordedWwid(long), recordedWwid(`${long}y`));
  });

  it("whatever is found: a majority counts or it is refused, and no LUN takes two places", () => {
    const content = fc.oneof(
      fc.constantFrom<LunContent>({ kind: "blank" }, FAILED, { kind: "foreign", reason: "x" }),
      fc
        .record({
          index: fc.integer({ min: 0, max: 2 }),
          epoch: fc.bigInt({ min: 1n, max: 3n }),
          cluster: fc.boolean(),
        })
        .map(({ index, epoch, cluster }): LunContent => ({
          kind: "superblock",
          superblock: superblock(index, { epoch, clusterUuid: uuid(cluster ? 100 : 200) }),
        })),
    );
    const lun = fc.record({ wwid: fc.constantFrom("w0", "w1", "w2", "w9", ""), content });
    fc.assert(
      fc.property(fc.array(lun, { maxLength: 5 }), (luns) => {
        const judgement = judgeLuns(luns.map((one, index) => ({ ...one, path: `/dev/${index}` })));
        if (judgement.kind === "refused") {
          assert(
            judgement.code.startsWith("ERR_") && judgement.why !== "" && judgement.remedy !== "",
          );
          return;
        }
        const { lunSet } = judgement;
        assert(lunSet.counts.filter(Boolean).length * 2 > lunSet.total);
        assert.equal(new Set(judgement.luns.map(({ lunIndex }) => lunIndex)).size, lunSet.total);
        for (const one of judgement.luns.filter(({ counts }) => counts)) {
          assert.equal(one.superblock?.clusterUuid, judgement.superblock.clusterUuid);
          const actual = recordedWwid(luns[one.found]!.wwid);
          assert(actual === "" || actual === judgement.superblock.luns[one.lunIndex]?.wwid);
        }
      }),
    );
  });
});
