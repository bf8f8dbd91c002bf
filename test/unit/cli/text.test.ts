import assert from "node:assert/strict";

import fc from "fast-check";

import { diffLines } from "../../../lib/cli/line-diff.js";
import { ago, duration, localTime, printable, table } from "../../../lib/cli/text.js";

const plain = (_style: unknown, text: string): string => text;

describe("duration", () => {
  for (const [ms, text] of [
    [0, "0 ms"],
    [0.4, "0.4 ms"],
    [9.94, "9.9 ms"],
    [9.96, "10 ms"],
    [999.4, "999 ms"],
    [999.5, "1.0 s"],
    [6_500, "6.5 s"],
    [9_949, "9.9 s"],
    [9_951, "10 s"],
    [59_499, "59 s"],
    [59_500, "1 min"],
    [185_000, "3 min 5 s"],
    [3_600_000, "1 h"],
    [7_500_000, "2 h 5 min"],
    [86_400_000, "1 d"],
    [273_600_000, "3 d 4 h"],
  ] as const) {
    it(`${ms} ms reads ${text}`, () => {
      assert.equal(duration(ms), text);
    });
  }

  it("never shows a unit as often as the next bigger one has it", () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e10, noNaN: true }), (ms) => {
        assert.doesNotMatch(duration(ms), /\b(60 s|60 min|24 h|1000 ms)\b|-|NaN/);
      }),
    );
  });
});

describe("ago and localTime", () => {
  it("a clock that is behind the holder's gives zero, not a negative age", () => {
    assert.equal(ago("2026-11-23T20:00:10.000Z", Date.parse("2026-11-23T20:00:00.000Z")), "0 ms");
  });

  it("what is no time is shown as it is, without control characters", () => {
    assert.equal(ago("soon\u001b[2J", 0), "soon?[2J");
    assert.equal(localTime("soon\n"), "soon?");
  });
});

describe("printable", () => {
  it("lets no control character through", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        // eslint-disable-next-line no-control-regex -- exactly these must be gone
        assert.doesNotMatch(printable(text), /[\u0000-\u001f\u007f-\u009f]/);
      }),
      { numRuns: 50 },
    );
  });
});

describe("table", () => {
  it("aligns columns, numbers to the right, without trailing blanks", () => {
    const text = table(
      [{ title: "NODE" }, { title: "AGE", align: "right" }, { title: "WHY" }],
      [
        ["n1", "5 ms", ""],
        [{ text: "node-2", style: "red" }, "120 ms", "late"],
      ],
      plain,
    );
    assert.equal(
      text,
      ["  NODE       AGE  WHY", "  n1        5 ms", "  node-2  120 ms  late", ""].join("\n"),
    );
  });

  it("measures the text and not its colour", () => {
    const paint = (style: unknown, text: string): string =>
      style === "red" ? `\u001b[31m${text}\u001b[39m` : text;
    const text = table(
      [{ title: "A" }, { title: "B" }],
      [[{ text: "x", style: "red" }, "y"]],
      paint,
    );
    assert.equal(text, "  A  B\n  \u001b[31mx\u001b[39m  y\n");
  });
});

describe("diffLines", () => {
  const text = fc
    .array(fc.constantFrom("a", "b", "c", ""), { maxLength: 12 })
    .map((lines) => lines.map((line) => `${line}\n`).join(""));

  it("gives back both texts, whatever they are", () => {
    fc.assert(
      fc.property(text, text, (before, after) => {
        const lines = diffLines(before, after);
        const pick = (not: string): string =>
          lines
            .filter(({ kind }) => kind !== not)
            .map((line) => `${line.text}\n`)
            .join("");
        assert.equal(pick("added"), before);
        assert.equal(pick("removed"), after);
      }),
    );
  });

  it("calls nothing changed that is the same", () => {
    assert.deepEqual(diffLines("a\nb\nc\n", "a\nx\nc\n"), [
      { kind: "same", text: "a" },
      { kind: "removed", text: "b" },
      { kind: "added", text: "x" },
      { kind: "same", text: "c" },
    ]);
  });
});
