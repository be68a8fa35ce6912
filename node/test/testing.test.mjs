// The broker for tests: virtual time.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Publisher, Retry, RetryPolicy, Subscriber } from "../dist/index.mjs";
import { TestBroker } from "../dist/testing.mjs";

test("an hour of retries passes at once, each at its time", async () => {
  const broker = new TestBroker({ logger: false });
  const subscriber = new Subscriber(broker);
  const runs = [];
  const retry = RetryPolicy.exponential({
    maxRetries: 3,
    initial: { seconds: 60 },
    factor: 10,
    max: { seconds: 3600 },
  });
  subscriber.handle("order.*", { name: "billing", retry }, async (event) => {
    await new Promise((resolve) => setImmediate(resolve));
    runs.push(event.retries);
    throw new Error("down");
  });
  const running = await subscriber.start();
  const publisher = new Publisher(broker);
  await publisher.publish("order.placed", { id: 7 });
  await broker.settleAll();
  assert.deepEqual(runs, [0]);
  await broker.advance(59_900);
  assert.deepEqual(runs, [0]);
  await broker.advance(200);
  assert.deepEqual(runs, [0, 1]);
  await broker.advance(600_000);
  assert.deepEqual(runs, [0, 1, 2]);
  assert.deepEqual(await broker.deadLetters("billing"), []);
  await broker.advance(3_600_000);
  assert.deepEqual(runs, [0, 1, 2, 3]);
  const [dead] = await broker.deadLetters("billing");
  assert.deepEqual([dead.reason, dead.attempts, dead.event.data], ["max-retries", 4, { id: 7 }]);
  // Dates have milliseconds, the clock microseconds.
  const took = dead.failedAt - dead.firstFailedAt;
  assert.ok(Math.abs(took - (60_000 + 600_000 + 3_600_000)) <= 2, `${took} ms`);
  await running.stop();
  await broker.close();
});

test("advance stops at everything on the way; what handlers publish counts", async () => {
  const broker = new TestBroker({ logger: false });
  const publisher = new Publisher(broker);
  const subscriber = new Subscriber(broker);
  const seen = [];
  subscriber.handle("step.*", { name: "steps", maxRetries: 1 }, async (event) => {
    seen.push(event.data);
    if (event.data < 5) await publisher.publish("step.next", event.data + 1, { delay: { seconds: 10 } });
    if (event.data === 5 && event.retries === 0) throw new Retry({ seconds: 1 });
  });
  subscriber.handle("step.*", { name: "other" }, () => {});
  await subscriber.start();
  await publisher.publish("step.first", 1, { domainObjectId: "x" });
  await broker.advance(60_000);
  assert.deepEqual(seen, [1, 2, 3, 4, 5, 5]);
  assert.deepEqual(
    broker.published().map((event) => event.data),
    [1, 2, 3, 4, 5],
  );
  assert.deepEqual(
    broker.published("step.first").map((event) => event.domainObjectId),
    ["x"],
  );
  await assert.rejects(broker.advance(-1), TypeError);
  await subscriber.stop();
  await broker.close();
});

test("under vitest and jest", { skip: "their packages are many: tests/node package, which `make test-long` runs" });
