// Node 24 from npm: what the Node of the machine may be too old for is tested with it.

import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const VERSION = "24.21.0";
const modules = fileURLToPath(new URL("../node_modules", import.meta.url));

/** Its program, kept beside the other packages; `undefined` if there is none for this platform, or no registry. */
export function newerNode() {
  if (Number.parseInt(process.versions.node, 10) >= 24) return process.execPath;
  const name = `node-${process.platform}-${process.arch}`;
  const folder = join(modules, ".newer");
  const program = join(folder, `node_modules/${name}/bin/node`);
  if (existsSync(program)) return program;
  // Elsewhere at first, and in one step: several tests may want it at once.
  const fresh = mkdtempSync(`${folder}-`);
  writeFileSync(join(fresh, "package.json"), "{}");
  const args = ["install", "--prefix", fresh, `${name}@${VERSION}`, "--no-audit", "--no-fund", "--loglevel=error"];
  try {
    execFileSync("npm", args, { cwd: fresh, encoding: "utf8" });
    if (!existsSync(folder)) renameSync(fresh, folder);
  } catch {
    // There is none, or another test was first.
  }
  rmSync(fresh, { recursive: true, force: true });
  return existsSync(program) ? program : undefined;
}

// As a program it says where that Node is, or the one that runs it.
if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(newerNode() ?? process.execPath);
