// `npx tidings`: the whole command, on the addon.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Broker, Publisher } from "../dist/index.mjs";
import { after, folder, quiet, run, start, until } from "./support.mjs";

const COMMAND = "dist/cli/main.js";

function shop(t) {
  const url = `sqlite:${join(folder(t), "shop.db")}`;
  const env = { ...process.env, TIDINGS_BROKER_URL: url, COLUMNS: "100" };
  const broker = new Broker(url, { logger: quiet });
  after(t, () => broker.close());
  return { broker, env, tidings: (...args) => run([COMMAND, ...args], { env }) };
}

test("it publishes, subscribes, lists and replays dead letters", async (t) => {
  const { tidings, broker } = shop(t);
  await tidings("subscribe", "billing", "--bind", "order.*", "--timeout", "10ms");
  const published = await tidings("publish", "order.placed", '{"id": 7}');
  assert.deepEqual([published.code, published.err], [0, ""]);
  assert.match(published.out, /^[0-9a-f-]{36}\n$/);
  const dead = await tidings("subscribe", "billing", "--limit", "1", "--exec", "sh", "-c", "exit 65");
  assert.match(dead.err, /billing: 0 handled, 1 dead-lettered/);
  const listed = JSON.parse((await tidings("dead-letters", "list", "billing", "--json")).out);
  assert.equal(listed.id, published.out.trim());
  assert.equal((await tidings("dead-letters", "replay", "billing", "--all", "--yes")).code, 0);
  const [{ ready, dead: rest }] = await broker.subscriptions();
  assert.deepEqual([ready, rest], [1, 0]);
});

test("exit codes and help are those of the binary", async (t) => {
  const { tidings } = shop(t);
  assert.equal((await tidings("publish", "order.*", "1")).code, 2);
  assert.equal((await tidings("nonsense")).code, 2);
  const help = await tidings("--help");
  assert.equal(help.code, 0);
  for (const command of ["publish", "subscribe", "dead-letters", "doctor", "run"])
    assert.match(help.out, new RegExp(command));
  assert.match((await tidings("run", "--help")).out, /--processes N/);
});

test("SIGTERM and SIGINT drain a subscription: what runs is finished, what waits stays", async (t) => {
  const { env, tidings, broker } = shop(t);
  await tidings("subscribe", "billing", "--bind", "order.*", "--timeout", "10ms");
  const publisher = new Publisher(broker);
  for (const signal of ["SIGTERM", "SIGINT"]) {
    const go = join(folder(t), "go");
    const script = `echo begun; while [ ! -e ${go} ]; do sleep 0.05; done; echo ended`;
    for (let n = 0; n < 2; n += 1) await publisher.publish("order.placed", n);
    const subscribed = start([COMMAND, "subscribe", "billing", "--exec", "sh", "-c", script], { env });
    await subscribed.line("begun");
    subscribed.child.kill(signal);
    await run(["-e", `require("node:fs").writeFileSync(${JSON.stringify(go)}, "")`]);
    const { code, out, err } = await subscribed.ended;
    assert.deepEqual([code, out], [0, "begun\nended\n"], err);
    assert.match(err, /billing: 1 handled/);
    const [{ ready }] = await broker.subscriptions();
    assert.equal(ready, 1);
    await tidings("subscribe", "billing", "--limit", "1");
  }
});

test("a command that takes no signal over is ended by it", { skip: process.platform !== "linux" }, async (t) => {
  const { env } = shop(t);
  const waiting = start([COMMAND, "publish", "--batch", "-"], { env, stdio: ["pipe", "pipe", "pipe"] });
  // It reads its input once the engine's threads run.
  const threads = () => {
    const tasks = `/proc/${waiting.child.pid}/task`;
    return readdirSync(tasks).map((task) => readFileSync(`${tasks}/${task}/comm`, "utf8"));
  };
  await until(() => threads().some((name) => name.startsWith("tokio")));
  waiting.child.kill("SIGINT");
  assert.equal((await waiting.ended).signal, "SIGINT");
});
