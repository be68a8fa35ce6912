// An hour of retries in a test that takes a millisecond: a broker in memory whose time stands still.

import { Publisher, RetryPolicy, Subscriber } from "tidings";
import { TestBroker } from "tidings/testing";

const broker = new TestBroker();
let minutes = 0;

const subscriber = new Subscriber(broker);
const retry = RetryPolicy.fixed({ maxRetries: 2, delay: { seconds: 30 * 60 } });
subscriber.handle("order.*", { name: "payments", retry }, async (event) => {
  console.log(`attempt ${event.retries + 1} after ${minutes} minutes`);
  if (event.retries < 2) throw new Error("not yet");
});
const running = await subscriber.start();
await new Publisher(broker).publish("order.placed", { id: 7 });
await broker.settleAll();
while (minutes < 60) {
  minutes += 30;
  await broker.advance(30 * 60 * 1000);
}
await running.stop();
await broker.close();
