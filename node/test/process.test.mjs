// What processes do: end by themselves, stay alive, drain, survive a blocked event loop; worker threads; the supervisor.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { Broker, Publisher } from "../dist/index.mjs";
import { after, broker as brokerOn, folder, quiet, run, start, transports, until } from "./support.mjs";

const WORKER = "test/programs/worker.mjs";
const amqp = transports.find(({ name }) => name === "amqp_url");

function sqlite(t) {
  const url = `sqlite:${join(folder(t), "events.db")}`;
  const broker = new Broker(url, { logger: quiet });
  after(t, () => broker.close());
  return { url, broker };
}

const evaluate = (code, env = {}) =>
  run(["--input-type=module", "-e", `import * as tidings from "./dist/index.mjs"; ${code}`], {
    env: { ...process.env, ...env },
    timeout: 30_000,
  });

test("a process ends by itself when everything is closed, and when nothing was", async (t) => {
  const { url } = sqlite(t);
  const used = `const { Publisher, Subscriber } = tidings;
    const publisher = new Publisher(process.env.BROKER, { logger: false });
    await publisher.publish("a.b", 1);
    const subscriber = new Subscriber(publisher.broker);
    subscriber.handle("#", { name: "s" }, () => {});
    const running = await subscriber.start();
    await running.stop();`;
  for (const last of ["await publisher.close();", ""]) {
    const { code, err } = await evaluate(`${used} ${last} console.log("end")`, { BROKER: url });
    assert.equal(code, 0, err);
  }
});

test("importing starts no thread and loads no addon", { skip: process.platform !== "linux" }, async () => {
  const look = `const { readdirSync, readFileSync } = require("node:fs");
    console.log(readdirSync("/proc/self/task").length, readFileSync("/proc/self/maps", "utf8").includes("tidings.node"));`;
  const bare = await run(["-e", look]);
  const imported = await run(["-e", `require("./dist/index.js"); require("./dist/testing.js"); ${look}`]);
  assert.deepEqual([imported.out, imported.code], [bare.out, 0]);
  assert.match(bare.out, /^\d+ false\n$/);
});

test("a process stays alive while it is subscribed, and ends after stop", async (t) => {
  const { url, broker } = sqlite(t);
  const worker = start([WORKER], { env: { ...process.env, BROKER: url, STOP_AFTER: "1500" } });
  await worker.line("started");
  await new Publisher(broker).publish("job.x", 1);
  await worker.line("ended 1");
  const { code, out } = await worker.ended;
  assert.equal(code, 0);
  assert.match(out, /closed/);
});

test("SIGTERM drains: what runs ends, what waits goes back", async (t) => {
  const { url, broker } = sqlite(t);
  const worker = start([WORKER], { env: { ...process.env, BROKER: url, HANDLER: "sleep", MS: "700" } });
  await worker.line("started");
  const publisher = new Publisher(broker);
  for (let n = 0; n < 10; n += 1) await publisher.publish("job.x", n);
  await worker.line("began 3");
  worker.child.kill("SIGTERM");
  const { out, signal } = await worker.ended;
  assert.equal(signal, "SIGTERM");
  const numbers = (word) => [...out.matchAll(new RegExp(`${word} (\\d+)\n`, "g"))].map(([, n]) => n);
  assert.deepEqual(numbers("ended").toSorted(), numbers("began").toSorted());
  assert.match(out, /stopped 0/);
  const left = (await broker.subscriptions()).find(({ name }) => name === "worker");
  assert.equal(left.ready, 10 - numbers("began").length);
});

test("a blocked event loop costs neither the connection nor an event", { skip: amqp === undefined }, async (t) => {
  const ms = process.env.TIDINGS_LONG ? 60_000 : 10_000;
  const { broker, name, exchange } = brokerOn(t, amqp);
  const env = {
    ...process.env,
    BROKER: amqp.url(),
    NAME: name("w"),
    EXCHANGE: exchange,
    HANDLER: "block",
    MS: String(ms),
  };
  const worker = start([WORKER], { env: { ...env, HEARTBEAT: "1" } });
  await worker.line("started");
  const publisher = new Publisher(broker, { exchange });
  for (let n = 0; n < 50; n += 1) await publisher.publish("job.x", n);
  await worker.line("ended 49");
  worker.child.kill("SIGTERM");
  const { out, err } = await worker.ended;
  const ended = [...out.matchAll(/ended (\d+)\n/g)].map(([, n]) => Number(n));
  assert.deepEqual(
    ended.toSorted((a, b) => a - b),
    Array.from({ length: 50 }, (_, n) => n),
    err,
  );
});

test("worker threads each have their own way to the engine, and leave nothing behind", async (t) => {
  const { url, broker } = sqlite(t);
  const code = `const { parentPort, workerData } = require("node:worker_threads");
    const { Subscriber, Publisher } = require("./dist/index.js");
    const subscriber = new Subscriber(workerData.url, { logger: false });
    subscriber.handle("job.*", { name: "threads", concurrency: 4 }, async (event) => {
      parentPort.postMessage(event.data);
      if (workerData.hangs) await new Promise(() => {});
    });
    subscriber.start().then(() => parentPort.postMessage("started"));`;
  const begin = async (hangs) => {
    const worker = new Worker(code, { eval: true, workerData: { url, hangs } });
    const got = [];
    worker.on("message", (message) => got.push(message));
    await until(() => got.includes("started"));
    return { worker, got };
  };
  const publisher = new Publisher(broker);
  const first = await begin(true);
  for (let n = 0; n < 3; n += 1) await publisher.publish("job.x", n);
  await until(() => first.got.length === 4);
  // The thread ends with three events in hand: they go to the next one.
  await first.worker.terminate();
  const second = await begin(false);
  await until(() => second.got.length === 4);
  assert.deepEqual(second.got.filter((one) => one !== "started").toSorted(), [0, 1, 2]);
  await second.worker.terminate();
});

test("tidings run keeps its processes running, and drains them", async (t) => {
  const { url, broker } = sqlite(t);
  const env = { ...process.env, BROKER: url, HANDLER: "crash" };
  const supervisor = start(["dist/cli/main.js", "run", `./${WORKER}`, "--processes", "2"], { env });
  const started = () => [...supervisor.text().matchAll(/started (\d+)/g)].map(([, pid]) => Number(pid));
  await until(() => started().length === 2);
  await new Publisher(broker).publish("job.x", "crash");
  await until(() => started().length === 3);
  supervisor.child.kill("SIGTERM");
  const { code, out, err } = await supervisor.ended;
  assert.equal(code, 0, err);
  assert.match(err, /process [12] ended with 3, starts again in 0.5 s/);
  assert.match(out, /stopped 0/);
  for (const pid of started()) assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
});

test("tidings run says what is wrong", async () => {
  const missing = await run(["dist/cli/main.js", "run", "./nowhere.js"]);
  assert.deepEqual([missing.code, /there is no module .*nowhere\.js/.test(missing.err)], [2, true]);
  const nonsense = await run(["dist/cli/main.js", "run", "x", "--processes", "none"]);
  assert.deepEqual([nonsense.code, nonsense.err.includes("not understood")], [2, true]);
  assert.equal((await run(["dist/cli/main.js"])).code, 2);
});
