/** A region with sectors of 4096 bytes and room for two hosts, on a file: real nodes join, lease and are refused, and a dump. */
import assert from "node:assert/strict";
import { statSync } from "node:fs";

import { sharedha, type TestNode } from "../helpers/nodes.js";
import { type Dump } from "../../lib/region/dump.js";
import { Cluster, expectDone, expectError, heldVersion } from "./faults/harness.js";

const AREA_BYTES = 8 * 1024 * 1024;
const FIRST_LEASE_AREA = 6;

describe("a region with sectors of 4096 bytes and two host ids", function () {
  this.timeout(60_000);
  let cluster: Cluster;
  let n1: TestNode;
  let n2: TestNode;

  before(async () => {
    const initArgs = ["--sector-size", "4096", "--max-hosts", "2"];
    cluster = await Cluster.make("sectors", { profile: "default", initArgs });
    [n1, n2] = await Promise.all([
      cluster.joined("n1", { hostId: 1 }),
      cluster.joined("n2", { hostId: 2 }),
    ]);
  });

  after(async () => {
    await cluster.clean();
  });

  it("refuses a third node, because all host ids are taken", async () => {
    expectError(await cluster.node("n3").join("--json"), {
      exitCode: 1,
      code: "ERR_NO_FREE_HOST_ID",
      message: /none of the 2 host ids is free/,
    });
    expectError(await cluster.node("n4", { hostId: 3 }).join("--json"), {
      exitCode: 2,
      code: "ERR_NO_SUCH_HOST_ID",
      message: /no host id 3: the region was made for 2/,
    });
  });

  it("gives a lease to one node at a time, with a growing version", async () => {
    expectDone(await n1.cli("lease", "create", "job"));
    expectDone(await n1.cli("lease", "acquire", "job"));
    const first = await heldVersion(n1, "job");
    const held = { exitCode: 1, code: "ERR_LEASE_HELD" } as const;
    expectError(await n2.cli("lease", "acquire", "job", "--json"), {
      ...held,
      message: /held by n1 \(host 1/,
    });
    expectDone(await n1.cli("lease", "release", "job"));
    expectDone(await n2.cli("lease", "acquire", "job"));
    const second = await heldVersion(n2, "job");
    assert(BigInt(second ?? "0") > BigInt(first ?? "0"), `${first ?? "?"}, then ${second ?? "?"}`);
    expectError(await n1.cli("lease", "acquire", "job", "--json"), {
      ...held,
      message: /held by n2 \(host 2/,
    });
  });

  it("is dumped with its hosts and the holder, each where sectors of that size put it", async () => {
    const [lun = ""] = cluster.luns;
    const ran = await sharedha(["dump", lun, "--json"]);
    expectDone(ran);
    const dump = JSON.parse(ran.stdout) as Dump;
    assert.deepEqual([dump.layout, dump.sectorSize, dump.areaSize], ["sharedha", 4096, AREA_BYTES]);
    const area = (use: string): Dump["areas"][number] => {
      const found = dump.areas.find((one) => one.use === use);
      assert(found !== undefined, `no area ${use}`);
      assert.equal(found.offset, found.index * AREA_BYTES);
      return found;
    };
    // Offset, lockspace, name, timestamp, host id, generation; a line for each sector that is taken.
    const start = 3 * AREA_BYTES;
    const [one = "", two = "", ...more] = area("lockspace").sanlockLines;
    assert.match(one, new RegExp(`^${start} +sectors +n1 \\d+ 0001 0001$`));
    assert.match(two, new RegExp(`^${start + 4_096} +sectors +n2 \\d+ 0002 0001$`));
    assert.deepEqual(more, []);
    const lease = dump.areas.find((found) => found.sanlockLines[0]?.includes(" job ") === true);
    assert(lease?.use === "lease" && lease.index > FIRST_LEASE_AREA);
    const owner = `^${lease.index * AREA_BYTES} +sectors +job \\d+ 0002 0001 `;
    assert.match(lease.sanlockLines[0] ?? "", new RegExp(owner));
    assert(statSync(lun).size >= lease.offset + AREA_BYTES);
    const text = await sharedha(["dump", lun, "--area", "lockspace"]);
    expectDone(text);
    assert.match(text.stdout, /a sharedha region, sectors of 4096 bytes/);
    assert.match(text.stdout, new RegExp(`^${start + 4_096} +sectors +n2 \\d+ 0002 0001$`, "m"));
  });
});
