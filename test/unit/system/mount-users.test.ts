import assert from "node:assert/strict";

import { lookForFilesystemUsers, mountAround } from "../../../lib/system/mount-users.js";
import { findMountsEverywhere, parseMountinfo } from "../../../lib/system/mounts.js";

describe("the mount around a directory", () => {
  const all = parseMountinfo(
    [
      "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
      "2 1 8:2 / /srv/data rw - ext4 /dev/sdb rw",
      "3 2 8:3 / /srv/data/sub rw - ext4 /dev/sdc rw",
      "4 1 8:4 / /srv/data rw - ext4 /dev/sdd rw",
    ].join("\n"),
  );

  function around(path: string): number | undefined {
    return mountAround(path, all)?.mountId;
  }

  it("is the innermost one, so that who sits in a mount below uses that one and not this one", () => {
    assert.equal(around("/srv"), 1);
    assert.equal(around("/srv/data/sub"), 3);
    assert.equal(around("/srv/data/sub/x (deleted)"), 3);
    assert.equal(around("/srv/database"), 1);
  });

  it("is the topmost one where several are on one mount point", () => {
    assert.equal(around("/srv/data"), 4);
  });
});

describe("the users of a file system", () => {
  it("are neither the first process nor this one, and each is named once", () => {
    const everywhere = findMountsEverywhere();
    const roots = everywhere.filter((mount) => mount.mountPoint === "/");
    const users = [...lookForFilesystemUsers(roots, everywhere)].filter(
      (user) => user !== undefined,
    );
    const pids = users.map((user) => user.pid);
    assert.ok(pids.length > 0);
    assert.equal(new Set(pids).size, pids.length);
    assert.ok(!pids.includes(1) && !pids.includes(process.pid));
  });
});
