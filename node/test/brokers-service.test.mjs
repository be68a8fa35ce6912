// What BrokersService answers on RabbitMQ: depths and dead letters; what no queue can tell is an error that says so.

import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { Broker, Tidings } from "../dist/index.mjs";
import { after, collector, folder, quiet, unique, until } from "./support.mjs";

/** A catalog whose broker `b` is this RabbitMQ, and its subscription on `b:orders`, which goes with the test. */
function shop(t, address, more = {}) {
  const product = unique("shop");
  const url = new URL(address);
  const config = {
    host: url.hostname,
    port: Number(url.port || 5672),
    username: url.username,
    password: url.password,
    vhost: decodeURIComponent(url.pathname.slice(1)) || "/",
    exchange: unique("node"),
  };
  const envs = [{ slug: "prd", type: "RABBITMQ", config }];
  const catalog = { product_tag: product, env_slug: "prd", brokers: [{ tag: "b", envs }], ...more };
  const broker = new Broker(address, { logger: quiet });
  const name = `${product}.prd.b.orders`;
  after(t, async () => {
    await broker.deleteSubscription(name);
    await broker.close();
  });
  const tidings = new Tidings({ catalog, logger: quiet });
  after(t, () => tidings.close());
  return { tidings, name };
}

const WHERE = { brokerTag: "b", topicTag: "orders" };

for (const variable of ["AMQP_URL", "AMQP4_URL"]) {
  const address = process.env[variable];
  const suite = (name, run) => test(`${variable}: ${name}`, { skip: !address }, (t) => run(t));

  suite("dead letters are listed, counted and put back", async (t) => {
    const { tidings, name } = shop(t, address);
    const { messages } = tidings.events;
    const seen = collector();
    let broken = true;
    const subscription = await tidings.events.consume({
      event: "b:orders",
      callback: (message, context) => {
        seen.add({ n: message.n, id: context.id, cause: context.headers["tidings-causation-id"] });
        if (broken) throw new Error("no such address");
      },
    });
    after(t, () => subscription.unsubscribe());
    const ids = [];
    for (let n = 0; n < 3; n += 1) {
      ids.push((await tidings.events.produce({ event: "b:orders", message: { n } })).message_id);
    }
    await until(async () => (await messages.getDeadLetters(WHERE)).total === 3);

    const page = await messages.getDeadLetters({ ...WHERE, limit: 2 });
    assert.deepEqual([page.total, page.hasMore, page.deadLetters.length], [3, true, 2]);
    const [{ message_id, original_message, error, consumer_tag, can_retry }] = page.deadLetters;
    assert.deepEqual([message_id, original_message, error], [ids[0], { n: 0 }, "no such address"]);
    assert.deepEqual([consumer_tag, can_retry], [name, true]);
    const { events } = await tidings.brokers.getEvents({ ...WHERE, status: "failed" });
    assert.deepEqual(
      events.map(({ id, status, topic, request_data }) => [id, status, topic, request_data.n]),
      ids.map((id, n) => [id, "failed", "orders", n]),
    );
    await until(async () => (await messages.getDepths(WHERE)).consumers[0].dead_letters === 3);
    const [{ consumer_tag: consumer, ready }] = (await messages.getDepths(WHERE)).consumers;
    assert.deepEqual([consumer, ready], [name, 0]);

    broken = false;
    await seen.reach(3);
    const copy = await tidings.brokers.replayEvent({ eventId: ids[0], ...WHERE });
    assert.equal(copy.success, true);
    const replayed = (await seen.reach(4))[3];
    assert.deepEqual(replayed, { n: 0, id: copy.new_event_id, cause: ids[0] });
    const one = await tidings.brokers.reprocessDLQ({ ...WHERE, messageIds: [ids[1]] });
    assert.deepEqual(one, { reprocessed_count: 1, failed_count: 0, event_ids: [ids[1]] });
    assert.equal((await seen.reach(5))[4].id, ids[1]);
    const rest = await tidings.brokers.reprocessDLQ(WHERE);
    assert.deepEqual(rest.event_ids, [ids[0], ids[2]]);
    await seen.reach(7);
    assert.equal((await messages.getDeadLetters(WHERE)).total, 0);
  });

  suite("what no queue can tell is an error with a remedy, never zeros", async (t) => {
    const { tidings } = shop(t, address);
    const { messages } = tidings.events;
    const unknown = [
      () => tidings.brokers.getEvents(WHERE),
      () => tidings.brokers.getEvents({ ...WHERE, status: "success" }),
      () => tidings.brokers.getEventStats(WHERE),
      () => messages.query(WHERE),
      () => messages.getStats(WHERE),
      () => messages.getProducers(WHERE),
      () => messages.getConsumers(WHERE),
      () => messages.getDashboard(WHERE),
    ];
    for (const ask of unknown) {
      await assert.rejects(
        ask,
        (error) => error.code === "GET_EVENTS_FAILED" && typeof error.remedy === "string",
        String(ask),
      );
    }
    await assert.rejects(tidings.brokers.getEvent({ eventId: "nothing" }), { code: "GET_EVENT_FAILED" });
    await assert.rejects(tidings.brokers.checkIdempotency({ idempotencyKey: "k" }), {
      code: "CHECK_IDEMPOTENCY_FAILED",
    });
  });

  suite("idempotency keys need a store, and are kept in it", async (t) => {
    const store = `sqlite:${join(folder(t), "store.db")}`;
    const { tidings, name } = shop(t, address, { store });
    const seen = collector();
    const callback = (message) => seen.add(message);
    const subscription = await tidings.events.consume({ event: "b:orders", callback });
    after(t, () => subscription.unsubscribe());
    const request = { event: "b:orders", input: { message: { n: 1 } }, idempotencyKey: name };
    const first = await tidings.brokers.publishIdempotent(request);
    const again = await tidings.brokers.publishIdempotent(request);
    assert.deepEqual([again.success, again.error], [true, "Already processed (idempotent)"]);
    const found = await tidings.brokers.checkIdempotency({ idempotencyKey: name });
    assert.deepEqual(found, { exists: true, event_id: first.message_id });
    await tidings.events.produce({ event: "b:orders", message: { n: 2 } });
    assert.deepEqual(await seen.reach(2), [{ n: 1 }, { n: 2 }]);
  });

  suite("a connection is tested", async (t) => {
    const { tidings } = shop(t, address);
    const { success, latency_ms } = await tidings.brokers.testConnection({ brokerTag: "b" });
    assert.deepEqual([success, typeof latency_ms], [true, "number"]);
    const config = { url: "amqp://guest:guest@127.0.0.1:1" };
    const nowhere = { tag: "c", envs: [{ slug: "prd", type: "rabbitmq", config }] };
    const other = new Tidings({ catalog: { product_tag: "p", env_slug: "prd", brokers: [nowhere] }, logger: quiet });
    after(t, () => other.close());
    const refused = await other.brokers.testConnection({ brokerTag: "c" });
    assert.deepEqual([refused.success, refused.code], [false, "CONNECTION_FAILED"]);
    assert.ok(!refused.error.includes("guest:guest"));
  });
}
