// The two packages of this platform, as a new user gets them: their size, an empty project, the README's program without
// a server and then with RabbitMQ, both module systems, the command.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { unique } from "../support.mjs";

const MB = 1_000_000;
const root = fileURLToPath(new URL("../..", import.meta.url));
const { TIDINGS_BROKER_URL: _, ...env } = process.env;
let project;
let packed;

const run = (program, ...args) =>
  execFileSync(program, args, {
    cwd: project,
    env,
    encoding: "utf8",
    timeout: 120_000,
    stdio: ["ignore", "pipe", "pipe"],
  });

before(() => {
  project = mkdtempSync(join(tmpdir(), "tidings-published-"));
  packed = run(process.execPath, join(root, "scripts/pack.mjs"), project).trim().split("\n");
  run("npm", "init", "-y");
  run("npm", "install", "--no-audit", "--no-fund", "--loglevel=error", ...packed.map((name) => `./${name}`));
});

after(() => rmSync(project, { recursive: true, force: true }));

/** The README's first program, on this broker and under this name. */
function readme(url, name) {
  const [, code] = /```js run\n([\s\S]*?)```/.exec(readFileSync(join(root, "README.md"), "utf8"));
  const program = code.replaceAll('"sqlite:tidings.db"', JSON.stringify(url));
  return name === undefined
    ? program
    : program.replaceAll('name: "billing"', `name: "${name}"`).replaceAll('"order.', `"${name}.`);
}

test("the addon is at most 12 MB, packed 5 MB, and the package has none of its own", () => {
  const [main, addon] = packed.map((name) => statSync(join(project, name)).size);
  const unpacked = statSync(join(project, "node_modules/@tidings", addonName(), "tidings.node")).size;
  assert.ok(unpacked <= 12 * MB, `${unpacked} bytes`);
  assert.ok(addon <= 5 * MB, `${addon} bytes packed`);
  assert.ok(main <= MB / 4, `the package itself: ${main} bytes`);
});

const addonName = () => /tidings-(.*)-\d+\.\d+\.\d+\.tgz/.exec(packed[1])[1];

test("the README's program, without a server", () => {
  writeFileSync(join(project, "first.mjs"), readme("sqlite:tidings.db"));
  assert.equal(run(process.execPath, "first.mjs"), "billing 7\n");
});

for (const variable of ["AMQP_URL", "AMQP4_URL"]) {
  test(`the same on RabbitMQ at ${variable}`, { skip: !process.env[variable] }, () => {
    const name = unique("published");
    const url = process.env[variable];
    writeFileSync(join(project, "server.mjs"), readme(url, name));
    try {
      assert.equal(run(process.execPath, "server.mjs"), "billing 7\n");
    } finally {
      const clean = `import { Broker } from "tidings"; const b = new Broker(process.argv[2]);
        await b.deleteSubscription(process.argv[3]); await b.close();`;
      writeFileSync(join(project, "clean.mjs"), clean);
      run(process.execPath, "clean.mjs", url, name);
    }
  });
}

test("ES modules and CommonJS", () => {
  const use = `new Publisher("memory:").publish("a.b", 1).then((receipt) => console.log(receipt.routed));`;
  writeFileSync(join(project, "use.mjs"), `import { Publisher } from "tidings"; ${use}`);
  writeFileSync(join(project, "use.cjs"), `const { Publisher } = require("tidings"); ${use}`);
  assert.equal(run(process.execPath, "use.mjs"), "false\n");
  assert.equal(run(process.execPath, "use.cjs"), "false\n");
});

test("the command", () => {
  assert.match(run("npx", "tidings", "--version"), /^tidings \d/);
  assert.match(run("npx", "tidings", "--broker", "sqlite:cli.db", "publish", "order.placed", "7"), /^[0-9a-f-]{36}\n$/);
});
