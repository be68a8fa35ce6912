// What needs `node:sqlite`, with the Node from npm where the machine's own is too old for it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { newerNode } from "./newer-node.mjs";
import { run } from "./support.mjs";

test("the outbox of node:sqlite", async (t) => {
  const newer = newerNode();
  if (newer === undefined) return t.skip("there is no newer Node to be had for this platform");
  if (newer === process.execPath) return t.skip("it is tested with the others");
  // Or it would take itself for a part of these tests, and run none.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const args = ["--test", "--test-reporter=tap", "--test-name-pattern=^node:sqlite", "test/outbox.test.mjs"];
  const { code, out, err } = await run(args, { node: newer, env });
  assert.equal(code, 0, `${out}${err}`);
  assert.match(out, /ok \d+ - node:sqlite: the scenarios\n/);
  assert.match(out, /ok \d+ - node:sqlite: the process of a file is killed again and again, and goes on\n/);
});
