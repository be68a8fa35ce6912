// The packages of the platforms, with stand-ins for their addons: what is in them, which one is loaded where, and what is
// said if it is missing.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { PLATFORMS } from "../scripts/platforms.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const ARCHIVE = /^(tidings-.*)-\d+\.\d+\.\d+\.tgz$/;
let project;
let main;
let addons;

const run = (program, args, options = {}) =>
  execFileSync(program, args, { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"], ...options });
const unpack = (archive, to) => {
  mkdirSync(join(project, to), { recursive: true });
  run("tar", ["-xzf", archive, "-C", to, "--strip-components=1"]);
};

before(() => {
  project = mkdtempSync(join(tmpdir(), "tidings-platforms-"));
  const given = Object.keys(PLATFORMS).map((name) => {
    const file = join(project, `${name}.node`);
    writeFileSync(file, `stand-in of ${name}`);
    return `${name}=${file}`;
  });
  [main, ...addons] = run(process.execPath, [join(root, "scripts/pack.mjs"), project, ...given])
    .trim()
    .split("\n");
  unpack(main, "node_modules/tidings");
});

after(() => rmSync(project, { recursive: true, force: true }));

test("each platform's package has its addon, and npm is told where it belongs", () => {
  assert.deepEqual(
    addons.map((archive) => ARCHIVE.exec(archive)[1]),
    Object.keys(PLATFORMS).map((name) => `tidings-${name}`),
  );
  const { version, optionalDependencies } = manifest(main);
  for (const [at, [name, where]] of Object.entries(PLATFORMS).entries()) {
    const files = run("tar", ["-tzf", addons[at]]).trim().split("\n").toSorted();
    const wanted = ["LICENSE-APACHE", "LICENSE-MIT", "package.json", "tidings.node"].map((file) => `package/${file}`);
    assert.deepEqual(files, wanted, name);
    const { name: own, main: entry, os, cpu, libc, version: same } = manifest(addons[at]);
    assert.deepEqual({ own, entry, same }, { own: `@tidings/${name}`, entry: "tidings.node", same: version });
    assert.deepEqual({ os, cpu, libc }, { libc: undefined, ...where }, name);
    assert.equal(optionalDependencies[own], version, name);
    assert.equal(run("tar", ["-xzOf", addons[at], "package/tidings.node"]), `stand-in of ${name}`);
  }
  assert.equal(Object.keys(optionalDependencies).length, Object.keys(PLATFORMS).length);
});

const manifest = (archive) => JSON.parse(run("tar", ["-xzOf", archive, "package/package.json"]));

/** What a program says on a platform, with the packages of `installed` there; those of `broken` cannot be loaded. */
function on(name, { installed = [], broken = [] }) {
  const [platform, arch, libc] = name.split("-");
  const folder = join(project, "node_modules/@tidings");
  rmSync(folder, { recursive: true, force: true });
  for (const one of [...installed, ...broken]) {
    mkdirSync(join(folder, one), { recursive: true });
    const load = broken.includes(one)
      ? 'throw Object.assign(new Error("wrong ELF class"), { code: "ERR_DLOPEN_FAILED" })'
      : `exports.newId = () => ${JSON.stringify(one)}`;
    writeFileSync(join(folder, one, "index.js"), load);
  }
  const header = libc === "gnu" ? { glibcVersionRuntime: "2.36" } : {};
  const program = `Object.defineProperties(process, {
      platform: { value: ${JSON.stringify(platform)} }, arch: { value: ${JSON.stringify(arch)} },
      report: { value: { getReport: () => (${JSON.stringify({ header })}) } } });
    const { DomainEvent } = require("tidings");
    try { console.log(new DomainEvent("a.b", 1).id); }
    catch (error) { console.log(error.code + " " + error.message + " | " + error.cause?.message); }`;
  return run(process.execPath, ["-e", program]).trim();
}

for (const name of Object.keys(PLATFORMS)) {
  test(`${name} loads its own package, and names it if it is missing`, () => {
    const others = Object.keys(PLATFORMS).filter((one) => one !== name);
    const sibling = name.endsWith("-musl") ? name.replace("-musl", "-gnu") : name.replace("-gnu", "-musl");
    const foreign = others.filter((one) => one !== sibling);
    assert.equal(on(name, { installed: [...foreign, name] }), name);
    // The other C library's may be there too; it does not load.
    assert.equal(on(name, { installed: [name], broken: others.includes(sibling) ? [sibling] : [] }), name);
    assert.match(
      on(name, { installed: foreign, broken: others.includes(sibling) ? [sibling] : [] }),
      new RegExp(
        `^BROKER_SERVICE_LOAD_FAILED .*@tidings/${name}, is not installed; .*--omit=optional.* \\| undefined$`,
      ),
    );
    assert.match(on(name, { broken: [name] }), new RegExp(`@tidings/${name}, cannot be loaded.* \\| wrong ELF class$`));
  });
}

test("a platform that has no package is told which have one", () => {
  const said = on("freebsd-x64", { installed: Object.keys(PLATFORMS) });
  assert.match(said, /^BROKER_SERVICE_LOAD_FAILED .*no addon for freebsd-x64; .*darwin-arm64, .*win32-x64/);
});

test("npm refuses a package that belongs elsewhere", () => {
  const at = Object.keys(PLATFORMS).findIndex((name) => !name.startsWith(process.platform));
  const folder = mkdtempSync(join(project, "elsewhere-"));
  writeFileSync(join(folder, "package.json"), "{}");
  const args = ["install", "--offline", "--no-audit", "--no-fund", join(project, addons[at])];
  assert.throws(
    () => run("npm", args, { cwd: folder }),
    (error) => error.stderr.includes("EBADPLATFORM"),
  );
});
