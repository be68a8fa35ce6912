// TypeScript to dist/: CommonJS, which both module systems share, and an ES module in front of each entry.

import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import "./errors.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
rmSync(`${root}/dist`, { recursive: true, force: true });
const { status } = spawnSync(process.execPath, [`${root}/node_modules/typescript/bin/tsc`, "-p", root], {
  stdio: "inherit",
});
if (status !== 0) process.exit(status ?? 1);
for (const entry of ["index", "testing"]) {
  if (!existsSync(`${root}/dist/${entry}.js`)) continue;
  // One set of classes for both: instanceof works whichever way a library was loaded.
  writeFileSync(`${root}/dist/${entry}.mjs`, `export * from "./${entry}.js";\n`);
  writeFileSync(`${root}/dist/${entry}.d.mts`, `export * from "./${entry}.js";\n`);
}
if (existsSync(`${root}/dist/cli/main.js`)) chmodSync(`${root}/dist/cli/main.js`, 0o755);
