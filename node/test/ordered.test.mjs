// Order by key on RabbitMQ: what waits, and where.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Publisher, Retry, Subscriber } from "../dist/index.mjs";
import { after, broker as brokerOn, collector, transports, until } from "./support.mjs";

for (const transport of transports.filter(({ name }) => name.startsWith("amqp"))) {
  test(`${transport.name}: a key waits for a retry in memory, for longer than holdMax in a queue`, async (t) => {
    const { broker, name, exchange } = brokerOn(t, transport);
    const subscriber = new Subscriber(broker);
    after(t, () => subscriber.stop({ drainTimeout: { ms: 0 } }));
    const seen = collector();
    const handler = ({ key, data }) => {
      seen.add(`${key}${data}`);
      // Longer than the test takes.
      if (key === "slow") throw new Retry({ seconds: 30 });
    };
    const [held, parked] = [name("held"), name("parked")];
    const shared = { exchange, maxRetries: 1, concurrency: 2 };
    subscriber.handle("o.*", { ...shared, name: held, ordered: true }, handler);
    subscriber.handle("o.*", { ...shared, name: parked, ordered: { holdMax: { ms: 50 } } }, handler);
    const running = await subscriber.start();
    const publisher = new Publisher(broker, { exchange });
    for (let n = 0; n < 3; n += 1) {
      for (const key of ["slow", "quick"]) await publisher.publish("o.x", n, { key });
    }
    const order = (wanted) => running.health().find(({ subscription }) => subscription === wanted).order;
    const keys = (wanted) => {
      const { owners, waitingKeys, parkedKeys, deadKeys } = order(wanted);
      return [owners.length, waitingKeys, parkedKeys, deadKeys].join(" ");
    };
    await until(() => keys(held) === "1 1 0 0" && keys(parked) === "1 0 1 0");
    assert.ok(order(parked).oldestWaitingSeconds >= 0);
    // Of the key that waits only the first, of the other all, in order; each twice: there are two subscriptions.
    const counts = {};
    for (const one of await seen.reach(8)) counts[one] = (counts[one] ?? 0) + 1;
    assert.deepEqual(counts, { slow0: 2, quick0: 2, quick1: 2, quick2: 2 });
  });
}

test("holdMax is at most what RabbitMQ allows", () => {
  const subscriber = new Subscriber("memory:", { logger: false });
  const handle = (holdMax) => subscriber.handle("a", { name: "s", ordered: { holdMax } }, () => {});
  assert.throws(() => handle({ seconds: 301 }), { code: "INVALID_OPTION", field: "hold_max" });
  assert.throws(() => handle(60), TypeError);
});

test("partitions and maxParked are checked before anything is declared", () => {
  const subscriber = new Subscriber("memory:", { logger: false });
  const handle = (ordered) => subscriber.handle("a", { name: "s", ordered }, () => {});
  assert.throws(() => handle({ partitions: 0 }), { code: "INVALID_OPTION", field: "partitions" });
  assert.throws(() => handle({ partitions: 65 }), { code: "INVALID_OPTION", field: "partitions" });
  assert.throws(() => handle({ maxParked: 0 }), { code: "INVALID_OPTION", field: "maxParked" });
  handle({ partitions: 8, maxParked: 10 });
});
