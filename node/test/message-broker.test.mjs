// The catalog by way of messageBroker, events and BrokersService.

import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { SessionInvalidError, Tidings, TidingsError } from "../dist/index.mjs";
import { after, collector, folder, quiet, run, start, unique } from "./support.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** A catalog with one broker `b`, and an end for it. */
function tidings(t, type = "memory", config = {}, more = {}) {
  const product = unique("p");
  const catalog = {
    product_tag: product,
    env_slug: "prd",
    caches: [{ tag: "window", expiry: 60_000 }],
    brokers: [{ tag: "b", envs: [{ slug: "prd", type, config }] }],
  };
  const made = new Tidings({ catalog, logger: quiet, ...more });
  after(t, () => made.close());
  return { made, product };
}

/** Subscribes and collects; the subscription goes with the test. */
async function collected(t, made, request, callback) {
  const seen = collector();
  const handle = callback ?? ((message, context) => seen.add({ message, context }));
  const { input, ...rest } = request;
  const subscription = await made.processor.messageBroker.subscribe({ ...rest, input: { ...input, callback: handle } });
  after(t, () => subscription.unsubscribe());
  return { seen, subscription };
}

test("the vectors of the catalog", async (t) => {
  const vectors = JSON.parse(readFileSync(new URL("../../tests/vectors/catalog.json", import.meta.url), "utf8"));
  const errors = vectors.filter(({ error, catalog, environment }) => error && catalog && environment === undefined);
  assert.ok(errors.length >= 8);
  for (const { name, catalog, call, error, lists } of errors) {
    const made = new Tidings({ catalog, logger: quiet });
    after(t, () => made.close());
    await assert.rejects(
      made.processor.messageBroker.publish({ ...call, input: { message: 1 } }),
      (thrown) => thrown instanceof TidingsError && thrown.code === error && String(thrown).includes(lists ?? ""),
      name,
    );
  }
});

test("publish and subscribe, each way of calling", async (t) => {
  const { made, product } = tidings(t);
  const { seen, subscription } = await collected(t, made, { env: "prd", event: "b:orders", product_tag: product });
  assert.equal(subscription.subscription, `${product}.prd.b.orders`);
  const published = await made.processor.messageBroker.publish({
    env: "prd",
    event: "b:orders",
    product_tag: product,
    cache: {},
    session: { tag: "web", token: "abc123xyz" },
    input: { message: { id: 7 }, headers: { trace: "x" } },
  });
  assert.deepEqual(Object.keys(published), ["success", "process_id", "message_id"]);
  const [{ message, context }] = await seen.reach(1);
  assert.deepEqual(message, { id: 7 });
  assert.deepEqual([context.id, context.attempt, context.headers.trace], [published.message_id, 0, "x"]);
  assert.equal(context.headers["tidings-event-name"], "b:orders");
  assert.ok(!JSON.stringify(context.headers).includes("abc123xyz"));

  // product and env come from the catalog's file.
  await made.events.produce({ event: "b:orders", message: { id: 8 } });
  assert.deepEqual((await seen.reach(2))[1].message, { id: 8 });
});

test("what is thrown is retried, then a dead letter that can be put back", async (t) => {
  const { made, product } = tidings(t, "sqlite", { path: join(folder(t), "b.db") });
  const attempts = collector();
  let broken = true;
  const request = { env: "prd", event: "b:t", product_tag: product, input: {} };
  await collected(t, made, request, async (_message, context) => {
    attempts.add(context.attempt);
    if (broken) throw new Error("no such address");
  });
  const { message_id } = await made.events.produce({ event: "b:t", message: { n: 1 } });
  await attempts.reach(1);
  const where = { brokerTag: "b" };
  let dead;
  do dead = await made.events.messages.getDeadLetters(where);
  while (dead.total === 0);
  assert.deepEqual([dead.deadLetters[0].message_id, dead.deadLetters[0].error], [message_id, "no such address"]);
  broken = false;
  const done = await made.brokers.reprocessDLQ(where);
  assert.deepEqual(done, { reprocessed_count: 1, failed_count: 0, event_ids: [message_id] });
  await attempts.reach(2);
  let event;
  do event = await made.brokers.getEvent({ eventId: message_id });
  while (event.status !== "success");
  assert.deepEqual(event.request_data, { n: 1 });
});

test("a cache is a window, an idempotency key a promise", async (t) => {
  const { made } = tidings(t);
  const first = await made.events.produce({ event: "b:t", message: { a: 1, b: 2 }, cache: "window" });
  const again = await made.events.produce({ event: "b:t", message: { b: 2, a: 1 }, cache: "window" });
  assert.deepEqual(again, { ...first, cached: true });
  const request = { event: "b:t", input: { message: 1 }, idempotencyKey: "k" };
  const one = await made.brokers.publishIdempotent(request);
  const two = await made.brokers.publishIdempotent(request);
  assert.equal(two.error, "Already processed (idempotent)");
  assert.deepEqual(await made.brokers.checkIdempotency({ idempotencyKey: "k" }), {
    exists: true,
    event_id: one.message_id,
  });
});

