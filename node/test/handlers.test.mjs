// Handlers: what they throw, how long they take, what surrounds them.

import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { test } from "node:test";
import { type } from "arktype";
import * as v from "valibot";
import { z } from "zod";
import { Broker, currentEvent, DomainEvent, Publisher, Subscriber } from "../dist/index.mjs";
import { after, broker as brokerOn, collector, quiet, transports, unique, until } from "./support.mjs";

function memory(t, options = {}) {
  const broker = new Broker(`memory:${unique("h")}`, { logger: quiet });
  const publisher = new Publisher(broker);
  const subscriber = new Subscriber(broker, options);
  after(t, async () => {
    await subscriber.stop({ drainTimeout: { ms: 0 } });
    await broker.close();
  });
  return { broker, publisher, subscriber };
}

const dead = (broker, name, count) =>
  until(async () => {
    const found = await broker.deadLetters(name);
    return found.length === count && found;
  });

test("whatever a handler throws is a failure with a type; whatever it returns is none", async (t) => {
  const { broker, publisher, subscriber } = memory(t);
  class Strange extends RangeError {}
  const acts = {
    sync: () => {
      throw new Strange("at once");
    },
    rejected: () => Promise.reject(new TypeError("later")),
    text: () => {
      throw "only text";
    },
    nothing: () => Promise.reject(undefined),
    object: () => {
      throw { why: "an object" };
    },
    hostile: () => {
      throw {
        toJSON: () => {
          throw new Error("no");
        },
        toString: () => {
          throw new Error("no");
        },
      };
    },
    coded: () => {
      throw Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
    },
    value: () => 42,
    // biome-ignore lint/suspicious/noThenProperty: a promise of another library
    thenable: () => ({ then: (done) => done("fine") }),
    plain: () => undefined,
  };
  const done = collector();
  subscriber.handle("t.*", { name: "s", concurrency: 2 }, (event) => {
    done.add(event.data);
    return acts[event.data]();
  });
  await subscriber.start();
  for (const name of Object.keys(acts)) await publisher.publish("t.x", name);
  await done.reach(Object.keys(acts).length);
  const types = Object.fromEntries(
    (await dead(broker, "s", 7)).map((one) => [one.event.data, [one.errorType, one.error]]),
  );
  assert.deepEqual(types, {
    sync: ["Strange", "at once"],
    rejected: ["TypeError", "later"],
    text: ["string", "only text"],
    nothing: ["undefined", "undefined"],
    object: ["Object", '{"why":"an object"}'],
    hostile: ["Object", "an error without a text"],
    coded: ["Error", "refused"],
  });
});

test("10,000 slow handlers do not grow memory without bound", async (t) => {
  const { publisher, subscriber } = memory(t);
  let running = 0;
  let most = 0;
  const waiting = [];
  const done = collector();
  subscriber.handle("s.*", { name: "s", concurrency: 100 }, async (event) => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => waiting.push(resolve));
    running -= 1;
    done.add(event.data);
  });
  const started = await subscriber.start();
  const pad = "x".repeat(1000);
  await publisher.publishBatch(Array.from({ length: 10_000 }, (_, n) => new DomainEvent("s.x", { n, pad })));
  await until(() => waiting.length === 100);
  const [health] = started.health();
  assert.ok(health.inFlight <= 100 && health.inFlight + health.buffered <= 200, JSON.stringify(health));
  while (done.values.length < 10_000) {
    for (const resolve of waiting.splice(0)) resolve();
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(most, 100);
  assert.equal(new Set(done.values.map(({ n }) => n)).size, 10_000);
});

test("one handler at a time: others get what waits behind a slow one", async (t) => {
  const { broker, publisher, subscriber } = memory(t);
  const order = [];
  let open;
  const gate = new Promise((resolve) => {
    open = resolve;
  });
  subscriber.handle("o.*", { name: "s", prefetch: 64 }, async (event) => {
    order.push(event.data);
    if (event.data === 40) await gate;
  });
  const running = await subscriber.start();
  await publisher.publishBatch(Array.from({ length: 60 }, (_, n) => new DomainEvent("o.x", n)));
  await until(() => order.includes(40) && running.health()[0].inFlight === 1);
  open();
  await until(() => order.length === 60);
  assert.deepEqual(
    order,
    Array.from({ length: 60 }, (_, n) => n),
  );
  assert.equal(await running.stop(), 0);
  const metric = (name) => broker.metrics().find((one) => one.name === name && one.subscription === "s").value;
  assert.equal(metric("tidings_handled_total"), 60);
  assert.equal(metric("tidings_acked_total"), 60);
});

