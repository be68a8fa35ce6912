// `tidings/testing` under vitest, also beside its fake timers.

import { Publisher, Retry, Subscriber } from "tidings";
import { TestBroker } from "tidings/testing";
import { afterEach, expect, test, vi } from "vitest";

afterEach(() => vi.useRealTimers());

for (const fake of [false, true]) {
  test(`an hour of retries, ${fake ? "fake" : "real"} timers`, async () => {
    if (fake) vi.useFakeTimers();
    const broker = new TestBroker({ logger: false });
    const subscriber = new Subscriber(broker);
    const runs = [];
    subscriber.handle("order.*", { name: "billing", maxRetries: 2 }, (event) => {
      runs.push(event.retries);
      throw new Retry({ seconds: 1800 });
    });
    await subscriber.start();
    await new Publisher(broker).publish("order.placed", { id: 7 });
    await broker.settleAll();
    expect(runs).toEqual([0]);
    await broker.advance(3_600_000);
    expect(runs).toEqual([0, 1, 2]);
    const [dead] = await broker.deadLetters("billing");
    expect(dead).toMatchObject({ reason: "max-retries", attempts: 3 });
    expect(broker.published().map((event) => event.data)).toEqual([{ id: 7 }]);
    await subscriber.stop();
    await broker.close();
  });
}
