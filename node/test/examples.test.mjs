// Every example in `examples/node` prints what is expected of all languages, on the embedded default.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("..", import.meta.url));
const examples = join(root, "..", "examples");
const named = async (folder, suffix) =>
  (await readdir(join(examples, folder)))
    .filter((name) => name.endsWith(suffix))
    .map((name) => name.slice(0, -suffix.length));
const names = await named("expected", ".txt");

test("there is one for each scenario", async () => {
  assert.deepEqual(await named("node", ".js"), names);
});

for (const name of names) {
  const database = ["07-outbox", "08-inbox"].includes(name);
  const skip = database && process.getBuiltinModule?.("node:sqlite") === undefined && "this Node has no node:sqlite";
  test(`${name} prints what is expected`, { skip }, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "tidings-example-"));
    t.after(() => rm(folder, { recursive: true }));
    await mkdir(join(folder, "node_modules"));
    await symlink(root, join(folder, "node_modules", "tidings"));
    for (const file of ["package.json", `${name}.js`]) await copyFile(join(examples, "node", file), join(folder, file));
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("TIDINGS_")));
    const { stdout } = await promisify(execFile)(process.execPath, [`${name}.js`], {
      cwd: folder,
      env,
      timeout: 60_000,
    });
    assert.equal(stdout, await readFile(join(examples, "expected", `${name}.txt`), "utf8"));
  });
}
