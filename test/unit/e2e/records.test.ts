/** The checker of the end-to-end tests must find each thing that it is there for. */
import assert from "node:assert/strict";

import { type Acknowledged, judgeRecords, parseRecord } from "../../e2e/records.js";

const DISK = "1 n1 2\n2 n1 2\n3 n1 2\n4 n2 5\n5 n2 5\n";

function told(text: string): Acknowledged[] {
  return text
    .trim()
    .split("\n")
    .map((line, index) => {
      const record = parseRecord(line);
      assert(record !== undefined);
      return { ...record, atMs: index };
    });
}

describe("the records' judge", () => {
  it("is content with a row of two writers, also when the last acknowledgement got lost", () => {
    assert.deepEqual(judgeRecords(DISK, told(DISK)), []);
    assert.deepEqual(judgeRecords(DISK, told("1 n1 2\n2 n1 2\n4 n2 5")), []);
  });

  for (const [what, disk, acknowledged, expected] of [
    ["an acknowledged record is lost", "1 n1 2\n2 n1 2\n", DISK, /3 of 5 .* first is 3 of n1/],
    ["it was overwritten by another node's", "1 n1 2\n2 n2 3\n", "1 n1 2\n2 n1 2", /1 of 2/],
    ["a gap", "1 n1 2\n3 n1 2\n", "1 n1 2", /line 2 reads "3 n1 2"/],
    ["a torn line", "1 n1 2\n2 n", "1 n1 2", /line 2/],
    ["zeroes where a record was", "1 n1 2\n\0\0\0\0\n", "1 n1 2", /line 2/],
    ["two writers of one version", "1 n1 2\n2 n2 2\n", "1 n1 2", /two writers, n1 and n2/],
    ["a former writer comes back", "1 n1 2\n2 n2 5\n3 n1 2\n", "1 n1 2", /version 2 follows 5/],
    ["a late acknowledgement", DISK, "1 n1 2\n4 n2 5\n3 n1 2", /n1 wrote record 3 .* after/],
  ] as const) {
    it(`finds: ${what}`, () => {
      assert.match(judgeRecords(disk, told(acknowledged)).join("; "), expected);
    });
  }
});