test("a time-out fails the handler, tells it, and keeps its slot until it returns", async (t) => {
  const { broker, publisher, subscriber } = memory(t);
  const aborted = collector();
  let finish;
  subscriber.handle("t.*", { name: "s", timeout: { ms: 30 } }, (_event, { signal, subscription }) => {
    assert.equal(subscription, "s");
    signal.addEventListener("abort", () => aborted.add(signal.reason.message));
    return new Promise((resolve) => {
      finish = resolve;
    });
  });
  const running = await subscriber.start();
  await publisher.publish("t.x", 1);
  assert.match((await aborted.reach(1))[0], /longer than 30 ms/);
  assert.equal(running.health()[0].inFlight, 1);
  finish();
  const [letter] = await dead(broker, "s", 1);
  assert.deepEqual([letter.reason, letter.errorType], ["timeout", "Timeout"]);
});

test("after the drain time-out the rest is released and its handlers are told", async (t) => {
  const { broker, publisher, subscriber } = memory(t);
  let told;
  const began = collector();
  subscriber.handle("t.*", { name: "s" }, (event, context) => {
    told = context.signal;
    began.add(event.data);
    return new Promise(() => {});
  });
  const running = await subscriber.start();
  await publisher.publish("t.x", 1);
  await began.reach(1);
  assert.equal(await running.stop({ drainTimeout: { ms: 50 } }), 1);
  assert.equal(told.aborted, true);
  const [left] = await broker.subscriptions();
  assert.deepEqual([left.ready, left.dead], [1, 0]);
});

test("each message has its own context, never the subscriber's", async (t) => {
  const { publisher, subscriber } = memory(t);
  const request = new AsyncLocalStorage();
  const seen = collector();
  const handler = async (event) => {
    const before = request.getStore();
    request.enterWith(`event ${event.data}`);
    await new Promise((resolve) => setImmediate(resolve));
    seen.add([before, request.getStore(), currentEvent().id === event.id, event.data]);
  };
  subscriber.handle("c.*", { name: "one" }, handler).handle("c.*", { name: "many", concurrency: 8 }, handler);
  await request.run("a request", async () => {
    await subscriber.start();
    for (let n = 0; n < 10; n += 1) await publisher.publish("c.x", n);
  });
  for (const [before, own, current, data] of await seen.reach(20)) {
    assert.deepEqual([before, own, current], [undefined, `event ${data}`, true]);
  }
  assert.equal(currentEvent(), undefined);
});

test("schemas: what does not fit is a dead letter with the issues, whichever library", async (t) => {
  const schemas = {
    zod: z.object({ id: z.number(), at: z.coerce.date() }),
    valibot: v.object({
      id: v.number(),
      at: v.pipe(
        v.string(),
        v.transform((text) => new Date(text)),
      ),
    }),
    arktype: type({ id: "number", at: "string.date.parse" }),
  };
  for (const [library, schema] of Object.entries(schemas)) {
    const { broker, publisher, subscriber } = memory(t);
    const got = collector();
    subscriber.handle("u.*", { name: "s", schema, maxRetries: 5 }, (event) => got.add(event.data));
    await subscriber.start();
    await publisher.publish("u.x", { id: "seven", at: "2026-01-01" });
    await publisher.publish("u.x", { id: 7, at: "2026-01-01" });
    const [{ id, at }] = await got.reach(1);
    assert.deepEqual([id, at.getTime()], [7, Date.UTC(2026, 0, 1)], library);
    const [letter] = await dead(broker, "s", 1);
    assert.deepEqual([letter.reason, letter.attempts], ["invalid-data", 1]);
    assert.match(letter.error, /id/);
    const found = await subscriber.events("i", "u.*", { schema });
    const next = found.next();
    await until(async () => (await broker.subscriptions()).some(({ name }) => name === "i"));
    await publisher.publish("u.x", {});
    await publisher.publish("u.x", { id: 8, at: "2026-01-01" });
    assert.equal((await next).value.data.id, 8);
    await found.return();
    assert.equal((await dead(broker, "i", 1))[0].reason, "invalid-data");
  }
});