test("the program's own verifier decides about sessions", async (t) => {
  const sessionVerifier = ({ token }) => {
    if (token !== "good") throw new Error(`bad token ${token}`);
    return "ada";
  };
  const { made, product } = tidings(t, "memory", {}, { sessionVerifier });
  const { seen } = await collected(t, made, { event: "b:t", product_tag: product });
  const publish = (token) => made.events.produce({ event: "b:t", message: 1, session: { tag: "web", token } });
  await assert.rejects(
    publish("hush"),
    (error) => error instanceof SessionInvalidError && !String(error).includes("hush"),
  );
  await publish("good");
  const [{ context }] = await seen.reach(1);
  assert.equal(context.headers["tidings-session-subject"], "ada");
  assert.equal(seen.values.length, 1);
});

test("brokers and topics are declared by calls, in the file too", async (t) => {
  const configPath = join(folder(t), "tidings.config.json");
  writeFileSync(configPath, "{}");
  const made = new Tidings({ configPath, logger: quiet });
  after(t, () => made.close());
  const product = await made.product().init("shop");
  const { messageBrokers } = product;
  await messageBrokers.create({ tag: "b", envs: [{ slug: "prd", type: "rabbitmq", config: { password: "hush" } }] });
  await messageBrokers.update("b", { envs: [{ slug: "snd", type: "MEMORY", config: {} }] });
  await messageBrokers.topics.create({ tag: "b:t", sample: {} });
  const shown = await messageBrokers.fetch("b");
  assert.deepEqual(
    shown.envs.map(({ slug }) => slug),
    ["prd", "snd"],
  );
  assert.ok(!JSON.stringify(shown).includes("hush"));
  assert.equal((await messageBrokers.topics.fetchAll("b")).length, 1);
  assert.equal(JSON.parse(readFileSync(configPath, "utf8")).brokers[0].tag, "b");
  await assert.rejects(messageBrokers.fetch("c"), { code: "BROKER_NOT_FOUND" });
});

/** An empty project with the seed's two programs in it, compiled under strict. */
async function project(t) {
  const path = folder(t);
  mkdirSync(join(path, "node_modules"));
  symlinkSync(root, join(path, "node_modules", "tidings"));
  cpSync(join(root, "test", "seed"), path, { recursive: true });
  writeFileSync(join(path, "package.json"), '{ "type": "module" }');
  const options = ["--strict", "--module", "nodenext", "--target", "es2022", "--types", "", "--skipLibCheck", "false"];
  const lib = ["--lib", "es2023,dom"];
  const tsc = join(root, "node_modules", "typescript", "bin", "tsc");
  const compiled = await run([tsc, ...options, ...lib, "publish.ts", "subscribe.ts"], { cwd: path });
  assert.deepEqual([compiled.code, compiled.out], [0, ""]);
  return path;
}

const environment = () => {
  const { TIDINGS_BROKER_URL: _url, TIDINGS_CONFIG: _config, TIDINGS_ENV: _env, ...env } = process.env;
  return env;
};

async function roundTrip(cwd) {
  const published = await run(["publish.js"], { cwd, env: environment() });
  assert.deepEqual([published.code, published.out], [0, ""], published.err);
  const subscriber = start(["subscribe.js"], { cwd, env: environment() });
  // As Node prints it: the whole message, and nothing of the session.
  await subscriber.line("email: 'john@example.com'");
  subscriber.child.kill();
  const { out } = await subscriber.ended;
  assert.match(out, /^Received message: \{/);
  assert.ok(!out.includes("abc123xyz"));
}

test("the seed's programs in an empty project", async (t) => {
  await roundTrip(await project(t));
});

test("the seed's programs with an events.json that says RabbitMQ", { skip: !process.env.AMQP_URL }, async (t) => {
  const path = await project(t);
  const url = new URL(process.env.AMQP_URL);
  const exchange = unique("seed");
  const { hostname: host, username, password } = url;
  const vhost = decodeURIComponent(url.pathname.slice(1)) || "/";
  const config = { host, port: Number(url.port || 5672), username, password, vhost, exchange };
  const envs = [{ slug: "prd", type: "RABBITMQ", config }];
  mkdirSync(join(path, "ductape"));
  writeFileSync(join(path, "ductape", "events.json"), JSON.stringify([{ tag: "sqsbroker", name: "Orders", envs }]));
  const { Broker } = await import("../dist/index.mjs");
  const broker = new Broker(process.env.AMQP_URL, { logger: quiet });
  after(t, async () => {
    await broker.deleteSubscription("my_product.prd.sqsbroker.new-orders");
    await broker.close();
  });
  await broker.deleteSubscription("my_product.prd.sqsbroker.new-orders");
  await roundTrip(path);
});

test("in a browser it says so", async () => {
  await assert.rejects(import("../dist/browser.js"), { code: "BROWSER_NOT_SUPPORTED" });
});
