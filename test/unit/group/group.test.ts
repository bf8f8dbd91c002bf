import assert from "node:assert/strict";

import { type Group, leaseNameOf, mayRunOn, problemsOfGroups } from "../../../lib/group/group.js";

function group(changes: Partial<Group> = {}): Group {
  const mount = { path: "/srv/web", type: "ext4", options: "noatime" } as const;
  return { name: "web", device: "lun", mount, nodes: [], ...changes };
}

function paths(...groups: readonly Group[]): readonly string[] {
  return problemsOfGroups(groups).map(({ path }) => path);
}

describe("group", () => {
  it("accepts DESIGN 10's group", () => {
    assert.deepEqual(paths(group()), []);
    assert.deepEqual(paths(group({ device: "/dev/mapper/web", mount: undefined })), []);
  });

  it("refuses names, devices and mounts that cannot be", () => {
    assert.deepEqual(paths(group({ name: "Web" })), ["group.Web"]);
    for (const device of ["", "sdb", "/dev/../etc", "/dev//sdb", "/"]) {
      assert.deepEqual(paths(group({ device })), ["group.web.device"], device);
    }
    for (const path of ["/", "srv", "/srv/../x", "/etc", "/usr/x", "/var", "/srv/a\nb", "/srv/"]) {
      const mount = { path, type: "ext4", options: "" } as const;
      assert.deepEqual(paths(group({ mount })), ["group.web.mount.path"], path);
    }
    assert.deepEqual(paths(group({ nodes: ["a", "a"] })), ["group.web.nodes"]);
  });

  it("refuses mount options that get around the safety of the data", () => {
    for (const options of [
      "remount",
      "ro,nouuid",
      "norecovery",
      "noload",
      "errors=continue",
      "loop=/dev/loop1",
    ]) {
      const mount = { path: "/srv/web", type: "xfs", options } as const;
      assert.deepEqual(paths(group({ mount })), ["group.web.mount.options"], options);
    }
  });

  it("refuses one device in two groups, and mounts inside each other", () => {
    const other = { path: "/srv/web/sub", type: "ext4", options: "" } as const;
    assert.deepEqual(paths(group(), group({ name: "db", device: "/dev/x", mount: other })), [
      "group.db.mount.path",
    ]);
    const beside = { path: "/srv/web2", type: "ext4", options: "" } as const;
    assert.deepEqual(paths(group(), group({ name: "db", mount: beside })), ["group.db.device"]);
  });

  it("an empty list of nodes names every node", () => {
    assert.equal(mayRunOn(group(), "n9"), true);
    assert.equal(mayRunOn(group({ nodes: ["n1"] }), "n9"), false);
    assert.equal(leaseNameOf("web"), "group:web");
  });
});
