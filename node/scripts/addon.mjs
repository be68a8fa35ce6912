// Builds the addon with cargo and puts it where the package looks for it. `--release` for the one that is published.

import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, renameSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { platform } from "./platforms.mjs";

const workspace = fileURLToPath(new URL("../..", import.meta.url));
const release = process.argv.includes("--release");

/** Where cargo has put it: it says so itself, whatever the target folder. */
function build() {
  const args = ["build", "--package", "tidings-node", "--message-format", "json-render-diagnostics", "--quiet"];
  if (release) args.push("--profile", "dist");
  const cargo = spawnSync("cargo", args, {
    cwd: workspace,
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (cargo.error) throw cargo.error;
  if (cargo.status !== 0) process.exit(cargo.status ?? 1);
  for (const line of cargo.stdout.split("\n")) {
    const message = line.startsWith("{") ? JSON.parse(line) : {};
    if (message.reason === "compiler-artifact" && message.target.name === "tidings_node") {
      return message.filenames.find((file) => /\.(so|dylib|dll)$/.test(file));
    }
  }
  throw new Error("cargo has not said where the addon is");
}

const folder = fileURLToPath(new URL(`../prebuilds/${platform()}`, import.meta.url));
const built = build();
const fresh = `${folder}/tidings.node.new`;
mkdirSync(folder, { recursive: true });
copyFileSync(built, fresh);
// Debug information would be nine tenths of it; where there is no strip, the file is only larger.
if (process.platform === "linux" && !release) spawnSync("strip", ["--strip-debug", fresh]);
// In one step, and as a new file: a process that has the old one loaded keeps it.
renameSync(fresh, `${folder}/tidings.node`);
