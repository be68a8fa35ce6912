// Builds the addon with cargo and puts it where the package looks for it. `--release` for the one that is published.

import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { platform } from "./platforms.mjs";

const workspace = fileURLToPath(new URL("../..", import.meta.url));
const release = process.argv.includes("--release");

/** What the engine's SQLite can do without: it opens files of events and outboxes only. */
const LEFT_OUT = ["FTS3", "FTS3_PARENTHESIS", "FTS5", "RTREE", "DBSTAT_VTAB", "STAT4", "LOAD_EXTENSION"];
const SQLITE = [...LEFT_OUT.map((name) => `-USQLITE_ENABLE_${name}`), "SQLITE_OMIT_LOAD_EXTENSION"].join(" ");
/** Equal functions once: lld does that, the linker of Linux that Rust brings along, others do not know the option. */
const FOLD = ["-C", "link-arg=-Wl,--icf=all"];

/** Whether the linker knows the option. */
function folds() {
  const folder = mkdtempSync(join(tmpdir(), "tidings-link-"));
  const args = ["--crate-type=cdylib", "--crate-name=probe", ...FOLD, "--out-dir", folder, "-"];
  try {
    return spawnSync("rustc", args, { cwd: workspace, input: "", stdio: ["pipe", "ignore", "ignore"] }).status === 0;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What differs for the addon that is published. */
function published() {
  const { RUSTFLAGS = "", ...env } = process.env;
  return {
    args: ["--profile", "dist", "--", ...(process.platform === "linux" && folds() ? FOLD : [])],
    env: { ...env, RUSTFLAGS: `${RUSTFLAGS} --cfg tidings_dist`.trim(), LIBSQLITE3_FLAGS: SQLITE },
  };
}

/** Where cargo has put it: it says so itself, whatever the target folder. */
function build() {
  const { args, env } = release ? published() : { args: [], env: process.env };
  const always = [
    "rustc",
    "--package",
    "tidings-node",
    "--lib",
    "--message-format",
    "json-render-diagnostics",
    "--quiet",
  ];
  const cargo = spawnSync("cargo", [...always, ...args], {
    cwd: workspace,
    env,
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
