// Writes src/error-classes.ts: one class for each code of tests/vectors/errors.json.

import { readFileSync, writeFileSync } from "node:fs";

const table = JSON.parse(readFileSync(new URL("../../tests/vectors/errors.json", import.meta.url), "utf8"));
const target = new URL("../src/error-classes.ts", import.meta.url);

const className = (code) =>
  `${code
    .split("_")
    .map((word) => word[0] + word.slice(1).toLowerCase())
    .join("")}Error`;

const lines = [
  "// Written by scripts/errors.mjs from tests/vectors/errors.json.",
  "",
  'import { TidingsError } from "./tidings-error";',
];
for (const { code, meaning } of table) {
  lines.push("", `/** \`${code}\`: ${meaning} */`, `export class ${className(code)} extends TidingsError {}`);
}
lines.push("");
const text = lines.join("\n");
let before = "";
try {
  before = readFileSync(target, "utf8");
} catch (error) {
  if (error.code !== "ENOENT") throw error;
}
if (text !== before) writeFileSync(target, text);