test("middleware surrounds publishing and handling, the first one outermost", async (t) => {
  const { publisher, subscriber } = memory(t);
  const log = [];
  const around = (name) => async (event, next) => {
    log.push(`${name} ${event.data}`);
    const result = await next();
    log.push(`${name} done`);
    return result;
  };
  const done = collector();
  subscriber.use(around("a")).use(async (event, next) => next(event.withData(`${event.data}!`)));
  subscriber.handle("m.*", { name: "s" }, (event) => {
    log.push(`handle ${event.data}`);
  });
  subscriber.use(async (_event, next) => {
    await next();
    done.add(1);
  });
  publisher.use(around("p")).use((event, next) => (event.data === "stop" ? { id: event.id, routed: false } : next()));
  await subscriber.start();
  assert.equal((await publisher.publish("m.x", "stop")).routed, false);
  assert.equal((await publisher.publish("m.x", "go")).routed, true);
  await done.reach(1);
  await until(() => log.at(-1) === "a done");
  assert.deepEqual(log.slice(0, 4), ["p stop", "p done", "p go", log[3]]);
  assert.deepEqual(
    log.filter((line) => !line.startsWith("p ")),
    ["a go", "handle go!", "a done"],
  );
});

test("life-cycle events, redact, pause and resume", async (t) => {
  const { broker, publisher, subscriber } = memory(t);
  const told = collector();
  for (const name of ["started", "stopped", "failed"]) subscriber.on(name, (details) => told.add([name, details]));
  const off = () => assert.fail("it was taken off");
  subscriber.on("started", off).off("started", off);
  const redact = (text) => text.replaceAll("hunter2", "***");
  subscriber.handle("e.*", { name: "s", redact }, () => {
    throw new Error("the password hunter2 is wrong");
  });
  await assert.rejects(subscriber.pause(), { code: "CLOSED" });
  assert.deepEqual(subscriber.health(), []);
  const running = await subscriber.start();
  await subscriber.pause("s");
  assert.equal(running.health()[0].paused, true);
  await publisher.publish("e.x", 1);
  assert.deepEqual(subscriber.health(), running.health());
  await subscriber.resume();
  const [letter] = await dead(broker, "s", 1);
  assert.ok(!JSON.stringify(letter).includes("hunter2"), letter.stack);
  assert.equal(letter.error, "the password *** is wrong");
  await assert.rejects(running.pause("other"), { code: "SUBSCRIPTION_NOT_FOUND" });
  await assert.rejects(subscriber.start(), /runs already/);
  await subscriber.stop();
  await running.finished;
  assert.deepEqual(
    told.values.map(([name]) => name),
    ["started", "failed", "stopped"],
  );
  assert.equal(told.values[1][1].outcome, "fail");
  const counted = ({ name, value }) => name === "tidings_published_total" && value === 1;
  assert.ok(publisher.metrics().some(counted));
  assert.deepEqual(subscriber.metrics(), broker.metrics());
});

for (const transport of transports.filter(({ name }) => name !== "memory")) {
  test(`${transport.name}: aborting at random times loses nothing`, async (t) => {
    const { broker, name, exchange } = brokerOn(t, transport);
    const publisher = new Publisher(broker, { exchange });
    const subscriber = new Subscriber(broker);
    const subscription = name("abort");
    const acked = new Set();
    const first = subscriber.events(subscription, "a.*", { exchange });
    const opening = first.next();
    await until(async () => (await broker.subscriptions()).some((one) => one.name === subscription));
    await first.return();
    assert.equal((await opening).done, true);
    const total = 60;
    await publisher.publishBatch(Array.from({ length: total }, (_, n) => new DomainEvent("a.x", n)));
    for (let round = 0; acked.size < total; round += 1) {
      const options = { exchange, signal: AbortSignal.timeout(round < 8 ? 1 + ((round * 37) % 60) : 60_000) };
      try {
        for await (const event of subscriber.events(subscription, "a.*", options)) {
          if (event.data % 3 === 0) await new Promise((resolve) => setImmediate(resolve));
          await event.ack();
          acked.add(event.data);
          if (acked.size === total) break;
        }
      } catch (error) {
        assert.equal(error.name, "TimeoutError");
      }
    }
    assert.equal(acked.size, total);
    const aborted = AbortSignal.abort();
    for (const wait of [
      () => publisher.publish("a.x", 1, { signal: aborted }),
      () => publisher.flush({ signal: aborted }),
      () => broker.ping({ signal: aborted }),
      () => broker.deadLetters(subscription, { signal: aborted }),
      () => new Subscriber(broker).handle("a", { name: "n" }, () => {}).start({ signal: aborted }),
    ]) {
      await assert.rejects(wait(), { name: "AbortError" });
    }
  });
}
