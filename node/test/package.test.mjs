// The packed package, as its users get it: ESM, CommonJS, TypeScript strict, newer Node; its size and its public types.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { newerNode } from "./newer-node.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
let project;

const npm = (args, cwd) =>
  execFileSync("npm", [...args, "--no-audit", "--no-fund", "--loglevel=error"], { cwd, encoding: "utf8" });
const node = (args, program = process.execPath) =>
  execFileSync(program, args, { cwd: project, encoding: "utf8", timeout: 60_000, stdio: ["ignore", "pipe", "pipe"] });

before(() => {
  project = mkdtempSync(join(tmpdir(), "tidings-package-"));
  const packed = npm(["pack", "--ignore-scripts", "--pack-destination", project], root).trim().split("\n").at(-1);
  writeFileSync(join(project, "package.json"), "{}");
  npm(["install", "--offline", `./${packed}`], project);
});

after(() => rmSync(project, { recursive: true, force: true }));

const USE = `const broker = new Broker("memory:");
  const subscriber = new Subscriber(broker);
  subscriber.handle("a.*", { name: "s" }, async (event) => { console.log("got", event.data); await subscriber.stop(); });`;

test("ES modules, CommonJS, and both at once with one set of classes", () => {
  const use = `${USE} subscriber.start().then(() => new Publisher(broker).publish("a.b", 7));`;
  writeFileSync(join(project, "esm.mjs"), `import { Broker, Publisher, Subscriber } from "tidings";\n${use}`);
  writeFileSync(join(project, "cjs.cjs"), `const { Broker, Publisher, Subscriber } = require("tidings");\n${use}`);
  assert.equal(node(["esm.mjs"]), "got 7\n");
  assert.equal(node(["cjs.cjs"]), "got 7\n");
  const both = `import { createRequire } from "node:module"; import * as esm from "tidings"; import { TestBroker } from "tidings/testing";
    const cjs = createRequire(import.meta.url)("tidings");
    console.log(esm.Retry === cjs.Retry, new TestBroker({ logger: false }) instanceof cjs.Broker);`;
  writeFileSync(join(project, "both.mjs"), both);
  assert.equal(node(["both.mjs"]), "true true\n");
});

test("newer Node: await using, and node:sqlite beside the embedded store", (t) => {
  const newer = newerNode();
  if (newer === undefined) return t.skip("there is no newer Node to be had for this platform");
  const program = `import { DatabaseSync } from "node:sqlite";
    import { Broker, Publisher } from "tidings";
    const own = new DatabaseSync("own.db");
    own.exec("create table t (x)");
    {
      await using broker = new Broker("sqlite:events.db", { logger: false });
      await using publisher = new Publisher(broker);
      console.log((await publisher.publish("a.b", 1)).routed);
      own.exec("insert into t values (1)");
    }
    const shared = new Broker("sqlite:own.db", { logger: false });
    await shared.connect().catch((error) => console.log(error.code));`;
  writeFileSync(join(project, "newer.mjs"), program);
  const out = node(["newer.mjs"], newer);
  assert.equal(out, `false\n${process.platform === "linux" ? "STORE_SHARED_IN_PROCESS\n" : ""}`);
});

test("the README's programs run as they are printed", () => {
  const readme = readFileSync(join(root, "README.md"), "utf8");
  const programs = [...readme.matchAll(/```js run\n([\s\S]*?)```/g)].map(([, code]) => code);
  assert.ok(programs.length > 0);
  for (const [at, code] of programs.entries()) {
    writeFileSync(join(project, `readme-${at}.mjs`), code);
    assert.match(node([`readme-${at}.mjs`]), /billing 7/);
  }
});

for (const [name, options] of Object.entries({
  "without the types of Node": { types: [], lib: ["es2022"], module: "nodenext" },
  "with the types of Node": {
    types: ["node"],
    lib: ["es2022"],
    module: "nodenext",
    typeRoots: [join(root, "node_modules/@types")],
  },
  "for a bundler": { types: [], lib: ["es2022", "dom"], module: "esnext", moduleResolution: "bundler" },
})) {
  test(`TypeScript compiles it under strict, ${name}`, () => {
    const folder = mkdtempSync(join(project, "ts-"));
    cpSync(join(root, "test/consumer/strict.ts"), join(folder, "strict.mts"));
    const strict = {
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      skipLibCheck: false,
    };
    const compilerOptions = { target: "es2022", rootDir: ".", outDir: "out", ...strict, ...options };
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["strict.mts"] }));
    try {
      node([join(root, "node_modules/typescript/bin/tsc"), "-p", folder]);
    } catch (error) {
      assert.fail(`${error.stdout}${error.stderr}`);
    }
    if (options.module !== "nodenext") return;
    writeFileSync(
      join(folder, "run.mjs"),
      'import { program } from "./out/strict.mjs"; console.log((await program()).join(", "));',
    );
    assert.equal(node([join(folder, "run.mjs")]), "billed 1, billed 3, INVALID_ROUTING_KEY, true 0 0\n");
  });
}

test("the public types are what they were; `UPDATE=1` accepts a change", () => {
  const dist = join(root, "dist");
  const files = readdirSync(dist).filter((name) => name.endsWith(".d.ts") && !INTERNAL.has(name));
  const types = files.map((name) => `// ${name}\n${readFileSync(join(dist, name), "utf8")}`).join("\n");
  const path = join(root, "test/snapshots/public.d.ts.txt");
  if (process.env.UPDATE === "1") {
    mkdirSync(join(root, "test/snapshots"), { recursive: true });
    writeFileSync(path, types);
  }
  assert.equal(types, readFileSync(path, "utf8"), "the public types have changed: look, then run with UPDATE=1");
});

/** What is not exported, and the classes that follow the table of errors. */
const INTERNAL = new Set(
  [
    "addon",
    "bridge",
    "native",
    "outbox-child",
    "outbox-drivers",
    "outbox-store",
    "outgoing",
    "error",
    "error-classes",
    "telemetry",
  ].map((name) => `${name}.d.ts`),
);
