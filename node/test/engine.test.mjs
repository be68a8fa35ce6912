// Publishing, handling, retry, dead letter and replay, on every transport there is.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  DeadLetter,
  Discard,
  DomainEvent,
  deadLetters,
  Publisher,
  Retry,
  RetryPolicy,
  replayAll,
  replayEvent,
  Subscriber,
} from "../dist/index.mjs";
import { after, broker as brokerOn, collector, transports, until } from "./support.mjs";

for (const transport of transports) {
  const suite = (name, run) =>
    test(`${transport.name}: ${name}`, async (t) => {
      const { broker, name: subscription, exchange } = brokerOn(t, transport);
      const publisher = new Publisher(broker, { exchange });
      const subscriber = new Subscriber(broker);
      after(t, () => subscriber.stop({ drainTimeout: { ms: 0 } }));
      await run({ broker, publisher, subscriber, subscription, exchange, t });
    });

  suite("what is published arrives as it was", async ({ publisher, subscriber, subscription, exchange }) => {
    const got = collector();
    subscriber.handle("user.*", { name: subscription("s"), exchange }, (event) => got.add(event));
    const running = await subscriber.start();
    const at = new Date("2026-01-02T03:04:05.678Z");
    const data = { näme: "Zoë 🦊", list: [1, 2.5, null, true], deep: { a: {} } };
    const receipt = await publisher.publish("user.registered", data, {
      domainObjectId: "7",
      id: "my-id",
      timestamp: at,
      key: "k",
      tenant: "t",
      headers: { text: "x", whole: 7, half: 0.5, yes: true, nothing: null, list: [1, { a: "b" }] },
    });
    assert.deepEqual(receipt, { id: "my-id", routed: true });
    const [event] = await got.reach(1);
    assert.ok(event instanceof DomainEvent);
    assert.deepEqual(event.data, data);
    assert.equal(event.data, event.data);
    assert.deepEqual([event.routingKey, event.id, event.domainObjectId], ["user.registered", "my-id", "7"]);
    assert.deepEqual([event.key, event.tenant, event.retries], ["k", "t", 0]);
    assert.equal(event.timestamp.toISOString(), at.toISOString());
    const { text, whole, half, yes, nothing, list } = event.headers;
    assert.deepEqual(
      { text, whole, half, yes, nothing, list },
      {
        text: "x",
        whole: 7,
        half: 0.5,
        yes: true,
        nothing: null,
        list: [1, { a: "b" }],
      },
    );
    assert.equal(await running.stop(), 0);
  });

  suite("a batch is one result each", async ({ publisher, subscriber, subscription, exchange }) => {
    const got = collector();
    const name = subscription("s");
    subscriber.register((event) => got.add(event.data), name, ["n.*"], { exchange, concurrency: 8 });
    await subscriber.start();
    const events = Array.from({ length: 500 }, (_, n) => new DomainEvent("n.x", n));
    const results = await publisher.publishBatch([...events, new DomainEvent("n.*", 0)]);
    assert.equal(results.filter(({ status }) => status === "fulfilled").length, 500);
    assert.equal(results.at(-1).reason.code, "INVALID_ROUTING_KEY");
    assert.deepEqual(
      (await got.reach(500)).toSorted((a, b) => a - b),
      events.map((_, n) => n),
    );
  });

  suite("retry, policy, dead letter, discard", async ({ broker, publisher, subscriber, subscription, exchange }) => {
    const runs = collector();
    const name = subscription("s");
    class Flaky extends Error {}
    const retry = RetryPolicy.fixed({ maxRetries: 2, delay: { ms: 100 }, retryOn: [Flaky] });
    subscriber.handle("w.*", { name, exchange, retry }, async ({ data, retries }) => {
      runs.add(`${data}:${retries}`);
      if (data === "asks" && retries === 0) throw new Retry({ ms: 100 });
      if (data === "flaky") throw new Flaky("again");
      if (data === "other") throw new TypeError("not covered");
      if (data === "dead") throw new Error("wrapped", { cause: new DeadLetter("no-address", "street is missing") });
      if (data === "discard") throw new Discard();
    });
    await subscriber.start();
    for (const data of ["asks", "flaky", "other", "dead", "discard"]) await publisher.publish("w.x", data);
    await runs.reach(8);
    const dead = await until(async () => {
      const found = await deadLetters(name, { broker });
      return found.length === 3 && found;
    });
    const story = Object.fromEntries(dead.map((one) => [one.event.data, [one.reason, one.errorType, one.attempts]]));
    assert.deepEqual(story, {
      flaky: ["max-retries", "Flaky", 3],
      other: ["error", "TypeError", 1],
      dead: ["no-address", null, 1],
    });
    assert.deepEqual(
      runs.values.filter((run) => run.startsWith("asks")),
      ["asks:0", "asks:1"],
    );
    assert.equal(dead.find((one) => one.reason === "no-address").error, "street is missing");
    assert.match(dead.find((one) => one.errorType === "TypeError").stack, /not covered[\s\S]*engine\.test/);
  });

  suite("dead letters go back", async ({ broker, publisher, subscriber, subscription, exchange }) => {
    const name = subscription("s");
    const handled = collector();
    let broken = true;
    subscriber.handle("r.*", { name, exchange }, (event) => {
      if (broken) throw new Error("down");
      handled.add(event.data);
    });
    await subscriber.start();
    for (let n = 0; n < 6; n += 1) await publisher.publish("r.x", n);
    const dead = await until(async () => {
      const found = await broker.deadLetters(name);
      return found.length === 6 && found;
    });
    broken = false;
    assert.equal((await replayAll(name, { broker, dryRun: true })).replayed, 6);
    assert.equal(await replayEvent(name, { broker }), 5);
    assert.deepEqual(await handled.reach(1), [0]);
    assert.equal(await replayEvent(name, { broker, decide: async () => "leave" }), 4);
    const by = dead.find((one) => one.event.data === 3);
    assert.equal((await replayAll(name, { broker, ids: [by.id] })).replayed, 1);
    const asked = [];
    const report = await replayAll(name, {
      broker,
      decide: (one) => {
        asked.push(one.event.data);
        return one.event.data === 5 ? "discard" : "retry";
      },
    });
    assert.deepEqual(asked.toSorted(), [1, 2, 4, 5]);
    assert.deepEqual([report.replayed, report.discarded, report.remaining], [3, 1, 0]);
    assert.deepEqual((await handled.reach(5)).toSorted(), [0, 1, 2, 3, 4]);
  });

  suite("a delayed event comes later", async ({ publisher, subscriber, subscription, exchange }) => {
    const got = collector();
    subscriber.handle("d.*", { name: subscription("s"), exchange }, (event) => got.add([event.data, Date.now()]));
    await subscriber.start();
    const before = Date.now();
    assert.equal((await publisher.delay({ ms: 300 }).publish("d.x", "late")).routed, null);
    await publisher.publish("d.x", "early");
    await publisher.flush();
    const [early, late] = await got.reach(2);
    assert.deepEqual([early[0], late[0]], ["early", "late"]);
    assert.ok(late[1] - before >= 299, `${late[1] - before} ms`);
  });

  suite("iterating: the next acks, leaving releases", async ({
    broker,
    publisher,
    subscriber,
    subscription,
    exchange,
  }) => {
    const name = subscription("s");
    const first = subscriber.events(name, "i.*", { exchange, maxRetries: 1 });
    const opening = first.next();
    await until(async () => (await broker.subscriptions()).some((one) => one.name === name));
    for (let n = 0; n < 5; n += 1) await publisher.publish("i.x", n);
    assert.equal((await opening).value.data, 0);
    const seen = [0];
    for await (const event of first) {
      seen.push(event.data);
      if (event.data === 1) await event.retry({ ms: 100 });
      if (event.data === 2) await event.deadLetter("no");
      if (event.data === 3) break;
    }
    assert.deepEqual(seen, [0, 1, 2, 3]);
    const again = [];
    for await (const event of subscriber.events(name, "i.*", { exchange, maxRetries: 1 })) {
      again.push(event.data);
      if (again.length === 3) await event.ack();
      if (again.length === 3) break;
    }
    assert.deepEqual(again.toSorted(), [1, 3, 4]);
    assert.deepEqual(
      (await broker.deadLetters(name)).map((one) => [one.event.data, one.reason]),
      [[2, "no"]],
    );
  });
}
