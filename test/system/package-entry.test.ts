/**
 * The package as others get it: packed by npm, unpacked into another project's node_modules, and used from there by its
 * entry, at run time and by the compiler.
 */
import assert from "node:assert/strict";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";

import { findRoot } from "../helpers/root.js";
import { must, Workspace } from "../helpers/workspace.js";

describe("the packed package", function () {
  this.timeout(60_000);
  let space: Workspace;
  let project: string;
  let installed: string;

  before(() => {
    space = new Workspace("package");
    project = space.path("project");
    installed = join(project, "node_modules/sharedha");
    mkdirSync(installed, { recursive: true });
    const root = findRoot();
    must("npm", ["pack", "--silent", "--ignore-scripts", "--pack-destination", space.dir, root]);
    const archive = readdirSync(space.dir).find((name) => name.endsWith(".tgz")) ?? "";
    must("tar", ["-xzf", space.path(archive), "-C", installed, "--strip-components=1"]);
    // What `npm install` would fetch: the same versions are here already.
    const { dependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
      dependencies: Readonly<Record<string, string>>;
    };
    for (const name of [...Object.keys(dependencies), "@types"]) {
      symlinkSync(join(root, "node_modules", name), join(project, "node_modules", name));
    }
    writeFileSync(join(project, "package.json"), `{ "name": "project", "type": "module" }\n`);
  });
  after(async () => {
    assert.deepEqual(await space.clean(), []);
  });

  it("gives the initiator to a program that has nothing else of it", () => {
    const program = join(project, "main.js");
    writeFileSync(
      program,
      `import { Initiator, parsePortal, isIscsiError } from "sharedha/node-iscsi-initiator";
       const initiator = new Initiator();
       const failed = await initiator.discover("no portal").catch((error) => error);
       console.log(JSON.stringify([
         parsePortal("[fd00::9]"), Array.isArray(initiator.sessions()), failed.code, isIscsiError(failed),
       ]));`,
    );
    assert.deepEqual(JSON.parse(must(process.execPath, [program])), [
      { address: "fd00::9", port: 3260 },
      true,
      "ERR_ISCSI_PORTAL",
      true,
    ]);
  });

  it("has types that a strict compiler takes", () => {
    writeFileSync(
      join(project, "main.ts"),
      `import { Initiator, type Session, type PortalLogin } from "sharedha/node-iscsi-initiator";
       const initiator = new Initiator();
       export const sessions: readonly Session[] = initiator.sessions();
       export const outcomes: Promise<readonly PortalLogin[]> = initiator.login("iqn.2026-11.lab:data", { portal: "10.77.0.9" });
       // @ts-expect-error a LUN is a number
       export const wrong = initiator.waitForDisk("iqn.2026-11.lab:data", "0");\n`,
    );
    writeFileSync(
      join(project, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          target: "es2023",
          module: "nodenext",
          strict: true,
          noEmit: true,
          exactOptionalPropertyTypes: true,
          types: ["node"],
          skipLibCheck: false,
        },
        files: ["main.ts"],
      }),
    );
    must(process.execPath, [join(findRoot(), "node_modules/typescript/bin/tsc"), "-p", project]);
  });

  it("keeps everything else to itself, and its programs where they were", () => {
    const program = join(project, "other.js");
    writeFileSync(
      program,
      `const failed = await import("sharedha/dist/lib/daemon/main.js").catch((error) => error);
       console.log(failed.code);`,
    );
    assert.equal(must(process.execPath, [program]).trim(), "ERR_PACKAGE_PATH_NOT_EXPORTED");
    const { bin } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8")) as {
      bin: Readonly<Record<string, string>>;
    };
    for (const file of Object.values(bin)) {
      assert.ok(existsSync(join(installed, file)), file);
    }
    const version = must(process.execPath, [join(installed, bin["sharedha"] ?? ""), "--version"]);
    assert.match(version, /^\d+\.\d+\.\d+\n$/);
  });
});
