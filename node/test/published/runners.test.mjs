// `tidings/testing` under the other test runners. Some 200 packages: too many for every run.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
let project;

const npm = (args, cwd = project) =>
  execFileSync("npm", [...args, "--no-audit", "--no-fund", "--loglevel=error"], { cwd, encoding: "utf8" });

before(() => {
  project = mkdtempSync(join(tmpdir(), "tidings-runners-"));
  cpSync(fileURLToPath(new URL("runners", import.meta.url)), project, { recursive: true });
  npm(["install"]);
  const packed = npm(["pack", "--ignore-scripts", "--pack-destination", project], root).trim().split("\n").at(-1);
  npm(["install", "--no-save", `./${packed}`]);
});

after(() => rmSync(project, { recursive: true, force: true }));

/** Runs it to its end, which it reaches by itself; what it said. */
function run(program, ...args) {
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env;
  const command = [join(project, "node_modules/.bin", program), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, {
    cwd: project,
    env: { ...env, NO_COLOR: "1" },
    encoding: "utf8",
    timeout: 120_000,
  });
  assert.equal(status, 0, `${stdout}${stderr}`);
  return `${stdout}${stderr}`;
}

test("vitest", () => {
  assert.match(run("vitest", "run", "--dir", "vitest"), /Tests +2 passed \(2\)/);
});

test("jest", () => {
  assert.match(run("jest", "--testMatch", "**/jest/*.cjs"), /Tests: +2 passed, 2 total/);
});
