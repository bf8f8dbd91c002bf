import assert from "node:assert/strict";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
  readdirSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { LeaseFile, type LeaseNotes } from "../../../lib/daemon/lease-file.js";

function notesOf(...names: readonly string[]): LeaseNotes {
  return {
    hostId: 1,
    generation: 7n,
    bootId: "boot",
    daemon: { pid: 4711, startTime: "5" },
    held: names.map((name, index) => ({
      name,
      area: 6 + index,
      numHosts: 16,
      lver: 3n,
      shared: false,
      bound: false,
      group: undefined,
    })),
    mounts: [],
    processes: [],
  };
}

describe("leases of the last daemon", () => {
  let dir = "";
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), "sharedha-lease-file-"));
  });
  afterEach(() => {
    rmSync(dir, { recursive: true });
  });
  const reread = (): LeaseNotes | undefined => new LeaseFile(dir, "boot").read();

  it("are none at first, and none after leaving", () => {
    assert.equal(reread(), undefined);
    const file = new LeaseFile(dir, "boot");
    file.write(notesOf("a"));
    file.remove();
    assert.equal(reread(), undefined);
    file.write(notesOf("b"));
    assert.deepEqual(reread(), notesOf("b"));
  });

  it("of a copied directory are another node's, and none here", () => {
    new LeaseFile(dir, "boot").write(notesOf("a"));
    const copy = `${dir}-copy`;
    cpSync(dir, copy, { recursive: true });
    try {
      const file = new LeaseFile(copy, "boot");
      assert.equal(file.read(), undefined);
      file.write(notesOf("b"));
      assert.deepEqual(file.read(), notesOf("b"));
      assert.deepEqual(reread(), notesOf("a"));
    } finally {
      rmSync(copy, { recursive: true });
    }
  });

  it("are those written last, whichever of the two files has them", () => {
    const file = new LeaseFile(dir, "boot");
    for (const names of [["a"], ["a", "b"], ["a", "b", "c"], ["c"], []]) {
      file.write(notesOf(...names));
      assert.deepEqual(reread(), notesOf(...names));
    }
    const next = new LeaseFile(dir, "boot");
    next.write(notesOf("d"));
    assert.deepEqual(reread(), notesOf("d"), "the next daemon goes on counting");
  });

  it("are the ones before when the last write was cut off anywhere", () => {
    const file = new LeaseFile(dir, "boot");
    file.write(notesOf("before"));
    const blank = join(dir, "leases.boot.0");
    file.write(notesOf("after"));
    const whole = readFileSync(blank);
    for (let length = 0; length < whole.length; length++) {
      writeFileSync(blank, whole.subarray(0, length));
      assert.deepEqual(reread(), notesOf("before"), `cut off at ${length}`);
    }
    writeFileSync(blank, whole);
    assert.deepEqual(reread(), notesOf("after"));
  });

  it("are an error, not nothing, when neither file can be understood", () => {
    writeFileSync(join(dir, "leases.boot.0"), "leases 2 5 00000000\nabcde");
    assert.throws(reread, { code: "ERR_STATE_DIR" });
  });

  it("of an earlier boot are gone, also when a power cut has left them empty", () => {
    new LeaseFile(dir, "former").write(notesOf("a"));
    writeFileSync(join(dir, "leases.former.0"), "");
    writeFileSync(join(dir, "leases.1"), "");
    assert.equal(reread(), undefined);
    assert.deepEqual(readdirSync(dir), []);
  });

  it("cannot be granted on when the directory is gone", () => {
    const gone = join(dir, "gone");
    mkdirSync(gone);
    const file = new LeaseFile(gone, "boot");
    rmSync(gone, { recursive: true });
    assert.throws(
      () => {
        file.write(notesOf("a"));
      },
      { code: "ERR_STATE_DIR" },
    );
  });
});
