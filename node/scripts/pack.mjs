// Packs what is published: `pack.mjs <folder>` writes the package without an addon, which names the packages of all
// platforms as optional, and the package of this platform. `pack.mjs <folder> <platform>=<addon> …` writes the packages of
// those platforms instead, from addons that were built there. Prints the files' names.

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { PLATFORMS, platform } from "./platforms.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const destination = resolve(process.argv[2] ?? ".");
const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const { version, license, repository, engines } = manifest;

/** Packs a folder with these files and this manifest. */
function pack(files, contents) {
  const folder = mkdtempSync(join(tmpdir(), "tidings-pack-"));
  try {
    for (const [from, to] of files) cpSync(resolve(root, from), join(folder, to), { recursive: true });
    for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) cpSync(join(root, "..", name), join(folder, name));
    writeFileSync(join(folder, "package.json"), `${JSON.stringify(contents, null, 2)}\n`);
    const args = ["pack", "--loglevel=error", "--pack-destination", destination];
    return execFileSync("npm", args, { cwd: folder, encoding: "utf8" }).trim().split("\n").at(-1);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

mkdirSync(destination, { recursive: true });
const { devDependencies: _dev, scripts: _scripts, ...published } = manifest;
const optionalDependencies = Object.fromEntries(Object.keys(PLATFORMS).map((name) => [`@tidings/${name}`, version]));
const main = pack(
  [
    ["dist", "dist"],
    ["README.md", "README.md"],
  ],
  { ...published, files: ["dist", "LICENSE-*"], optionalDependencies },
);
const given = process.argv.slice(3).map((one) => one.split("="));
const here = platform();
const addons = given.length > 0 ? given : [[here, `prebuilds/${here}/tidings.node`]];
const packed = addons.map(([name, file]) => {
  if (PLATFORMS[name] === undefined)
    throw new Error(`there is no platform ${name}: ${Object.keys(PLATFORMS).join(", ")}`);
  return pack([[file, "tidings.node"]], {
    name: `@tidings/${name}`,
    version,
    description: `The addon of the package tidings for ${name}`,
    license,
    repository,
    engines,
    main: "tidings.node",
    files: ["tidings.node", "LICENSE-*"],
    ...PLATFORMS[name],
  });
});
process.stdout.write(`${[main, ...packed].join("\n")}\n`);
