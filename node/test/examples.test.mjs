// Every example in `examples/node` prints what is expected of all languages, on the embedded default.

import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
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

/** A folder with this example, the package and what else it needs, until the test is over. */
async function copied(t, example, file, packages = []) {
  const folder = await mkdtemp(join(tmpdir(), "tidings-example-"));
  t.after(() => rm(folder, { recursive: true }));
  await mkdir(join(folder, "node_modules"));
  await symlink(root, join(folder, "node_modules", "tidings"));
  for (const name of packages) await symlink(join(root, "node_modules", name), join(folder, "node_modules", name));
  for (const name of ["package.json", file]) await copyFile(join(examples, example, name), join(folder, name));
  const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !key.startsWith("TIDINGS_")));
  return { cwd: folder, env };
}

test("there is one for each scenario", async () => {
  assert.deepEqual(await named("node", ".js"), names);
});

for (const name of names) {
  const database = ["07-outbox", "08-inbox"].includes(name);
  const skip = database && process.getBuiltinModule?.("node:sqlite") === undefined && "this Node has no node:sqlite";
  test(`${name} prints what is expected`, { skip }, async (t) => {
    const options = await copied(t, "node", `${name}.js`);
    const { stdout } = await promisify(execFile)(process.execPath, [`${name}.js`], {
      ...options,
      timeout: 60_000,
    });
    assert.equal(stdout, await readFile(join(examples, "expected", `${name}.txt`), "utf8"));
  });
}

test("the shop with Express prints what is expected", async (t) => {
  const options = await copied(t, "express", "main.js", ["express"]);
  const expected = (await readFile(join(examples, "express", "expected.txt"), "utf8")).trimEnd().split("\n");
  Object.assign(options.env, { PORT: "0", TIDINGS_BROKER_URL: "sqlite:tidings.db" });
  const shop = spawn(process.execPath, ["main.js"], { ...options, stdio: ["ignore", "pipe", "pipe"] });
  t.after(() => shop.kill("SIGKILL"));
  const [said] = await once(createInterface(shop.stderr), "line");
  const url = `http://127.0.0.1:${/listening on (\d+)/.exec(said)[1]}/orders`;
  const lines = createInterface(shop.stdout)[Symbol.asyncIterator]();
  for (const [at, id] of [7, 8].entries()) {
    const headers = { "content-type": "application/json", connection: "close" };
    const response = await fetch(url, { method: "POST", headers, body: JSON.stringify({ id }) });
    assert.equal(response.status, 202);
    assert.equal((await lines.next()).value, expected[at]);
  }
  shop.kill("SIGTERM");
  assert.equal((await lines.next()).value, expected[2]);
  assert.equal((await lines.next()).done, true);
});
